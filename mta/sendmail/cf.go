package sendmail

import (
	"errors"
	"slices"
	"strings"

	"relayguard/mta"
)

// Settings is what one cf file says: options, classes, macros, mailers, queue
// groups, filters. Rewriting rules are not followed.
type Settings struct {
	Path string // of the file; "" if it was parsed from memory

	options map[string][]string // by name in lower case
	macros  map[string]string   // as written
	classes map[string][]string // C and T lines
	sources []ClassSource       // F lines
	daemons []Daemon
	clients []Daemon
	filters []Filter
	mailers []Mailer
	groups  []QueueGroup
	classOf map[string]int // P lines: what "Precedence: name" counts
	maps    []Map
	unread  []mta.Unread

	mayRead func(path string) bool // of whoever is to see them, see asSeenBy; nil: all
}

// Map is a K line: a table, by its name, class ("hash", "ldap") and arguments.
type Map struct {
	Name, Class, Args string
	Line              int
}

// ClassSource is an F line: where members of a class are read from.
type ClassSource struct {
	Class    string
	Source   string // a path; "|command"; "key@map:spec"
	Format   string // of scanf; "" is %s
	Optional bool
	Line     int
}

// ParseSettings reads a cf file as readcf.c does. What it does not know it leaves
// out. It takes time and memory in proportion to data, and reads no other file.
func ParseSettings(data []byte) *Settings {
	s := &Settings{options: map[string][]string{}, macros: map[string]string{}, classes: map[string][]string{}, classOf: map[string]int{}}
	for text, number := range logicalLines(string(data)) {
		s.line(text[0], text[1:], number)
	}
	return s
}

func (s *Settings) line(kind byte, body string, number int) {
	switch kind {
	case 'O':
		s.option(body, number)
	case 'D':
		if name, value, ok := macroName(body); ok {
			value, _ = munch(value, 0)
			s.macros[name] = value
		}
	case 'C':
		if name, value, ok := macroName(body); ok {
			s.classes[name] = append(s.classes[name], strings.Fields(s.expand(value, 0))...)
		}
	case 'T':
		s.classes["t"] = append(s.classes["t"], strings.Fields(body)...)
	case 'F':
		if name, value, ok := macroName(body); ok {
			s.sources = append(s.sources, classSource(name, value, number))
		}
	case 'M':
		s.mailers = append(s.mailers, mailer(body, number))
	case 'Q':
		s.groups = append(s.groups, queueGroup(body, number))
	case 'X':
		s.filters = append(s.filters, filter(body, number))
	case 'P':
		s.precedence(body)
	case 'K':
		s.mapping(body, number)
	}
}

// oldOptions are the names of those options that were known by one letter.
var oldOptions = map[byte]string{
	'A': "aliasfile", 'd': "deliverymode", 'e': "errormode", 'F': "tempfilemode", 'L': "loglevel", 'O': "daemonportoptions",
	'p': "privacyoptions", 'Q': "queuedirectory", 'S': "statusfile", 's': "supersafe", 'T': "queuetimeout", 'u': "defaultuser",
}

func (s *Settings) option(body string, number int) {
	var name, value string
	if long, ok := strings.CutPrefix(body, " "); ok {
		name, value, _ = strings.Cut(long, "=")
		name = strings.ToLower(strings.Trim(name, " "))
	} else if body != "" {
		name, value = oldOptions[body[0]], body[1:]
	}
	if name == "" {
		return
	}
	value = strings.TrimLeft(value, " ")
	s.options[name] = append(s.options[name], value)
	switch name {
	case "daemonportoptions":
		s.daemons = append(s.daemons, portOptions(value, number))
	case "clientportoptions":
		s.clients = append(s.clients, portOptions(value, number))
	}
}

func (s *Settings) precedence(body string) {
	if name, value, found := strings.Cut(body, "="); found {
		n, sign := 0, 1
		value = strings.TrimSpace(value)
		if rest, minus := strings.CutPrefix(value, "-"); minus {
			value, sign = rest, -1
		}
		for _, c := range value {
			if c < '0' || c > '9' || n > 1<<20 {
				break
			}
			n = n*10 + int(c-'0')
		}
		s.classOf[strings.ToLower(name)] = n * sign
	}
}

func (s *Settings) mapping(body string, number int) {
	name, rest, _ := strings.Cut(strings.TrimSpace(body), " ")
	class, args, _ := strings.Cut(strings.TrimSpace(rest), " ")
	if name != "" && class != "" {
		s.maps = append(s.maps, Map{Name: name, Class: strings.ToLower(class), Args: strings.TrimSpace(args), Line: number})
	}
}

// Option is what "O name=value" says last; "" unset. A name with a part
// ("Timeout.queuereturn") is an option of its own; letter case is no matter.
// Macros in it are as written.
func (s *Settings) Option(name string) string {
	if values := s.options[strings.ToLower(name)]; len(values) > 0 {
		return values[len(values)-1]
	}
	return ""
}

// Options is all that was said for that option, in its order; AliasFile and
// DaemonPortOptions add up.
func (s *Settings) Options(name string) []string {
	return slices.Clone(s.options[strings.ToLower(name)])
}

// Set reports whether the file says anything for that option.
func (s *Settings) Set(name string) bool { return len(s.options[strings.ToLower(name)]) > 0 }

// Macro is the value of $x or ${name}, expanded; "" unset. What Sendmail finds out
// itself ($w, $j where no line says it) is unset here.
func (s *Settings) Macro(name string) string {
	value, ok := s.macros[name]
	if !ok {
		return ""
	}
	return s.expand(value, 0)
}

// Maps are the K lines, in their order.
func (s *Settings) Maps() []Map { return slices.Clone(s.maps) }

// Unread is what could not be followed: class members that a program or a table
// tells, files that could not be read.
func (s *Settings) Unread() []mta.Unread { return slices.Clone(s.unread) }

var errNotFollowed = errors.New("programs and tables are not asked")

// queueDirectory is where readcf.c's default is, too.
func (s *Settings) queueDirectory() string {
	if dir := s.Option("QueueDirectory"); dir != "" {
		return s.expand(dir, 0)
	}
	return "/var/spool/mqueue"
}
