package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/forwards"
	"relayguard/forward"
	"relayguard/forward/files"
	"relayguard/forward/ledger"
	"relayguard/forward/scan"
	"relayguard/policy"
)

// planted is a rule of a house corp.test.
func planted(owner string, m forward.Mechanism, target string) forward.Rule {
	return forward.Rule{Owner: owner, Mechanism: m, Target: target, Mode: forward.Copy, Source: "/etc/rules", UID: forward.NoUID}
}

// aWatch knows rules. Each reading of them waits for gate, unless that is nil. It is
// not begun: see begin.
func aWatch(t *testing.T, gate chan struct{}, rules ...forward.Rule) *forwarding {
	t.Helper()
	c := stateConfig(t)
	f := &forwarding{config: func() *config.Config { return c }, log: slog.New(slog.DiscardHandler), released: newReleasedMail(),
		mails: make(chan forwards.Mail, maxOwnerMails), watchers: map[chan forwardChange]bool{}, strangers: map[string]bool{}}
	var err error
	if f.ledger, err = ledger.Open(t.TempDir(), ledger.Rules{Policy: ledger.DefaultPolicy()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.ledger.Close() })
	f.scanner = scan.New(func(context.Context, func() []string) forward.Plan {
		ours := map[string]bool{"corp.test": true}
		return forward.Plan{World: forward.World{Inside: ours, Local: ours, Origin: "corp.test", Delimiters: "+", AppendAtOrigin: true},
			Units: []forward.Unit{{ID: "rules", Server: true, Writer: forward.NoUID, Read: func(context.Context) forward.Reading {
				if gate != nil {
					<-gate
				}
				return forward.Reading{Rules: rules}
			}}}}
	}, scan.Options{Workers: 1})
	f.guard = forwards.New(forwards.Options{Scanner: f.scanner, Ledger: f.ledger, Rescan: time.Hour, Poll: time.Hour, Tell: func(time.Time, []ledger.Event) {}})
	return f
}

// begin runs the watch until the test ends.
func (f *forwarding) begin(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); f.guard.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

// approve approves an owner's rules by one mechanism.
func (f *forwarding) approve(t *testing.T, owner string, m forward.Mechanism) {
	t.Helper()
	n := 0
	for _, e := range f.ledger.Entries(false) {
		if e.Owner == owner && e.Mechanism == m {
			if _, err := f.ledger.Approve(noon, e.ID, ledger.Approval{By: "root", Reason: "r"}); err != nil {
				t.Fatal(err)
			}
			n++
		}
	}
	if n == 0 {
		t.Fatalf("no rule of %s by %s among %+v", owner, m, f.ledger.Entries(false))
	}
}

// shows is what rules gives, as text.
func shows(all []policy.ForwardRule) string {
	var parts []string
	for _, r := range all {
		s := r.Owner
		if r.Approved {
			s += " approved"
		}
		if r.Blind {
			s += " blind"
		}
		parts = append(parts, s)
	}
	slices.Sort(parts)
	return strings.Join(slices.Compact(parts), ", ")
}

func TestAllRulesThatFitCount(t *testing.T) {
	f := aWatch(t, nil,
		planted("taro", forward.DotForward, "x@evil.test"), planted("taro", forward.Sieve, "x@evil.test"),
		planted("jiro@corp.test", forward.Virtual, "x@evil.test"), planted("hanako", forward.DotForward, "h@home.test"),
		planted("*", forward.AlwaysBCC, "all@evil.test"), planted("hanako@corp.test", forward.BCC, "all@evil.test"))
	f.begin(t)
	<-f.guard.Ready()
	cases := func(when string, want map[[2]string]string) {
		t.Helper()
		for c, says := range want {
			if got := shows(f.rules(c[0], c[1], "+")); got != says {
				t.Errorf("%s: mail of %q to %s: %q, want %q", when, c[0], c[1], got, says)
			}
		}
	}
	cases("nothing approved", map[[2]string]string{
		{"taro@corp.test", "x@evil.test"}:          "taro",
		{"Taro+tag@corp.test", "X@evil.test"}:      "taro",
		{"jiro@corp.test", "x@evil.test"}:          "jiro@corp.test",
		{"saburo@corp.test", "x@evil.test"}:        "",
		{"taro@corp.test", "h@home.test"}:          "",
		{"saburo@corp.test", "all@evil.test"}:      "* blind",
		{"", "all@evil.test"}:                      "* blind, hanako@corp.test blind",
		{"", "x@evil.test"}:                        "jiro@corp.test, taro",
		{"", "nobody@evil.test"}:                   "",
		{"taro@corp.test", "\"quoted\"@evil.test"}: "",
	})
	f.approve(t, "taro", forward.Sieve) // one of two mechanisms
	f.approve(t, "hanako@corp.test", forward.BCC)
	cases("approved", map[[2]string]string{
		{"taro@corp.test", "x@evil.test"}:   "taro approved",
		{"jiro@corp.test", "x@evil.test"}:   "jiro@corp.test",
		{"hanako@corp.test", "h@home.test"}: "hanako",
	})
	if got := shows(f.rules("", "all@evil.test", "+")); !strings.Contains(got, "hanako@corp.test approved") {
		t.Errorf("a copy that an approved rule may have made: %q", got)
	}
}

