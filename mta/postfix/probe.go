package postfix

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"relayguard/mta"
	"relayguard/mta/probe"
)

// The words of mta/probe for asking an SMTP service whether it relays.
type (
	RelayProbe  = probe.Relay
	ProbeAnswer = probe.Answer
	SMTPProbe   = probe.SMTP
)

// relays probes each SMTP service that can be reached from here.
func (r *report) relays(ctx context.Context) {
	if r.Probe == nil {
		return
	}
	for n := range r.Instance.Services {
		s := &r.Instance.Services[n]
		if s.Type != "inet" || s.Command != "smtpd" && s.Command != "postscreen" {
			continue
		}
		if f, found := r.relay(ctx, s); found {
			r.add(f)
		}
	}
}

func (r *report) relay(ctx context.Context, s *Service) (mta.Finding, bool) {
	unsure := mta.Finding{ID: "open-relay-unknown", Severity: mta.Info, Where: s.ID(), What: "", Why: "whether strangers may relay here cannot be told from this machine", Remedy: "ask from a foreign address: swaks --server THIS --from a@example.com --to b@example.net --quit-after RCPT"}
	address, err := dialAddress(s.Name)
	if err != nil {
		unsure.What = err.Error()
		return unsure, true
	}
	answer, err := r.Probe.Relays(ctx, address, isYes(r.effective(s, "smtpd_tls_wrappermode")))
	said := fmt.Sprintf("%s answered %d to %s", address, answer.Code, answer.At)
	switch {
	case err != nil:
		unsure.What = err.Error()
		return unsure, true
	case answer.At != "RCPT": // refused for another reason: it never came to the question
		unsure.What = said
		return unsure, true
	case answer.Code/100 != 2:
		return mta.Finding{}, false
	case !answer.Stranger && r.trustsLoopback(ctx, s):
		unsure.What = said + ", but mynetworks permits this machine"
		return unsure, true
	}
	return mta.Finding{ID: "open-relay", Severity: mta.Critical, Where: s.ID(), What: said + ": a client without AUTH may send to the outside",
		Why: "everybody sends through this server, and the guard refuses it only where it is attached as submission or relay", Remedy: "smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination"}, true
}

func (r *report) trustsLoopback(ctx context.Context, s *Service) bool {
	prefixes, unread := r.Instance.networks(ctx, "mynetworks", r.effective(s, "mynetworks"))
	return len(unread) > 0 || slices.ContainsFunc(prefixes, func(p netip.Prefix) bool {
		return p.Contains(netip.AddrFrom4([4]byte{127, 0, 0, 1})) || p.Contains(netip.IPv6Loopback())
	})
}

// dialAddress is where a master.cf inet service is reached from this machine.
func dialAddress(name string) (string, error) {
	host, port := "", name
	if at := strings.LastIndexByte(name, ':'); at >= 0 {
		host, port = strings.Trim(name[:at], "[]"), name[at+1:]
	}
	address, err := probe.Address(host, port)
	if err != nil {
		return "", fmt.Errorf("find port of service %s: %w", name, err)
	}
	return address, nil
}
