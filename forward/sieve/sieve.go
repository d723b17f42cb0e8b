// Package sieve tells where a Sieve script (RFC 5228) may send mail: what
// Pigeonhole would do with it, read without Pigeonhole. It has its own lexer and
// parser, carries the values of variables (RFC 5229) along every path, follows
// includes (RFC 6609), and reads compiled scripts (.svbin) the same way.
//
// It decides no test that looks at a message: both branches count, and what a
// message supplies is forward.Unknown. A branch of the constant false is dormant.
// It opens no files and asks nobody: includes arrive through Options.
//
// The trap: what is said to be broken or dormant raises no alert. So only what
// surely does not compile is Broken, and only what the constants true and false,
// stop and return cut off is dormant.
package sieve

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"relayguard/forward"
)

// Options are a script's surroundings. The zero value: nothing can be included.
type Options struct {
	// Include returns an included script: its text, or its compiled form if
	// that is what runs. An error that is fs.ErrNotExist: there is none. nil:
	// none can be read, an include is then a target of Kind Asked.
	Include func(name string, global bool) ([]byte, error)
	// Environment is ${env.vnd.dovecot.config.NAME} (the setting
	// sieve_env_NAME); nil: not known.
	Environment func(name string) (value string, ok bool)
	// MaxSize is of one script, in octets; 0: 1 MiB, as Pigeonhole has it.
	MaxSize int
}

// Target is one action that sends mail.
type Target struct {
	Kind   forward.Kind
	Target string // an address as Pigeonhole puts it into the envelope; a program with its arguments
	// Mode is Copy if on some way through the script that takes this action the
	// owner's mailbox gets the mail, too.
	Mode    forward.Mode
	Script  string // the included script that has it; empty: the one that was given
	Line    int    // counted from 1; 0: not known
	Dynamic bool
	Dormant string // why it is never taken
	Broken  string // why it cannot work: no address
	Note    string // "notification", ...
}

// Result is what a script may do.
type Result struct {
	Targets []Target
	// Broken says why it does not compile; Targets then are what it would have
	// done as far as it was understood.
	Broken string
	// Includes are the scripts that were asked for, in order.
	Includes []Include
}

// Include is one script that another asks for.
type Include struct {
	Name   string
	Global bool
}

// Caps: a script's owner writes it, so it must not cost more than a script may.
const (
	defaultMaxSize = 1 << 20  // Pigeonhole's sieve_max_script_size
	maxTargets     = 1024     // places in a script that send mail; more are one target of Kind Asked
	maxValues      = 16       // a variable's values; more are one unknown
	maxVariable    = 4096     // octets, Pigeonhole's sieve_variables_max_variable_size
	maxSteps       = 1 << 17  // commands and tests that are gone through
	maxOctets      = 16 << 20 // of strings that are put together, and of scripts that are read
	maxIncludes    = 255      // Pigeonhole's sieve_include_max_includes
	maxIncludeDeep = 10       // Pigeonhole's sieve_include_max_nesting_depth
)

// Targets reads a script, or a compiled one. It never fails: what it cannot tell
// is a target of Kind Asked. Safe for concurrent use if Options are.
func Targets(script []byte, o Options) Result {
	m := newMachine(o)
	m.script(script)
	return m.result()
}

// script runs the main script.
func (m *machine) script(script []byte) {
	s := newState()
	out := m.runScript(script, "", s)
	m.pathEnd(out)
}

// runScript runs a text or a compiled script from s and returns the state at its
// end; scope is its own.
func (m *machine) runScript(script []byte, name string, s *state) *state {
	if m.octets += len(script); !m.step() {
		return s
	}
	if IsBinary(script) {
		return m.runBinary(script, name, s)
	}
	if limit := m.maxSize(); len(script) > limit {
		m.fail(name, fmt.Sprintf("larger than %d octets", limit))
		return s
	}
	commands, err := parse(script)
	if err != nil {
		m.fail(name, err.Error())
	}
	r := textRun{machine: m, name: name, known: map[string]bool{}}
	return r.run(commands, s)
}

func (m *machine) maxSize() int {
	if m.options.MaxSize > 0 {
		return m.options.MaxSize
	}
	return defaultMaxSize
}

// fail notes why the whole does not compile; the first reason counts.
func (m *machine) fail(script, why string) {
	if m.broken != "" {
		return
	}
	if script != "" {
		why = fmt.Sprintf("included script %q: %s", script, why)
	}
	m.broken = why
}

// include runs an included script from s, with variables of its own, and
// returns the state after it.
func (m *machine) include(name string, global, optional bool, line int, from string, s *state) *state {
	inc := Include{Name: name, Global: global}
	if len(m.includes) < maxIncludes {
		m.includes = append(m.includes, inc)
	}
	if m.options.Include == nil {
		m.asked(s, line, from, "include "+name, "the included script was not read")
		return s
	}
	for _, outer := range m.stack {
		if outer == inc {
			m.fail(from, fmt.Sprintf("line %d: circular include of %q", line, name))
			return s
		}
	}
	if len(m.stack) >= maxIncludeDeep || m.included >= maxIncludes {
		m.fail(from, fmt.Sprintf("line %d: includes nest too deep or are too many", line))
		return s
	}
	m.included++
	text, err := m.options.Include(name, global)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if !optional && s.dead == "" {
			m.fail(from, fmt.Sprintf("line %d: included script %q does not exist", line, name))
		}
		return s
	case err != nil:
		m.asked(s, line, from, "include "+name, "the included script could not be read: "+err.Error())
		return s
	}
	m.stack = append(m.stack, inc)
	defer func() { m.stack = m.stack[:len(m.stack)-1] }()
	label := name
	if global {
		label = "global " + name
	}
	inner := s.clone()
	inner.locals = nil
	out := m.runScript(text, label, inner)
	out.locals = s.clone().locals
	return out
}

// result is what was collected, modes decided.
func (m *machine) result() Result {
	r := Result{Broken: m.broken, Includes: m.includes}
	for i := range m.sites {
		r.Targets = append(r.Targets, m.sites[i].targets()...)
	}
	if m.overflow != "" {
		r.Targets = append(r.Targets, Target{Kind: forward.Asked, Target: "sieve", Mode: forward.Copy, Note: m.overflow})
	}
	return r
}

// dynamic reports whether a value has parts that a message supplies.
func dynamic(s string) bool { return strings.Contains(s, forward.Unknown) }
