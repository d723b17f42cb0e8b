package sendmail

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"relayguard/mta"
)

// InsideView is how the guard knows which domains are inside.
type InsideView struct {
	// Named reports a domain that inside.domains names.
	Named func(domain string) bool
	// MayRead reports whether the guard's account may read a file; nil: that is not
	// known.
	MayRead func(path string) bool
}

// maxMissed bounds the domains that a finding names.
const maxMissed = 50

// inside compares what Sendmail takes mail for with what the guard can know of it: on
// Debian access.db is not for all to read.
func (r *report) inside(ctx context.Context) {
	if r.Inside == nil {
		return
	}
	all, unread, err := r.Instance.InsideDomains(ctx)
	if err != nil {
		return // the deadline of all of this
	}
	for _, u := range unread {
		r.add(mta.Finding{ID: "inside-unread", Severity: mta.Info, Where: "inside.from_mta", What: u.Error(),
			Why: "whether the guard knows the domains in it cannot be told from here", Remedy: "run this as root; domains of tables that nobody can list belong into inside.domains"})
	}
	if r.Inside.MayRead == nil {
		return
	}
	guards, files := r.Instance.asSeenBy(ctx, r.Inside.MayRead)
	known := map[string]bool{}
	for _, d := range guards {
		known[d] = true
	}
	var missed []string
	for _, d := range all {
		if !known[d] && !r.Inside.Named(d) {
			missed = append(missed, fmt.Sprintf("%q", d))
		}
	}
	if len(missed) == 0 {
		return
	}
	more := ""
	if n := len(missed) - maxMissed; n > 0 {
		missed, more = missed[:maxMissed], fmt.Sprintf(", and %d more", n)
	}
	list := strings.Join(missed, ", ") + more
	r.add(mta.Finding{ID: "inside-missed", Severity: mta.Warning, Where: strings.Join(files, ", "),
		What:   fmt.Sprintf("the guard's account may not read it, and does not know of: %s", list),
		Why:    "to the guard mail to these domains goes to the outside: it is charged, and held where that is",
		Remedy: "add them to inside.domains, and reload: domains = [ ..., " + list + " ]"})
}

// asSeenBy lists the inside domains as somebody does who may not read all files, and
// the files that he may not.
func (i *Instance) asSeenBy(ctx context.Context, mayRead func(string) bool) (domains, closed []string) {
	his := *i
	see := func(path string) bool {
		if mayRead(path) {
			return true
		}
		closed = append(closed, path)
		return false
	}
	if !see(i.Config) {
		return nil, closed
	}
	text, err := readFile(i.Config, maxConfig)
	if err != nil {
		return nil, closed
	}
	his.main = ParseSettings(text)
	his.main.Path, his.main.mayRead = i.main.Path, see
	his.main.readClasses()
	return his.ownDomains(ctx).domains(), closed
}

// seen is the error of a file that whoever looks may not read, where that is not this
// process.
func (s *Settings) seen(path string) error {
	if s.mayRead == nil || s.mayRead(path) {
		return nil
	}
	return &fs.PathError{Op: "open", Path: path, Err: os.ErrPermission}
}

// routes says that mail may leave by other ways than can be read.
func (r *report) routes() {
	text, err := readFile(r.Instance.Config, maxConfig)
	if err != nil {
		return
	}
	if rule := ownRoute(string(text)); rule != "" {
		r.add(mta.Finding{ID: "route-unread", Severity: mta.Info, Where: "sendmail.cf", What: fmt.Sprintf("LOCAL_RULE_0 (or LDAP routing) chooses where mail goes: %.120s", rule),
			Why:    "over whom, and from which address, such mail leaves is not followed: rbl counts every SMTP mailer as a way out, and may miss an address",
			Remedy: "relayguard rbl addresses says which are known; name others in rbl.addresses"})
	}
}
