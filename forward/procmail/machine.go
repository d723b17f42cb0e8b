package procmail

import (
	"fmt"
	"slices"
	"strings"

	"relayguard/forward"
	"relayguard/forward/possible"
)

// personal stands for what depends on the account, where none is given.
const personal = "\uE000"

// machine goes through rcfiles and keeps all values that variables may have.
type machine struct {
	o      Options
	result Result
	have   map[Target]bool

	vars   *possible.Store
	cwd    []string
	frames []frame
	traps  position // where TRAP was set

	file   *file
	files  int
	nest   int // files around this one
	cost   int
	clones int    // blocks around that a clone of procmail runs
	dead   string // why what follows in this file is not run
	gone   string // why nothing at all is run any more
	full   bool   // a bound was met

	alterations []string // variables that make programs others than they seem
}

// frame remembers what was before a block, beside variables.
type frame struct {
	cwd  []string
	dead string
}

// file is an rcfile that is being read.
type file struct {
	name   string
	source source
	blocks []block
}

type block struct {
	maybe bool
	clone bool
}

type position struct {
	file string
	line int
}

func newMachine(o Options) *machine {
	m := &machine{o: o, have: map[Target]bool{}, cost: maxCost}
	home, name, shell := personal, personal, personal
	if o.Account != nil {
		home, name, shell = o.Account.Home, o.Account.Name, o.Account.Shell
	}
	m.vars = possible.New(map[string]string{
		"HOME": home, "LOGNAME": name, "SHELL": shell, "USER_SHELL": shell, "MAILDIR": home,
		"PATH": home + "/bin:/usr/local/bin:/usr/bin:/bin", "SHELLMETAS": "&|<>~;?*[", "SHELLFLAGS": "-c",
		"ORGMAIL": "/var/mail/" + name, "DEFAULT": "/var/mail/" + name, "MSGPREFIX": "msg.", "LOCKEXT": ".lock",
		"SENDMAIL": "/usr/sbin/sendmail", "SENDMAILFLAGS": "-oi", "LINEBUF": "2048", "COMSAT": "no",
		"PROCMAIL_VERSION": forward.Unknown, "HOST": host(o.Hostname), "LASTFOLDER": forward.Unknown,
	}, m.missing)
	m.cwd = []string{home}
	return m
}

func host(name string) string {
	if name == "" {
		return forward.Unknown
	}
	return name
}

func (m *machine) home() string { return m.values("HOME")[0] }

// passed are variables that the mail server hands over, if procmail is called
// with -p.
var passed = map[string]bool{"SENDER": true, "RECIPIENT": true, "EXTENSION": true, "DOMAIN": true, "LOCAL": true, "USER": true,
	"ORIGINAL_RECIPIENT": true, "CLIENT_ADDRESS": true, "CLIENT_HOSTNAME": true, "CLIENT_HELO": true, "SASL_USERNAME": true}

// values are all that a variable may hold.
func (m *machine) values(name string) []string {
	if name == "$-" {
		name = "LASTFOLDER"
	}
	return m.vars.Values(name)
}

// missing is what a variable holds that no rcfile has set.
func (m *machine) missing(name string) string {
	switch {
	case name == "$_":
		return m.file.name
	case passed[name], name != "" && kind(int(name[0])) == digit:
		return forward.Unknown
	}
	return possible.Unset
}

// set gives a variable all its values anew. What is not run changes nothing; that
// it is not run may be an error of ours.
func (m *machine) set(name string, values []string) {
	if m.dead != "" || m.gone != "" {
		m.vars.Add(name, values...)
	} else {
		m.vars.Set(name, values...)
	}
}

// may adds a value that a variable may have.
func (m *machine) may(name, value string) {
	m.vars.Add(name, value)
}

// enter begins a block.
func (m *machine) enter() {
	m.vars.Enter()
	m.frames = append(m.frames, frame{cwd: m.cwd, dead: m.dead})
}

// leave ends a block; if it may have been passed by, all may be as before.
func (m *machine) leave(maybe bool) {
	top := m.frames[len(m.frames)-1]
	m.frames = m.frames[:len(m.frames)-1]
	m.vars.Leave(maybe)
	if maybe {
		m.dead = top.dead
		m.moveTo(append(slices.Clone(m.cwd), top.cwd...))
	}
}

func (m *machine) moveTo(dirs []string) {
	slices.Sort(dirs)
	if dirs = slices.Compact(dirs); len(dirs) > possible.MaxValues {
		dirs = []string{forward.Unknown}
	}
	m.cwd = dirs
}

// each calls read for all values of the variables that it looks up.
func (m *machine) each(read func(lookup func(string) (string, bool))) {
	m.vars.Each(func() bool { return m.cost >= 0 }, read)
}

// add tells of a target.
func (m *machine) add(t Target) {
	if m.clones > 0 {
		t.Mode = forward.Copy
	}
	t.Target = strings.ReplaceAll(t.Target, personal, forward.Unknown)
	t.Dynamic = strings.Contains(t.Target, forward.Unknown)
	if t.Dormant = m.gone; t.Dormant == "" {
		t.Dormant = m.dead
	}
	if t.Source == "" {
		t.Source, t.Line = m.file.name, m.file.source.line()
	}
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
	if m.full {
		return
	}
	m.full, m.cost = true, -1
	m.unread(m.file.name, why)
}

// unread tells of what mail may go by and nothing is known of.
func (m *machine) unread(what, why string) {
	what = strings.ReplaceAll(what, personal, forward.Unknown)
	m.result.Gaps = append(m.result.Gaps, forward.Gap{Source: m.file.name, Why: what + ": " + why})
	t := Target{Kind: forward.Asked, Target: what, Mode: forward.Redirect, Source: m.file.name, Line: m.file.source.line(), Note: why}
	if !m.have[t] {
		m.have[t] = true
		m.result.Targets = append(m.result.Targets, t)
	}
}

func (m *machine) use(path string) {
	if strings.HasPrefix(path, "/") && len(m.result.Uses) < 10_000 {
		m.result.Uses = append(m.result.Uses, path)
	}
}
