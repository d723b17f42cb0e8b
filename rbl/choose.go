package rbl

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Choice says which zones are to be asked.
type Choice struct {
	Enable, Disable []string        // names of zones
	Keys            map[string]bool // whose keys there are
	Commercial      bool
}

// NotChosen is a zone that is not asked, and why: its State is NotAsked.
type NotChosen struct {
	Zone Zone
	Why  string
}

// Choose says which zones are asked, by name, and which are not although they are on,
// enabled or wait for a key. A name that is not known or closed is an error, all of
// them at once. Of lists that may be closed see Warnings.
func (t *Table) Choose(c Choice) (use []Zone, not []NotChosen, err error) {
	enabled, wrong := t.named("enable", c.Enable)
	disabled, alsoWrong := t.named("disable", c.Disable)
	wrong = append(wrong, alsoWrong...)
	for _, name := range c.Disable {
		if name = canonical(name); enabled[name] && disabled[name] {
			wrong = append(wrong, fmt.Errorf("zone %q: both enabled and disabled: delete one of them", name))
			delete(disabled, name)
		}
	}
	if len(wrong) > 0 {
		return nil, nil, errors.Join(wrong...)
	}
	candidates := slices.Clone(t.zones)
	for name := range enabled {
		if z, _ := t.Find(name); !slices.ContainsFunc(t.zones, func(of Zone) bool { return of.Name == name }) {
			candidates = append(candidates, z)
		}
	}
	slices.SortFunc(candidates, func(a, b Zone) int { return cmp.Compare(a.Name, b.Name) })
	for _, z := range candidates {
		wanted := enabled[z.Name] || z.Default == On || z.Default == WithKey
		switch why := t.whyNot(&z, c, enabled, disabled); {
		case !wanted:
		case why == "":
			use = append(use, z)
		default:
			not = append(not, NotChosen{z, why})
		}
	}
	return use, not, nil
}

// named are names of zones, and what is wrong with them.
func (t *Table) named(what string, names []string) (map[string]bool, []error) {
	set := map[string]bool{}
	var wrong []error
	for _, given := range names {
		name := canonical(given)
		if set[name] {
			continue
		}
		if parent, secret := t.keyInName(name); secret {
			wrong = append(wrong, fmt.Errorf("%s: a name below that of a zone of %s: give the zone's name without a key, and the key as [[zone_key]]", what, parent))
		} else if c, closed := t.IsClosed(name); closed && !c.Warn {
			wrong = append(wrong, fmt.Errorf("%s: zone %s: %s", what, quote(name), c.Message))
		} else if _, found := t.Find(name); !found || !hostname(name) {
			wrong = append(wrong, fmt.Errorf("%s: zone %s: not known%s", what, quote(name), t.suggest(name)))
		}
		set[name] = true
	}
	return set, wrong
}

// suggest is what was probably meant.
func (t *Table) suggest(name string) string {
	for _, z := range t.zones {
		if name != "" && (strings.HasSuffix(z.Name, "."+name) || strings.HasSuffix(name, "."+z.Name)) {
			return fmt.Sprintf(": did you mean %q?", z.Name)
		}
	}
	return `: "rbl zones --all" shows those that are, a file of zones can add others`
}

// whyNot is why a zone is not asked; "": it is, if it is wanted.
func (t *Table) whyNot(z *Zone, c Choice, enabled, disabled map[string]bool) string {
	keyed, hasKeyed := t.Find(z.Keyed)
	byKey := hasKeyed && z.Keyed != "" && c.Keys[keyed.Key] && !disabled[keyed.Name]
	switch {
	case disabled[z.Name]:
		return "switched off in the configuration"
	case z.Hashed:
		return "it is asked for hashes of names, which is not built"
	case z.Default == Never:
		return "it says nothing of abuse: asked only where a command names it"
	case z.Key != "" && !c.Keys[z.Key]:
		return fmt.Sprintf("it is asked with a key of %s: get one%s and name its file under [[zone_key]], operator = %q", z.Operator, at(z.Terms.URL), z.Key)
	case z.Terms.Register && !enabled[z.Name]:
		return "the address of the resolver has to be registered there first" + at(z.Terms.URL) + "; then name it in rbl.enable"
	case byKey && !enabled[z.Name]:
		return keyed.Name + ", asked with the key, has the same data"
	case z.Key == "" && z.Terms.NonCommercial && c.Commercial:
		why := "free for non-commercial use only" + at(z.Terms.URL)
		if hasKeyed && z.Keyed != "" {
			why += fmt.Sprintf(": get a key of %s, then %s is asked in its place", keyed.Operator, keyed.Name)
		}
		return why
	}
	return ""
}

// at is a link for the middle of a sentence.
func at(url string) string {
	if url == "" {
		return ""
	}
	return " (" + url + ")"
}
