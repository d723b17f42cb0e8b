package sendmail

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"relayguard/mta"
)

// Inspection says what to inspect.
type Inspection struct {
	Instance  *Instance
	Listeners []mta.Listener
	Deadline  time.Duration // the guard's own for a decision; zero: 5 s
	GuardUser string        // who owns the sockets; empty: any
	WebNode   bool          // a relay is to judge this machine's mail

	// Probe asks Sendmail whether it relays for strangers; nil: that is not tried.
	Probe RelayProbe

	// Inside is what the guard counts as inside; nil: it does not ask Sendmail for that.
	Inside *InsideView

	// Built makes sendmail.cf and submit.cf of their .mc files again, to see
	// whether they are what is in force. It runs m4 and needs no right but to read.
	Built bool
}

// Inspect names the ways round the guard and what else is wrong with how
// Sendmail uses it. The order is: worst first, then by place and id.
func Inspect(ctx context.Context, in Inspection) []mta.Finding {
	in.Deadline = cmp.Or(in.Deadline, defaultDeadline)
	r := &report{Inspection: in, s: in.Instance.Settings(), submit: in.Instance.Submission()}
	r.local()
	for _, d := range r.s.Daemons() {
		r.daemon(d)
	}
	r.auth()
	r.relaying()
	r.wide()
	r.sockets()
	r.queues()
	r.options()
	r.webNode()
	r.sources(ctx)
	r.relays(ctx)
	r.inside(ctx)
	r.routes()
	slices.SortStableFunc(r.findings, func(a, b mta.Finding) int {
		return cmp.Or(cmp.Compare(b.Severity, a.Severity), strings.Compare(a.Where, b.Where), strings.Compare(a.ID, b.ID))
	})
	return r.findings
}

type report struct {
	Inspection
	s, submit *Settings
	findings  []mta.Finding
}

// add keeps one of equal findings: listeners share a directory, for one.
func (r *report) add(f mta.Finding) {
	if !slices.Contains(r.findings, f) {
		r.findings = append(r.findings, f)
	}
}

const applySetup = "relayguard setup sendmail --apply"

func isTrue(value string) bool { // readcf.c, atobool
	return value == "" || strings.ContainsRune("tTyY1", rune(value[0]))
}

// webNode wants one way for all mail: to the relay.
func (r *report) webNode() {
	if r.WebNode && r.s.Macro("S") == "" {
		r.add(mta.Finding{ID: "node-relayhost", Severity: mta.Critical, Where: "sendmail.cf", What: "there is no SMART_HOST: this web node delivers mail itself",
			Why: "the relay, which alone decides by the limits, never sees it", Remedy: "define(`SMART_HOST', `relay:[RELAY]') in sendmail.mc, whose guard has this node in a section [[node]]"})
	}
}
