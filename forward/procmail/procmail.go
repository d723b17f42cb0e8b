package procmail

import (
	"slices"

	"relayguard/forward"
)

// Options are what an rcfile is read with. The zero value: nothing is known of
// the machine, and nothing is included.
type Options struct {
	// Name is the rcfile's path.
	Name string
	// Account is for whom procmail runs. nil: for anybody, the rcfile is the
	// server's.
	Account *forward.Account
	// Hostname is the machine's name; empty: not known, HOST stops nothing.
	Hostname string
	// Read returns a file as procmail would read it at that point, with errors
	// as forward.Files has them. nil: there are no files.
	Read func(path string) ([]byte, error)
	// Look tells whether something is at a path, and whether it is a directory.
	// nil: not known.
	Look func(path string) (exists, dir bool)
}

// Target is one place that mail goes to.
type Target struct {
	Kind    forward.Kind // Address, Program or Asked
	Target  string
	Mode    forward.Mode
	Dynamic bool
	Source  string // the rcfile that says so
	Line    int
	Dormant string
	Note    string
}

// Result is what an rcfile does.
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
	maxDepth   = 64       // of includes
	maxCost    = 32 << 20 // octets parsed
	maxTargets = 2000
	maxBlocks  = 10_000 // open at once
)

// Targets reads an rcfile. It is safe for concurrent use.
func Targets(rcfile []byte, o Options) Result {
	m := newMachine(o)
	m.main(o.Name, rcfile)
	m.end()
	return m.result
}

// After reads an account's rcfile after the server's, whose variables it takes
// over. Of the server's targets it returns those in files that depend on the
// account; not those in the files of common.
func After(server []byte, serverName string, common map[string]bool, rcfile []byte, o Options) Result {
	m := newMachine(o)
	m.main(serverName, server)
	own := func() { // what is left of the server's
		m.result.Targets = slices.DeleteFunc(m.result.Targets, func(t Target) bool { return common[t.Source] })
		m.result.Gaps = slices.DeleteFunc(m.result.Gaps, func(g forward.Gap) bool { return common[g.Source] })
	}
	if rcfile == nil {
		m.end()
		own()
		return m.result
	}
	own()
	if m.gone == "" {
		m.dead = ""
	}
	m.set("PATH", []string{m.home() + "/bin:/usr/local/bin:/usr/bin:/bin"})
	m.main(o.Name, rcfile)
	m.end()
	return m.result
}
