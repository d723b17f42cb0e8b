package procmail

import (
	"path"
	"regexp"
	"strings"

	"relayguard/forward"
	"relayguard/forward/commandline"
)

// command follows a command line that gets the mail: procmail cuts it into words
// itself, unless there is a character of SHELLMETAS in it.
func (m *machine) command(text string, mode forward.Mode, at position) {
	if strings.TrimSpace(text) == "" {
		return
	}
	m.each(func(lookup func(string) (string, bool)) { m.commandAs(text, mode, at, lookup) })
}

func (m *machine) commandAs(text string, mode forward.Mode, at position, lookup func(string) (string, bool)) {
	m.cost -= 4 * len(text)
	if m.cost < 0 {
		return
	}
	shell, plain := m.shell(text, lookup)
	if shell {
		does := commandline.Shell(text, m.env(lookup))
		does.Harmless = does.Harmless && !m.otherThanItSeems(lookup, true)
		m.program(strings.TrimSpace(text), does, mode, at)
	}
	if plain {
		e := &expansion{source: &source{data: []byte(text)}, lookup: lookup, cost: &m.cost}
		e.run = func(command string) string { return m.backtick(command, lookup) }
		e.read()
		argv := e.words()
		does := commandline.Argv(argv, m.env(lookup))
		does.Harmless = does.Harmless && !m.otherThanItSeems(lookup, false)
		m.program(strings.Join(argv, " "), does, mode, at)
	}
}

// shell tells whether a shell may get the text, and whether procmail may cut it.
func (m *machine) shell(text string, lookup func(string) (string, bool)) (shell, plain bool) {
	metas, _ := lookup("SHELLMETAS")
	if strings.Contains(metas, forward.Unknown) {
		return true, true
	}
	if strings.ContainsAny(text, metas) {
		return true, false
	}
	word, _, _ := strings.Cut(strings.TrimSpace(text), " ")
	return word == "test", true // "test" is left to the shell where there is no /bin/test
}

// env is what is known of variables in a command line.
func (m *machine) env(lookup func(string) (string, bool)) commandline.Env {
	sendmail, _ := lookup("SENDMAIL")
	search, _ := lookup("PATH")
	return commandline.Env{Lookup: lookup, Sendmail: sendmail,
		Trusted: func(program string) bool { return m.trusted(program, search) },
		Output:  func(command string) string { return m.output(strings.Fields(command), command, search) },
	}
}

// program tells of a command line and of the addresses in it.
func (m *machine) program(text string, does commandline.Result, mode forward.Mode, at position) {
	for _, address := range does.Addresses {
		m.add(Target{Kind: forward.Address, Target: address, Mode: mode, Source: at.file, Line: at.line})
	}
	if !does.Harmless && text != "" {
		m.add(Target{Kind: forward.Program, Target: text, Mode: mode, Source: at.file, Line: at.line})
	}
}

// sendmail tells of the recipients of a "!" line. A SENDMAIL of somebody's choice
// is a program of its own.
func (m *machine) sendmail(argv []string, lookup func(string) (string, bool), mode forward.Mode, at position) {
	does := commandline.Argv(argv, commandline.Env{Sendmail: argv[0]})
	does.Harmless = commandline.System(argv[0]) && strings.HasPrefix(path.Base(argv[0]), "sendmail") && !m.otherThanItSeems(lookup, false)
	m.program(strings.Join(argv, " "), does, mode, at)
}

// backtick follows a command whose output is used. All of them get the mail.
func (m *machine) backtick(command string, lookup func(string) (string, bool)) string {
	m.commandAs(command, forward.Copy, m.here(), lookup)
	if shell, _ := m.shell(command, lookup); shell || m.cost < 0 {
		return forward.Unknown
	}
	search, _ := lookup("PATH")
	e := &expansion{source: &source{data: []byte(command)}, lookup: lookup, cost: &m.cost, run: func(string) string { return forward.Unknown }}
	e.read()
	return m.output(e.words(), "", search)
}

var simple = regexp.MustCompile(`^[\w/.@+ ,%:-]+$`)

// output is what a command prints, if that is plain: echo, and cat of one file.
// text is the command for a shell, or empty.
func (m *machine) output(argv []string, text, search string) string {
	if text != "" && !simple.MatchString(text) || len(argv) == 0 || len(m.alterations) > 0 || !m.trusted(argv[0], search) {
		return forward.Unknown
	}
	switch args := argv[1:]; {
	case path.Base(argv[0]) == "echo" && (len(args) == 0 || !strings.HasPrefix(args[0], "-")):
		return strings.Join(args, " ")
	case path.Base(argv[0]) == "cat" && len(args) == 1 && !strings.HasPrefix(args[0], "-"):
		return m.content(args[0])
	}
	return forward.Unknown
}

// content is a file's, if it is short and there is one file only that it may be.
func (m *machine) content(name string) string {
	paths := m.absolute(name)
	if len(paths) != 1 || m.o.Read == nil || strings.Contains(paths[0], forward.Unknown) || strings.Contains(paths[0], personal) {
		return forward.Unknown
	}
	if m.files++; m.files > maxFiles {
		return forward.Unknown
	}
	m.use(paths[0])
	data, err := m.o.Read(paths[0])
	if err != nil || len(data) > 1024 {
		return forward.Unknown
	}
	return strings.TrimRight(cut(string(data)), "\n")
}

// trusted reports whether a program is the system's own: by its path, or by its
// name if nothing of that name stands in the user's directories of PATH.
func (m *machine) trusted(program, search string) bool {
	if strings.Contains(program, "/") {
		return commandline.System(program)
	}
	for _, dir := range strings.Split(search, ":") {
		switch dir {
		case "/bin", "/usr/bin", "/sbin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin":
			return true
		}
		name := dir + "/" + program
		if m.o.Look == nil || !strings.HasPrefix(dir, "/") || strings.Contains(name, forward.Unknown) {
			return false
		}
		m.use(name)
		if exists, _ := m.o.Look(name); exists {
			return false
		}
	}
	return false
}
