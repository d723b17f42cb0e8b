package journal_test

import (
	"testing"
	"time"

	"relayguard/journal"
)

func TestTroubleIsReplacedWhenItEnds(t *testing.T) {
	at := func(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }
	first := []journal.Record{
		journal.Trouble{What: "redis", Why: "no answer", Since: at(0)},
		journal.Trouble{What: "log", Why: "rotated away", Since: at(0), Until: at(1)},
	}
	then := []journal.Record{
		journal.Trouble{What: "redis", Why: "no answer from 2 of 3", Since: at(0), Until: at(10)},
		journal.Trouble{What: "redis", Why: "no answer", Since: at(20)}, // again, and it still is
	}
	log, redis, again := first[1].(journal.Trouble), then[0].(journal.Trouble), then[1].(journal.Trouble)
	dir := behind(t, first, then)
	check := func(what string, j journalRead) {
		t.Helper()
		for _, c := range []struct {
			since, until time.Time
			want         []journal.Trouble
		}{
			{time.Time{}, time.Time{}, []journal.Trouble{log, redis, again}},
			{at(2), at(20), []journal.Trouble{redis}},
			{at(-5), at(0), nil},
			{at(11), time.Time{}, []journal.Trouble{again}},
			{at(90), at(100), []journal.Trouble{again}},
			{time.Time{}, at(15), []journal.Trouble{log, redis}},
		} {
			got, err := j.Troubles(t.Context(), c.since, c.until)
			must(t, err)
			same(t, what+": since "+c.since.String(), got, c.want)
		}
	}
	check("reader", reader(t, dir))
	j := open(t, journal.Options{Dir: dir})
	must(t, j.Sync(t.Context()))
	check("journal", j)
}
