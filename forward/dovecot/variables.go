package dovecot

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// user is one mailbox as Dovecot knows it.
type user struct {
	name string // alice, alice@corp.test
	home string
	uid  int // forward.NoUID: not known
	gid  int

	fields  fields // of the user database, for this user alone
	pass    fields // of the password database
	file    string // where the fields are from
	line    int
	more    bool   // a database that comes later may put its own above these
	homeWhy string // the home, if it is not understood
}

func (u user) local() string {
	local, _, _ := strings.Cut(u.name, "@")
	return local
}

func (u user) domain() string {
	_, domain, _ := strings.Cut(u.name, "@")
	return domain
}

// variable is a "%" of a setting: %u, %Ln, %1n, %{user | domain | lower}.
type variable struct {
	name    string // user, username, domain, home
	filters []string
	offset  int
	width   int // 0: all
}

var shortVariables = map[byte]string{'u': "user", 'n': "username", 'd': "domain", 'h': "home"}

// template is a setting taken apart: texts and variables in turn.
type template []templatePart

type templatePart struct {
	text     string
	variable *variable
}

// parseTemplate takes a setting apart; an error names a variable that is not
// known before a mail is delivered.
func parseTemplate(s string) (template, error) {
	var out template
	text := func(t string) {
		if n := len(out); n > 0 && out[n-1].variable == nil {
			out[n-1].text += t
		} else if t != "" {
			out = append(out, templatePart{text: t})
		}
	}
	for s != "" {
		at := strings.IndexByte(s, '%')
		if at < 0 {
			text(s)
			break
		}
		text(s[:at])
		s = s[at:]
		if strings.HasPrefix(s, "%%") {
			text("%")
			s = s[2:]
			continue
		}
		v, length, err := parseVariable(s)
		if err != nil {
			return nil, err
		}
		out = append(out, templatePart{variable: v})
		s = s[length:]
	}
	return out, nil
}

var (
	shortVariable = regexp.MustCompile(`^%(-?\d+\.)?(-?\d+)?([A-Z]*)([a-z])`)
	longVariable  = regexp.MustCompile(`^%(-?\d+\.)?(-?\d+)?([A-Z]*)\{([^{}]*)\}`)
)

func parseVariable(s string) (*variable, int, error) {
	m := longVariable.FindStringSubmatch(s)
	short := m == nil
	if short {
		m = shortVariable.FindStringSubmatch(s)
	}
	if m == nil {
		return nil, 0, fmt.Errorf("variable in %q is not known", s)
	}
	v := variable{}
	v.offset, _ = strconv.Atoi(strings.TrimSuffix(m[1], "."))
	v.width, _ = strconv.Atoi(m[2])
	if v.width < 0 || v.offset < 0 {
		return nil, 0, fmt.Errorf("variable %s counts from the end: not followed", m[0])
	}
	for _, modifier := range m[3] {
		switch modifier {
		case 'L':
			v.filters = append(v.filters, "lower")
		case 'U':
			v.filters = append(v.filters, "upper")
		case 'T':
		default:
			return nil, 0, fmt.Errorf("variable %s is not followed", m[0])
		}
	}
	if short {
		v.name = shortVariables[m[4][0]]
	} else if err := v.long(m[4]); err != nil {
		return nil, 0, err
	}
	if v.name == "" {
		return nil, 0, fmt.Errorf("variable %s is not known before a mail", m[0])
	}
	return &v, len(m[0]), nil
}

// long reads "user | username | lower", "user", "home", "orig_user".
func (v *variable) long(text string) error {
	fields := strings.Split(text, "|")
	name := strings.TrimSpace(fields[0])
	switch name {
	case "user", "owner_user", "master_user":
		name = "user"
	case "username", "owner_username":
		name = "username"
	case "domain", "owner_domain":
		name = "domain"
	case "home", "owner_home":
		name = "home"
	default:
		return fmt.Errorf("variable %%{%s} is not known before a mail", text)
	}
	for _, filter := range fields[1:] {
		filter = strings.TrimSpace(filter)
		switch {
		case filter == "username" && name == "user", filter == "domain" && name == "user":
			name = filter
		case filter == "lower", filter == "upper":
			v.filters = append(v.filters, filter)
		default:
			return fmt.Errorf("filter %q of %%{%s} is not followed", filter, text)
		}
	}
	v.name = name
	return nil
}

func (v *variable) value(u user) string {
	s := ""
	switch v.name {
	case "user":
		s = u.name
	case "username":
		s = u.local()
	case "domain":
		s = u.domain()
	case "home":
		s = u.home
	}
	for _, f := range v.filters {
		if f == "lower" {
			s = strings.ToLower(s)
		} else {
			s = strings.ToUpper(s)
		}
	}
	s = s[min(v.offset, len(s)):]
	if v.width > 0 {
		s = s[:min(v.width, len(s))]
	}
	return s
}

// expand is the template for one user.
func (t template) expand(u user) string {
	var out strings.Builder
	for _, p := range t {
		if p.variable != nil {
			out.WriteString(p.variable.value(u))
		} else {
			out.WriteString(p.text)
		}
	}
	return out.String()
}

// personal reports whether it is another path for another user.
func (t template) personal() bool {
	for i, p := range t {
		if p.variable != nil || i == 0 && (strings.HasPrefix(p.text, "~") || !strings.HasPrefix(p.text, "/")) {
			return true
		}
	}
	return false
}

// reverse is a pattern for one element of a path, and the variables of its
// groups, in turn.
func (t template) reverse() (*regexp.Regexp, []*variable, error) {
	var out strings.Builder
	var variables []*variable
	out.WriteString("^")
	for _, p := range t {
		if p.variable == nil {
			out.WriteString(regexp.QuoteMeta(p.text))
			continue
		}
		if p.variable.width > 0 {
			fmt.Fprintf(&out, "(.{0,%d})", min(p.variable.width, 1000))
		} else {
			out.WriteString("(.+)")
		}
		variables = append(variables, p.variable)
	}
	out.WriteString("$")
	re, err := regexp.Compile(out.String())
	return re, variables, err
}
