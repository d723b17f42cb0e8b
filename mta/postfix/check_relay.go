package postfix

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"relayguard/mta"
)

// mayRelay reports whether clients may send to the outside through a service,
// and which. It reads the restrictions in order up to the first that settles
// it for everybody. What tables and policy servers permit is not read: before
// that point they count as if they did.
func (r *report) mayRelay(ctx context.Context, s *Service) (bool, string) {
	may, reasons := r.relayReasons(s)
	return may, strings.Join(reasons, ", ")
}

// knownAlone reports whether only clients may relay that the guard knows on any
// listener: who has logged in, and this machine's own accounts.
func (r *report) knownAlone(ctx context.Context, s *Service) bool {
	_, reasons := r.relayReasons(s)
	prefixes, unread := r.Instance.networks(ctx, "mynetworks", r.effective(s, "mynetworks"))
	foreign := len(unread) > 0 || slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return !p.Masked().Addr().Unmap().IsLoopback() })
	return !slices.ContainsFunc(reasons, func(reason string) bool {
		return reason != byAuth && (foreign || !strings.HasPrefix(reason, byNetwork))
	})
}

// Reasons why a client may relay that are known to be harmless in some places.
const (
	byAuth    = "clients with AUTH"
	byNetwork = "mynetworks "
)

func (r *report) relayReasons(s *Service) (bool, []string) {
	var reasons []string
	for _, setting := range []string{"smtpd_relay_restrictions", "smtpd_recipient_restrictions"} {
		items, err := splitList(r.effective(s, setting))
		if err != nil {
			return true, []string{setting + " cannot be read"}
		}
		found, open := r.permits(s, items)
		if open {
			found = append(found, "anybody: "+setting+" permits all")
		}
		if len(items) == 0 {
			continue // the other list decides
		}
		if len(found) == 0 {
			return false, nil // both lists must agree
		}
		if reasons == nil {
			reasons = found
		}
	}
	if reasons == nil {
		return true, []string{"anybody: no relay restrictions"}
	}
	return true, reasons
}

// permits lists what a restriction list lets relay, and whether nothing in it
// ends for everybody.
func (r *report) permits(s *Service, items []string) (reasons []string, open bool) {
	classes, _ := splitList(r.effective(s, "smtpd_restriction_classes"))
	onlyWarns := false // warn_if_reject: the next restriction does not refuse
	for n := 0; n < len(items); n++ {
		name := strings.ToLower(items[n])
		switch {
		case name == "warn_if_reject":
			onlyWarns = true
			continue
		case name == "permit":
			return reasons, true
		case slices.Contains([]string{"reject", "defer", "reject_unauth_destination", "defer_unauth_destination"}, name):
			if !onlyWarns {
				return reasons, false
			}
		case name == "permit_mynetworks":
			if value := r.effective(s, "mynetworks"); value != "" {
				reasons = append(reasons, byNetwork+value)
			}
		case name == "permit_sasl_authenticated":
			if isYes(r.effective(s, "smtpd_sasl_auth_enable")) {
				reasons = append(reasons, byAuth)
			}
		case slices.Contains(neverRelay, name):
		case strings.HasPrefix(name, "check_"):
			if n+1 < len(items) { // its table or server
				n++
				reasons = append(reasons, "whom "+items[n-1]+" "+items[n]+" permits")
			}
		case slices.Contains(classes, items[n]):
			reasons = append(reasons, "whom the restriction class "+items[n]+" permits")
		case strings.HasPrefix(name, "permit_") || isTable(items[n]): // a bare table is an access table
			reasons = append(reasons, "whom "+items[n]+" permits")
		}
		onlyWarns = false
	}
	return reasons, true
}

// neverRelay are permissions that do not reach the outside: postconf(5).
var neverRelay = []string{"permit_auth_destination", "permit_dnswl_client", "permit_rhswl_client"}

