package postfix

import (
	"fmt"
	"path"
	"strings"
)

// service is one entry of master.cf(5).
type service struct {
	name, kind string // "submission", "inet"
	private    bool
	chroot     bool
	command    string            // "smtpd": a name in daemon_directory
	overrides  map[string]string // -o name=value; the last one counts
	args       []string          // what follows the options, braces taken off
	words      []string          // all arguments, braces taken off
	line       int
	// unread says what of the entry could not be read: what it does is not known
	// then. Empty: all of it was.
	unread string

	settings map[string]string // expanded, with the overrides; nil: main.cf's
}

// id names it as postconf(1) does.
func (s *service) id() string { return s.name + "/" + s.kind }

// parseMaster reads master.cf(5). The error names the first entry that could not
// be read, or on which master(8) would not start. Such a one is kept with what it
// says of itself (unread): it may be running all the same. chroot is what "-"
// stands for.
func parseMaster(text string, chroot bool) ([]service, error) {
	var services []service
	var first error
	at := map[string]int{}
	for _, l := range logicalLines(text) {
		s := parseService(l, chroot)
		if s.unread != "" && first == nil {
			first = fmt.Errorf("line %d: %s", l.line, s.unread)
		}
		if n, twice := at[s.id()]; twice { // the last one counts (master_conf.c)
			services[n] = s
			continue
		}
		at[s.id()] = len(services)
		services = append(services, s)
	}
	return services, first
}

func parseService(l logicalLine, chroot bool) service {
	s := service{chroot: chroot, line: l.line}
	words, err := splitArgs(l.text)
	if err != nil {
		s.unread = err.Error()
		words = strings.Fields(l.text)
	}
	if len(words) < 8 {
		s.unread = fmt.Sprintf("got %d fields, want 8 or more", len(words))
		words = append(words, make([]string, 8-len(words))...)
	}
	s.name, s.kind, s.private, s.command = words[0], words[1], words[2] != "n", words[7]
	if s.command != "" && !path.IsAbs(s.command) {
		s.command = path.Clean(s.command) // "./cleanup" is cleanup
	}
	if words[4] != "-" {
		s.chroot = words[4] == "y"
	}
	args := words[8:]
	for n := range args {
		args[n], _ = inBraces(args[n])
	}
	s.args, s.words = args, args
	if s.unread == "" {
		s.args, s.unread = s.options(args)
	}
	return s
}

// Options of Postfix's daemons: what getopt(3) is given in single_server.c,
// multi_server.c, event_server.c and trigger_server.c of 3.7 to 3.11.
const (
	daemonFlags  = "cdDlSuvVz"
	daemonValues = "imnost" // these take a value, in the same word or the next
)

// options reads the options at the beginning of a service's arguments as getopt(3)
// does there: clustered ("-vo name=value", "-voname=value"), up to "--" or the
// first word that is none. rest is what follows; unread says what no daemon
// would take.
func (s *service) options(args []string) (rest []string, unread string) {
	for n := 0; n < len(args); n++ {
		arg := args[n]
		if arg == "--" {
			return args[n+1:], ""
		}
		if len(arg) < 2 || arg[0] != '-' {
			return args[n:], ""
		}
		for at := 1; at < len(arg); at++ {
			switch {
			case strings.IndexByte(daemonFlags, arg[at]) >= 0:
				continue
			case strings.IndexByte(daemonValues, arg[at]) < 0:
				return args[n:], "option " + brief(arg) + " is none of Postfix's daemons'"
			}
			option, value := arg[at], arg[at+1:]
			if value == "" {
				if n++; n == len(args) {
					return nil, "-" + string(option) + " without a value"
				}
				value = args[n]
			}
			if option == 'o' && !s.override(value) {
				return args[n:], "-o " + brief(value) + ": want name=value"
			}
			break
		}
	}
	return nil, ""
}

// override takes the value of an option -o; the last one of a name counts.
func (s *service) override(setting string) bool {
	name, value, found := strings.Cut(setting, "=")
	if name = strings.Trim(name, spaces); !found || name == "" || strings.ContainsAny(name, spaces) {
		return false
	}
	if s.overrides == nil {
		s.overrides = map[string]string{}
	}
	s.overrides[name] = strings.Trim(value, spaces)
	return true
}

// splitArgs splits at white space, but keeps "{ ... }" at the beginning of a
// word together: mystrtokq(3).
func splitArgs(text string) ([]string, error) {
	var words []string
	rest := strings.Trim(text, spaces)
	for rest != "" {
		end := 0
		if rest[0] == '{' {
			depth := 0
			for ; end < len(rest); end++ {
				if rest[end] == '{' {
					depth++
				} else if rest[end] == '}' {
					if depth--; depth == 0 {
						end++
						break
					}
				}
			}
			if depth != 0 {
				return nil, fmt.Errorf("%q: braces are not closed", brief(rest))
			}
		}
		for end < len(rest) && strings.IndexByte(spaces, rest[end]) < 0 {
			end++
		}
		words = append(words, rest[:end])
		rest = strings.TrimLeft(rest[end:], spaces)
	}
	return words, nil
}
