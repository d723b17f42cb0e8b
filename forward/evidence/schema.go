package evidence

// schemaVersion is the database's PRAGMA user_version. Another version is put
// aside as a broken one is: the log is read again as far as there is one.
const schemaVersion = 1

// Times are microseconds since the epoch, 0 for none. Addresses are as Key has
// them. cited is how many rows of cites a mail has.
const schema = `
CREATE TABLE checkpoint (source TEXT PRIMARY KEY, position TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE began (id INTEGER PRIMARY KEY CHECK (id = 1), time INTEGER NOT NULL) STRICT;

CREATE TABLE mail (
	n INTEGER PRIMARY KEY,
	flight TEXT NOT NULL,
	rcpt TEXT NOT NULL,
	orig TEXT NOT NULL,
	queue_id TEXT NOT NULL,
	root_id TEXT NOT NULL,
	message_id TEXT NOT NULL,
	time INTEGER NOT NULL,
	mail_from TEXT NOT NULL,
	outside INTEGER NOT NULL,
	status TEXT NOT NULL,
	dsn TEXT NOT NULL,
	relay TEXT NOT NULL,
	depth INTEGER NOT NULL, -- how many hops behind the rule the status is of
	how TEXT NOT NULL,
	sure INTEGER NOT NULL,
	cited INTEGER NOT NULL,
	UNIQUE (flight, rcpt)
) STRICT;
CREATE INDEX mail_time ON mail (time);
CREATE INDEX mail_unexplained ON mail (time) WHERE cited = 0;

CREATE TABLE cites (
	rule TEXT NOT NULL,
	mail INTEGER NOT NULL,
	PRIMARY KEY (rule, mail)
) STRICT, WITHOUT ROWID;
CREATE INDEX cites_mail ON cites (mail);

CREATE TABLE total ( -- of mails whose rows are deleted
	rule TEXT NOT NULL,
	day INTEGER NOT NULL, -- since the epoch, UTC
	mails INTEGER NOT NULL,
	certain INTEGER NOT NULL,
	likely INTEGER NOT NULL,
	sent INTEGER NOT NULL,
	bounced INTEGER NOT NULL,
	deferred INTEGER NOT NULL,
	first INTEGER NOT NULL,
	last INTEGER NOT NULL,
	PRIMARY KEY (rule, day)
) STRICT, WITHOUT ROWID;

CREATE TABLE flight (key TEXT PRIMARY KEY, state TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE relay (
	program TEXT NOT NULL,
	relay TEXT NOT NULL,
	first INTEGER NOT NULL,
	last INTEGER NOT NULL,
	mails INTEGER NOT NULL,
	PRIMARY KEY (program, relay)
) STRICT, WITHOUT ROWID;

CREATE TABLE gap (n INTEGER PRIMARY KEY, since INTEGER NOT NULL, until INTEGER NOT NULL, why TEXT NOT NULL, UNIQUE (since, why)) STRICT;
CREATE TABLE unclear (day INTEGER PRIMARY KEY, lines INTEGER NOT NULL) STRICT;
`

// upsertMail writes a row or adds to it what is known by now: a deeper status, a
// surer reason.
const upsertMail = `
INSERT INTO mail (flight, rcpt, orig, queue_id, root_id, message_id, time, mail_from, outside, status, dsn, relay, depth, how, sure, cited)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, 0)
ON CONFLICT (flight, rcpt) DO UPDATE SET
	orig = CASE WHEN excluded.orig <> '' AND (orig = '' OR excluded.sure > sure) THEN excluded.orig ELSE orig END,
	root_id = CASE WHEN excluded.root_id <> '' THEN excluded.root_id ELSE root_id END,
	message_id = CASE WHEN excluded.message_id <> '' THEN excluded.message_id ELSE message_id END,
	mail_from = CASE WHEN excluded.mail_from <> '' THEN excluded.mail_from ELSE mail_from END,
	outside = max(outside, excluded.outside),
	time = min(time, excluded.time),
	queue_id = CASE WHEN excluded.queue_id <> '' AND ` + newer + ` THEN excluded.queue_id ELSE queue_id END,
	status = CASE WHEN ` + newer + ` THEN excluded.status ELSE status END,
	dsn = CASE WHEN ` + newer + ` THEN excluded.dsn ELSE dsn END,
	relay = CASE WHEN ` + newer + ` THEN excluded.relay ELSE relay END,
	depth = CASE WHEN ` + newer + ` THEN excluded.depth ELSE depth END,
	how = CASE WHEN excluded.sure >= sure THEN excluded.how ELSE how END,
	sure = max(sure, excluded.sure)
RETURNING n`

// newer: what a later line says of a recipient counts, unless it was final.
const newer = `(excluded.depth > depth OR excluded.depth = depth AND status IN ('deferred', 'handed'))`

// updateMail is for what a further hop says of a row, if there is one.
const updateMail = `
UPDATE mail SET queue_id = ?3, status = ?4, dsn = ?5, relay = ?6, depth = ?7
WHERE flight = ?1 AND rcpt = ?2 AND (?7 > depth OR ?7 = depth AND status IN ('deferred', 'handed'))`
