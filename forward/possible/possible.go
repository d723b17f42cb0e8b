// Package possible keeps all values that the variables of a mail filter may have
// at one point of it, when what runs depends on the message.
//
// It is for procmail's and maildrop's languages, whose variables are texts. The
// trap: the values of two variables are kept apart, so a text of both may be told
// with a pair of them that never occurs together; nothing that does occur is
// missing. Above a bound, all values of a variable become forward.Unknown.
package possible

import (
	"slices"

	"relayguard/forward"
)

// Unset is the value of a variable that may be none. No text has a NUL.
const Unset = "\x00"

// Bounds.
const (
	MaxValues   = 16 // of one variable
	MaxVariants = 64 // readings of one text with different values
	MaxNames    = 2000
)

// Store holds the variables. It is for one goroutine.
type Store struct {
	missing func(name string) string
	vars    map[string][]string
	blocks  []map[string][]string // what was before, of what a block changed
	lost    bool                  // there were too many names: any may be set
}

// New makes a store with some values. missing tells the value of a name that was
// never set: a text, Unset, or forward.Unknown.
func New(initial map[string]string, missing func(name string) string) *Store {
	s := &Store{missing: missing, vars: make(map[string][]string, len(initial))}
	for name, value := range initial {
		s.vars[name] = []string{value}
	}
	return s
}

// Values are all that a variable may hold; at least one. They are not to be
// changed.
func (s *Store) Values(name string) []string {
	if values, have := s.vars[name]; have {
		return values
	}
	if s.lost {
		return []string{forward.Unknown}
	}
	return []string{s.missing(name)}
}

// Set gives a variable all its values anew.
func (s *Store) Set(name string, values ...string) {
	values = slices.Clone(values)
	slices.Sort(values)
	values = slices.Compact(values)
	if len(values) > MaxValues {
		values = []string{forward.Unknown}
	}
	old, have := s.vars[name]
	if !have {
		if len(s.vars) >= MaxNames {
			s.lost = true
			return
		}
		old = s.Values(name)
	}
	if len(s.blocks) > 0 {
		top := s.blocks[len(s.blocks)-1]
		if _, have := top[name]; !have {
			top[name] = old
		}
	}
	s.vars[name] = values
}

// Add gives a variable further values that it may have.
func (s *Store) Add(name string, values ...string) {
	s.Set(name, append(slices.Clone(s.Values(name)), values...)...)
}

// Lost reports whether there were more names than are kept.
func (s *Store) Lost() bool { return s.lost }

// Depth is how many blocks are open.
func (s *Store) Depth() int { return len(s.blocks) }

// Enter begins a block.
func (s *Store) Enter() { s.blocks = append(s.blocks, map[string][]string{}) }

// Back sets everything to what it was when the block began, as for another branch
// of it, and returns what the branch had set.
func (s *Store) Back() map[string][]string {
	top := s.blocks[len(s.blocks)-1]
	set := make(map[string][]string, len(top))
	for name, old := range top {
		set[name] = s.vars[name]
		s.vars[name] = old
	}
	s.blocks[len(s.blocks)-1] = map[string][]string{}
	return set
}

// Join adds what another branch had set to what is now.
func (s *Store) Join(branch map[string][]string) {
	for name, values := range branch {
		s.Add(name, values...)
	}
}

// Leave ends a block. If it may have been passed by, everything may be as before.
func (s *Store) Leave(maybe bool) {
	top := s.blocks[len(s.blocks)-1]
	s.blocks = s.blocks[:len(s.blocks)-1]
	for name, old := range top {
		now := s.vars[name]
		s.vars[name] = old
		if maybe {
			now = append(slices.Clone(now), old...)
		}
		s.Set(name, now...)
	}
}

// Each calls read for the values that the variables which it looks up may have
// together, while more says so; after MaxVariants once more, with what is not
// certain unknown.
func (s *Store) Each(more func() bool, read func(lookup func(name string) (value string, set bool))) {
	var path, sizes []int
	for run := 0; more(); run++ {
		at, chosen := 0, map[string]string{}
		read(func(name string) (string, bool) {
			value, have := chosen[name]
			if !have {
				values := s.Values(name)
				switch {
				case len(values) == 1:
					value = values[0]
				case run >= MaxVariants:
					value = forward.Unknown
				default:
					if at == len(path) {
						path, sizes = append(path, 0), append(sizes, len(values))
					}
					value = values[min(path[at], len(values)-1)]
					at++
				}
				chosen[name] = value
			}
			if value == Unset {
				return "", false
			}
			return value, true
		})
		for len(path) > 0 && path[len(path)-1]+1 >= sizes[len(path)-1] {
			path, sizes = path[:len(path)-1], sizes[:len(path)-1]
		}
		if len(path) == 0 || run >= MaxVariants {
			return
		}
		path[len(path)-1]++
	}
}
