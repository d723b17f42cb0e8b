package desk_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/desk"
	"relayguard/policy"
	"relayguard/policy/limit"
)

const sharing = "plugin:share@shop.example.jp"

// nodes knows one account.
type nodes struct{}

func (nodes) ID(name string) (string, bool) { return "1001@web3", name == "site12@web3" }

func (nodes) Name(id string) string {
	if id == "1001@web3" {
		return "site12@web3"
	}
	return ""
}

// latches is what a relay with web nodes has shut.
type latches struct {
	shut  map[limit.Key]bool
	err   error
	asked int
}

func (s *site) withNodes(shut ...string) *latches {
	l := &latches{shut: map[limit.Key]bool{}}
	for _, value := range shut {
		l.shut[limit.Key{Limit: "abuse", Value: value}] = true
	}
	s.d.Nodes = nodes{}
	s.d.ForNodes = func(key limit.Key) bool { return key.Limit == "abuse" && strings.HasPrefix(key.Value, "plugin:") }
	s.d.Latched = func(_ context.Context, _ time.Time, key limit.Key) (bool, error) {
		l.asked++
		return l.shut[key], l.err
	}
	return l
}

// forbidden are those whom sendmail(1) refuses.
func (s *site) forbidden() []string {
	status, err := s.mta.Status(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return status.Forbidden
}

// stopped is a decision that limits made.
func stopped(rule string, values ...string) *policy.Decision {
	d := &policy.Decision{Verdict: policy.Hold, Rule: rule, Reason: "too many", Findings: []policy.Finding{{Rule: rule, Verdict: policy.Hold, Reason: "26 of 25"}}}
	for _, v := range values {
		d.Counters = append(d.Counters, policy.Counter{Limit: rule, Key: v, Kind: "abuse", Over: true, Latched: true}, policy.Counter{Limit: rule, Key: v, Kind: "abuse", Window: time.Hour, Latched: true})
	}
	return d
}

// shutOrders lists the orders to web nodes.
func (s *site) shutOrders() (all []string) {
	for _, sw := range s.board.Load().All() {
		if sw.Kind == policy.Shut {
			all = append(all, sw.Rule+" "+sw.About()+": "+sw.Reason)
		}
	}
	return all
}

func TestWhatIsShutIsOrderedOnce(t *testing.T) {
	s := open(t)
	l := s.withNodes(sharing, "template:1")
	for range 100 {
		s.d.NoteShut(s.now, stopped("abuse", sharing))
	}
	s.d.ShutForNodes(t.Context())
	written, err := s.journal.AdminActions(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		s.d.NoteShut(s.now, stopped("abuse", sharing))
		s.d.ShutForNodes(t.Context())
	}
	if got := s.shutOrders(); !slices.Equal(got, []string{"abuse key:" + sharing + ": 26 of 25"}) {
		t.Errorf("ordered %q", got)
	}
	after, err := s.journal.AdminActions(t.Context(), 0)
	if err != nil || len(written) != len(after) || l.asked != 1 {
		t.Errorf("journaled %d and then %d, asked %d times; %v", len(written), len(after), l.asked, err)
	}

	s.d.NoteShut(s.now, stopped("abuse", "template:1")) // of which no node knows
	s.d.NoteShut(s.now, stopped("volume", sharing))
	s.d.NoteShut(s.now, stopped("abuse", "plugin:open@shop.example.jp")) // opened meanwhile
	open := stopped("abuse", sharing)
	open.Counters[0].Key, open.Counters[0].Latched = "plugin:never@shop.example.jp", false
	s.d.NoteShut(s.now, open)
	s.d.ShutForNodes(t.Context())
	if got := s.shutOrders(); len(got) != 1 {
		t.Errorf("ordered %q", got)
	}
}

// An attack that shuts bucket after bucket does not fill disk and memory.
func TestOrdersToNodesAreBounded(t *testing.T) {
	s := open(t)
	l := s.withNodes()
	for i := range 3000 {
		value := fmt.Sprintf("plugin:p%d@shop.example.jp", i)
		l.shut[limit.Key{Limit: "abuse", Value: value}] = true
		s.d.NoteShut(s.now, stopped("abuse", value))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond) // it rests between orders
	defer cancel()
	s.d.ShutForNodes(ctx)
	if n := len(s.shutOrders()); n == 0 || n > 50 {
		t.Errorf("%d orders in 200 ms", n)
	}
}

func TestWhatIsOpenIsTakenBack(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(s *site, l *latches) error
		left int
	}{
		{"resumed by its bucket", func(s *site, _ *latches) error {
			_, err := s.d.Resume(t.Context(), s.now, admin, desk.Resumption{Account: "key:" + sharing, Cause: "x"})
			return err
		}, 1},
		{"resumed by its plugin", func(s *site, _ *latches) error {
			out, err := s.d.Resume(t.Context(), s.now, admin, desk.Resumption{Account: sharing, Cause: "x"})
			if !slices.Equal(out.Opened, []string{"abuse"}) {
				t.Errorf("opened %q", out.Opened)
			}
			return err
		}, 1},
		{"resumed by its site", func(s *site, _ *latches) error {
			_, err := s.d.Resume(t.Context(), s.now, admin, desk.Resumption{Account: "site:shop.example.jp", Cause: "x"})
			return err
		}, 1},
		{"resumed by an account whose incident names it", func(s *site, _ *latches) error {
			s.d.Shut = func(string) []string { return []string{sharing} }
			_, err := s.d.Resume(t.Context(), s.now, admin, desk.Resumption{Account: "local_user:deploy", Cause: "x"})
			return err
		}, 1},
		{"of somebody else", func(s *site, _ *latches) error {
			_, err := s.d.Resume(t.Context(), s.now, admin, desk.Resumption{Account: "site:other.example.jp", Cause: "x"})
			return err
		}, 2},
		{"reset", func(s *site, _ *latches) error {
			return s.d.OpenForNodes([]limit.Key{{Limit: "abuse", Value: sharing}})
		}, 1},
		{"open by itself", func(s *site, l *latches) error {
			delete(l.shut, limit.Key{Limit: "abuse", Value: sharing})
			s.d.OpenAgain(t.Context(), s.now)
			return nil
		}, 1},
		{"not known", func(s *site, l *latches) error {
			clear(l.shut)
			l.err = errors.New("Redis is away")
			s.d.OpenAgain(t.Context(), s.now)
			return nil
		}, 2},
		{"on a node, which knows no bucket", func(s *site, l *latches) error {
			clear(l.shut)
			s.d.ForNodes = func(limit.Key) bool { return false }
			s.d.OpenAgain(t.Context(), s.now)
			return nil
		}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			const other = "plugin:share@neighbour.example.jp"
			l := s.withNodes(sharing, other)
			s.d.NoteShut(s.now, stopped("abuse", sharing, other))
			s.d.ShutForNodes(t.Context())
			if len(s.shutOrders()) != 2 {
				t.Fatalf("ordered %q", s.shutOrders())
			}
			if err := c.do(s, l); err != nil {
				t.Fatal(err)
			}
			if got := s.shutOrders(); len(got) != c.left || !strings.Contains(strings.Join(got, " "), other) {
				t.Errorf("left %q", got)
			}
		})
	}
}

