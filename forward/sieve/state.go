package sieve

import (
	"slices"

	"relayguard/forward"
)

// values are what a string may be: at least one, at most maxValues.
type values []string

var (
	empty   = values{""}
	unknown = values{forward.Unknown}
)

func (v values) with(o values) values {
	if len(v) == 1 && len(o) == 1 && v[0] == o[0] {
		return v
	}
	out := slices.Clone(v)
	for _, s := range o {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	if len(out) > maxValues {
		return unknown
	}
	return out
}

// joined is every value of v with every one of o behind it.
func (v values) joined(o values) values {
	if len(v)*len(o) > maxValues {
		return unknown
	}
	out := make(values, 0, len(v)*len(o))
	for _, a := range v {
		for _, b := range o {
			s := a + b
			if !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	return out
}

// each changes every value.
func (v values) each(change func(string) string) values {
	out := make(values, 0, len(v))
	for _, s := range v {
		if s = change(s); !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// scope are variables by name; one that is not there is the empty string.
// A scope is never changed once another state may hold it: it is replaced.
type scope map[string]values

func (s scope) get(name string) values {
	if v, ok := s[name]; ok {
		return v
	}
	return empty
}

func (s scope) set(name string, v values) scope {
	out := make(scope, len(s)+1)
	for n, old := range s {
		out[n] = old
	}
	out[name] = v
	return out
}

func (s scope) merge(o scope) scope {
	if len(s) == 0 && len(o) == 0 {
		return s
	}
	out := make(scope, max(len(s), len(o)))
	for n, v := range s {
		out[n] = v.with(o.get(n))
	}
	for n, v := range o {
		if _, ok := s[n]; !ok {
			out[n] = empty.with(v)
		}
	}
	return out
}

// sites is a set of numbers of sites, a bit each.
type sites []uint64

func (s sites) with(i int) sites {
	out := make(sites, max(len(s), i/64+1))
	copy(out, s)
	out[i/64] |= 1 << (i % 64)
	return out
}

func (s sites) union(o sites) sites {
	if len(s) < len(o) {
		s, o = o, s
	}
	if len(o) == 0 {
		return s
	}
	out := slices.Clone(s)
	for i, bits := range o {
		out[i] |= bits
	}
	return out
}

func (s sites) each(do func(int)) {
	for i, bits := range s {
		for b := 0; bits != 0; b, bits = b+1, bits>>1 {
			if bits&1 != 0 {
				do(i*64 + b)
			}
		}
	}
}

// lane is what is known of the ways on which the implicit keep is alive, or of
// those on which it was cancelled.
type lane struct {
	open    bool  // there is such a way
	kept    bool  // the mailbox got the mail on one
	pending sites // actions taken on one without the mailbox having the mail
}

func (l lane) union(o lane) lane {
	return lane{open: l.open || o.open, kept: l.kept || o.kept, pending: l.pending.union(o.pending)}
}

// state is what is known at one place of a script, of all ways that lead there.
// It is never changed once another may hold it: clone first.
type state struct {
	dead    string // why no way leads here; empty: one does
	locals  scope
	globals scope
	// matches are the match values by their number; nil: none set. A number
	// that is not there is the empty string.
	matches []values
	alive   lane // implicit keep
	gone    lane
}

func newState() *state { return &state{alive: lane{open: true}} }

func (s *state) clone() *state {
	out := *s
	return &out
}

func (s *state) killed(why string) *state {
	out := s.clone()
	if out.dead == "" {
		out.dead = why
	}
	return out
}

// merge is of two ways that meet.
func merge(a, b *state) *state {
	switch {
	case a == nil, a != nil && b != nil && a.dead != "" && b.dead == "":
		return b
	case b == nil, b.dead != "":
		return a
	}
	if a == b {
		return a
	}
	out := &state{
		locals:  a.locals,
		globals: a.globals,
		matches: mergeMatches(a.matches, b.matches),
		alive:   a.alive.union(b.alive),
		gone:    a.gone.union(b.gone),
	}
	out.locals = a.locals.merge(b.locals)
	out.globals = a.globals.merge(b.globals)
	return out
}

func mergeMatches(a, b []values) []values {
	if len(a) == 0 && len(b) == 0 {
		return nil
	}
	out := make([]values, max(len(a), len(b)))
	for i := range out {
		out[i] = matchAt(a, i).with(matchAt(b, i))
	}
	return out
}

func matchAt(m []values, i int) values {
	if i < len(m) && m[i] != nil {
		return m[i]
	}
	return empty
}

// allUnknown are the match values of a test that looked at a message.
var allUnknown = func() []values {
	out := make([]values, maxMatch+1)
	for i := range out {
		out[i] = unknown
	}
	return out
}()
