package evidence_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/forward"
	"relayguard/forward/evidence"
	"relayguard/mta/maillog"
)

// rule is one forwarding rule as a test knows it: its id is owner>target.
type rule struct {
	owner, target string
	mechanism     forward.Mechanism
	sender        bool
}

// rules is a stand-in for those who know the rules: every domain but evil.test and
// partner.test is inside.
type rules []rule

func (r rules) id(i int) string { return r[i].owner + ">" + r[i].target }

func (r rules) Match(orig, rcpt string) (string, bool) {
	for i := range r {
		if (r[i].owner == "*" || strings.EqualFold(r[i].owner, orig)) && strings.EqualFold(r[i].target, rcpt) {
			return r.id(i), true
		}
	}
	return "", false
}

func (r rules) Inside(addr string) bool {
	addr = strings.ToLower(addr)
	return !strings.HasSuffix(addr, "@evil.test") && !strings.HasSuffix(addr, "@partner.test") && !strings.HasPrefix(addr, "|")
}

func (r rules) ByTarget(rcpt string) (ids []string) {
	for i := range r {
		if strings.EqualFold(r[i].target, rcpt) {
			ids = append(ids, r.id(i))
		}
	}
	return ids
}

func (r rules) Find(id string) (forward.Finding, bool) {
	for i := range r {
		if r.id(i) == id {
			return forward.Finding{ID: id, Owner: r[i].owner, Target: r[i].target, Mechanism: r[i].mechanism, Sender: r[i].sender}, true
		}
	}
	return forward.Finding{}, false
}

// now is when the logs of these tests are read.
var now = time.Date(2026, 11, 22, 23, 0, 0, 0, time.UTC)

// trace is a tracker over lines that a test writes.
type trace struct {
	*evidence.Tracker
	store *evidence.Store
	t     *testing.T
	n     int
}

func newTrace(t *testing.T, r rules, o evidence.TrackerOptions) *trace {
	t.Helper()
	return traceIn(t, filepath.Join(t.TempDir(), "evidence.db"), r, o)
}

func traceIn(t *testing.T, path string, r rules, o evidence.TrackerOptions) *trace {
	t.Helper()
	store, err := evidence.Open(t.Context(), path, evidence.Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	tracker, err := evidence.NewTracker(store, func() evidence.Rules { return r }, o)
	if err != nil {
		t.Fatal(err)
	}
	return &trace{Tracker: tracker, store: store, t: t}
}

// position is one that names line n.
func position(t *testing.T, n int) maillog.Position {
	t.Helper()
	p, err := maillog.ParsePosition(fmt.Sprintf("file 1 1 1 test %d", n))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// say gives it lines "program: text", a second apart, or whole ones.
func (x *trace) say(lines ...string) {
	x.t.Helper()
	for _, line := range lines {
		x.n++
		if !strings.HasPrefix(line, "Nov ") {
			program, text, _ := strings.Cut(line, ": ")
			at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC).Add(time.Duration(x.n) * time.Second)
			tag := "postfix/" + program
			if program == "dovecot" {
				tag = program
			}
			line = at.Format("Jan _2 15:04:05") + " mx " + tag + "[100]: " + text
		}
		l, ok := maillog.ParseLine(line, now, time.UTC)
		if !ok {
			x.t.Fatalf("no line: %s", line)
		}
		e := maillog.Read(l)
		if e.Kind == maillog.None {
			continue
		}
		if err := x.Event(e, position(x.t, x.n)); err != nil {
			x.t.Fatal(err)
		}
	}
}

// done writes all, as after a quiet time.
func (x *trace) done() {
	x.t.Helper()
	if err := x.Finish(x.t.Context()); err != nil {
		x.t.Fatal(err)
	}
}

// mails are those of a rule, as "queue id root orig rcpt status how sure".
func (x *trace) mails(id string) (all []string) {
	x.t.Helper()
	mails, err := x.store.Mails(x.t.Context(), id, time.Time{}, time.Time{}, 0)
	if err != nil {
		x.t.Fatal(err)
	}
	for _, m := range mails {
		all = append(all, fmt.Sprintf("%s %s %s %s %s %s %s", m.QueueID, m.RootID, m.OrigTo, m.RcptTo, m.Status, m.How, m.Sure))
	}
	return all
}

func (x *trace) want(id string, want ...string) {
	x.t.Helper()
	if got := x.mails(id); !slices.Equal(got, want) {
		x.t.Errorf("mails of %s:\n got %q\nwant %q", id, got, want)
	}
}

// unexplained are the flows, as "orig rcpt mails outside how sure".
func (x *trace) unexplained(want ...string) {
	x.t.Helper()
	flows, err := x.store.Unexplained(x.t.Context(), time.Time{})
	if err != nil {
		x.t.Fatal(err)
	}
	var got []string
	for _, f := range flows {
		got = append(got, fmt.Sprintf("%s>%s %d %d %s %s", f.OrigTo, f.RcptTo, f.Mails, f.Outside, f.How, f.Sure))
	}
	if !slices.Equal(got, want) {
		x.t.Errorf("unexplained:\n got %q\nwant %q", got, want)
	}
}
