package maildrop

import (
	"slices"

	"relayguard/forward"
)

// Options are what a filter is read with. The zero value: nothing is known of the
// machine, and nothing is included.
type Options struct {
	// Name is the filter's path.
	Name string
	// Account is for whom maildrop runs. nil: for anybody, the filter is the
	// server's.
	Account *forward.Account
	// Read returns a file as maildrop would read it, with errors as
	// forward.Files has them. nil: there are no files.
	Read func(path string) ([]byte, error)
}

// Target is one place that mail goes to.
type Target struct {
	Kind    forward.Kind // Address, Program or Asked
	Target  string
	Mode    forward.Mode
	Dynamic bool
	Source  string // the filter that says so
	Line    int
	Dormant string
	Note    string
}

// Result is what a filter does.
type Result struct {
	Targets []Target
	Gaps    []forward.Gap
	Uses    []string // further paths that it depends on
	// Personal: it includes files whose names depend on the account, and no
	// account was given.
	Personal bool
}

// Bounds of one reading, includes and all.
const (
	maxFiles   = 256
	maxDepth   = 20       // of includes: maildrop's own
	maxCost    = 16 << 20 // octets put together
	maxTargets = 2000
	maxText    = 64 << 10 // octets of one text; what is longer is not known
	maxRounds  = 3        // of a loop; what it sets after that is not known
)

// Targets reads a filter. It is safe for concurrent use.
func Targets(filter []byte, o Options) Result {
	m := newMachine(o)
	m.main(o.Name, filter)
	m.end()
	return m.result
}

// After reads an account's filter after the server's, whose variables it takes
// over; filter is nil if there is none. Of the server's targets it returns those
// in files that depend on the account; not those that Common of the server's
// result has.
func After(server []byte, serverName string, common map[string]bool, filter []byte, o Options) Result {
	m := newMachine(o)
	m.main(serverName, server)
	var kept Result
	for _, t := range m.result.Targets {
		if !common[t.Source] {
			kept.Targets = append(kept.Targets, t)
		}
	}
	for _, g := range m.result.Gaps {
		if !common[g.Source] {
			kept.Gaps = append(kept.Gaps, g)
		}
	}
	kept.Uses = m.result.Uses
	m.result = kept
	if m.file = o.Name; filter != nil {
		m.main(o.Name, filter)
	}
	m.end()
	if filter == nil {
		m.result.Targets = slices.DeleteFunc(m.result.Targets, func(t Target) bool { return t.Line == 0 && common[byDefault+t.Target] })
	}
	return m.result
}

// byDefault is before the targets of DEFAULT in Common.
const byDefault = "DEFAULT "

// Common is what After leaves out: the server's filter and the files that it
// includes whoever the mail is for, and where its DEFAULT sends mail.
func (r *Result) Common(name string) map[string]bool {
	common := map[string]bool{name: true}
	for _, used := range r.Uses {
		common[used] = true
	}
	for _, t := range r.Targets {
		if t.Line == 0 {
			common[byDefault+t.Target] = true
		}
	}
	return common
}