// An account of a web node is no account of the relay, whatever its uid.
func TestSuspendAnAccountOfANode(t *testing.T) {
	const account = "local_user:site12@web3"
	s := open(t)
	s.withNodes()
	s.pass(account, "active", "A1A1A1")
	s.pass("local_user:deploy", "active", "B1B1B1")
	out := s.suspend(account)
	if out.Account != account || out.Switch.Value != "1001@web3" || out.Held != 1 || len(out.Remarks) > 0 || !strings.Contains(out.Local, "web3") {
		t.Errorf("%+v", out)
	}
	s.wantIn("hold", "A1A1A1")
	s.wantIn("active", "B1B1B1")
	if len(s.forbidden()) > 0 {
		t.Errorf("sendmail(1) of the relay refuses %q", s.forbidden())
	}
	for _, name := range []string{"local_user:uid:1001@web3", "local_user:1001@web3", account} {
		if got, err := s.d.Bucket(name); err != nil || got != "local_user:1001@web3" {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"local_user:stranger@web3", "local_user:@web3", "local_user:site12@", "local_user:-1@web3"} {
		if got, err := s.d.Bucket(name); !errors.Is(err, desk.ErrUsage) {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
	if r, err := s.d.Resume(t.Context(), s.now, admin, desk.Resumption{Account: account, Cause: "x"}); err != nil || !r.Was || r.Account != account || r.Held != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

// The relay's order about an account of this very node is carried out here.
func TestAnOrderReachesItsNode(t *testing.T) {
	for node, here := range map[string]bool{"web3": true, "web1": false, "": false} {
		s := open(t)
		s.d.Node = func() string { return node }
		s.pass("local_user:deploy", "deferred", "A1A1A1")
		order, err := s.d.Switches.Set(policy.Switch{Kind: policy.Suspend, Subject: policy.SubjectLocalUser, Value: "1001@web3", Reason: "x", By: "ann", Since: s.now})
		if err != nil {
			t.Fatal(err)
		}
		s.d.Arrived(t.Context(), order)
		want, queue := []string(nil), "deferred"
		if here {
			want, queue = []string{"deploy"}, "hold"
		}
		if !slices.Equal(s.forbidden(), want) {
			t.Errorf("on %q sendmail(1) refuses %q, want %q", node, s.forbidden(), want)
		}
		s.wantIn(queue, "A1A1A1")
		if _, err := s.d.Switches.Remove(func(policy.Switch) bool { return true }); err != nil {
			t.Fatal(err)
		}
		s.d.Departed(t.Context(), order)
		if len(s.forbidden()) > 0 {
			t.Errorf("on %q sendmail(1) refuses %q when all is over", node, s.forbidden())
		}
	}
}
