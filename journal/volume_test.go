package journal_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"relayguard/journal"
	"relayguard/policy"
)

// noon is a whole hour at which the tests of volumes begin.
var noon = midnight.Add(-12 * time.Hour)

// spreadOut are decisions around the edges of quarters of an hour.
func spreadOut() (all []journal.Record) {
	for i, at := range []time.Duration{0, time.Minute, 15*time.Minute - time.Microsecond, 15 * time.Minute, 16 * time.Minute, 3 * time.Hour} {
		d := accepted(i)
		d.Time = noon.Add(at)
		all = append(all, d)
		r := refused(100 + i)
		r.Time = d.Time
		all = append(all, r, journal.Repeat{ID: r.ID, N: 2, Last: d.Time.Add(time.Minute)})
	}
	return all
}

func quarter(n int) time.Time { return noon.Add(time.Duration(n) * journal.VolumeSlot) }

// volumesOfSpreadOut is what those make: repeats count when they were.
var volumesOfSpreadOut = []journal.Volume{
	{Start: quarter(0), Verdict: policy.Accept, Messages: 3, Recipients: 6},
	{Start: quarter(0), Verdict: policy.Reject, Recipients: 3 + 2*2},
	{Start: quarter(1), Verdict: policy.Accept, Messages: 2, Recipients: 4},
	{Start: quarter(1), Verdict: policy.Reject, Recipients: 2 + 2*3},
	{Start: quarter(12), Verdict: policy.Accept, Messages: 1, Recipients: 2},
	{Start: quarter(12), Verdict: policy.Reject, Recipients: 3},
}

func TestVolumesCountEachAnswerOnce(t *testing.T) {
	dir := t.TempDir()
	j := open(t, journal.Options{Dir: dir})
	must(t, j.Append(spreadOut()...))
	must(t, j.Append(spreadOut()[0])) // known already
	check := func(what string, j journalRead) {
		t.Helper()
		for _, c := range []struct {
			since, until time.Time
			want         []journal.Volume
		}{
			{time.Time{}, time.Time{}, volumesOfSpreadOut},
			{quarter(0), quarter(1), volumesOfSpreadOut[:2]},
			{quarter(0).Add(14 * time.Minute), quarter(1).Add(1), volumesOfSpreadOut[:2]}, // a microsecond is the finest
			{quarter(0).Add(14 * time.Minute), quarter(1).Add(time.Microsecond), volumesOfSpreadOut[:4]},
			{quarter(1), time.Time{}, volumesOfSpreadOut[2:]},
			{quarter(2), quarter(12), nil},
			{time.Time{}, quarter(12), volumesOfSpreadOut[:4]},
		} {
			got, err := j.Volumes(t.Context(), c.since, c.until)
			must(t, err)
			same(t, what+": volumes since "+c.since.String(), got, c.want)
		}
	}
	check("journal", j)
	must(t, j.Close())
	check("reader", reader(t, dir))
	must(t, os.Remove(filepath.Join(dir, "journal.db")))
	check("reader of the log alone", reader(t, dir))
	j = open(t, journal.Options{Dir: dir})
	must(t, j.Sync(t.Context()))
	check("journal filled anew", j)
}

func TestReaderAddsVolumesOfTheLog(t *testing.T) {
	all := spreadOut()
	dir := behind(t, all[:6], all[6:])
	got, err := reader(t, dir).Volumes(t.Context(), time.Time{}, time.Time{})
	must(t, err)
	same(t, "volumes", got, volumesOfSpreadOut)
}

func TestVolumesAreKeptAsTotalsAre(t *testing.T) {
	j := open(t, journal.Options{Dir: t.TempDir()})
	must(t, j.Append(spreadOut()...))
	must(t, j.Append(journal.Trouble{What: "redis", Since: noon, Until: noon.Add(time.Hour)}, journal.Trouble{What: "log", Since: noon}))
	count := func() [2]int {
		t.Helper()
		volumes, err := j.Volumes(t.Context(), time.Time{}, time.Time{})
		must(t, err)
		troubles, err := j.Troubles(t.Context(), time.Time{}, time.Time{})
		must(t, err)
		return [2]int{len(volumes), len(troubles)}
	}
	for _, c := range []struct {
		at   time.Time
		want [2]int
	}{
		{noon.Add(399 * day), [2]int{6, 2}},
		{noon.Add(400*day + 20*time.Minute), [2]int{4, 1}},
		{noon.Add(402 * day), [2]int{0, 0}},
	} {
		must(t, j.PurgeNow(t.Context(), c.at))
		same(t, "volumes and troubles after "+c.at.Sub(noon).String(), count(), c.want)
	}
}

