package journal

// schemaVersion is the database's PRAGMA user_version. An older database is
// brought up to it in place; one of a later version is put aside as a broken
// one is.
const schemaVersion = 5

// migrations lead from the version that is their index to the next.
var migrations = [schemaVersion]string{
	1: ``, // of buckets, which are no longer here
	2: `ALTER TABLE hold ADD COLUMN waits TEXT NOT NULL DEFAULT '';
		ALTER TABLE hold ADD COLUMN charge_id TEXT NOT NULL DEFAULT '';
		DROP TABLE bucket;`,
	3: `ALTER TABLE decision ADD COLUMN site TEXT NOT NULL DEFAULT '';
		ALTER TABLE decision ADD COLUMN site_by TEXT NOT NULL DEFAULT '';
		ALTER TABLE decision ADD COLUMN plugin TEXT NOT NULL DEFAULT '';
		ALTER TABLE decision ADD COLUMN plugin_by TEXT NOT NULL DEFAULT '';
		ALTER TABLE decision ADD COLUMN node TEXT NOT NULL DEFAULT '';
		ALTER TABLE decision ADD COLUMN template TEXT NOT NULL DEFAULT '';
		ALTER TABLE decision ADD COLUMN entry TEXT NOT NULL DEFAULT '';
		ALTER TABLE decision ADD COLUMN script TEXT NOT NULL DEFAULT '';
		ALTER TABLE decision ADD COLUMN web_client TEXT NOT NULL DEFAULT '';
		ALTER TABLE decision ADD COLUMN pool TEXT NOT NULL DEFAULT '';
		ALTER TABLE decision ADD COLUMN software TEXT NOT NULL DEFAULT '';
		ALTER TABLE hold ADD COLUMN site TEXT NOT NULL DEFAULT '';
		ALTER TABLE hold ADD COLUMN plugin TEXT NOT NULL DEFAULT '';
		ALTER TABLE hold ADD COLUMN template TEXT NOT NULL DEFAULT '';
		ALTER TABLE incident ADD COLUMN account TEXT NOT NULL DEFAULT '';
		ALTER TABLE incident ADD COLUMN addresses TEXT NOT NULL DEFAULT '';` + ofOrigins,
	4: `ALTER TABLE decision ADD COLUMN first_time INTEGER NOT NULL DEFAULT -1;` + ofReports + `
		INSERT INTO volume ` + volumesOfTotals + `;
		UPDATE total AS t SET beside = min(t.recipients, d.n) FROM (SELECT day, account, verdict, sum(recipients) AS n FROM (` + besideTotals + `) GROUP BY 1, 2, 3) AS d
			WHERE t.day = d.day AND t.account = d.account AND t.verdict = d.verdict;
		UPDATE label_total AS t SET beside = min(t.recipients, d.n)
			FROM (SELECT day, site, plugin, plugin_by, account, verdict, sum(recipients) AS n FROM (` + besideLabels + `) GROUP BY 1, 2, 3, 4, 5, 6) AS d
			WHERE t.day = d.day AND t.site = d.site AND t.plugin = d.plugin AND t.plugin_by = d.plugin_by AND t.account = d.account AND t.verdict = d.verdict;`,
}

// ofOrigins are the tables and indexes by site, plugin and template. A label
// total counts what total counts, of mail whose site or plugin is known.
const ofOrigins = `
CREATE INDEX decision_site ON decision (site, time) WHERE site <> '';
CREATE INDEX decision_plugin ON decision (plugin, time) WHERE plugin <> '';
CREATE INDEX decision_node ON decision (node, time) WHERE node <> '';
CREATE INDEX decision_template ON decision (template, time, verdict, stage, recipients, repeats, account) WHERE template <> ''; -- all that a rank reads

CREATE TABLE label_total (
	day INTEGER NOT NULL, -- since the epoch, UTC
	site TEXT NOT NULL, -- proven, or nothing
	plugin TEXT NOT NULL,
	plugin_by TEXT NOT NULL,
	account TEXT NOT NULL,
	verdict TEXT NOT NULL,
	messages INTEGER NOT NULL,
	recipients INTEGER NOT NULL,
	first INTEGER NOT NULL,
	last INTEGER NOT NULL,
	PRIMARY KEY (day, site, plugin, plugin_by, account, verdict)
) STRICT, WITHOUT ROWID;
CREATE INDEX label_total_plugin ON label_total (plugin, day) WHERE plugin <> '';
CREATE INDEX label_total_account ON label_total (account, day);
`

