package forward_test

import (
	"slices"
	"testing"
)

// only is the one rule of a list with that target.
func only(t *testing.T, all []rule, target string) rule {
	t.Helper()
	all = slices.DeleteFunc(slices.Clone(all), func(r rule) bool { return r.Target != target })
	if len(all) != 1 {
		t.Fatalf("rules to %s: %v, want one", target, all)
	}
	return all[0]
}

// told are the alerts since a mark about rules with that target, by their kind.
func (w *world) told(mark int, target string) (kinds []string) {
	for _, a := range w.hook.since(mark) {
		for _, r := range a.Detail.Forwards {
			if r.Target == target {
				kinds = append(kinds, a.Detail.Kind)
			}
		}
	}
	return kinds
}

// settled plants one more rule and waits for its alert: whatever was planted before
// it has been looked at then.
func (w *world) settled(name string) {
	w.t.Helper()
	mark := w.hook.mark()
	w.plant("canonical", name+"@corp.test "+name+"@evil.test\n")
	w.hook.waitRule(w.t, mark, "appeared", name+"@evil.test")
}

func TestExistingRulesAlertNobody(t *testing.T) {
	t.Parallel()
	w := startWorld(t, worldOptions{files: map[string]string{"virtual": "was@vbox.test wasout@evil.test\n"}})
	if result, err := w.Relayguard(t.Context(), "forwards", "list"); err != nil || result.ExitCode != 0 {
		t.Errorf("list with existing rules only: status %d, %v, want 0", result.ExitCode, err)
	}
	for _, target := range []string{"old@evil.test", "wasout@evil.test"} {
		if r := only(t, w.known(), target); r.Status != "existing" || r.Approved {
			t.Errorf("%+v, want it existing", r)
		}
		if r := only(t, w.scanned(), target); r.Status != "existing" {
			t.Errorf("a scan says %+v, want it existing", r)
		}
	}
	w.settled("later")
	for _, target := range []string{"old@evil.test", "wasout@evil.test"} {
		if kinds := w.told(0, target); len(kinds) != 0 {
			t.Errorf("told of %s, which was there before: %v", target, kinds)
		}
	}
	mail := w.send("was@vbox.test", "", "x") // and what goes by it is proven all the same
	w.arrives(mail, "wasout@evil.test")
	w.proven(only(t, w.known(), "wasout@evil.test").ID, 1)
}

func TestApproval(t *testing.T) {
	t.Parallel()
	w := startWorld(t, worldOptions{})
	const target = "helper@evil.test"
	appear := func(kind string) alertRule {
		mark := w.hook.mark()
		w.plant("virtual", "v1@vbox.test "+target+"\n")
		return w.hook.waitRule(t, mark, kind, target)
	}
	vanish := func() {
		w.plant("virtual", "")
		until(t, "the rule is gone", func() bool {
			return !slices.ContainsFunc(w.known(), func(r rule) bool { return r.Target == target })
		})
	}
	id := appear("appeared").ID
	mark := w.hook.mark()
	w.order("forwards", "approve", id, "--reason", "payroll, contract 12")
	if a := w.hook.waitRule(t, mark, "approved", target); a.Reason != "payroll, contract 12" || a.By == "" {
		t.Errorf("announced %+v", a)
	}
	if r := only(t, w.scanned(), target); !r.Approved || r.Status != "approved" {
		t.Errorf("a scan says %+v, want it approved", r)
	}
	mark = w.hook.mark()
	vanish()
	w.plant("virtual", "v1@vbox.test "+target+"\n") // it is what was approved
	w.settled("first")
	if kinds := w.told(mark, target); slices.Contains(kinds, "appeared") || slices.Contains(kinds, "returned") {
		t.Errorf("told of what is approved: %v", kinds)
	}
	if r := only(t, w.known(), target); !r.Approved {
		t.Errorf("it came back as %+v, want it approved", r)
	}

	mark = w.hook.mark()
	w.plant("virtual", "v1@vbox.test v1@vbox.test, "+target+"\n") // a copy is another rule
	if a := w.hook.waitRule(t, mark, "appeared", target); a.Mode != "copy" || a.ID == id {
		t.Errorf("told of %+v, want a copy", a)
	}
	mark = w.hook.mark()
	w.plant("virtual", "v1@vbox.test "+target+"\n")
	w.settled("second")
	if kinds := w.told(mark, target); slices.Contains(kinds, "appeared") || slices.Contains(kinds, "returned") {
		t.Errorf("told of what is approved: %v", kinds)
	}

	mark = w.hook.mark()
	w.order("forwards", "revoke", id)
	w.hook.waitRule(t, mark, "revoked", target)
	if r := only(t, w.known(), target); r.Approved || r.Status != "new" {
		t.Errorf("revoked: %+v, want it new", r)
	}
	mark = w.hook.mark()
	vanish()
	if again := appear("returned"); again.ID != id {
		t.Errorf("it came back as %s, want %s", again.ID, id)
	}

	mark = w.hook.mark()
	w.order("forwards", "approve", id, "--reason", "for a moment", "--until", "2s")
	w.hook.waitRule(t, mark, "approved", target)
	if w.hook.waitRule(t, mark, "expired", target); only(t, w.known(), target).Approved {
		t.Error("it is still approved")
	}
}
