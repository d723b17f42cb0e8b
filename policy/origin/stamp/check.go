package stamp

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// taken tells who has a thing already.
type taken map[string]string

// by notes that who has it, and returns whose it was before, "" for nobody's.
func (t taken) by(thing, who string) string {
	before, ok := t[thing]
	if !ok {
		t[thing] = who
	}
	return before
}

// siteCheck collects what is wrong with sites.
type siteCheck struct {
	at                      string // which site
	errs                    []error
	names, ids, keys, roots taken
}

// checkSites returns every error in the sites.
func checkSites(sites []Site) error {
	c := siteCheck{names: taken{}, ids: taken{}, keys: taken{}, roots: taken{}}
	for i := range sites {
		s := &sites[i]
		c.at = fmt.Sprintf("site[%d]", i)
		if s.Name != "" {
			c.at = fmt.Sprintf("site %q", cut(s.Name, longestHost))
		}
		c.name(s.Name)
		c.keyID(s.KeyID)
		if fault := keyFault(s.Key, c.at, c.keys); fault != "" {
			c.add("%s", fault)
		}
		c.account(s)
		c.root(s.Root)
	}
	return errors.Join(c.errs...)
}

func (c *siteCheck) add(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf("%s: %s", c.at, fmt.Sprintf(format, args...)))
}

func (c *siteCheck) name(name string) {
	switch {
	case name == "":
		c.add("no name; give it its host name")
	case len(name) > longestHost || cleaned(name) != name || strings.ContainsAny(name, " @"):
		c.add("a name with blanks, @ or control characters, or longer than %d octets; write it as shop.example.jp", longestHost)
	case c.names.by(plainSite(name), c.at) != "":
		c.add("name used twice; remove one of the two")
	}
}

func (c *siteCheck) keyID(id string) {
	if len(id) != 8 || strings.ContainsFunc(id, func(r rune) bool { return r > '~' || !isHex(byte(r)) }) {
		c.add("key id %q, want 8 hexadecimal digits in lower case; make a new key", cut(id, 40))
	} else if other := c.ids.by(id, c.at); other != "" {
		c.add("key id %s is also that of %s; make a new key", id, other)
	}
}

func (c *siteCheck) account(s *Site) {
	switch {
	case s.UID < -1:
		c.add("uid %d, want that of its Unix account, or -1 and a login", s.UID)
	case s.UID == -1 && s.Login == "":
		c.add("neither uid nor login; say which account sends its mail")
	}
}

func (c *siteCheck) root(root string) {
	if root == "" {
		return
	}
	if !path.IsAbs(root) || path.Clean(root) != root || root == "/" {
		c.add("root %q, want its absolute directory without . and .., and not /", cut(root, 200))
	} else if other := c.roots.by(root, c.at); other != "" {
		c.add("root %q is also that of %s; a directory has one site", root, other)
	}
}

func plainSite(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// keyFault says what is wrong with a key, "" for nothing. No text has the key in it.
func keyFault(key Key, at string, keys taken) string {
	if len(key) != KeySize {
		return fmt.Sprintf("a key of %d octets, want %d; make a new one", len(key), KeySize)
	}
	if string(key) == string(make([]byte, KeySize)) {
		return "a key of zeros; make a new one"
	}
	if other := keys.by(string(key), at); other != "" {
		return fmt.Sprintf("its key is also that of %s: each could sign for the other; make a new one", other)
	}
	return ""
}
