package evidence_test

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"relayguard/forward"
	"relayguard/forward/evidence"
	"relayguard/mta/maillog"
)

func TestSentCountsWhatLeftByEachRuleInATime(t *testing.T) {
	both := rules{virtual[0], {"v2@valias.test", "vout2@evil.test", forward.Virtual, false}}
	x := newTrace(t, both, evidence.TrackerOptions{})
	mailFrom(x, 3)
	x.say("smtp: B1B3D900009: to=<vout1@evil.test>, orig_to=<v1@valias.test>, relay=x[192.0.2.1]:25, delay=1, delays=1/0/0/0, dsn=5.1.1, status=bounced (no)")
	x.say(leaves("B1B3D90000A", "vout2@evil.test", "v2@valias.test")...)
	x.say(leaves("B1B3D90000B", "vout3@evil.test", "v3@valias.test")...) // by no rule
	x.done()
	all, err := x.store.Sent(t.Context(), time.Time{}, time.Time{})
	must(t, err)
	if len(all) != 2 {
		t.Fatalf("%+v", all)
	}
	first := all[0]
	if first.First.IsZero() || !first.First.Before(first.Last) {
		t.Errorf("from %v to %v", first.First, first.Last)
	}
	first.First, first.Last = time.Time{}, time.Time{}
	if want := (evidence.Sent{ID: virtualID, Owner: "v1@valias.test", Target: "vout1@evil.test", Mails: 4, Taken: 3, Back: 1}); first != want {
		t.Errorf("%+v, want %+v", first, want)
	}
	if second := all[1]; second.Owner != "v2@valias.test" || second.Mails != 1 || second.Taken != 1 || second.First != second.Last {
		t.Errorf("%+v", second)
	}
	for _, c := range []struct {
		since, until time.Time
		want         []int // mails, of the rules
	}{
		{all[0].First, all[1].Last.Add(time.Microsecond), []int{4, 1}},
		{all[0].First.Add(time.Microsecond), time.Time{}, []int{3, 1}},
		{time.Time{}, all[0].Last, []int{3}},
		{all[1].First, time.Time{}, []int{1}},
		{all[1].Last.Add(time.Hour), time.Time{}, nil},
	} {
		some, err := x.store.Sent(t.Context(), c.since, c.until)
		must(t, err)
		var got []int
		for _, s := range some {
			got = append(got, s.Mails)
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("from %v until %v: %v, want %v", c.since, c.until, got, c.want)
		}
	}
	must(t, x.store.Purge(t.Context(), now.AddDate(0, 0, 31)))
	if none, err := x.store.Sent(t.Context(), time.Time{}, time.Time{}); err != nil || len(none) > 0 {
		t.Errorf("after 31 days: %+v, %v", none, err)
	}
}

func TestGapsBetweenTwoTimes(t *testing.T) {
	x := newTrace(t, virtual, evidence.TrackerOptions{})
	at := func(hour int) time.Time { return time.Date(2026, 11, 22, hour, 0, 0, 0, time.UTC) }
	x.Gap(maillog.Gap{To: at(1), Why: "since nobody knows when"})
	x.Gap(maillog.Gap{From: at(3), To: at(5), Why: "the log was emptied"})
	x.done()
	for _, c := range []struct {
		since, until time.Time
		want         int
	}{
		{time.Time{}, time.Time{}, 2},
		{at(0), at(2), 1},
		{at(2), at(3), 0},
		{at(2), at(4), 1},
		{at(4), at(6), 1},
		{at(4), time.Time{}, 1},
		{at(6), time.Time{}, 0},
		{time.Time{}, at(2), 1},
	} {
		got, err := x.store.GapsBetween(t.Context(), c.since, c.until)
		must(t, err)
		if len(got) != c.want {
			t.Errorf("%s: %+v, want %d", fmt.Sprint(c.since, " until ", c.until), got, c.want)
		}
	}
}
