package sendmail

import (
	"fmt"
	"slices"
	"strings"

	"relayguard/mta"
	"relayguard/policy"
)

// Why clients may relay: known to be harmless in some places.
const (
	byMachine = "programs of this machine, by loopback or by its own addresses"
	byAuth    = "clients with AUTH"
)

// daemon looks at one service that takes mail.
func (r *report) daemon(d Daemon) {
	where := d.Name
	names := r.s.FiltersOf(d)
	for _, name := range names {
		if _, found := r.s.filterNamed(name); !found {
			r.add(mta.Finding{ID: "filter-undefined", Severity: mta.Critical, Where: where, What: fmt.Sprintf("it asks a milter %q, which no line defines", name),
				Why: "Sendmail's daemon does not start with that, or ends when it reads its settings again", Remedy: "define it with MAIL_FILTER, or take it out of InputMailFilters"})
		}
	}
	reasons := r.mayRelay(d)
	place, f, _ := r.s.attached(d, r.Listeners)
	if place < 0 {
		r.unguarded(d, names, reasons)
		return
	}
	if place > 0 {
		r.add(mta.Finding{ID: "guard-not-first", Severity: mta.Warning, Where: where, What: fmt.Sprintf("the guard is number %d in InputMailFilters", place+1),
			Why: "milters before it may change what it judges; and they work (sign, scan) for mail that is then refused", Remedy: "put the guard's milter first"})
	}
	r.filter(where, f)
	for _, name := range names {
		if f, found := r.s.filterNamed(name); found {
			if l, ours := listenerOf(f, r.Listeners); ours {
				r.role(d, l, reasons)
			}
		}
	}
}

func (r *report) unguarded(d Daemon, names, reasons []string) {
	what := fmt.Sprintf("its milters are %q, without the guard", strings.Join(names, ", "))
	if len(names) == 0 {
		what = "it asks no milter"
	}
	if r.isSubmitted(d) {
		r.add(mta.Finding{ID: "local-unguarded", Severity: mta.Critical, Where: d.Name, What: "sendmail(1) hands its mail in here, and " + what,
			Why: "mail from sendmail(1), PHP's mail() and cron goes out without the guard", Remedy: applySetup})
	}
	if dedicated(d) && r.isSubmitted(d) {
		return
	}
	f := mta.Finding{ID: "service-unguarded", Severity: mta.Info, Where: d.Name, What: what,
		Why: "strangers' mail to inside recipients is not watched; they cannot relay here", Remedy: applySetup}
	if len(reasons) > 0 {
		f.Severity, f.Why = mta.Critical, "whoever may relay here ("+strings.Join(reasons, ", ")+") does so without the guard"
	}
	if !isSubmission(d) {
		f.Remedy += " --smtp relay, or --smtp inbound if strangers write to you through it"
	}
	r.add(f)
}

// filter looks at the guard's milter: what happens without it, and how long it is
// waited for.
func (r *report) filter(where string, f Filter) {
	switch {
	case strings.ContainsAny(f.Flags, "T4"):
	case strings.Contains(f.Flags, "R"):
		r.add(mta.Finding{ID: "default-reject", Severity: mta.Warning, Where: where, What: fmt.Sprintf("the guard's milter %s has F=R", f.Name),
			Why: "while the guard is away or restarts, mail is refused for good and comes back to its senders", Remedy: "set it to F=T: clients try again"})
	default:
		r.add(mta.Finding{ID: "default-accept", Severity: mta.Critical, Where: where, What: fmt.Sprintf("the guard's milter %s has no F=T", f.Name),
			Why: "when the guard is away, restarts or is slow, all mail passes unjudged", Remedy: "set it to F=T: clients try again"})
	}
	if short := f.short(r.Deadline); len(short) > 0 {
		r.add(mta.Finding{ID: "timeout-short", Severity: mta.Warning, Where: where, What: fmt.Sprintf("the guard's milter %s is waited for %s", f.Name, strings.Join(short, ", ")),
			Why:    fmt.Sprintf("the guard may take %s for a decision; Sendmail gives up before, for all the rest of the SMTP session", r.Deadline),
			Remedy: "T=C:10s;S:10s;R:20s;E:2m"})
	}
}