// TestMailDoesNotWaitForAScan: while a scan reads, the mail path is answered.
func TestMailDoesNotWaitForAScan(t *testing.T) {
	gate := make(chan struct{})
	f := aWatch(t, gate, planted("taro", forward.DotForward, "x@evil.test"))
	f.begin(t)
	gate <- struct{}{}
	<-f.guard.Ready()
	f.guard.Rescan()
	defer close(gate) // the second scan waits for it
	if got := shows(f.rules("taro@corp.test", "x@evil.test", "+")); got != "taro" {
		t.Errorf("%q", got)
	}
}

// TestBeforeTheFirstScanTheLedgerIsAsked: what an earlier daemon knew is known.
func TestBeforeTheFirstScanTheLedgerIsAsked(t *testing.T) {
	f := aWatch(t, nil)
	old := []forward.Finding{someForward("taro", "x@evil.test", "", 0).Finding, someForward("hanako", "h@home.test", "", 0).Finding, someForward("*", "all@evil.test", "", 0).Finding}
	old[2].Mechanism = forward.AlwaysBCC
	if _, err := f.ledger.All(noon, old, nil, nil); err != nil {
		t.Fatal(err)
	}
	f.approve(t, "hanako", forward.Aliases)
	f.before = byTarget(f.ledger.Entries(false))
	c := f.config()
	c.Forward.Stop = config.StopHold
	f.began = time.Now()
	if f.rule(c).Ready() {
		t.Error("it is ready before a scan")
	}
	f.began = time.Now().Add(-2 * scanWait) // nobody's mail is to go back
	if !f.rule(c).Ready() {
		t.Error("mail is kept waiting for ever")
	}
	for c, says := range map[[2]string]string{
		{"taro@corp.test", "x@evil.test"}:   "taro",
		{"hanako@corp.test", "h@home.test"}: "hanako@corp.test approved",
		{"jiro@corp.test", "x@evil.test"}:   "",
		{"", "all@evil.test"}:               "* blind",
	} {
		got := shows(f.rules(c[0], c[1], "+"))
		if got = strings.Replace(got, "hanako approved", "hanako@corp.test approved", 1); got != says {
			t.Errorf("mail of %q to %s: %q, want %q", c[0], c[1], got, says)
		}
	}
}

func TestOwnersThatAreExcepted(t *testing.T) {
	except := exceptOf([]string{"boss@corp.test", "clerk", "@board.test"})
	for owner, want := range map[string]bool{
		"boss@corp.test": true, "boss": true, "boss@other.test": false, "clerk": true, "clerk@corp.test": true, "any@board.test": true,
		"@board.test": true, "taro@corp.test": false, "taro": false, "*": false, "": false, "@corp.test": false,
	} {
		if except(owner) != want {
			t.Errorf("%q: %v", owner, !want)
		}
	}
}

