package rbl_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/check"
	"relayguard/rbl/dnstest"
	"relayguard/rbl/history"
	"relayguard/rbl/resolve"
)

// days are rounds and second looks over a virtual time, as watch makes them, with real
// servers.
type days struct {
	t       *testing.T
	now     time.Time
	checker *check.Checker
	store   *history.Store
	about   []rbl.Subject
	zones   []rbl.Zone
}

func startDays(t *testing.T, about []rbl.Subject, zones []rbl.Zone, resolvers ...rbl.Resolver) *days {
	t.Helper()
	d := &days{t: t, now: time.Date(2026, 1, 30, 9, 0, 0, 0, time.UTC), about: about, zones: zones}
	d.ask(resolvers...)
	var err error
	if d.store, err = history.Open(t.Context(), t.TempDir(), history.Options{Confirm: 10 * time.Minute}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.store.Close() })
	return d
}

// ask has these asked from now on.
func (d *days) ask(resolvers ...rbl.Resolver) {
	d.checker = check.New(check.Options{Resolvers: resolvers, Now: func() time.Time { return d.now }})
}

// pass makes a round, and 11 minutes later the second looks that it asks for, and
// gives what is to be told: "began bl.example 192.0.2.5".
func (d *days) pass() []string {
	d.t.Helper()
	ctx := d.t.Context()
	round := d.checker.Run(ctx, d.about, d.zones, nil)
	d.must(d.store.Take(ctx, round, d.about, d.zones))
	d.now = d.now.Add(11 * time.Minute)
	due, err := d.store.Due(ctx, d.now)
	d.must(err)
	for _, l := range due {
		zone := d.zones[slices.IndexFunc(d.zones, func(z rbl.Zone) bool { return z.Name == l.Zone })]
		a, h := d.checker.Again(ctx, l.Subject, &zone, l.Resolver)
		d.must(d.store.TakeAgain(ctx, l.ID, a, h))
	}
	d.now = d.now.Add(6*time.Hour - 11*time.Minute)

	events, err := d.store.Untold(ctx)
	d.must(err)
	var told []string
	for _, e := range events {
		switch {
		case e.Listing != nil:
			told = append(told, fmt.Sprintf("%s %s %s %s", e.Kind, e.Listing.Zone, e.Listing.Subject, e.Listing.Hit.Code))
		case e.Health != nil:
			told = append(told, fmt.Sprintf("%s %s", e.Kind, e.Health.Zone))
		}
		d.must(d.store.Told(ctx, e.ID))
	}
	return told
}

func (d *days) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *days) want(what string, want ...string) {
	d.t.Helper()
	if got := d.pass(); !slices.Equal(got, want) {
		d.t.Errorf("%s: told %q, want %q", what, got, want)
	}
}

const wildLines = ":127.0.0.2:all\n0/1\n128/1"

// A list that goes wild for a day raises one note that it is wild, and no listing; who
// was on it before is on it after.
func TestListGoesWildForADay(t *testing.T) {
	r := dnstest.StartRBLDNSD(t, ip4("bl.example", "192.0.2.6"), ip4("other.example"))
	d := startDays(t, subjects("192.0.2.5", "192.0.2.6"), lists("bl.example", "other.example"),
		unbound(t, r.Addr, dnstest.Unbound{}, "bl.example", "other.example"))
	d.want("before", "began bl.example 192.0.2.6 127.0.0.2")
	d.want("nothing new")
	r.Set(t, "bl.example", "ip4set", wildLines)
	d.want("goes wild", "zone_bad bl.example")
	for range 3 {
		d.want("is wild")
	}
	r.Set(t, "bl.example", "ip4set", ":127.0.0.2:listed\n127.0.0.2\n192.0.2.6")
	d.want("is well", "zone_well bl.example")
	d.want("after")
	open, err := d.store.Listings(t.Context(), history.Query{OpenOnly: true})
	d.must(err)
	if len(open) != 1 || open[0].Subject.String() != "192.0.2.6" || open[0].Phase != history.Standing {
		t.Errorf("%+v", open)
	}
}

// It goes wild between a round and the second look: nobody is told of a listing.
func TestListGoesWildBeforeTheSecondLook(t *testing.T) {
	r := dnstest.StartRBLDNSD(t, ip4("bl.example", "192.0.2.5"))
	d := startDays(t, subjects("192.0.2.5"), lists("bl.example"), unbound(t, r.Addr, dnstest.Unbound{}, "bl.example"))
	ctx := t.Context()
	d.must(d.store.Take(ctx, d.checker.Run(ctx, d.about, d.zones, nil), d.about, d.zones))
	r.Set(t, "bl.example", "ip4set", wildLines)
	d.now = d.now.Add(11 * time.Minute)
	d.want("wild at the second look", "zone_bad bl.example")
	r.Set(t, "bl.example", "ip4set", ":127.0.0.2:listed\n127.0.0.2")
	d.want("well", "zone_well bl.example")
}

// Listed, off, and listed again is two alarms; no answer in between ends none.
func TestRelistingAndSilence(t *testing.T) {
	r := dnstest.StartRBLDNSD(t, ip4("bl.example"))
	u := unbound(t, r.Addr, dnstest.Unbound{}, "bl.example")
	d := startDays(t, subjects("192.0.2.5"), lists("bl.example"), u)
	on, off := ":127.0.0.2:listed\n127.0.0.2\n192.0.2.5", ":127.0.0.2:listed\n127.0.0.2"
	d.want("clean")
	r.Set(t, "bl.example", "ip4set", on)
	d.want("listed", "began bl.example 192.0.2.5 127.0.0.2")
	d.want("still listed")

	r.Set(t, "bl.example", "ip4set", "") // emptied: the test entry is gone as well
	d.want("emptied")
	r.Set(t, "bl.example", "ip4set", on)
	d.want("there again")

	r.Set(t, "bl.example", "ip4set", off)
	d.want("off", "over bl.example 192.0.2.5 127.0.0.2")
	r.Set(t, "bl.example", "ip4set", on)
	d.want("listed again", "began bl.example 192.0.2.5 127.0.0.2")

	r.Stop()
	// Unbound goes on trying for 10 s; we do not wait.
	d.ask(resolve.New(u.Name(), 300*time.Millisecond))
	d.want("silent")
	d.want("silent for long")
	all, err := d.store.Listings(t.Context(), history.Query{})
	d.must(err)
	if len(all) != 2 || all[0].Phase != history.Standing || all[0].Unasked.IsZero() || all[1].Phase != history.Ended {
		t.Errorf("%+v", all)
	}
}

// A listing that is gone before the second look was none to tell of.
func TestListedForAMoment(t *testing.T) {
	r := dnstest.StartRBLDNSD(t, ip4("bl.example", "192.0.2.5"))
	d := startDays(t, subjects("192.0.2.5"), lists("bl.example"), unbound(t, r.Addr, dnstest.Unbound{}, "bl.example"))
	ctx := t.Context()
	d.must(d.store.Take(ctx, d.checker.Run(ctx, d.about, d.zones, nil), d.about, d.zones))
	r.Set(t, "bl.example", "ip4set", ":127.0.0.2:listed\n127.0.0.2")
	d.now = d.now.Add(11 * time.Minute)
	d.want("gone")
	d.want("nothing")
}
