-- A database of version 3 with a decision, the hold that it opened, a total and an
-- open incident. The times are those that the test puts in.
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
	charge_id TEXT NOT NULL DEFAULT ''
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
	state TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE value (
	name TEXT PRIMARY KEY,
	value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO decision (id, time, stage, verdict, rule, reason, reply, phase, listener, role, account, confidence, login, login_by, local_user, network,
	client_ip, client_name, helo, uid, mail_from, header_from, message_id, queue_id, size, recipients, domains, findings, counters, repeats, last_repeat, late)
	VALUES ('0000000000003', @now, 'message', 'hold', 'login-hour', '301 recipients of 300 in 1h', '', 'enforce', 'submission', 'submission',
	'login:taro@example.jp', 'kernel', 'taro@example.jp', 'PLAIN', '', '', '203.0.113.7', 'unknown', 'pc.example.jp', -1, 'taro@example.jp',
	'taro@example.jp', '<3@example.jp>', 'A0000003', 2310, 2, '{"example.net":2}', '', '', 0, 0, 0);
INSERT INTO hold (queue_id, decision_id, account, rule, reason, mail_from, arrival, held_at, size, recipients, domains, state, changed)
	VALUES ('A0000003', '0000000000003', 'login:taro@example.jp', 'login-hour', '301 recipients of 300 in 1h', 'taro@example.jp', 0, @now, 2310, 2,
	'{"example.net":2}', 'held', @now);
INSERT INTO total VALUES (@now / 86400000000, 'login:taro@example.jp', 'hold', 1, 2);
INSERT INTO incident VALUES ('i-3', 'login:taro@example.jp', 'login-hour', '', @now, @now, 0, 1, 2, '{"id":"i-3"}');
PRAGMA user_version = 3;
