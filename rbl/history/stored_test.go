package history_test

import (
	"database/sql"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/history"
	"relayguard/rbl/sender"
)

// A report made while a round was under way, and the next one, which begins where
// that ended, have each event between them, and each listing that ended.
func TestReportsMissNothingOfARoundUnderWay(t *testing.T) {
	clock := start
	s := openWith(t, t.TempDir(), history.Options{Confirm: confirm, Now: func() time.Time { return clock }})
	reported := start.Add(-day)
	report := func() (kinds []history.EventKind, ended int) {
		until := clock
		events, err := s.Events(t.Context(), reported, until)
		must(t, err)
		for _, e := range events {
			kinds = append(kinds, e.Kind)
		}
		for _, l := range listings(t, s, history.Query{Since: reported, Until: until}) {
			if !l.Ended.IsZero() && !l.Closed.Before(reported) && l.Closed.Before(until) {
				ended++
			}
		}
		reported = until
		return kinds, ended
	}
	for i, c := range []struct {
		say   says
		kinds []history.EventKind
		ended int
	}{
		{listed(zone, ours, hit(2)), nil, 0},
		{listed(zone, ours, hit(2)), []history.EventKind{history.Began}, 0},
		{clean(zone, ours), nil, 0},
		{clean(zone, ours), []history.EventKind{history.Over}, 1},
	} {
		began := start.Add(time.Duration(i) * 6 * time.Hour)
		clock = began.Add(5 * time.Minute) // the answer is there, the round goes on
		if kinds, ended := report(); kinds != nil || ended != 0 {
			t.Errorf("round %d, under way: %v, %d ended", i, kinds, ended)
		}
		clock = began.Add(10 * time.Minute)
		take(t, s, began, nil, c.say)
		clock = began.Add(time.Hour)
		if kinds, ended := report(); !slices.Equal(kinds, c.kinds) || ended != c.ended {
			t.Errorf("round %d: %v, %d ended", i, kinds, ended)
		}
	}
	all, err := s.Events(t.Context(), time.Time{}, time.Time{})
	if err != nil || len(all) != 2 || all[0].At != start.Add(6*time.Hour) {
		t.Errorf("%+v, %v", all, err)
	}

	clock = start.Add(2 * day)
	must(t, s.TakeFacts(t.Context(), clock.Add(-time.Hour), []sender.Fact{{Subject: "a", Check: sender.PTR, State: sender.Wrong}}))
	if events, err := s.Events(t.Context(), clock, time.Time{}); err != nil || len(events) != 1 || events[0].At != clock.Add(-time.Hour) {
		t.Errorf("of facts: %+v, %v", events, err)
	}
}

// Without a clock of its own, it is the end of the round.
func TestStoredWhenTheRoundEnded(t *testing.T) {
	s := open(t, t.TempDir())
	take(t, s, start, nil, listed(zone, ours, hit(2)))
	r := roundOf(start.Add(time.Hour), nil, listed(zone, ours, hit(2)))
	r.Took = time.Minute
	must(t, s.Take(t.Context(), r, []rbl.Subject{ours}, zonesNamed(zone)))
	early, err := s.Events(t.Context(), start, start.Add(time.Hour+30*time.Second))
	must(t, err)
	late, err := s.Events(t.Context(), start.Add(time.Hour+30*time.Second), time.Time{})
	if err != nil || len(early) != 0 || len(late) != 1 {
		t.Errorf("%v, %v, %v", early, late, err)
	}
}