// TestAccountsAreLearntAnew: an account that comes later is found, one that nobody
// has is warned of once.
func TestAccountsAreLearntAnew(t *testing.T) {
	root := t.TempDir()
	write := func(text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Join(root, "etc"), 0o755), os.WriteFile(filepath.Join(root, "etc", "passwd"), []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	const first = "root:x:0:0::/root:/bin/sh\n"
	write(first)
	reader, err := files.Rooted(root)
	if err != nil {
		t.Fatal(err)
	}
	f := aWatch(t, nil)
	f.config().Forward.Writers = []string{"panel", "ghost"}
	var said bytes.Buffer
	f.reader, f.log = reader, slog.New(slog.NewTextHandler(&said, nil))
	f.host.Store(&forward.Host{})
	for range 2 {
		f.refresh(t.Context())
	}
	if len(f.rulesInUse.Writers) != 0 || strings.Count(said.String(), "account=ghost") != 1 || strings.Count(said.String(), "account=panel") != 1 {
		t.Errorf("%+v, %s", f.rulesInUse, said.String())
	}
	write(first + "panel:x:555:555::/var/lib/panel:/bin/false\n")
	f.refresh(t.Context())
	if !slices.Equal(f.rulesInUse.Writers, []int{555}) {
		t.Errorf("%+v", f.rulesInUse)
	}
	write("") // while it is being written
	f.refresh(t.Context())
	if !slices.Equal(f.rulesInUse.Writers, []int{555}) {
		t.Errorf("%+v", f.rulesInUse)
	}
}

// TestAnApprovalIsForWhatWasSeen: what has changed since somebody looked is refused,
// and what another mechanism states alike is approved with it.
func TestAnApprovalIsForWhatWasSeen(t *testing.T) {
	s := aState(t, stateConfig(t))
	defer s.close(nil)
	real := s.forwarding
	defer func() { s.forwarding = real }()
	f := aWatch(t, nil, planted("taro@corp.test", forward.SQL, "x@evil.test"), planted("taro@corp.test", forward.Virtual, "x@evil.test"), planted("jiro@corp.test", forward.Virtual, "x@evil.test"))
	f.channels = s.channels
	f.host.Store(&forward.Host{})
	s.forwarding = f
	f.begin(t)
	<-f.guard.Ready()
	id := ""
	for _, e := range f.ledger.Entries(false) {
		if e.Mechanism == forward.SQL {
			id = e.ID
		}
	}
	o := forwardOrder{IDs: []string{id}, Reason: "contract 12", Seen: []forwardSeen{{ID: id, Verdict: forward.Dynamic}}}
	var refused *control.Error
	if _, err := s.approveForwards(noon, control.Peer{}, o); !errors.As(err, &refused) || refused.Status != http.StatusConflict || !strings.Contains(refused.Text, "its verdict was dynamic and is outside; nothing was done") {
		t.Errorf("%v", err)
	}
	o.Seen[0] = forwardSeen{ID: id, Verdict: forward.Outside, Digest: "older"}
	if _, err := s.approveForwards(noon, control.Peer{}, o); !errors.As(err, &refused) || !strings.Contains(refused.Text, "the program or script behind it is another") {
		t.Errorf("%v", err)
	}
	if f.ledger.Approved(id, "", "") {
		t.Fatal("it was approved all the same")
	}
	o.Seen[0].Digest = ""
	if done, err := s.approveForwards(noon, control.Peer{}, o); err != nil || len(done) != 2 || done[0].ID != id || done[1].Mechanism != forward.Virtual || done[1].Owner != "taro@corp.test" {
		t.Errorf("%+v, %v", done, err)
	}
	if done, err := s.revokeForwards(noon, control.Peer{}, forwardOrder{IDs: []string{id}}); err != nil || len(done) != 2 {
		t.Errorf("%+v, %v", done, err)
	}
	if got := shows(f.rules("taro@corp.test", "x@evil.test", "+")); got != "taro@corp.test" {
		t.Errorf("after the approval was taken back: %q", got)
	}
}

// TestApproveTellsTheDaemonWhatItListed, and names what was approved with it.
func TestApproveTellsTheDaemonWhatItListed(t *testing.T) {
	e, twin := someForward("alice", "a@out.example", ledger.New, ledger.Alert), someForward("bob", "b@out.example", ledger.New, ledger.Alert)
	e.Digest = "abc"
	d := forwardDaemon(t, e, twin)
	code, _, stderr := d.run("forwards", "approve", forward.ShortID(e.ID), "--reason", "contract 12")
	if code != exitFine || !strings.Contains(stderr, forward.ShortID(twin.ID)+" (aliases) states the same by another mechanism") || strings.Contains(stderr, forward.ShortID(e.ID)) {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}
	if asked := d.lastAsked("POST /v1/forwards/approve"); !strings.Contains(asked, `"seen":[{"id":"`+e.ID+`","verdict":"outside","digest":"abc"}]`) {
		t.Errorf("%s", asked)
	}
}

// TestALedgerWithoutAFirstScanIsNone: else everything would count as existing, and
// nothing would alert.
func TestALedgerWithoutAFirstScanIsNone(t *testing.T) {
	c, host := stateConfig(t), &forward.Host{}
	l, err := ledger.Open(c.ForwardDirectory(), ledger.Rules{})
	if err == nil {
		err = l.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd := &cobra.Command{}
	cmd.SetErr(&said)
	found := []forward.Finding{someForward("*", "x@evil.test", "", 0).Finding}
	found[0].Server = true
	book, broken := peekForwards(cmd, c, host)
	if _, err := book.All(noon, found, nil, nil); err != nil || broken != "" {
		t.Fatal(err, broken)
	}
	if all := book.Entries(false); len(all) != 1 || !all[0].Due() || !strings.Contains(said.String(), "has no first scan yet") {
		t.Errorf("%+v, said %q", all, said.String())
	}
}

// TestNobodyIsToldThatAllIsWell: what is to be held and is not is said.
func TestNobodyIsToldThatAllIsWell(t *testing.T) {
	c := config.Default()
	s := &state{forwardsOff: "open the ledger: no"}
	if got := s.stopOff(c); got != "not watched: open the ledger: no" {
		t.Errorf("%q", got)
	}
	c.Forward.Stop = config.StopHold
	if got := s.stopOff(c); !strings.Contains(got, `forward.stop = "hold" is not in force`) {
		t.Errorf("%q", got)
	}
	c.Forward.Watch, s.forwardsOff = false, "forward.watch is false"
	if got := s.stopOff(c); !strings.Contains(got, "forward.watch is false") || !strings.Contains(got, "not in force") {
		t.Errorf("%q", got)
	}
	c.Forward.Stop = config.StopOff
	if got := s.stopOff(c); got != "" {
		t.Errorf("%q", got)
	}
	s.forwarding, c.Forward.Watch, c.Forward.Stop = &forwarding{}, true, config.StopHold
	if got := s.stopOff(c); got != "" {
		t.Errorf("%q", got)
	}
}
