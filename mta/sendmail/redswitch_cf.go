package sendmail

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"relayguard/mta"
)

// The lines that stop mail stand behind the first line of ruleset 0 (parse), which
// finds the way of every address, and of ruleset 5, which finds that of local names
// that are nobody's here. What was the ruleset becomes one of another name, and the new
// one asks it: a way to the inside stays as it is, any other leads to a mailer that
// defers. So it is Sendmail itself that tells where an address ends, with all aliases,
// tables and smart hosts, also for what is in the queue already.
const (
	stopBegin = "# relayguard stop begins: relayguard start takes these lines out."
	stopEnd   = "# relayguard stop ends."
)

// stopMailer is a mailer that greets as an LMTP server that is closed: Sendmail keeps
// the mail and tries it again, and the text shows in its queue.
const stopMailer = "relayguardstop"

var (
	ruleset0 = regexp.MustCompile(`^S[ \t]*(?:[A-Za-z0-9_]+[ \t]*=[ \t]*)?0[ \t]*(?:#.*)?$`)
	ruleset5 = regexp.MustCompile(`^S[ \t]*(?:[A-Za-z0-9_]+[ \t]*=[ \t]*)?5[ \t]*(?:#.*)?$`)
)

var errNoRuleset = errors.New("it has no ruleset 0 that mail could be stopped in")

// stopTarget is what of the outside is told apart in one cf file.
type stopTarget struct {
	inside []string // our domains
	below  []string // and all names below these
	hubs   []string // hosts that get mail of local users
	uucp   []string // mailers that hand on what has no domain
	printf string   // the program of the mailer
}

// stopped puts the lines into a cf file that has none.
func (t stopTarget) stopped(cf string) (string, error) {
	var out strings.Builder
	seen := map[string]bool{}
	for line := range strings.Lines(cf) {
		out.WriteString(line)
		bare := strings.TrimRight(line, "\r\n")
		var name string
		var hubs []string
		switch {
		case ruleset0.MatchString(bare):
			name = "RelayguardParse"
		case ruleset5.MatchString(bare):
			name, hubs = "RelayguardLocaladdr", t.hubs
		default:
			continue
		}
		if !strings.HasSuffix(line, "\n") {
			return "", errNoRuleset // nothing is in it
		}
		out.WriteString(stopBegin + "\n")
		if !seen[name] {
			if len(seen) == 0 {
				t.definitions(&out)
			}
			t.rules(&out, name, hubs)
		}
		seen[name] = true
		out.WriteString("S" + name + "\n" + stopEnd + "\n")
	}
	if !seen["RelayguardParse"] {
		return "", errNoRuleset
	}
	return out.String(), nil
}

// definitions are the classes and the mailer.
func (t stopTarget) definitions(out *strings.Builder) {
	classLines(out, "RelayguardInside", t.inside)
	classLines(out, "RelayguardBelow", t.below)
	classLines(out, "RelayguardHubs", t.hubs)
	// Twice the backslash: printf(1) gets one, and makes a space of \040.
	text := strings.ReplaceAll("421 4.3.2 "+mta.StopText, " ", `\\040`)
	fmt.Fprintf(out, "M%s, P=%s, F=mz, L=990, T=DNS/RFC822/X-Unix, A=printf %s\\\\r\\\\n\n", stopMailer, t.printf, text)
}

// classChunk is how long a C line gets: Sendmail cuts them at some 2,000 octets.
const classChunk = 1000

func classLines(out *strings.Builder, class string, members []string) {
	length := 0
	for _, m := range members {
		if length == 0 || length+len(m) > classChunk {
			if length > 0 {
				out.WriteString("\n")
			}
			out.WriteString("C{" + class + "}")
			length = 0
		}
		out.WriteString(" " + m)
		length += len(m) + 1
	}
	if length > 0 {
		out.WriteString("\n")
	}
}

