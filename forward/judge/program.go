package judge

import (
	"regexp"
	"strings"
)

// agentDirs are where a distribution keeps its programs; in a home, a program of
// the same name is another one.
var agentDirs = []string{"/usr/bin/", "/bin/", "/usr/sbin/", "/usr/lib/dovecot/", "/usr/libexec/dovecot/"}

// agents are programs that deliver mail where files say that other finders read,
// and the flags that change nothing of it: true ones take a value. A program's
// own configuration on the command line (procmail's rc file, dovecot-lda -c and
// -o) makes it opaque, as does whatever is not listed.
var agents = map[string]map[string]bool{
	"dovecot-lda": {"-d": true, "-f": true, "-a": true, "-r": true, "-m": true, "-e": false},
	"deliver":     {"-d": true, "-f": true, "-a": true, "-r": true, "-m": true, "-e": false},
	"procmail":    {"-a": true, "-d": true, "-f": true, "-t": false, "-Y": false, "-o": false, "-Yf-": false, "-f-": false},
	"maildrop":    {"-d": true, "-f": true, "-V": true, "-w": true},
}

// classic is the line that procmail's manual tells people to put into .forward.
var classic = regexp.MustCompile(`^IFS=' ' ?&& ?(?:p=(?:/usr)?/bin/procmail ?&& ?test -f \$p ?&& ?)?exec (?:(?:/usr)?/bin/procmail|\$p)((?: -(?:Yf-|f-|t|Y))*) ?\|\| ?exit 75 ?(?:#[\w.@-]*)?$`)

// macro is a variable as local(8) and pipe(8) fill it in, in quotes or not.
var macro = regexp.MustCompile(`"\$\{?[A-Za-z_]+\}?"|\$\{[A-Za-z_]+\}|\$[A-Za-z_]+`)

// deliveryAgent reports whether a command line is a known delivery agent of the
// distribution, called in a way that leaves its own files in charge. vacation is
// none: it answers, and what it answers to is its own affair, so it stays opaque.
func deliveryAgent(command string) bool {
	command = strings.TrimSpace(command)
	if inner, ok := strings.CutPrefix(command, `"`); ok {
		command = strings.TrimSpace(strings.TrimSuffix(inner, `"`))
	}
	if classic.MatchString(command) {
		return true
	}
	// What the server puts in for itself; it quotes what could be dangerous.
	command = macro.ReplaceAllString(command, "x")
	if strings.ContainsAny(command, "$;|&`<>\\'\"()*?~\n\r\x00") {
		return false
	}
	words := strings.Fields(command)
	if len(words) == 0 {
		return false
	}
	if !strings.Contains(words[0], "/") { // looked for in the server's own PATH
		words[0] = agentDirs[0] + words[0]
	}
	for _, dir := range agentDirs {
		if name, ok := strings.CutPrefix(words[0], dir); ok {
			if flags, ok := agents[name]; ok {
				return onlyFlags(words[1:], flags)
			}
		}
	}
	return false
}

func onlyFlags(args []string, flags map[string]bool) bool {
	for i := 0; i < len(args); i++ {
		takes, ok := flags[args[i]]
		if !ok {
			return false
		}
		if !takes {
			continue
		}
		if i++; i < len(args) && strings.HasPrefix(args[i], "/") {
			return false // a path: a file of somebody's choice
		}
	}
	return true
}
