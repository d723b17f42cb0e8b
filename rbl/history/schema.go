package history

// schemaVersion is the user_version of a database that has schema.
const schemaVersion = 2

// Times are microseconds since 1970, 0 for none; slots are seconds. Subjects and
// zones stand as their names: a listing outlives both.
const schema = `
CREATE TABLE listing (
	id        INTEGER PRIMARY KEY AUTOINCREMENT,
	zone      TEXT NOT NULL,
	subject   TEXT NOT NULL,
	hit       TEXT NOT NULL, -- JSON
	severity  INTEGER NOT NULL,
	reasons   TEXT NOT NULL, -- JSON
	phase     TEXT NOT NULL,
	first     INTEGER NOT NULL,
	confirmed INTEGER NOT NULL,
	last      INTEGER NOT NULL,
	ended     INTEGER NOT NULL, -- 0: open
	closed    INTEGER NOT NULL, -- when the end was stored
	resolver  TEXT NOT NULL,
	unasked   INTEGER NOT NULL,
	due       INTEGER NOT NULL,
	doubt     INTEGER NOT NULL, -- when a look first said otherwise
	clean_before INTEGER NOT NULL
);
CREATE INDEX listing_ended ON listing (ended, first);
CREATE INDEX listing_due ON listing (due) WHERE due <> 0;

CREATE TABLE event (
	id     INTEGER PRIMARY KEY AUTOINCREMENT,
	at     INTEGER NOT NULL,
	stored INTEGER NOT NULL,
	told   INTEGER NOT NULL,
	body   TEXT NOT NULL -- JSON
);
CREATE INDEX event_stored ON event (stored);
CREATE INDEX event_untold ON event (id) WHERE told = 0;

-- Of the last round.
CREATE TABLE answer (
	n    INTEGER PRIMARY KEY,
	body TEXT NOT NULL -- JSON
);
CREATE TABLE subject_state (
	n       INTEGER PRIMARY KEY,
	subject TEXT NOT NULL,
	listed  INTEGER NOT NULL,
	wide    INTEGER NOT NULL,
	info    INTEGER NOT NULL,
	clean   INTEGER NOT NULL,
	unknown INTEGER NOT NULL,
	refused INTEGER NOT NULL,
	at      INTEGER NOT NULL
);
CREATE TABLE zone_state (
	zone  TEXT NOT NULL,
	kind  INTEGER NOT NULL,
	state INTEGER NOT NULL,
	why   TEXT NOT NULL,
	at    INTEGER NOT NULL,
	since INTEGER NOT NULL,
	gone  INTEGER NOT NULL, -- since when dead, emptied or parked; 0: it is not
	PRIMARY KEY (zone, kind)
) WITHOUT ROWID;

-- What ZoneBad was told of, until it is healthy: it may be silent meanwhile.
CREATE TABLE bad_zone (
	zone TEXT NOT NULL,
	kind INTEGER NOT NULL,
	PRIMARY KEY (zone, kind)
) WITHOUT ROWID;

-- A day is made of these: so many octets a subject and quarter of an hour.
CREATE TABLE named (
	id      INTEGER PRIMARY KEY,
	subject TEXT NOT NULL UNIQUE,
	last    INTEGER NOT NULL -- slot
);
CREATE TABLE slot (
	slot    INTEGER NOT NULL,
	subject INTEGER NOT NULL, -- of named
	worst   INTEGER NOT NULL, -- 3 listed, 2 unknown, 1 clean
	PRIMARY KEY (slot, subject)
) WITHOUT ROWID;
CREATE TABLE queries (
	slot INTEGER PRIMARY KEY,
	sent INTEGER NOT NULL
);
CREATE TABLE zone_queries (
	day  INTEGER NOT NULL, -- of UTC, since 1970
	zone TEXT NOT NULL,
	sent INTEGER NOT NULL,
	PRIMARY KEY (day, zone)
) WITHOUT ROWID;

CREATE TABLE fact (
	n           INTEGER PRIMARY KEY,
	subject     TEXT NOT NULL,
	"check"     TEXT NOT NULL,
	nth         INTEGER NOT NULL, -- of those with that subject and check
	state       TEXT NOT NULL,
	found       TEXT NOT NULL,
	wanted      TEXT NOT NULL,
	since       INTEGER NOT NULL,
	known       TEXT NOT NULL, -- the last state that was not unknown
	known_since INTEGER NOT NULL
);

CREATE TABLE neighbour (
	n       INTEGER PRIMARY KEY,
	prefix  TEXT NOT NULL,
	zone    TEXT NOT NULL,
	asked   INTEGER NOT NULL,
	listed  INTEGER NOT NULL,
	unknown INTEGER NOT NULL,
	at      INTEGER NOT NULL,
	before  INTEGER NOT NULL
);

CREATE TABLE learnt (
	addr  TEXT PRIMARY KEY,
	place TEXT NOT NULL,
	at    INTEGER NOT NULL
) WITHOUT ROWID;

-- When a list last said that a subject is not on it.
CREATE TABLE clean (
	zone    TEXT NOT NULL,
	subject TEXT NOT NULL,
	at      INTEGER NOT NULL,
	PRIMARY KEY (zone, subject)
) WITHOUT ROWID;

CREATE TABLE mark (
	name  TEXT PRIMARY KEY,
	value INTEGER NOT NULL
) WITHOUT ROWID;
`

// fromFirst makes of a database of version 1 one of version 2.
const fromFirst = `
ALTER TABLE listing ADD COLUMN closed INTEGER NOT NULL DEFAULT 0;
UPDATE listing SET closed = ended;
ALTER TABLE listing ADD COLUMN clean_before INTEGER NOT NULL DEFAULT 0;
CREATE TABLE clean (
	zone    TEXT NOT NULL,
	subject TEXT NOT NULL,
	at      INTEGER NOT NULL,
	PRIMARY KEY (zone, subject)
) WITHOUT ROWID;
ALTER TABLE event ADD COLUMN stored INTEGER NOT NULL DEFAULT 0;
UPDATE event SET stored = at;
DROP INDEX event_at;
ALTER TABLE subject_state ADD COLUMN wide INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subject_state ADD COLUMN info INTEGER NOT NULL DEFAULT 0;
ALTER TABLE zone_state ADD COLUMN gone INTEGER NOT NULL DEFAULT 0;
CREATE INDEX event_stored ON event (stored);
CREATE TABLE zone_queries (
	day  INTEGER NOT NULL,
	zone TEXT NOT NULL,
	sent INTEGER NOT NULL,
	PRIMARY KEY (day, zone)
) WITHOUT ROWID;
`

// Names in mark.
const (
	markRound      = "round"
	markSure       = "sure" // the last round whose time was not odd
	markNeighbours = "neighbours"
	markDropped    = "dropped"
)
