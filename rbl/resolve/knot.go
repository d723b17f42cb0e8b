package resolve

import (
	"path/filepath"
	"regexp"
	"strings"
)

var (
	luaBlock   = regexp.MustCompile(`(?s)--\[\[.*?\]\]`)
	luaLine    = regexp.MustCompile(`--[^\n]*`)
	luaForward = regexp.MustCompile(`(?s)policy\.all\s*\(\s*policy\.(?:FORWARD|TLS_FORWARD|STUB)\s*\((.*?)\)`)
)

// readKnot looks for a rule that forwards everything, in kresd.conf (a program in
// Lua, of which the lines of its manual are known) or in the YAML of newer ones.
func readKnot(t *tree, config string) (setup, bool, error) {
	text, err := t.read(config)
	if err != nil {
		return setup{}, false, err
	}
	if filepath.Ext(config) == ".yaml" {
		if to, ok := yamlForwards(text, "subtree", "forward"); ok {
			return setup{how: Forwards, to: addresses(to)}, true, nil
		}
		return setup{how: Itself}, true, nil
	}
	text = luaLine.ReplaceAllString(luaBlock.ReplaceAllString(text, ""), "")
	if m := luaForward.FindStringSubmatch(text); m != nil {
		return setup{how: Forwards, to: addresses(strings.NewReplacer("[", " ", "]", " ").Replace(m[1]))}, true, nil
	}
	return setup{how: Itself}, true, nil
}