// rules are the new ruleset. Where it ends the workspace is "$# mailer $@ host $:
// user < @ domain . >"; "$:" cannot stand on a left-hand side, so it is part of $*.
func (t stopTarget) rules(out *strings.Builder, asks string, hubs []string) {
	fmt.Fprintf(out, "R$*\t$: <> $| $>%s $1\n", asks)
	pass := func(match, keep string) {
		fmt.Fprintf(out, "R<> $| $# %s\t$# %s\n", match, keep)
	}
	for _, mailer := range []string{"local", "error", "discard"} {
		pass(mailer+" $*", mailer+" $1")
	}
	classes := []string{"w", "{VirtHost}", "{RelayguardInside}"}
	if len(hubs) > 0 {
		classes = append(classes, "{RelayguardHubs}")
	}
	for _, class := range classes {
		pass("$* < @ $="+class+" . > $*", "$1 < @ $2 . > $3")
		pass("$* < @ $="+class+" > $*", "$1 < @ $2 > $3")
	}
	pass("$* < @ $+ . $={RelayguardBelow} . > $*", "$1 < @ $2 . $3 . > $4")
	pass("$* < @ $+ . $={RelayguardBelow} > $*", "$1 < @ $2 . $3 > $4")
	pass("$- $* < @ $* > $*", stopMailer+" $2 < @ $3 > $4")
	for _, mailer := range t.uucp {
		pass(mailer+" $*", stopMailer+" $1")
	}
	out.WriteString("R<> $| $*\t$@ $1\n")
}

// started takes the lines out again: what is left is what was there, byte for byte.
// taken are the lines themselves. Where the end of them is gone, only those go that
// are among known, which is what stopped wrote once; whole is false then.
func started(cf, known string) (rest, taken string, whole bool) {
	ours := map[string]bool{}
	for line := range strings.Lines(known) {
		ours[line] = true
	}
	ends := 0
	for line := range strings.Lines(cf) {
		switch strings.TrimRight(line, "\r\n") {
		case stopBegin:
			ends++
		case stopEnd:
			ends--
		}
	}
	whole = ends == 0
	var kept, out strings.Builder
	within := false
	for line := range strings.Lines(cf) {
		bare := strings.TrimRight(line, "\r\n")
		within = within && (whole || ours[line]) || bare == stopBegin
		if within {
			out.WriteString(line)
		} else {
			kept.WriteString(line)
		}
		within = within && bare != stopEnd
	}
	return kept.String(), out.String(), whole
}

// stopTargetOf is what the lines in s must tell apart.
func (r RedSwitch) stopTargetOf(s *Settings, in insideDomains) (stopTarget, error) {
	t := stopTarget{inside: in.exact, below: in.below}
	for _, macro := range []string{"H", "R", "L"} { // MAIL_HUB, LOCAL_RELAY, LUSER_RELAY
		if host, is := hubOf(s.Macro(macro)); is && !slices.Contains(t.hubs, host) {
			t.hubs = append(t.hubs, host)
		}
	}
	for _, m := range s.Mailers() {
		if strings.HasSuffix(m.Path, "/uux") && plainWord.MatchString(m.Name) {
			t.uucp = append(t.uucp, m.Name)
		}
	}
	for _, path := range []string{"/usr/bin/printf", "/bin/printf", "/usr/local/bin/printf"} {
		if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o111 != 0 {
			t.printf = path
			return t, nil
		}
	}
	return t, errors.New("find printf(1): it is not in /usr/bin, /bin or /usr/local/bin")
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// hubOf is the host in "mailer:host" or "host". Where it names a user, local users'
// mail goes to an address, and that is looked at by itself.
func hubOf(relay string) (string, bool) {
	mailer, host, found := strings.Cut(relay, ":")
	if !found || strings.HasPrefix(mailer, "[") { // [IPv6:...]
		host = relay
	}
	if strings.EqualFold(mailer, "local") || strings.EqualFold(mailer, "error") || host == "" || len(host) > 255 ||
		strings.ContainsAny(host, "@$<>()\"\\,;!%| \t\r\n\x00#") {
		return "", false
	}
	return strings.ToLower(host), true
}