// Before version 5 there were days only.
func TestVolumesOfOlderDaysStandAtNoon(t *testing.T) {
	dir := older(t, 4)
	want := []journal.Volume{{Start: midnight.Add(12 * time.Hour), Verdict: policy.Hold, Messages: 2, Recipients: 4}}
	got, err := reader(t, dir).Volumes(t.Context(), midnight, midnight.Add(day))
	must(t, err)
	same(t, "reader", got, want)
	j := open(t, journal.Options{Dir: dir})
	got, err = j.Volumes(t.Context(), time.Time{}, time.Time{})
	must(t, err)
	same(t, "journal", got, want)
	d := accepted(9)
	d.Time = midnight
	must(t, j.Append(d))
	got, err = j.Volumes(t.Context(), midnight, midnight.Add(time.Hour))
	must(t, err)
	same(t, "new ones", got, []journal.Volume{{Start: midnight, Verdict: policy.Accept, Messages: 1, Recipients: 2}})
}

// What came in, and what was seen again on its way out, was counted with what left:
// forwarded mail twice.
func TestVolumesCountWhatLeaves(t *testing.T) {
	var s scene
	roles := []policy.Role{0, policy.Submission, policy.Local, policy.Relay, policy.Inbound, policy.Egress}
	n := int64(1)
	for _, verdict := range []policy.Verdict{policy.Accept, policy.Tell, policy.Hold, policy.Reject} {
		for _, role := range roles {
			d := s.add(noon, int(n), func(d *journal.Decision) { d.Role, d.Verdict = role, verdict })
			s.records = append(s.records, journal.Repeat{ID: d.ID, N: 1, Last: noon.Add(time.Minute)})
			n *= 2
		}
	}
	const ours = 1 + 2 + 4 + 8
	want := []journal.Volume{
		{Start: noon, Verdict: policy.Accept, Messages: 8, Recipients: 2 * ours},
		{Start: noon, Verdict: policy.Hold, Messages: 8, Recipients: 2 * ours << 12},
		{Start: noon, Verdict: policy.Reject, Messages: 8, Recipients: 2 * ours << 18},
		{Start: noon, Verdict: policy.Tell, Messages: 8, Recipients: 2 * ours << 6},
	}
	check := func(what string, j journalRead) {
		t.Helper()
		got, err := j.Volumes(t.Context(), time.Time{}, time.Time{})
		must(t, err)
		same(t, what+": volumes", got, want)
		var passed int64
		for _, v := range got {
			if v.Start.Equal(noon) && !v.Verdict.Stops() {
				passed += v.Recipients
			}
		}
		active := activity(t, j, sixHours)
		if len(active) != 4 || active[0].Recipients != passed || active[0].Usual != -1 {
			t.Errorf("%s: %d recipients of volumes, activity %+v", what, passed, active)
		}
		next := sixHours
		next.Since, next.Until = next.Since.Add(day), next.Until.Add(2*day)
		for _, a := range activity(t, j, next) {
			if a.UsualMost != float64(passed) {
				t.Errorf("%s: usual on the next day: %+v", what, a)
			}
		}
		ranks, err := j.Ranks(t.Context(), journal.RankQuery{})
		must(t, err)
		if all := 2*(n-1) + 5; len(ranks) != 1 || ranks[0].Recipients+ranks[0].StoppedRecipients != all {
			t.Errorf("%s: ranks count all %d: %+v", what, all, ranks)
		}
	}
	tomorrow := scene{n: 1000}
	tomorrow.add(noon.Add(day), 5, nil)
	all := append(s.records, tomorrow.records[0])
	want = append(want, journal.Volume{Start: noon.Add(day), Verdict: policy.Accept, Messages: 1, Recipients: 5})
	dir := t.TempDir()
	j := open(t, journal.Options{Dir: dir})
	must(t, j.Append(all...))
	check("journal", j)
	must(t, j.Close())
	check("reader", reader(t, dir))
	must(t, os.Remove(filepath.Join(dir, "journal.db")))
	check("reader of the log alone", reader(t, dir))
	check("reader, half of it in the log", reader(t, behind(t, all[:20], all[20:])))
}
