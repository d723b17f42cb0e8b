package scan

import (
	"path"
	"slices"
	"strings"

	"relayguard/forward"
)

// places are the ways from paths to units.
type places struct {
	paths map[string][]*unit // exact paths
	trees map[string][]*unit // directories that stand for all below, without "/"
	names map[string][]named // by directory: names that begin so
	uses  map[string]bool    // of the plan itself: files, and directories for the names in them
	below map[string]bool    // of the plan itself: directories with all below, without "/"
}

// named are the names in a directory that begin with prefix: "/home/a/.forward+*".
type named struct {
	prefix string
	unit   *unit
}

// newPlaces makes the ways from paths to units.
func newPlaces(units map[string]*unit, plan *forward.Plan) places {
	p := places{paths: make(map[string][]*unit, len(units)), trees: map[string][]*unit{}, names: map[string][]named{}, uses: make(map[string]bool, len(plan.Uses)), below: map[string]bool{}}
	for _, u := range units {
		p.add(u, true)
	}
	for _, file := range plan.Uses {
		if dir, tree := strings.CutSuffix(file, "/"); tree {
			p.below[dir] = true
		} else {
			p.uses[file] = true
		}
	}
	return p
}

// add puts a unit's paths to the others. fresh: nothing is there of it yet, so that
// of a path that thousands share not all are looked at.
func (p *places) add(u *unit, fresh bool) {
	for _, all := range [][]string{u.Paths, u.Uses} {
		for _, file := range all {
			if dir, tree := strings.CutSuffix(file, "/"); tree {
				p.trees[dir] = appendNew(p.trees[dir], u, fresh)
			} else if begin, many := strings.CutSuffix(file, "*"); many {
				dir, prefix := path.Split(begin)
				dir = path.Clean(dir)
				p.names[dir] = appendNew(p.names[dir], named{prefix, u}, fresh)
			} else {
				p.paths[file] = appendNew(p.paths[file], u, fresh)
			}
		}
	}
}

func appendNew[T comparable](list []T, one T, fresh bool) []T {
	if n := len(list); n > 0 && list[n-1] == one || !fresh && slices.Contains(list, one) {
		return list
	}
	return append(list, one)
}

// Paths are all that a watch has to look at: those of the units and of the plan.
func (s *Scanner) Paths() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	paths := make([]string, 0, len(s.paths)+len(s.trees)+len(s.uses))
	for p := range s.paths {
		paths = append(paths, p)
	}
	for p := range s.trees {
		paths = append(paths, p+"/")
	}
	for dir := range s.names { // of a directory the names in it are told
		paths = append(paths, dir)
	}
	paths = append(paths, s.plan.Uses...)
	slices.Sort(paths)
	return slices.Compact(paths)
}

// Turn is another number whenever Paths may say something else.
func (s *Scanner) Turn() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.turn
}

// Stale tells what a change of a path asks for: another plan, and so a full scan,
// or the units to be read again.
func (s *Scanner) Stale(changed string) (plan bool, units []string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	changed = path.Clean(changed)
	if s.uses[changed] || s.uses[path.Dir(changed)] {
		return true, nil
	}
	for at := changed; ; at = path.Dir(at) {
		if s.below[at] {
			return true, nil
		}
		for _, u := range s.trees[at] {
			units = append(units, u.ID)
		}
		if at == "/" || at == "." {
			break
		}
	}
	for _, u := range s.paths[changed] {
		units = append(units, u.ID)
	}
	for _, n := range s.names[path.Dir(changed)] {
		if strings.HasPrefix(path.Base(changed), n.prefix) {
			units = append(units, n.unit.ID)
		}
	}
	slices.Sort(units)
	return false, slices.Compact(units)
}
