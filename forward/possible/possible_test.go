package possible_test

import (
	"fmt"
	"slices"
	"testing"

	"relayguard/forward"
	"relayguard/forward/possible"
)

func texts(s *possible.Store, names ...string) []string {
	var found []string
	s.Each(func() bool { return true }, func(lookup func(string) (string, bool)) {
		text := ""
		for _, name := range names {
			value, set := lookup(name)
			if !set {
				value = "-"
			}
			text += value
		}
		found = append(found, text)
	})
	slices.Sort(found)
	return slices.Compact(found)
}

func unset(string) string { return possible.Unset }

func TestBranchesJoin(t *testing.T) {
	s := possible.New(map[string]string{"A": "a"}, unset)
	s.Enter()
	s.Set("A", "b")
	s.Set("B", "x")
	first := s.Back()
	s.Set("A", "c")
	s.Join(first)
	s.Leave(false)
	if got := texts(s, "A", "B"); fmt.Sprint(got) != "[b- bx c- cx]" {
		t.Errorf("got %q", got)
	}
	s.Enter()
	s.Enter()
	s.Set("A", "d")
	s.Leave(false)
	s.Leave(true)
	if got := texts(s, "A"); fmt.Sprint(got) != "[b c d]" {
		t.Errorf("got %q", got)
	}
}

func TestBoundsMakeUnknown(t *testing.T) {
	s := possible.New(nil, unset)
	for n := range possible.MaxValues + 1 {
		s.Add("A", fmt.Sprint(n))
	}
	if got := texts(s, "A"); !slices.Contains(got, forward.Unknown) || len(got) > 2 {
		t.Errorf("got %q", got)
	}
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	for _, name := range names {
		s.Set(name, "0", "1")
	}
	got := texts(s, names...)
	if len(got) != possible.MaxVariants+1 || !slices.ContainsFunc(got, func(s string) bool { return s[len(s)-1:] == forward.Unknown[2:] }) {
		t.Errorf("%d: %q", len(got), got[len(got)-1])
	}
	for n := range possible.MaxNames + 1 {
		s.Set(fmt.Sprint("name", n), "x")
	}
	if got := s.Values("never"); !s.Lost() || got[0] != forward.Unknown {
		t.Errorf("got %q", got)
	}
}
