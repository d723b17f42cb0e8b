package procmail

import (
	"path"
	"slices"
	"strings"

	"relayguard/forward"
	"relayguard/forward/possible"
)

// alters reports whether a variable changes what a program does that is run with
// it: shell, one that a shell runs; any, whatever it is.
func alters(name string) (shell, any bool) {
	switch name {
	case "SHELL", "SHELLFLAGS", "BASH_ENV", "ENV", "IFS", "SHELLOPTS", "BASHOPTS", "PS4", "ZDOTDIR":
		return true, false
	case "GCONV_PATH", "PERL5LIB", "PERL5OPT", "PERLLIB", "PYTHONPATH", "PYTHONHOME", "RUBYLIB", "RUBYOPT", "MAIL_CONFIG":
		return false, true
	}
	return strings.HasPrefix(name, "BASH_FUNC_"), strings.HasPrefix(name, "LD_")
}

var shells = []string{"sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "csh", "tcsh"}

// plainValue reports whether a value of such a variable is what every system has.
func plainValue(name, value string) bool {
	switch {
	case value == possible.Unset:
		return name != "SHELL" && name != "SHELLFLAGS"
	case name == "SHELL":
		dir := path.Dir(value)
		return (dir == "/bin" || dir == "/usr/bin") && slices.Contains(shells, path.Base(value))
	case name == "SHELLFLAGS":
		return value == "-c"
	}
	return value == ""
}

// altered tells of an assignment by which programs are others than they seem, and
// remembers it: what is run from then on is told of, too.
func (m *machine) altered(name string, values []string, at position) {
	if shell, any := alters(name); !shell && !any {
		return
	}
	for _, value := range values {
		if plainValue(name, value) {
			continue
		}
		if !slices.Contains(m.alterations, name) && len(m.alterations) < maxAlterations {
			m.alterations = append(m.alterations, name)
		}
		if value == possible.Unset {
			value = ""
		}
		m.add(Target{Kind: forward.Asked, Target: name + "=" + value, Mode: forward.Copy, Source: at.file, Line: at.line,
			Note: "what programs do that are run with it, is not known"})
	}
}

// maxAlterations bounds the names that are remembered; there are about twenty and
// whatever begins with LD_.
const maxAlterations = 200

// otherThanItSeems reports whether what is run with these variables may do
// anything; shell: a shell runs it.
func (m *machine) otherThanItSeems(lookup func(string) (string, bool), shell bool) bool {
	return slices.ContainsFunc(m.alterations, func(name string) bool {
		_, any := alters(name)
		value, set := lookup(name)
		if !set {
			value = possible.Unset
		}
		return (any || shell) && !plainValue(name, value)
	})
}

// fileOf puts the value of an assignment apart from its name, so that the file
// that it names is hashed.
func fileOf(assignment string) string {
	if name, value, ok := strings.Cut(assignment, "="); ok {
		if shell, any := alters(name); shell || any {
			return value + " " + name
		}
	}
	return assignment
}
