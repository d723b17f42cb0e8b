package mailbox_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/systemtest/forward/forwardtest"
	"relayguard/systemtest/relay"
)

// world is a mail server of the domains corp.test (accounts of this machine) and
// vbox.test (mailboxes), with a guard. All else is outside.
type world struct {
	*relay.Relay
	hook *forwardtest.Webhook
	dir  string
}

const inbound = "inbound"

// directory makes one that every account can reach, by a short path.
func directory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mailbox-")
	must(t, err)
	t.Cleanup(func() {
		if os.Getenv("RELAYGUARD_KEEP") == "" {
			os.RemoveAll(dir)
		}
	})
	must(t, os.Chmod(dir, 0o755))
	return dir
}

// options are what a world has beside what all have.
type options struct {
	main    map[string]string
	forward string // further lines of [forward]
	config  string // further sections
}

// start starts Postfix and the guard, and waits until it knows what there is.
func start(t *testing.T, dir string, o options) *world {
	t.Helper()
	w := &world{dir: dir, hook: forwardtest.NewWebhook(t)}
	parameters := map[string]string{
		"myorigin": "corp.test", "mydestination": "corp.test", "local_recipient_maps": "", "virtual_mailbox_maps": "static:x",
		"forward_path": "", "mail_spool_directory": dir + "/spool/", "recipient_delimiter": "+",
	}
	maps.Copy(parameters, o.main)
	w.Relay = relay.StartTest(t, relay.Options{
		Binary: guardBinary,
		Config: fmt.Sprintf(`[alert]
syslog = false
webhook = %q
per_hour = 1000

[inside]
domains = ["corp.test", "vbox.test"]

[forward]
directory = %q
sendmail = ""
rescan = "24h" # what is not seen at once is not seen here
poll = "5s"
tell_owner = false
%s

[forward.policy]
customer = "alert"

%s`, w.hook.URL, filepath.Join(dir, "state", "forwards"), o.forward, o.config),
		Postfix: postfixtest.Options{Dir: dir, Inside: []string{"vbox.test"}, Main: parameters, Services: []postfixtest.Service{{Name: inbound}}},
	})
	w.hook.WaitBaseline(t)
	return w
}

// mailRule is one way of mail to outside: what is planted, what is to be found, and
// what a mail by it leaves behind.
type mailRule struct {
	name    string
	plant   func(t *testing.T, w *world)
	want    string // "owner mechanism target verdict mode"
	source  string // part of what the alert names
	differs bool
	to      string // "": the owner
	text    string // of the mail that arrives, if it is not the one that was sent
	how     string // by what the evidence knows it
	also    string // another mechanism that states the same: one of the two is told and has the evidence
}

// prove plants the rule and shows that the alert names exactly that target, that a
// fresh scan says the same, that a mail really leaves by it, and that the evidence
// names the mail.
func (m mailRule) prove(t *testing.T, w *world) {
	t.Helper()
	var owner, mechanism, target, verdict, mode string
	if _, err := fmt.Sscan(m.want, &owner, &mechanism, &target, &verdict, &mode); err != nil {
		t.Fatal(err)
	}
	mark, began := w.hook.Mark(), time.Now()
	m.plant(t, w)
	told, came := w.hook.WaitRule(t, mark, "appeared", func(r *forwardtest.AlertRule) bool { return r.Target == target })
	same := strings.Replace(m.want, " "+mechanism+" ", " "+m.also+" ", 1)
	if told.String() != m.want && told.String() != same || !strings.Contains(told.Source, m.source) || m.differs != (told.Differs != "") {
		t.Errorf("the alert says %s in %s, differs %q; want %s in %s", told, told.Source, told.Differs, m.want, m.source)
	}
	t.Logf("told after %v: %s:%d, written by %s, %v", came.Sub(began), told.Source, told.Line, told.Writer, told.Classes)
	if i := slices.IndexFunc(forwardtest.Scan(t, w.Relay).Findings, func(r forwardtest.Rule) bool { return r.ID == told.ID }); i < 0 {
		t.Errorf("a fresh scan does not find %s", told.ID)
	}
	to := m.to
	if to == "" {
		to = owner
	}
	mail := forwardtest.Send(t, w.Postfix, inbound, to)
	forwardtest.WaitArrived(t, w.Postfix, mail, target, m.text)
	ids := []string{told.ID}
	if m.also != "" {
		ids = w.both(t, owner, m.want, same)
	}
	s := forwardtest.Proven(t, w.Relay, mail, ids...)
	if found := s.Mails[0]; len(s.Mails) != 1 || found.How != m.how || found.RootID == "" {
		t.Errorf("evidence: %+v, want one mail by %s", s.Mails, m.how)
	}
	t.Logf("evidence: %+v", s.Mails)
}

// both waits until both rules are known, and returns their ids.
func (w *world) both(t *testing.T, owner string, rules ...string) (ids []string) {
	t.Helper()
	forwardtest.Until(t, strings.Join(rules, " and "), func() bool {
		ids = nil
		for _, r := range forwardtest.Ask[forwardtest.Listed](t, w.Relay, "forwards", "list", "--owner", owner).Findings {
			if slices.Contains(rules, r.String()) {
				ids = append(ids, r.ID)
			}
		}
		return len(ids) == len(rules)
	})
	return ids
}

// proveAll runs all rules one after the other, and then shows that nothing else was
// told: a scan finds exactly these.
func proveAll(t *testing.T, w *world, rules []mailRule) {
	t.Helper()
	before, mark := forwardtest.Scan(t, w.Relay).In(w.dir), w.hook.Mark()
	var want []string
	for _, m := range rules {
		want = append(want, m.want)
		if !t.Run(m.name, func(t *testing.T) { m.prove(t, w) }) {
			return
		}
	}
	var scanned, told []string
	for _, r := range forwardtest.Scan(t, w.Relay).In(w.dir) {
		if !slices.ContainsFunc(before, func(b forwardtest.Rule) bool { return b.ID == r.ID && b.Verdict == r.Verdict }) {
			scanned = append(scanned, r.String())
		}
	}
	for _, r := range w.hook.Told(mark, "appeared") {
		if strings.Contains(r.Source, w.dir) || r.Mechanism == "traffic" {
			told = append(told, r.String())
		}
	}
	for what, got := range map[string][]string{"a scan finds": scanned, "alerts told": told} {
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write writes a file of root's.
func write(t testing.TB, path, text string, mode os.FileMode) string {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(text), mode))
	must(t, os.Chmod(path, mode))
	return path
}
