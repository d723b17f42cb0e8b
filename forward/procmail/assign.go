package procmail

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"relayguard/forward"
	"relayguard/forward/possible"
)

// assignment reads what is neither a recipe nor the end of a block.
func (m *machine) assignment(s *source) {
	name, named := s.name()
	if !named {
		if name == "" {
			s.skipLine()
		}
		return // only the name is skipped: what follows is a statement
	}
	at := m.here()
	s.skipSpace()
	var values []string
	if s.test('=') {
		m.expand(s, oneWord, func(e *expansion) { values = append(values, e.text()) })
	} else {
		values = []string{possible.Unset}
	}
	if len(values) == 0 {
		return
	}
	m.set(name, values)
	m.altered(name, values, at)
	m.magic(name, at)
}

// magic is what assignments of some names do (asenv of variables.c).
func (m *machine) magic(name string, at position) {
	switch name {
	case "INCLUDERC", "SWITCHRC":
		m.include(m.values(name), name == "SWITCHRC")
	case "MAILDIR":
		m.chdir(m.values(name))
	case "TRAP":
		m.traps = at
		m.trap()
	case "HOST":
		m.hostIs(m.values(name))
	}
}

// trap runs what TRAP says: whenever procmail ends.
func (m *machine) trap() {
	if m.traps.file == "" {
		return
	}
	for _, value := range m.values("TRAP") {
		if value != possible.Unset && value != "" {
			m.command(value, forward.Copy, m.traps)
		}
	}
}

// certain reports whether what is assigned is known so well that what follows may
// be called dormant: a line that is longer than LINEBUF assigns nothing.
func (m *machine) certain(values []string) bool {
	return len(values) == 1 && len(values[0]) < 100 && !strings.Contains(values[0], forward.Unknown) &&
		!strings.Contains(values[0], personal) && slices.Equal(m.values("LINEBUF"), []string{"2048"}) && !m.vars.Lost() && m.cost >= 0
}

// hostIs ends everything if it names another machine. Only names that cannot mean
// this one count as others.
func (m *machine) hostIs(values []string) {
	first := func(s string) string {
		label, _, _ := strings.Cut(strings.ToLower(s), ".")
		return label
	}
	if m.certain(values) && m.o.Hostname != "" && values[0] != possible.Unset && first(values[0]) != first(m.o.Hostname) && m.gone == "" && !m.maybe() {
		m.gone = "HOST is set to another machine's name: procmail reads no further"
	}
	m.set("HOST", []string{host(m.o.Hostname)})
}

// maybe reports whether a block around may be passed by.
func (m *machine) maybe() bool {
	return len(m.frames) > 0
}

func (m *machine) chdir(values []string) {
	var dirs []string
	if m.dead != "" || m.gone != "" {
		dirs = append(dirs, m.cwd...)
	}
	for _, value := range values {
		if value == possible.Unset || value == "" {
			dirs = append(dirs, m.cwd...)
			continue
		}
		for _, dir := range m.absolute(value) {
			m.use(dir)
			if m.o.Look != nil && strings.HasPrefix(dir, "/") && !strings.Contains(dir, forward.Unknown) {
				if _, is := m.o.Look(dir); !is {
					dirs = append(dirs, m.cwd...)
					continue
				}
			}
			dirs = append(dirs, dir)
		}
	}
	m.moveTo(dirs)
}

// absolute is a path from any directory that may be the current one.
func (m *machine) absolute(name string) []string {
	if strings.HasPrefix(name, "/") || strings.HasPrefix(name, personal) {
		return []string{path.Clean(name)}
	}
	found := make([]string, 0, len(m.cwd))
	for _, dir := range m.cwd {
		found = append(found, path.Join(dir, name))
	}
	return found
}

// include reads further rcfiles. After one that is switched to, the rest of the
// present one is not read.
func (m *machine) include(values []string, switched bool) {
	var paths []string
	none := false // nothing may be included
	for _, value := range values {
		if value == possible.Unset || value == "" || value == "/dev/null" {
			none = true
			continue
		}
		paths = append(paths, m.absolute(value)...)
	}
	if none && len(paths) == 0 {
		if switched && m.certain(values) {
			m.die("SWITCHRC ends the file before")
		}
		return
	}
	slices.Sort(paths)
	paths = slices.Compact(paths)
	for _, p := range paths {
		m.enter()
		switch m.included(p) {
		case missing:
			m.leave(false)
		case present:
			dead := m.dead
			m.leave(none || len(paths) > 1)
			if switched && !none && len(paths) == 1 && m.certain(values) && dead == "" {
				m.die("SWITCHRC goes over to " + p + " before")
			}
		case unknown:
			m.leave(true)
		}
	}
}

// die: what follows in this file, or in this block of it, is not run.
func (m *machine) die(why string) {
	if m.dead == "" {
		m.dead = why
	}
}

const (
	missing = iota
	present
	unknown
)

// included reads one rcfile, if it is there.
func (m *machine) included(name string) int {
	switch {
	case strings.Contains(name, forward.Unknown):
		m.unread(name, "which file is included, only a message decides")
		return unknown
	case strings.Contains(name, personal):
		m.result.Personal = true
		return unknown
	case m.nest >= maxDepth, m.cost < 0:
		m.stop("files are included deeper than is followed")
		return unknown
	case m.o.Read == nil:
		return missing
	}
	m.use(name)
	data, err := m.o.Read(name)
	switch {
	case err == nil && len(data) == 0, errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission), errors.Is(err, forward.ErrNotRegular):
		return missing
	case err != nil:
		m.unread(name, err.Error())
		return unknown
	}
	m.nest++
	dead := m.dead
	m.run(name, data)
	m.dead = dead
	m.nest--
	return present
}
