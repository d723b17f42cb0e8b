package postfix

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"path"
	"slices"
	"strings"

	"relayguard/forward"
	"relayguard/forward/tables"
)

// agents are programs that deliver mail into a mailbox, or by rules that other
// packages read. Only by their own paths: /tmp/procmail is none.
var agents = map[string]string{
	"/usr/lib/dovecot/dovecot-lda":     "Dovecot's delivery agent",
	"/usr/lib/dovecot/deliver":         "Dovecot's delivery agent",
	"/usr/libexec/dovecot/dovecot-lda": "Dovecot's delivery agent",
	"/usr/libexec/dovecot/deliver":     "Dovecot's delivery agent",
	"/usr/bin/procmail":                "procmail",
	"/usr/local/bin/procmail":          "procmail",
	"/usr/bin/maildrop":                "maildrop",
	"/usr/local/bin/maildrop":          "maildrop",
	"/usr/lib/cyrus/bin/deliver":       "Cyrus' delivery agent",
	"/usr/lib/mailman/mail/mailman":    "Mailman",
	"/var/lib/mailman/mail/mailman":    "Mailman",
}

// agent names the delivery agent that a command line runs, and nothing else with
// it; empty: another program, or a shell would do more. program is its first word
// as a path.
func agent(command, program string) string {
	if strings.ContainsAny(command, ";|&<>`\n") || strings.Contains(command, "$(") {
		return ""
	}
	name := agents[path.Clean(program)]
	if name != "" && !strings.HasPrefix(command, "/") {
		name += " (" + program + ")"
	}
	return name
}

// maxPrograms bounds how many files of one command line are hashed; each is at
// most maxProgram octets.
const (
	maxPrograms = 8
	maxProgram  = 64 << 20
)

