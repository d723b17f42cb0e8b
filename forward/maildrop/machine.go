package maildrop

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"relayguard/forward"
	"relayguard/forward/possible"
)

// personal stands for what depends on the account, where none is given.
const personal = "\uE000"

// machine goes through filters and keeps all values that variables may have.
type machine struct {
	o      Options
	result Result
	have   map[Target]bool
	vars   *possible.Store
	home   string

	file   string
	line   int
	files  int
	nest   int
	cost   int
	dead   string // why what follows is not run
	trying int    // blocks around that go on after a failure
	full   bool
}

func newMachine(o Options) *machine {
	home, name, shell := personal, personal, personal
	if o.Account != nil {
		home, name, shell = o.Account.Home, o.Account.Name, o.Account.Shell
	}
	m := &machine{o: o, have: map[Target]bool{}, home: home, cost: maxCost, file: o.Name}
	m.vars = possible.New(map[string]string{
		"HOME": home, "LOGNAME": name, "SHELL": shell, "DEFAULT": "/var/mail/" + name, "PATH": "/bin:/usr/bin:/usr/local/bin",
		"SENDMAIL": "/usr/sbin/sendmail -oi", "FROM": forward.Unknown, "HOSTNAME": forward.Unknown, "SIZE": forward.Unknown,
		"LINES": forward.Unknown, "MAILFILTER": ".mailfilter",
	}, missing)
	return m
}

// missing is what a variable holds that no filter has set: arguments of the
// command line and what a pattern found are not known.
func missing(name string) string {
	if name == "" || '0' <= name[0] && name[0] <= '9' || strings.HasPrefix(name, "MATCH") {
		return forward.Unknown
	}
	return possible.Unset
}

// main reads a filter that maildrop was started with.
func (m *machine) main(name string, data []byte) {
	m.run(name, data)
	m.file = name
}

// end is the end of all filters: mail goes to DEFAULT, if nothing took it. That
// something did may be an error of ours only where it is told as dead.
func (m *machine) end() {
	m.line = 0
	for _, value := range m.vars.Values("DEFAULT") {
		m.deliver(value, forward.Redirect)
	}
	if m.cost < 0 {
		m.stop("more than is followed; the rest is not told")
	}
}

// run reads one filter to its end.
func (m *machine) run(name string, data []byte) {
	file, line := m.file, m.line
	m.file, m.line = name, 0
	root, err := parse(data)
	switch {
	case err != nil:
		var syntax *syntaxError
		if errors.As(err, &syntax) {
			m.line = syntax.line
		}
		m.unread(name, "cannot be parsed, and maildrop may defer the mail: "+err.Error())
	default:
		m.execute(root)
	}
	m.file, m.line = file, line
}

// set gives a variable all its values anew. What is not run changes nothing.
func (m *machine) set(name string, values ...string) {
	if m.dead != "" {
		m.vars.Add(name, values...)
	} else {
		m.vars.Set(name, values...)
	}
}

// add tells of a target.
func (m *machine) add(t Target) {
	t.Target = strings.ReplaceAll(t.Target, personal, forward.Unknown)
	t.Dynamic = strings.Contains(t.Target, forward.Unknown)
	t.Dormant, t.Source, t.Line = m.dead, m.file, m.line
	if m.have[t] {
		return
	}
	if len(m.result.Targets) >= maxTargets {
		m.stop(fmt.Sprintf("more than %d targets; the rest is not told", maxTargets))
		return
	}
	m.have[t] = true
	m.result.Targets = append(m.result.Targets, t)
}

// stop ends all reading, because a bound was met.
func (m *machine) stop(why string) {
	if !m.full {
		m.full, m.cost = true, -1
		m.unread(m.file, why)
	}
}

// unread tells of what mail may go by and nothing is known of.
func (m *machine) unread(what, why string) {
	what = strings.ReplaceAll(what, personal, forward.Unknown)
	m.result.Gaps = append(m.result.Gaps, forward.Gap{Source: m.file, Why: what + ": " + why})
	t := Target{Kind: forward.Asked, Target: what, Mode: forward.Redirect, Source: m.file, Line: m.line, Note: why}
	if !m.have[t] {
		m.have[t] = true
		m.result.Targets = append(m.result.Targets, t)
	}
}

// include reads another filter. One that is not there makes maildrop defer the
// mail.
func (m *machine) include(name string) {
	if name == possible.Unset || name == "" {
		return
	}
	if !strings.HasPrefix(name, "/") && !strings.HasPrefix(name, personal) {
		name = m.home + "/" + name
	}
	name = path.Clean(name)
	switch {
	case strings.Contains(name, forward.Unknown):
		m.unread(name, "which file is included, only a message decides")
		return
	case strings.Contains(name, personal):
		m.result.Personal = true
		return
	case m.nest >= maxDepth:
		return // so does maildrop
	case m.cost < 0 || m.o.Read == nil:
		return
	}
	if m.files++; m.files > maxFiles {
		m.stop("more files are included than are read")
		return
	}
	m.result.Uses = append(m.result.Uses, name)
	data, err := m.o.Read(name)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
	case err != nil:
		m.unread(name, err.Error())
	default:
		m.nest++
		m.run(name, data)
		m.nest--
	}
}