// Queries are kept by zone and day of UTC, and are among all.
func TestQueriesByZoneAndDay(t *testing.T) {
	dir := t.TempDir()
	s, err := history.Open(t.Context(), dir, history.Options{Keep: 10 * day})
	must(t, err)
	midnight := start.Truncate(day).Add(day)
	used := func(at time.Time) map[string]int64 {
		t.Helper()
		used, err := s.Used(t.Context(), at)
		must(t, err)
		return used
	}
	must(t, s.AddSent(t.Context(), midnight.Add(-time.Second), map[string]int64{"a.example": 5, "": 3}))
	must(t, s.AddSent(t.Context(), midnight, map[string]int64{"a.example": 1}))
	must(t, s.AddSent(t.Context(), midnight.In(time.FixedZone("", 9*3600)).Add(day-time.Second), map[string]int64{"a.example": 2, "b.example": 4}))
	must(t, s.Close())
	s = openWith(t, dir, history.Options{Keep: 10 * day})
	for at, want := range map[time.Time]map[string]int64{
		midnight.Add(-time.Hour): {"a.example": 5}, midnight.Add(time.Hour): {"a.example": 3, "b.example": 4}, midnight.Add(day): {},
	} {
		if got := used(at); !maps.Equal(got, want) {
			t.Errorf("%v: %v, want %v", at, got, want)
		}
	}
	if n, err := s.Queries(t.Context(), time.Time{}, midnight); err != nil || n != 8 {
		t.Errorf("%d queries, %v", n, err)
	}
	take(t, s, midnight.Add(11*day), nil, clean(zone, ours))
	if got := used(midnight); len(got) != 0 {
		t.Errorf("not forgotten: %v", got)
	}
}

// A database of the version before goes on; it cannot be peeked at until then.
func TestFirstVersionGoesOn(t *testing.T) {
	dir := t.TempDir()
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(dir, "history.db"))
	must(t, err)
	_, err = db.Exec(firstSchema)
	must(t, errors.Join(err, db.Close()))
	if _, err := history.Peek(t.Context(), dir); err == nil {
		t.Error("peeked at")
	}
	s := open(t, dir)
	if s.Reset() != "" {
		t.Fatalf("put aside: %s", s.Reset())
	}
	events, err := s.Events(t.Context(), start, start.Add(time.Hour))
	if all := listings(t, s, history.Query{Since: start}); err != nil || len(events) != 1 || len(all) != 2 || all[0].Phase != history.Standing || all[1].Closed != start.Add(time.Second) {
		t.Errorf("%+v, %+v, %v", events, all, err)
	}
	take(t, s, start.Add(time.Hour), nil, clean(zone, ours))
	take(t, s, start.Add(2*time.Hour), nil, clean(zone, ours))
	if kinds := untold(t, s); !slices.Equal(kinds, []history.EventKind{history.Began, history.Over}) {
		t.Errorf("told: %v", kinds)
	}
}

// firstSchema is a database of version 1 with a listing that goes on, and one that ended.
const firstSchema = `CREATE TABLE listing (
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
	resolver  TEXT NOT NULL,
	unasked   INTEGER NOT NULL,
	due       INTEGER NOT NULL,
	doubt     INTEGER NOT NULL  -- when a look first said otherwise
);
CREATE INDEX listing_ended ON listing (ended, first);
CREATE INDEX listing_due ON listing (due) WHERE due <> 0;

CREATE TABLE event (
	id   INTEGER PRIMARY KEY AUTOINCREMENT,
	at   INTEGER NOT NULL,
	told INTEGER NOT NULL,
	body TEXT NOT NULL -- JSON
);
CREATE INDEX event_at ON event (at);
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

CREATE TABLE mark (
	name  TEXT PRIMARY KEY,
	value INTEGER NOT NULL
) WITHOUT ROWID;

INSERT INTO listing VALUES (1, 'bl.example', '203.0.113.5', '{"code":"127.0.0.2"}', 3, 'null', 'listed', 1772438400000000, 1772442000000000, 1772442000000000, 0, '127.0.0.1:53', 0, 0, 0);
INSERT INTO listing VALUES (2, 'bl.example', '203.0.113.6', '{"code":"127.0.0.2"}', 3, 'null', 'ended', 1772434800000000, 1772438400000000, 1772438400000000, 1772442001000000, '127.0.0.1:53', 0, 0, 0);
INSERT INTO event VALUES (1, 1772442000000000, 0, '{"kind":"began"}');
PRAGMA user_version = 1;
`
