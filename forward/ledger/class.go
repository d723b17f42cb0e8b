package ledger

import (
	"slices"
	"strings"

	"relayguard/forward"
)

// Class is why a rule may matter more than a customer's own forwarding.
type Class string

const (
	Server    Class = "server"    // a rule for more than one person
	Important Class = "important" // its owner is marked as such
	Role      Class = "role"      // its owner is an address of a function
	FanIn     Class = "fan_in"    // three or more unrelated owners feed the target
	Differs   Class = "differs"   // the source differs from what runs
	Writer    Class = "writer"    // an account wrote it that is not expected there
	Traffic   Class = "traffic"   // mail went, and no rule is known that says so
	Customer  Class = "customer"  // none of these: somebody's own
)

// Classes are all of them.
func Classes() []Class {
	return []Class{Server, Important, Role, FanIn, Differs, Writer, Traffic, Customer}
}

// Action is what becomes of a new rule. The larger is the louder.
type Action uint8

const (
	Ignore Action = iota // it is in the list
	Digest               // in the daily report, and told to the mailbox's owner
	Alert                // at once
)

var actionNames = [...]string{"ignore", "digest", "alert"}

// String is the name in configuration and JSON.
func (a Action) String() string { return actionNames[min(int(a), len(actionNames)-1)] }

// MarshalText writes the name.
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads the name; another is Alert, the safe side.
func (a *Action) UnmarshalText(text []byte) error {
	*a = Alert
	if i := slices.Index(actionNames[:], string(text)); i >= 0 {
		*a = Action(i)
	}
	return nil
}

// fanIn is how many unrelated owners make one target suspicious.
const fanIn = 3

// Rules say which findings are of which class, and what becomes of a class.
type Rules struct {
	Important []string // owners: "ceo@corp.test", "alice", "@corp.test"; lower case
	Roles     []string // local parts
	Writers   []int    // accounts of panels, which write for customers
	Policy    map[Class]Action
}

// DefaultRoles are the local parts of addresses of a function.
func DefaultRoles() []string {
	return []string{"abuse", "accounting", "accounts", "admin", "administrator", "billing", "ceo", "cfo", "compliance", "contact", "director",
		"finance", "hostmaster", "hr", "info", "invoice", "invoices", "legal", "loans", "noc", "office", "orders", "payroll",
		"postmaster", "root", "sales", "security", "support", "webmaster"}
}

// DefaultPolicy alerts of everything but customers' own rules.
func DefaultPolicy() map[Class]Action {
	p := map[Class]Action{}
	for _, c := range Classes() {
		p[c] = Alert
	}
	p[Customer] = Digest
	return p
}

// classify sets an entry's classes and action. l.mu is held.
func (l *Ledger) classify(e *Entry) {
	e.Classes = nil
	add := func(is bool, c Class) {
		if is {
			e.Classes = append(e.Classes, c)
		}
	}
	add(e.Server || e.Owner == forward.Everybody || strings.HasPrefix(e.Owner, "@"), Server)
	add(l.rules.important(e.Owner), Important)
	add(slices.Contains(l.rules.Roles, localPart(e.Owner)), Role)
	add(e.Fan, FanIn)
	add(e.Differs != "" && !e.Waits, Differs)
	add(e.Strange, Writer)
	add(e.Mechanism == forward.Traffic, Traffic)
	add(len(e.Classes) == 0, Customer)
	e.Action = Ignore
	for _, c := range e.Classes {
		e.Action = max(e.Action, l.rules.Policy[c])
	}
	switch {
	case e.Differs != "" && !e.Waits:
	case !e.Leaves(): // broken, dormant: nothing goes by it now
		e.Action = min(e.Action, Digest)
	case e.Behind:
		e.Action = Ignore // the rule at the end of the chain is told of
	}
}

// leaves reports whether the entry sends mail to an outside address that is known.
func (e *Entry) leaves() bool {
	return e.Verdict == forward.Outside || e.Verdict == forward.DynamicOutside
}

// feeds reports whether the entry is one of those that make a target suspicious if
// they are many: by a rule or a hop of its own.
func (e *Entry) feeds() bool { return e.Gone.IsZero() && e.leaves() && (e.Direct() || e.Hop) }

// fans counts who feeds a target: by the target without case and tag, then by
// local parts of owners.
type fans map[string]map[string]int

func (f fans) add(target, owner string, n int) {
	target = plainTarget(target)
	owners := f[target]
	if owners == nil {
		owners = map[string]int{}
		f[target] = owners
	}
	if owners[owner] += n; owners[owner] <= 0 {
		delete(owners, owner)
	}
	if len(owners) == 0 {
		delete(f, target)
	}
}

func (f fans) of(target string) int { return len(f[plainTarget(target)]) }

// plainTarget is a target as far as it is one mailbox.
func plainTarget(target string) string {
	local, domain, at := strings.Cut(strings.ToLower(target), "@")
	if i := strings.IndexByte(local, '+'); i > 0 {
		local = local[:i]
	}
	if !at {
		return local
	}
	return local + "@" + domain
}

func (r *Rules) important(owner string) bool {
	for _, o := range r.Important {
		if o == owner || strings.HasPrefix(o, "@") && strings.HasSuffix(owner, o) || !strings.Contains(o, "@") && o == localPart(owner) {
			return true
		}
	}
	return false
}

// writtenBy notes who wrote a rule: the strangest of those whom the kernel named.
// Where it named none, the owner of the file stands for him.
func (l *Ledger) writtenBy(e *Entry, s Seen) {
	expected := func(uid int) bool {
		return slices.Contains(s.Expected, uid) || slices.Contains(l.rules.Writers, uid)
	}
	e.Writer, e.Strange = forward.UnknownWriter, false
	if s.Nobody {
		return
	}
	for _, w := range s.Writers {
		if !w.Known() || e.Strange {
			continue
		}
		if e.Writer = w; !expected(w.UID) {
			e.Strange = true
		}
	}
	if !e.Writer.Known() && e.UID != forward.NoUID {
		e.Strange = !expected(e.UID)
	}
}

// localPart is what two owners have to have in common to be related: the name in
// front of @ and of a tag.
func localPart(owner string) string {
	local, _, _ := strings.Cut(owner, "@")
	if i := strings.IndexByte(local, '+'); i > 0 {
		local = local[:i]
	}
	return local
}
