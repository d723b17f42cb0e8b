package maildrop

import (
	"path"
	"regexp"
	"strings"

	"relayguard/forward"
	"relayguard/forward/commandline"
	"relayguard/forward/possible"
)

// deliver follows a delivery: "!" is the end of a command line behind SENDMAIL,
// "|" is one, all else is a mailbox.
func (m *machine) deliver(mailbox string, mode forward.Mode) {
	switch {
	case mailbox == possible.Unset || mailbox == "":
	case strings.HasPrefix(mailbox, "!"):
		for _, sendmail := range m.vars.Values("SENDMAIL") {
			if sendmail == possible.Unset {
				sendmail = ""
			}
			m.mail(sendmail, mailbox[1:], mode)
		}
	case strings.HasPrefix(mailbox, "|"):
		m.command(mailbox[1:], mode)
	case strings.HasPrefix(mailbox, forward.Unknown):
		m.add(Target{Kind: forward.Address, Target: mailbox, Mode: mode, Note: "only a message decides whether it is an address"})
	}
}

// meta are what makes more of the rest of a command line than addresses.
var meta = regexp.MustCompile("[;&|<>`$()\\\\\n*?\\[{~]")

// mail follows "!". A SENDMAIL of somebody's choice, and what the shell makes of
// the addresses, are a program of their own.
func (m *machine) mail(sendmail, rest string, mode forward.Mode) {
	text := sendmail + " -f '' " + rest
	program, _, _ := strings.Cut(strings.TrimSpace(sendmail), " ")
	own := commandline.System(program) && strings.HasPrefix(path.Base(program), "sendmail") && !meta.MatchString(sendmail+rest)
	m.shell(text, program, mode, own)
}

// command follows a command line that the shell gets.
func (m *machine) command(text string, mode forward.Mode) {
	if strings.TrimSpace(text) != "" && text != possible.Unset {
		m.shell(text, "", mode, false)
	}
}

func (m *machine) shell(text, sendmail string, mode forward.Mode, own bool) {
	m.vars.Each(func() bool { return m.cost >= 0 }, func(lookup func(string) (string, bool)) {
		m.cost -= 4 * len(text)
		search, _ := lookup("PATH")
		does := commandline.Shell(text, commandline.Env{Lookup: lookup, Sendmail: sendmail, Output: m.output,
			Trusted: func(program string) bool { return trusted(program, search) }})
		for _, address := range does.Addresses {
			m.add(Target{Kind: forward.Address, Target: address, Mode: mode})
		}
		if !does.Harmless && !own {
			m.add(Target{Kind: forward.Program, Target: strings.TrimSpace(text), Mode: mode})
		}
	})
}

// trusted reports whether a program is the system's own: by its path, or by its
// name where PATH begins with the system's directories.
func trusted(program, search string) bool {
	if strings.Contains(program, "/") {
		return commandline.System(program)
	}
	first, _, _ := strings.Cut(search, ":")
	return commandline.System(first + "/x")
}

var simple = regexp.MustCompile(`^[\w/.@+ ,%:-]+$`)

// output is what a command prints, if that is plain: echo, and cat of one file.
// Newlines become blanks.
func (m *machine) output(command string) string {
	argv := strings.Fields(command)
	search := m.vars.Values("PATH")
	if len(argv) < 2 || !simple.MatchString(command) || strings.HasPrefix(argv[1], "-") || len(search) != 1 || !trusted(argv[0], search[0]) {
		return forward.Unknown
	}
	switch path.Base(argv[0]) {
	case "echo":
		return strings.Join(argv[1:], " ")
	case "cat":
		if len(argv) == 2 {
			return m.content(argv[1])
		}
	}
	return forward.Unknown
}

// content is a file's, if it is short.
func (m *machine) content(name string) string {
	if !strings.HasPrefix(name, "/") {
		name = m.home + "/" + name
	}
	if m.files++; m.files > maxFiles || m.o.Read == nil || strings.Contains(name, personal) {
		return forward.Unknown
	}
	name = path.Clean(name)
	m.result.Uses = append(m.result.Uses, name)
	data, err := m.o.Read(name)
	if err != nil || len(data) > 1024 {
		return forward.Unknown
	}
	return strings.TrimSpace(strings.NewReplacer("\n", " ", "\r", " ").Replace(string(data)))
}
