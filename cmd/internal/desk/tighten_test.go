package desk_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/desk"
	"relayguard/policy"
)

// switched are the switches of a kind: on whom, by whom, how long from now.
func (s *site) switched(kind policy.SwitchKind) (all []string) {
	for _, sw := range s.d.Switches.All(s.now) {
		if sw.Kind == kind {
			all = append(all, sw.About()+" by "+sw.By+" for "+sw.Until.Sub(s.now).String())
		}
	}
	return all
}

// tightenings are what the journal has of them: on whom, and the outcome.
func (s *site) tightenings() (all []string) {
	s.t.Helper()
	if err := s.journal.Sync(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	found, err := s.journal.AdminActions(s.t.Context(), 100)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, a := range slices.Backward(found) {
		if a.Verb == "tighten" {
			all = append(all, a.Target+" by "+a.By+": "+a.Reason)
		}
	}
	return all
}

func TestTightenHalvesTheLimitsOfOneForAWeek(t *testing.T) {
	for account, want := range map[string]struct{ on, journal string }{
		taro:                                   {taro, taro},
		"taro@example.jp":                      {taro, taro},
		"local_user:deploy":                    {"local_user:1001", "local_user:deploy"},
		"site:shop.example.jp":                 {"site:shop.example.jp", "site:shop.example.jp"},
		"plugin:share-by-mail@shop.example.jp": {"site:shop.example.jp", "site:shop.example.jp"},
	} {
		s := open(t)
		if whose, why, err := s.d.WouldTighten(s.now, account); whose != want.journal || why != "" || err != nil {
			t.Errorf("%s: would halve those of %q, why not %q, %v", account, whose, why, err)
		}
		if got := s.switched(policy.Probation); len(got) > 0 || len(s.tightenings()) > 0 {
			t.Errorf("%s: asking changed something: %q", account, got)
		}
		done, err := s.d.Tighten(t.Context(), s.now, admin, account, "listed")
		if err != nil || !strings.HasPrefix(done, "half of each limit until ") {
			t.Errorf("%s: %q, %v", account, done, err)
		}
		if got := s.switched(policy.Probation); !slices.Equal(got, []string{want.on + " by root for 168h0m0s"}) {
			t.Errorf("%s: %q", account, got)
		}
		if got := s.tightenings(); !slices.Equal(got, []string{want.journal + " by root: listed"}) {
			t.Errorf("%s: the journal has %q", account, got)
		}
		if want := want.journal + ": the limits of " + want.journal + " halved by root"; !slices.Contains(s.told, want) {
			t.Errorf("%s: told %q, want %q", account, s.told, want)
		}
		// Once more halves nothing more, and moves no end.
		done, err = s.d.Tighten(t.Context(), s.now.Add(time.Hour), admin, account, "listed again")
		if err != nil || !strings.HasPrefix(done, "its limits are halved already, ") || len(s.tightenings()) != 1 {
			t.Errorf("%s again: %q, %v, %q", account, done, err, s.tightenings())
		}
		if _, why, err := s.d.WouldTighten(s.now, account); !strings.HasPrefix(why, "its limits are halved already, ") || err != nil {
			t.Errorf("%s again: %q, %v", account, why, err)
		}
	}
}

func TestTightenLeavesAloneWhoIsSharedOrSuspended(t *testing.T) {
	for _, account := range []string{wwwData, "local_user:33"} {
		s := open(t)
		if done, err := s.d.Tighten(t.Context(), s.now, admin, account, "listed"); done != "" || !errors.Is(err, desk.ErrShared) {
			t.Errorf("%s: %q, %v", account, done, err)
		}
		if whose, _, err := s.d.WouldTighten(s.now, account); whose != "" || !errors.Is(err, desk.ErrShared) {
			t.Errorf("%s: %q, %v", account, whose, err)
		}
		if len(s.switched(policy.Probation)) > 0 || len(s.tightenings()) > 0 || len(s.told) > 0 {
			t.Errorf("%s: %q %q %q", account, s.switched(policy.Probation), s.tightenings(), s.told)
		}
	}
	// Review of part L: the whole shop was tightened though the plugin sends nothing more.
	for suspended, account := range map[string]string{taro: taro, "site:shop.example.jp": "plugin:share@shop.example.jp", "plugin:share@shop.example.jp": "plugin:share@shop.example.jp"} {
		s := open(t)
		s.suspend(suspended)
		if done, err := s.d.Tighten(t.Context(), s.now, admin, account, "listed"); done != "it is suspended" || err != nil || len(s.switched(policy.Probation)) > 0 {
			t.Errorf("%s while %s is suspended: %q, %v, %q", account, suspended, done, err, s.switched(policy.Probation))
		}
	}
}

func TestTightenRefusesWhatIsNoAccount(t *testing.T) {
	s := open(t)
	for _, account := range []string{"", "login:", "template:ab12", "local_user:nobody-here"} {
		if done, err := s.d.Tighten(t.Context(), s.now, admin, account, "listed"); done != "" || !errors.Is(err, desk.ErrUsage) {
			t.Errorf("%q: %q, %v", account, done, err)
		}
	}
	if got := s.tightenings(); len(got) > 0 {
		t.Errorf("%q", got)
	}
}
