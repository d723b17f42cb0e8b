package sendmail

import (
	"fmt"
	"slices"
	"strings"
)

// Daemon is one DaemonPortOptions (or ClientPortOptions): an address that Sendmail
// listens on. What is not said is its default but for Addr, which is then empty:
// all addresses.
type Daemon struct {
	Name      string // "MTA-v4"; without a name "Daemon0", "Daemon1"...
	Family    string // "inet", "inet6", "unix"
	Addr      string // as written
	Port      string // "smtp", "587"; "" is smtp
	Modifiers string // "Ea": see M= in the Operation Guide
	// InputMailFilters are this daemon's own; if Own is false, those of the option of
	// that name are in force.
	InputMailFilters []string
	Own              bool
	DeliveryMode     string // "" is the option's
	Line             int
}

// portOptions reads Key=value pairs between commas. Keys are known by their first
// letter, of which only those that differ by case mean different things
// (setsockaddroptions in daemon.c).
func portOptions(text string, line int) Daemon {
	d := Daemon{Family: "inet", Line: line}
	for field := range strings.SplitSeq(text, ",") {
		key, value, found := strings.Cut(strings.TrimSpace(field), "=")
		if !found || key == "" {
			continue
		}
		value = strings.TrimSpace(value)
		switch key[0] {
		case 'A', 'a':
			d.Addr = value
		case 'D':
			d.DeliveryMode = value
		case 'F', 'f':
			d.Family = strings.ToLower(value)
			if d.Family == "local" {
				d.Family = "unix"
			}
		case 'I', 'i':
			d.Own, d.InputMailFilters = true, filterNames(value)
		case 'M', 'm':
			d.Modifiers = strings.Join(strings.Fields(value), "")
		case 'N', 'n':
			d.Name = value
		case 'P', 'p':
			d.Port = value
		}
	}
	return d
}

// filterNames splits a list of filters (milter_config in milter.c).
func filterNames(list string) []string {
	names := strings.FieldsFunc(list, func(r rune) bool { return r == ';' || r == ',' || r == ' ' || r == '\t' || r == '\n' })
	return slices.DeleteFunc(names, func(name string) bool { return name == "" })
}

// Daemons are what Sendmail listens on, in the order of the file. Without any it
// listens at port smtp of all addresses.
func (s *Settings) Daemons() []Daemon {
	daemons := slices.Clone(s.daemons)
	if len(daemons) == 0 {
		daemons = []Daemon{{Family: "inet"}}
	}
	for n := range daemons {
		if daemons[n].Name == "" {
			daemons[n].Name = fmt.Sprintf("Daemon%d", n)
		}
	}
	return daemons
}

// Clients are the ClientPortOptions: from where Sendmail connects.
func (s *Settings) Clients() []Daemon { return slices.Clone(s.clients) }

// FiltersOf names the filters that mail of that daemon passes, in their order.
func (s *Settings) FiltersOf(d Daemon) []string {
	if d.Own {
		return slices.Clone(d.InputMailFilters)
	}
	return filterNames(s.Option("InputMailFilters"))
}

// Filter is one X line: a milter that is defined, in force or not.
type Filter struct {
	Name     string
	Socket   string // "local:/run/relayguard/milter.sock"
	Flags    string // "T", "R", "4"; none of them: mail passes when it is away
	Timeouts string // "C:10s;S:10s;R:20s;E:2m"
	Line     int
}

func filter(body string, line int) Filter {
	name, fields := equates(body)
	return Filter{Name: name, Socket: fields['S'], Flags: strings.Join(strings.Fields(fields['F']), ""), Timeouts: fields['T'], Line: line}
}

// Filters are the milters that are defined.
func (s *Settings) Filters() []Filter { return slices.Clone(s.filters) }

// Mailer is one M line. What it leaves out is empty.
type Mailer struct {
	Name, Path, Flags, Args string // "esmtp", "[IPC]", "mDFMuXa", "TCP $h"
	QueueGroup              string
	User                    string // U=
	Fields                  map[byte]string
	Line                    int
}

func mailer(body string, line int) Mailer {
	name, fields := equates(body)
	return Mailer{Name: name, Path: fields['P'], Flags: strings.Join(strings.Fields(fields['F']), ""), Args: fields['A'],
		QueueGroup: fields['Q'], User: fields['U'], Fields: fields, Line: line}
}

// Mailers are those that the file defines. The last of a name counts.
func (s *Settings) Mailers() []Mailer { return slices.Clone(s.mailers) }

// Mailer finds one by name.
func (s *Settings) Mailer(name string) (Mailer, bool) {
	for n := range slices.Backward(s.mailers) {
		if strings.EqualFold(s.mailers[n].Name, name) {
			return s.mailers[n], true
		}
	}
	return Mailer{}, false
}

// QueueGroup is one Q line.
type QueueGroup struct {
	Name  string
	Path  string // absolute; a "*" at its end stands for all directories of that beginning
	Flags string
	Line  int
}

func queueGroup(body string, line int) QueueGroup {
	name, fields := equates(body)
	return QueueGroup{Name: name, Path: fields['P'], Flags: strings.Join(strings.Fields(fields['F']), ""), Line: line}
}

// QueueGroups are all queue groups: mqueue, which is always there, first.
func (s *Settings) QueueGroups() []QueueGroup {
	groups := []QueueGroup{{Name: "mqueue"}}
	for _, g := range s.groups {
		if g.Name == "" {
			continue
		}
		if n := slices.IndexFunc(groups, func(have QueueGroup) bool { return have.Name == g.Name }); n >= 0 {
			groups[n] = g
		} else {
			groups = append(groups, g)
		}
	}
	for n := range groups {
		if groups[n].Path == "" {
			groups[n].Path = s.queueDirectory()
		}
		groups[n].Path = s.expand(groups[n].Path, 0)
	}
	return groups
}

// equates reads "name, K=value, K2=value". Keys are known by their first letter.
func equates(body string) (name string, fields map[byte]string) {
	fields = map[byte]string{}
	const separators = ", \t\n\r\v\f"
	end := strings.IndexAny(body, separators)
	if end < 0 {
		return body, fields
	}
	name = body[:end]
	for rest := body[end:]; ; {
		rest = strings.TrimLeft(rest, separators)
		equal := strings.IndexAny(rest, "=,")
		if rest == "" || equal < 0 || rest[equal] == ',' {
			return name, fields
		}
		key := rest[0]
		fields[key], rest = munch(strings.TrimLeft(rest[equal+1:], " \t\n\r\v\f"), ',')
	}
}