// ofReports is what the daily report and the causes of listings ask for. Totals count
// every answer; beside is how much of that is no mail that leaves, or would leave, by
// us: it came in, or was seen again on its way out. A volume counts what total counts
// and is not beside, by quarter of an hour and of all accounts.
const ofReports = `
ALTER TABLE total ADD COLUMN beside INTEGER NOT NULL DEFAULT 0; -- of recipients
ALTER TABLE label_total ADD COLUMN beside INTEGER NOT NULL DEFAULT 0;

CREATE TABLE volume (
	slot INTEGER NOT NULL, -- quarters of an hour since the epoch
	verdict TEXT NOT NULL,
	messages INTEGER NOT NULL,
	recipients INTEGER NOT NULL,
	PRIMARY KEY (slot, verdict)
) STRICT, WITHOUT ROWID;

CREATE TABLE trouble (
	what TEXT NOT NULL,
	why TEXT NOT NULL,
	since INTEGER NOT NULL,
	until INTEGER NOT NULL, -- 0: it still is
	PRIMARY KEY (since, what)
) STRICT, WITHOUT ROWID;

DROP INDEX decision_template;
CREATE INDEX decision_template ON decision (template, time, verdict, stage, recipients, repeats, account, role) WHERE template <> ''; -- all that a rank and what is usual read
CREATE INDEX decision_bounced ON decision (time, bounced, account, site, site_by, plugin, plugin_by, template, role) WHERE bounced > 0; -- all that what is usual reads
`

// Totals did not tell what is beside before version 5. Decisions do, as far back as
// they are kept.
const (
	besideTotals = `SELECT time / 86400000000 AS day, account, verdict, iif(stage = 'rcpt', 0, 1 + repeats) AS messages, ` + allRecipients + ` AS recipients
		FROM decision WHERE NOT ` + leaves

	// leavingTotals are totals less what is beside. Of an account that was forgotten
	// decisions about open holds may be left, but no totals.
	leavingTotals = `SELECT day, account, verdict, messages, recipients FROM total UNION ALL
		SELECT day, account, verdict, -messages, -recipients FROM (` + besideTotals + `) AS d
			WHERE EXISTS (SELECT 1 FROM total AS t WHERE t.day = d.day AND t.account = d.account AND t.verdict = d.verdict)`

	// volumesOfTotals stands for volumes where none were kept: a day is its noon.
	volumesOfTotals = `SELECT day * 96 + 48 AS slot, verdict, max(0, sum(messages)) AS messages, sum(recipients) AS recipients
		FROM (` + leavingTotals + `) GROUP BY day, verdict HAVING sum(recipients) > 0`
)

// The same by site and plugin, from version 4 on.
var (
	besideLabels = `SELECT time / 86400000000 AS day, ` + countedSite + ` AS site, ` + countedPlugin + ` AS plugin, iif(` + countedPlugin + ` = '', '', plugin_by) AS plugin_by,
		account, verdict, ` + allRecipients + ` AS recipients FROM decision WHERE NOT ` + leaves

	leavingLabels = `SELECT day, site, plugin, verdict, recipients FROM label_total UNION ALL
		SELECT day, site, plugin, verdict, -recipients FROM (` + besideLabels + `) AS d
			WHERE EXISTS (SELECT 1 FROM label_total AS t WHERE t.day = d.day AND t.site = d.site AND t.plugin = d.plugin
				AND t.plugin_by = d.plugin_by AND t.account = d.account AND t.verdict = d.verdict)`
)