// mynetworks looks for networks so wide that they are the world.
func (r *report) mynetworks(ctx context.Context) {
	check := func(where, value string) {
		prefixes, unread := r.Instance.networks(ctx, "mynetworks", value)
		for _, p := range prefixes {
			wide, all := 16, p.Bits() == 0
			if p.Addr().Is6() {
				wide = 32
			}
			switch {
			case all:
				r.add(mta.Finding{ID: "mynetworks-wide", Severity: mta.Critical, Where: where, What: fmt.Sprintf("mynetworks has %s", p), Why: "everybody may relay", Remedy: "list the machines that may relay, or none: people use AUTH"})
			case p.Bits() < wide && !p.Addr().IsPrivate() && !p.Addr().IsLoopback() && !p.Addr().IsLinkLocalUnicast():
				r.add(mta.Finding{ID: "mynetworks-wide", Severity: mta.Warning, Where: where, What: fmt.Sprintf("mynetworks has %s", p), Why: "that many machines are more than anybody answers for", Remedy: "list the machines that may relay, or none: people use AUTH"})
			}
		}
		for _, u := range unread {
			r.add(mta.Finding{ID: "mynetworks-unread", Severity: mta.Warning, Where: where, What: u.Error(), Why: "who may relay cannot be told", Remedy: "look at it by hand, or write the networks into main.cf"})
		}
	}
	check("main.cf", r.Instance.Setting("mynetworks"))
	for n := range r.Instance.Services {
		s := &r.Instance.Services[n]
		if _, own := s.Overrides["mynetworks"]; own && s.Command == "smtpd" {
			check(s.ID(), r.effective(s, "mynetworks"))
		}
	}
}

// saslTLS looks for passwords in the clear.
func (r *report) saslTLS(s *Service) {
	level := r.effective(s, "smtpd_tls_security_level")
	if !isYes(r.effective(s, "smtpd_sasl_auth_enable")) || r.onLoopback(s) || level == "encrypt" ||
		isYes(r.effective(s, "smtpd_tls_auth_only")) || isYes(r.effective(s, "smtpd_tls_wrappermode")) || isYes(r.effective(s, "smtpd_enforce_tls")) {
		return
	}
	r.add(mta.Finding{ID: "auth-without-tls", Severity: mta.Critical, Where: s.ID(), What: "AUTH is offered without TLS (smtpd_tls_auth_only is not yes)",
		Why: "passwords cross the network readable, and a stolen one sends in its owner's name", Remedy: "smtpd_tls_auth_only = yes"})
}

// xclient looks for clients that may claim any login.
func (r *report) xclient(ctx context.Context, s *Service) {
	value := r.effective(s, "smtpd_authorized_xclient_hosts")
	if value == "" {
		return
	}
	f := mta.Finding{ID: "xclient", Severity: mta.Warning, Where: s.ID(), What: fmt.Sprintf("smtpd_authorized_xclient_hosts is %q", value),
		Why: "programs on those machines may claim any login and address (XCLIENT), local accounts included", Remedy: "name only proxies, on addresses where nobody else has an account; empty it if there is none"}
	prefixes, unread := r.Instance.networks(ctx, "smtpd_authorized_xclient_hosts", value)
	if len(unread) > 0 || slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return !p.Addr().IsLoopback() && !p.IsSingleIP() }) {
		f.Severity = mta.Critical
	}
	r.add(f)
}

// milterMaps looks at smtpd_milter_maps (Postfix 3.2): settings by client
// address that replace smtpd_milters.
func (r *report) milterMaps(ctx context.Context) {
	seen := map[string]bool{}
	check := func(where string, s *Service, value string) {
		if value == "" || seen[value] {
			return
		}
		seen[value] = true
		tables, err := ParseTables(value)
		if err != nil {
			r.add(mta.Finding{ID: "milter-maps", Severity: mta.Critical, Where: where, What: err.Error(), Why: "whether clients go round the guard cannot be told", Remedy: "correct smtpd_milter_maps"})
		}
		for _, t := range tables {
			r.milterMap(ctx, where, s, t)
		}
	}
	for n := range r.Instance.Services {
		if s := &r.Instance.Services[n]; r.listens(s) {
			where := s.ID()
			if _, own := s.Overrides["smtpd_milter_maps"]; !own {
				where = "main.cf"
			}
			check(where, s, r.effective(s, "smtpd_milter_maps"))
		}
	}
}