// role wants a listener that judges whoever may relay.
func (r *report) role(d Daemon, l mta.Listener, reasons []string) {
	what := fmt.Sprintf("it asks the guard's listener %s of role %s", l.Address, l.Role)
	all := strings.Join(reasons, ", ")
	known := !slices.ContainsFunc(reasons, func(reason string) bool { return reason != byAuth && reason != byMachine })
	submitted := r.isSubmitted(d)
	switch {
	case submitted && l.Role != policy.Local:
		r.add(mta.Finding{ID: "wrong-role", Severity: mta.Critical, Where: d.Name, What: "sendmail(1) hands its mail in here, and " + what,
			Why: localUnder(l.Role), Remedy: "attach the listener of role local: " + applySetup})
	case submitted && !dedicated(d):
		r.add(mta.Finding{ID: "wrong-role", Severity: mta.Warning, Where: d.Name, What: what + ", and others than sendmail(1) come in here too",
			Why: "they are judged as mail of this machine", Remedy: applySetup + ": mail from sendmail(1) gets a port of its own"})
	case submitted, l.Role == policy.Local && onLoopback(d):
	case l.Role == policy.Local:
		r.add(mta.Finding{ID: "wrong-role", Severity: mta.Warning, Where: d.Name, What: what, Why: "it is for sendmail(1); SMTP clients are judged there as mail of this machine",
			Remedy: "attach the listener of role submission, relay or inbound"})
	case l.Role == policy.Inbound && len(reasons) > 0 && known:
		r.add(mta.Finding{ID: "relay-as-inbound", Severity: mta.Info, Where: d.Name, What: "attached to a listener of role inbound, and some clients relay: " + all,
			Why: "the guard knows them here too: logins by AUTH, this machine's accounts by their uid", Remedy: "nothing; a submission service for people is clearer"})
	case l.Role == policy.Inbound && len(reasons) > 0:
		r.add(mta.Finding{ID: "relay-as-inbound", Severity: mta.Critical, Where: d.Name, What: "attached to a listener of role inbound, but it lets clients relay: " + all,
			Why: "on an inbound listener the guard only tells", Remedy: "let clients relay on a service of their own (submission, or a relay port), or attach the relay listener"})
	case l.Role == policy.Egress:
		r.add(mta.Finding{ID: "wrong-role", Severity: egressSeverity(d), Where: d.Name, What: what, Why: "nothing is asked there, neither AUTH nor addresses: whoever may relay here (" + all + ") does so without being judged",
			Remedy: "attach the listener of role submission or relay; where a filter gives mail back, let only the filter connect"})
	case isSubmission(d) && l.Role == policy.Relay:
		r.add(mta.Finding{ID: "wrong-role", Severity: mta.Warning, Where: d.Name, What: what, Why: "on a submission service the guard asks AUTH of everybody; here trusted networks pass without", Remedy: applySetup})
	}
}

func egressSeverity(d Daemon) mta.Severity {
	if isLoopback(d.Addr) {
		return mta.Warning
	}
	return mta.Critical
}

func localUnder(role policy.Role) string {
	if role == policy.Submission || role == policy.Relay {
		return "it refuses recipients: such mail comes back to accounts of this machine, or stays in the client queue"
	}
	return "mail from sendmail(1), PHP's mail() and cron goes out without being judged"
}

// isSubmitted reports the service that sendmail(1) hands its mail to.
func (r *report) isSubmitted(d Daemon) bool {
	if r.Instance.Submit == "" {
		return false
	}
	host, port := r.submit.handsTo()
	_, target, found := r.s.takes(host, port)
	return isLoopback(host) && found && target.Line == d.Line && target.Name == d.Name
}

// onLoopback reports a service that only this machine reaches.
func onLoopback(d Daemon) bool { return d.Family == "unix" || isLoopback(d.Addr) }

// mayRelay says who may send to the outside through a service. Sendmail always
// lets clients on loopback, and those of the machine's own addresses: it puts them
// into class w, those of all interfaces or, with DontProbeInterfaces, those that
// belong to its host name.
func (r *report) mayRelay(d Daemon) []string {
	reasons := []string{byMachine}
	if r.offersAuth(d) {
		reasons = append(reasons, byAuth)
	}
	if onLoopback(d) {
		return reasons
	}
	if members := r.s.Class("R"); len(members) > 0 {
		reasons = append(reasons, "relay-domains: "+listed(members))
	}
	if clients := r.accessRelay(); len(clients) > 0 {
		reasons = append(reasons, "the access table: "+listed(clients))
	}
	for _, f := range r.features() {
		reasons = append(reasons, "FEATURE(`"+f.name+"')")
	}
	return reasons
}

// listed names a few.
func listed(items []string) string {
	const most = 3
	if len(items) > most {
		return strings.Join(items[:most], ", ") + fmt.Sprintf(" and %d more", len(items)-most)
	}
	return strings.Join(items, ", ")
}
