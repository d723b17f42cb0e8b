package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/desk"
	"relayguard/policy"
	"relayguard/policy/limit"
)

// limited is a state that goes by the shipped limits in a phase, and not for the
// first time.
func limited(t *testing.T, phase policy.Phase) *state {
	t.Helper()
	c := stateConfig(t)
	s := aState(t, c)
	t.Cleanup(func() { s.close(nil) })
	s.learnt.peaks = limit.NewPeaks(100) // that have not begun today
	l, errs := policyLimits(c, phase, parts{store: s.budgets, retries: s.retries, item: func(string) limit.Item { return 1 }, lines: s.lines, uid: userID, learnt: s.learnt})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	s.rules.Store(&rules{policy: &policy.Policy{Limits: l}, limitNames: limitNames(c)})
	return s
}

// charge takes so many first-time recipients from a bucket of 25 in ten minutes and
// 40 a day.
func (s *state) charge(t *testing.T, now time.Time, key limit.Key, n int) (taken bool) {
	t.Helper()
	c := limit.Charge{Key: key, Kind: limit.Abuse, Counts: limit.FirstTime, Windows: []limit.Window{{Count: 25, Length: 10 * time.Minute, Burst: true}, {Count: 40, Length: 24 * time.Hour}}}
	known := limit.Known{Account: fmt.Sprint("nobody ", key, n)}
	for i := range n {
		c.Items = append(c.Items, limit.Item(i+1))
	}
	known.Items = c.Items
	var out limit.Outcome
	if err := s.budgets.Spend(t.Context(), now, &limit.Step{Charges: []limit.Charge{c}, Known: known}, &out); err != nil {
		t.Fatal(err)
	}
	return out.Taken
}

func (s *state) standingOf(t *testing.T, now time.Time, who, name string) (limitsOf, standing) {
	t.Helper()
	of, err := s.limitsOf(t.Context(), now, who, askedRecipients)
	if err != nil {
		t.Fatalf("%s: %v", who, err)
	}
	for _, one := range of.Limits {
		if one.Limit == name {
			return of, one
		}
	}
	t.Fatalf("%s has no %s: %+v", who, name, of)
	return of, standing{}
}

// A plugin and a text stand under limits of their own, open, shut and opened again.
func TestHowAPluginAndATextStand(t *testing.T) {
	s, now := limited(t, policy.Enforce), time.Now()
	for who, key := range map[string]limit.Key{
		"plugin:Share@shop.example.jp": {Limit: "plugin-first-time", Value: "plugin:share@shop.example.jp"},
		"template:cc95bad42eedfdd4":    {Limit: "template-first-time", Value: "template:cc95bad42eedfdd4"},
	} {
		s.charge(t, now, key, 15)
		of, one := s.standingOf(t, now, who, key.Limit)
		if of.Verdict != "accept" || one.Key != key.Value || one.Latched || one.Source != "default" || len(one.Windows) != 2 || one.Windows[0].Used != 15 || one.Windows[0].Count != 25 {
			t.Errorf("%s: %+v", who, of)
		}
		s.charge(t, now, key, 10)
		if of, one = s.standingOf(t, now, who, key.Limit); of.Verdict != "hold" || of.Rule != key.Limit || one.Latched || !one.Windows[0].Over || one.Windows[0].FreeAt.IsZero() {
			t.Errorf("%s, full: %+v, want that 10 more are held, and that it is not shut", who, of)
		}
		if l, err := s.listLimits(t.Context(), now, "", key.Limit, 10); err != nil || len(l.Buckets) != 2 || l.Buckets[0].Latched {
			t.Errorf("%s, full: %+v, %v", who, l.Buckets, err)
		}
		if s.charge(t, now, key, 1) {
			t.Fatal("26 of 25 fit")
		}
		if of, one = s.standingOf(t, now, who, key.Limit); of.Verdict != "hold" || !one.Latched {
			t.Errorf("%s, shut: %+v", who, of)
		}
		r, err := s.desk.Resume(t.Context(), now, desk.By{Name: "root"}, desk.Resumption{Account: strings.ToLower(who), Cause: "button removed"})
		if err != nil || len(r.Opened) != 1 {
			t.Errorf("resume %s: %+v, %v", who, r, err)
		}
		want, source := int64(25), "default"
		if strings.HasPrefix(who, "plugin:") {
			want, source = 12, "default; halved: probation"
		}
		of, one = s.standingOf(t, now.Add(time.Second), who, key.Limit)
		if of.Verdict != "accept" || one.Latched || one.Windows[0].Used != 0 || one.Windows[0].Count != want || one.Source != source {
			t.Errorf("%s, resumed: %+v", who, of)
		}
		if l, err := s.listLimits(t.Context(), now, "", key.Limit, 10); err != nil || len(l.Buckets) != 0 {
			t.Errorf("%s, resumed: %+v, %v", who, l.Buckets, err)
		}
	}
	if of, one := s.standingOf(t, now, "site:Shop.example.jp", "site-volume"); of.Verdict != "accept" || one.Key != "site:shop.example.jp" {
		t.Errorf("the site: %+v", of)
	}
	for _, who := range []string{"plugin:share", "plugin:@shop.example.jp", "plugin:share@", "template:"} {
		if _, err := s.limitsOf(t.Context(), now, who, 1); err == nil || !strings.Contains(err.Error(), "plugin:NAME@SITE") {
			t.Errorf("%s: %v", who, err)
		}
	}
}

// Where a limit has grown with what is usual, that is said; where nothing is usual
// yet, that is.
func TestWhereAPluginsWindowsComeFrom(t *testing.T) {
	s, now := limited(t, policy.Enforce), time.Now()
	key := limit.Key{Limit: "plugin-first-time", Value: "plugin:cart@shop.example.jp"}
	s.learnt.peaks.Start(now.AddDate(0, 0, -30))
	s.learnt.peaks.Note(now.AddDate(0, 0, -3), key, 24*time.Hour, 0, 50)
	_, one := s.standingOf(t, now, key.Value, key.Limit)
	if one.Source != "default; adapted: 3 times its largest day" || len(one.Windows) != 2 || one.Windows[1].Count != 150 {
		t.Errorf("%+v", one)
	}
	young := limited(t, policy.Learning)
	_, one = young.standingOf(t, now, key.Value, key.Limit)
	if !strings.Contains(one.Source, "only its burst") || len(one.Windows) != 1 || one.Windows[0].Count != 25 {
		t.Errorf("young: %+v", one)
	}
}