// milterMap reads one table, whatever its type, as lines of "clients setting".
func (r *report) milterMap(ctx context.Context, where string, s *Service, t Table) {
	lines, err := r.tableLines(ctx, t.direct())
	if err != nil {
		r.add(mta.Finding{ID: "milter-maps", Severity: mta.Warning, Where: where, What: fmt.Sprintf("smtpd_milter_maps has %s: %v", t, err),
			Why: "which clients go round the guard cannot be told", Remedy: "look at the table by hand: no client that may relay, with AUTH or from mynetworks, may have DISABLE or a list without the guard"})
		return
	}
	for _, line := range lines {
		client, value, _ := strings.Cut(line, "\t")
		place, m, _, err := r.Instance.attached(s, value, r.Listeners)
		switch {
		case strings.EqualFold(strings.TrimSpace(value), "DISABLE"), err == nil && place < 0:
			r.add(mta.Finding{ID: "milter-maps", Severity: mta.Critical, Where: where, What: fmt.Sprintf("smtpd_milter_maps gives %s the setting %q", client, value),
				Why: "these clients go round the guard, and they may relay with AUTH or from mynetworks", Remedy: "remove the line, or put the guard's socket first in it"})
		case err != nil:
			r.add(mta.Finding{ID: "milter-maps", Severity: mta.Critical, Where: where, What: fmt.Sprintf("smtpd_milter_maps, %s: %v", client, err), Why: "whether these clients ask the guard cannot be told", Remedy: "correct the line"})
		case strings.EqualFold(m.Settings["default_action"], "accept"):
			r.add(mta.Finding{ID: "default-accept", Severity: mta.Critical, Where: where, What: fmt.Sprintf("smtpd_milter_maps gives %s the guard with default_action=accept", client), Why: "when the guard is away, their mail passes unjudged", Remedy: "set it to tempfail"})
		}
	}
}

// tableLines lists a table as "key TAB value". Pattern tables are text files
// of "pattern WHITE SPACE value" lines.
func (r *report) tableLines(ctx context.Context, t Table) ([]string, error) {
	var lines []string
	switch {
	case t.Type == "static":
		return []string{"every client\t" + newStatic(t).value}, nil
	case t.listable():
		s, err := r.Instance.tools.run(ctx, nil, maxListing, "postmap", r.Instance.tools.inDir(r.Instance.ConfigDir, "-s", t.String())...)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(s.stdout)) {
			lines = append(lines, strings.TrimRight(line, "\n"))
		}
		return lines, nil
	case t.Type == "cidr" || t.Type == "regexp" || t.Type == "pcre":
		text, err := os.ReadFile(t.Name)
		if err != nil {
			return nil, err
		}
		for _, line := range logicalLines(string(text)) {
			words, err := splitWords(line)
			if err != nil || len(words) < 2 {
				continue // if ... endif
			}
			lines = append(lines, words[0]+"\t"+strings.Join(words[1:], " "))
		}
		return lines, nil
	}
	return nil, fmt.Errorf("tables of type %s cannot be listed", t.Type)
}

// logicalLines joins lines that go on after white space, and leaves out
// comments: readlline(3).
func logicalLines(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "" || trimmed[0] == '#':
		case isSpace(line[0]) && len(lines) > 0:
			lines[len(lines)-1] += " " + trimmed
		default:
			lines = append(lines, trimmed)
		}
	}
	return lines
}
