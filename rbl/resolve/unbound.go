package resolve

import (
	"errors"
	"path/filepath"
	"strings"
)

// readUnbound looks for a forward-zone for the root (unbound.conf(5)).
func readUnbound(t *tree, config string) (setup, bool, error) {
	u := unboundReader{tree: t, found: setup{how: Itself}}
	if err := u.file(config, 0); err != nil {
		return setup{}, false, err
	}
	u.end()
	if u.found.how == Itself && resolvconfFeeds(t) {
		return setup{how: NotKnown, why: "resolvconf gives it other resolvers to ask while it runs", file: resolvconfHook}, true, nil
	}
	return u.found, true, nil
}

const resolvconfHook = "/etc/resolvconf/update.d/unbound"

// resolvconfFeeds reports whether Debian's hook makes a forwarder of it.
func resolvconfFeeds(t *tree) bool {
	if !t.has(resolvconfHook) || !t.has("/lib/resolvconf/list-records", "/usr/lib/resolvconf/list-records") {
		return false
	}
	settings, err := t.readIfThere("/etc/default/unbound")
	if err != nil {
		return true
	}
	feeds := true
	for line := range strings.Lines(settings) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "USE_RESOLVCONF_FORWARDS="); ok {
			switch strings.Trim(value, `"'`) {
			case "no", "false", "0":
				feeds = false
			default:
				feeds = true
			}
		}
	}
	return feeds
}

// unboundReader goes through keys and values. A clause ("forward-zone:") has no
// value and holds until the next.
type unboundReader struct {
	tree  *tree
	found setup

	clause, name string
	from         string // where the clause began
	to           []string
}

func (u *unboundReader) file(path string, depth int) error {
	if depth > mostDepth {
		return errors.New("files include each other")
	}
	text, err := u.tree.read(path)
	if err != nil {
		return err
	}
	key := ""
	for _, w := range unboundWords(text) {
		if key == "" {
			k, value, ok := strings.Cut(w, ":")
			if !ok {
				continue // not understood by unbound either
			}
			if key = k; clauses[k] {
				u.end()
				u.clause, u.from, key = k, path, ""
				continue
			}
			if value == "" {
				continue
			}
			w = value
		}
		if err := u.value(path, key, unquote(w), depth); err != nil {
			return err
		}
		key = ""
	}
	return nil
}

func (u *unboundReader) value(path, key, value string, depth int) error {
	switch key {
	case "include", "include-toplevel":
		for _, name := range u.tree.glob(filepath.Dir(path), value) {
			if err := u.file(name, depth+1); err != nil {
				return err
			}
		}
	case "name":
		u.name = value
	case "forward-addr", "forward-host":
		u.to = append(u.to, value)
	}
	return nil
}

// end takes what the clause said.
func (u *unboundReader) end() {
	if u.clause == "forward-zone" && u.name == "." && len(u.to) > 0 {
		u.found = setup{how: Forwards, file: u.from, to: addresses(strings.Join(u.to, " "))}
	}
	u.clause, u.name, u.to = "", "", nil
}

var clauses = map[string]bool{
	"server": true, "forward-zone": true, "stub-zone": true, "auth-zone": true, "view": true, "remote-control": true,
	"rpz": true, "cachedb": true, "redis": true, "dnscrypt": true, "dnstap": true, "dynlib": true, "python": true,
	"ipset": true, "nftset": true,
}

// unboundWords are the words of the text, without comments, quotes left on. A "#"
// within a word is no comment: it stands before a name for TLS.
func unboundWords(text string) []string {
	var words []string
	for line := range strings.Lines(text) {
		for line = strings.TrimSpace(line); line != "" && line[0] != '#'; line = strings.TrimSpace(line) {
			end := wordEnd(line)
			words, line = append(words, line[:end]), line[end:]
		}
	}
	return words
}

// wordEnd is where the first word ends: at a space that is not in quotes.
func wordEnd(line string) int {
	quote := byte(0)
	for i := range len(line) {
		switch c := line[i]; {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
		case c == '"' || c == '\'':
			quote = c
		case c == ' ' || c == '\t':
			return i
		}
	}
	return len(line)
}

func unquote(word string) string { return strings.Trim(word, `"'`) }
