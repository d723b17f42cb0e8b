package postfix

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"relayguard/mta"
)

// Inspection says what to inspect.
type Inspection struct {
	Instance  *Instance
	Listeners []mta.Listener
	LocalMail LocalMail
	Deadline  time.Duration // the guard's own for a decision; zero: 5 s
	GuardUser string        // who owns the sockets; empty: any

	// NodeHeader is the field by which the relay knows this web node's mail; empty:
	// this is no web node.
	NodeHeader string

	// Probe asks each SMTP service whether it relays for strangers; nil: that
	// is not tried.
	Probe RelayProbe
}

// Inspect names the ways round the guard and what else is wrong with how
// Postfix uses it. The order is: worst first, then by place and id.
func Inspect(ctx context.Context, in Inspection) []mta.Finding {
	if in.Deadline == 0 {
		in.Deadline = 5 * time.Second
	}
	r := &report{Inspection: in}
	r.local(ctx)
	for n := range in.Instance.Services {
		if s := &in.Instance.Services[n]; r.listens(s) {
			r.smtpService(ctx, s)
		}
	}
	r.qmqp()
	r.webNode(ctx)
	r.milterMaps(ctx)
	r.mynetworks(ctx)
	r.timeouts()
	r.sockets()
	r.relays(ctx)
	slices.SortStableFunc(r.findings, func(a, b mta.Finding) int {
		return cmp.Or(cmp.Compare(b.Severity, a.Severity), strings.Compare(a.Where, b.Where), strings.Compare(a.ID, b.ID))
	})
	return r.findings
}

type report struct {
	Inspection
	findings []mta.Finding
}

// add keeps one of equal findings: listeners share a directory, for one.
func (r *report) add(f mta.Finding) {
	if !slices.Contains(r.findings, f) {
		r.findings = append(r.findings, f)
	}
}

func (r *report) effective(s *Service, name string) string { return r.Instance.Effective(s, name) }

// listens reports the services that take SMTP from the network: smtpd(8)
// itself, or behind postscreen(8) as a pass service.
func (r *report) listens(s *Service) bool {
	return s.Command == "smtpd" && (s.Type == "inet" || s.Type == "unix" || s.Type == "pass" && r.hasPostscreen())
}

func (r *report) hasPostscreen() bool {
	return slices.ContainsFunc(r.Instance.Services, func(s Service) bool { return s.Command == "postscreen" && s.Type == "inet" })
}

// onLoopback reports services that only this machine reaches. That includes
// every local account.
func (r *report) onLoopback(s *Service) bool {
	if s.Type == "unix" {
		return true
	}
	name := s.Name
	if s.Type == "pass" { // it listens where postscreen does
		for _, p := range r.Instance.Services {
			if p.Command == "postscreen" && p.Type == "inet" {
				return r.onLoopback(&p)
			}
		}
		return false
	}
	if at := strings.LastIndexByte(name, ':'); at > 0 {
		return isLoopbackHost(name[:at])
	}
	items, err := splitList(r.effective(s, "inet_interfaces"))
	if err != nil || len(items) == 0 {
		return false
	}
	return !slices.ContainsFunc(items, func(item string) bool { return item != "loopback-only" && !isLoopbackHost(item) })
}

func isYes(value string) bool { return strings.EqualFold(value, "yes") }

// parseTime reads a Postfix time: a number with s, m, h, d or w; seconds by
// default (postconf(5)).
func parseTime(value string) (time.Duration, bool) {
	units := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
	unit := time.Second
	if value != "" {
		if u, ok := units[value[len(value)-1]]; ok {
			unit, value = u, value[:len(value)-1]
		}
	}
	n, err := strconv.ParseUint(value, 10, 31)
	return time.Duration(n) * unit, err == nil && time.Duration(n) < 1<<62/unit
}
