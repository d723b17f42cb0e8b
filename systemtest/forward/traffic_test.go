package forward_test

import "testing"

// What leaves with no rule behind it is a finding of its own.
func TestUnexplainedTraffic(t *testing.T) {
	t.Parallel()
	w := startWorld(t, worldOptions{})
	// A rule that no scan can see: a server's word on each mail.
	mark := w.hook.mark()
	policy := newPolicyServer(t, "REDIRECT policyout@evil.test")
	w.set("smtpd_end_of_data_restrictions", "check_policy_service inet:"+policy)
	until(t, "the policy server is known", func() bool {
		for _, a := range w.hook.since(mark) {
			if a.Detail.Kind == "appeared" && len(a.Detail.Forwards) == 1 && a.Detail.Forwards[0].Verdict == "opaque" {
				return true
			}
		}
		return false
	})
	mail := w.send("x@vbox.test", "", "x")
	w.arrives(mail, "policyout@evil.test")
	told := w.hook.waitRule(t, 0, "appeared", "policyout@evil.test")
	if told.Mechanism != "traffic" || told.Owner != "x@vbox.test" || told.Verdict != "outside" || told.Mode != "redirect" {
		t.Errorf("told of %+v, want traffic of x@vbox.test", told)
	}
	s := w.proven(told.ID, 1)
	if m := s.Mails[0]; !m.is(mail) || m.How != "action" && m.How != "orig_to" {
		t.Errorf("evidence: %+v", s.Mails)
	}
}