// Times are microseconds since the epoch, 0 for none. Addresses compare without
// regard to the case of ASCII letters.
const schema = `
CREATE TABLE checkpoint (
	id INTEGER PRIMARY KEY CHECK (id = 1),
	segment INTEGER NOT NULL,
	offset INTEGER NOT NULL
) STRICT;
INSERT INTO checkpoint VALUES (1, 0, 0);

CREATE TABLE decision (
	n INTEGER PRIMARY KEY,
	id TEXT NOT NULL UNIQUE,
	time INTEGER NOT NULL,
	stage TEXT NOT NULL,
	verdict TEXT NOT NULL,
	rule TEXT NOT NULL,
	reason TEXT NOT NULL,
	reply TEXT NOT NULL,
	phase TEXT NOT NULL,
	listener TEXT NOT NULL,
	role TEXT NOT NULL,
	account TEXT NOT NULL,
	confidence TEXT NOT NULL,
	login TEXT NOT NULL,
	login_by TEXT NOT NULL,
	local_user TEXT NOT NULL,
	network TEXT NOT NULL,
	client_ip TEXT NOT NULL,
	client_name TEXT NOT NULL,
	helo TEXT NOT NULL,
	uid INTEGER NOT NULL,
	mail_from TEXT NOT NULL COLLATE NOCASE,
	header_from TEXT NOT NULL COLLATE NOCASE,
	message_id TEXT NOT NULL,
	queue_id TEXT NOT NULL,
	size INTEGER NOT NULL,
	recipients INTEGER NOT NULL,
	domains TEXT NOT NULL,
	findings TEXT NOT NULL,
	counters TEXT NOT NULL,
	repeats INTEGER NOT NULL,
	last_repeat INTEGER NOT NULL,
	late INTEGER NOT NULL,
	site TEXT NOT NULL DEFAULT '',
	site_by TEXT NOT NULL DEFAULT '', -- names of confidences
	plugin TEXT NOT NULL DEFAULT '',
	plugin_by TEXT NOT NULL DEFAULT '',
	node TEXT NOT NULL DEFAULT '',
	template TEXT NOT NULL DEFAULT '',
	entry TEXT NOT NULL DEFAULT '',
	script TEXT NOT NULL DEFAULT '',
	web_client TEXT NOT NULL DEFAULT '',
	pool TEXT NOT NULL DEFAULT '',
	software TEXT NOT NULL DEFAULT '',
	first_time INTEGER NOT NULL DEFAULT -1, -- recipients; -1: not counted
	sent INTEGER NOT NULL DEFAULT 0,
	deferred INTEGER NOT NULL DEFAULT 0,
	bounced INTEGER NOT NULL DEFAULT 0,
	expired INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX decision_time ON decision (time, id); -- the order of a list
CREATE INDEX decision_account ON decision (account, time);
CREATE INDEX decision_queue_id ON decision (queue_id) WHERE queue_id <> '';
CREATE INDEX decision_message_id ON decision (message_id) WHERE message_id <> '';
CREATE INDEX decision_mail_from ON decision (mail_from, time) WHERE mail_from <> '';
CREATE INDEX decision_rule ON decision (rule, time) WHERE rule <> '';

CREATE TABLE hold (
	n INTEGER PRIMARY KEY,
	queue_id TEXT NOT NULL,
	decision_id TEXT NOT NULL,
	account TEXT NOT NULL,
	rule TEXT NOT NULL,
	reason TEXT NOT NULL,
	mail_from TEXT NOT NULL COLLATE NOCASE,
	arrival INTEGER NOT NULL,
	held_at INTEGER NOT NULL,
	size INTEGER NOT NULL,
	recipients INTEGER NOT NULL,
	domains TEXT NOT NULL,
	state TEXT NOT NULL,
	changed INTEGER NOT NULL,
	changed_by TEXT NOT NULL DEFAULT '',
	change_reason TEXT NOT NULL DEFAULT '',
	new_queue_id TEXT NOT NULL DEFAULT '',
	waits TEXT NOT NULL DEFAULT '', -- JSON, or nothing
	charge_id TEXT NOT NULL DEFAULT '',
	site TEXT NOT NULL DEFAULT '',
	plugin TEXT NOT NULL DEFAULT '',
	template TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX hold_queue_id ON hold (queue_id);
CREATE INDEX hold_decision_id ON hold (decision_id) WHERE decision_id <> '';
CREATE INDEX hold_new_queue_id ON hold (new_queue_id) WHERE new_queue_id <> '';
CREATE INDEX hold_open ON hold (account, rule) WHERE state IN ('held', 'releasing', 'deleting');
CREATE INDEX hold_closed ON hold (changed) WHERE state NOT IN ('held', 'releasing', 'deleting');

CREATE TABLE total (
	day INTEGER NOT NULL, -- since the epoch, UTC
	account TEXT NOT NULL,
	verdict TEXT NOT NULL,
	messages INTEGER NOT NULL,
	recipients INTEGER NOT NULL,
	PRIMARY KEY (day, account, verdict)
) STRICT, WITHOUT ROWID;

CREATE TABLE admin_action (
	n INTEGER PRIMARY KEY,
	time INTEGER NOT NULL,
	by TEXT NOT NULL,
	uid INTEGER NOT NULL,
	login_uid INTEGER NOT NULL,
	verb TEXT NOT NULL,
	target TEXT NOT NULL,
	reason TEXT NOT NULL,
	outcome TEXT NOT NULL
) STRICT;
CREATE INDEX admin_action_time ON admin_action (time);

CREATE TABLE incident (
	id TEXT PRIMARY KEY,
	origin TEXT NOT NULL,
	cause TEXT NOT NULL,
	noticed TEXT NOT NULL,
	opened INTEGER NOT NULL,
	updated INTEGER NOT NULL,
	closed INTEGER NOT NULL,
	stops INTEGER NOT NULL,
	recipients INTEGER NOT NULL,
	state TEXT NOT NULL,
	account TEXT NOT NULL DEFAULT '',
	addresses TEXT NOT NULL DEFAULT '' -- JSON, or nothing
) STRICT, WITHOUT ROWID;

CREATE TABLE value (
	name TEXT PRIMARY KEY,
	value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
` + ofOrigins + ofReports

// openStates is the condition of the index hold_open, word for word.
const openStates = `state IN ('held', 'releasing', 'deleting')`