// program completes a rule for a command line: what it is, and a digest of the
// files that it names with their whole path, the program or the script that an
// interpreter gets. They are in uses, existing or not.
func (f *finder) program(ctx context.Context, base forward.Rule, command string) (rule forward.Rule, uses []string) {
	base.Kind, base.Target, base.Mode = forward.Program, command, forward.Redirect
	var sums []string
	var first string
	for n, word := range strings.Fields(command) {
		word = strings.Trim(word, `"'`)
		if n == 0 && !strings.Contains(word, "/") {
			word = f.search(ctx, word)
		}
		if n == 0 {
			first = word
		}
		if !path.IsAbs(word) || slices.Contains(uses, path.Clean(word)) || len(uses) == maxPrograms {
			continue
		}
		word = path.Clean(word)
		uses = append(uses, word)
		data, _, err := f.h.Files.Read(ctx, word, forward.ReadOptions{Max: maxProgram})
		if err != nil {
			continue
		}
		sum := sha256.Sum256(data)
		sums = append(sums, hex.EncodeToString(sum[:]))
	}
	switch len(sums) {
	case 0:
	case 1:
		base.Digest = sums[0]
	default:
		sum := sha256.Sum256([]byte(strings.Join(sums, "\n")))
		base.Digest = hex.EncodeToString(sum[:])
	}
	if name := agent(command, first); name != "" {
		base.Note = strings.TrimPrefix(base.Note+"; delivery agent: "+name, "; ")
	}
	return bounded(base), uses
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// search finds a program where Postfix's PATH leads: command_directory's and the
// system's directories.
func (f *finder) search(ctx context.Context, name string) string {
	for _, dir := range []string{"/usr/bin", "/bin", "/usr/sbin"} {
		if info, err := f.h.Files.Lstat(ctx, path.Join(dir, name)); err == nil && info.Name != "" {
			return path.Join(dir, name)
		}
	}
	return name
}

// pipe is a rule for a service that hands mail to a program: pipe(8).
func (f *finder) pipe(ctx context.Context, base forward.Rule, s *service) forward.Reading {
	command := s.argv()
	if base.Mechanism == forward.Transport {
		base.Mechanism = forward.Command
	}
	if command == "" {
		base.Kind, base.Target, base.Broken = forward.Program, s.id(), "pipe(8) without argv="
		return forward.Reading{Rules: []forward.Rule{base}}
	}
	base.Note = strings.TrimPrefix(base.Note+"; pipe service "+s.id(), "; ")
	rule, uses := f.program(ctx, base, command)
	if around := s.surroundings(); around != "" { // no delivery agent: it runs elsewhere, with other files
		rule.Target, rule.Note = around+" "+rule.Target, base.Note
		inside := f.inChroot(s, command)
		other, more := f.program(ctx, base, inside)
		rule.Digest, uses = other.Digest, append(uses, more...)
	}
	return forward.Reading{Rules: []forward.Rule{bounded(rule)}, Uses: uses}
}

// surroundings are the arguments by which pipe(8) runs a program somewhere else:
// "chroot=/dir", "directory=/dir".
func (s *service) surroundings() string {
	var all []string
	for _, arg := range s.args {
		if strings.HasPrefix(arg, "argv=") {
			break
		}
		if strings.HasPrefix(arg, "chroot=") || strings.HasPrefix(arg, "directory=") {
			all = append(all, arg)
		}
	}
	return strings.Join(all, " ")
}

// inChroot is a command line with its paths as they are outside of the directory
// that the program takes for the root.
func (f *finder) inChroot(s *service, command string) string {
	root := ""
	for _, arg := range s.args {
		if dir, is := strings.CutPrefix(arg, "chroot="); is {
			root = dir
		} else if strings.HasPrefix(arg, "argv=") {
			break
		}
	}
	words := strings.Fields(command)
	for n, word := range words {
		if root != "" && path.IsAbs(word) {
			words[n] = path.Join(root, word)
		}
	}
	return strings.Join(words, " ")
}

// localProgram is program for a command of local(8), which local_command_shell may
// run by another program than the shell.
func (f *finder) localProgram(ctx context.Context, p *place, base forward.Rule, command string) (forward.Rule, []string) {
	if shell := f.at(p, "local_command_shell"); shell != "" {
		command = shell + " " + command
	}
	return f.program(ctx, base, command)
}

// argv is the command line of a pipe(8) or spawn(8) service.
func (s *service) argv() string {
	for n, arg := range s.args {
		if first, found := strings.CutPrefix(arg, "argv="); found {
			return strings.TrimSpace(strings.Join(append([]string{first}, s.args[n+1:]...), " "))
		}
	}
	return ""
}

// daemons are the programs of Postfix itself, as of 3.11.
var daemons = map[string]bool{
	"anvil": true, "bounce": true, "cleanup": true, "discard": true, "dnsblog": true, "error": true, "flush": true,
	"lmtp": true, "local": true, "oqmgr": true, "nqmgr": true, "pickup": true, "pipe": true, "postlogd": true,
	"postscreen": true, "proxymap": true, "qmgr": true, "qmqpd": true, "scache": true, "showq": true, "smtp": true,
	"smtpd": true, "spawn": true, "tlsmgr": true, "tlsproxy": true, "trivial-rewrite": true, "verify": true,
	"virtual": true, "nbdb_reindexd": true,
}

// strange is a rule for a service whose program is none of Postfix's.
func (f *finder) strange(ctx context.Context, base forward.Rule, s *service) forward.Reading {
	command := path.Join(f.i.value("daemon_directory"), s.command)
	if base.Mechanism == forward.Transport {
		base.Mechanism = forward.Command
	}
	base.Note = strings.TrimPrefix(base.Note+"; service "+s.id()+" runs a program that is not Postfix's", "; ")
	rule, uses := f.program(ctx, base, strings.Join(append([]string{command}, s.words...), " "))
	return forward.Reading{Rules: []forward.Rule{rule}, Uses: uses}
}

// commands are the units of mailbox_command_maps.
func (f *finder) commands(ctx context.Context) []forward.Unit {
	var units []forward.Unit
	for _, p := range f.i.places("mailbox_command_maps", "local") {
		f.taken(&p, "mailbox_transport")
		units = append(units, f.unit(ctx, p, func(ctx context.Context) forward.Reading {
			return f.each(ctx, &p, forward.Command, false, true, func(base forward.Rule, e tables.Entry) forward.Reading {
				base.Owner = owner(e)
				rule, uses := f.localProgram(ctx, &p, base, strings.Trim(e.Value, spaces))
				return forward.Reading{Rules: []forward.Rule{rule}, Uses: uses}
			})
		}))
	}
	return units
}

// taken makes a place dormant where local(8) never comes to it, since it hands
// the mail to a transport before.
func (f *finder) taken(p *place, settings ...string) {
	for _, name := range settings {
		if f.at(p, name) != "" && p.dormant == "" {
			p.dormant = name + " takes the mail before"
		}
	}
}
