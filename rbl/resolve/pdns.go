package resolve

import (
	"path/filepath"
	"slices"
	"strings"
)

// readPDNS looks for a forward of the root in recursor.conf, in the files beside
// it, or in the YAML that newer ones have.
func readPDNS(t *tree, config string) (setup, bool, error) {
	files := append([]string{config}, t.glob(filepath.Dir(config), "recursor.d/*"+filepath.Ext(config))...)
	for _, file := range files {
		text, err := t.read(file)
		if err != nil {
			return setup{}, false, err
		}
		if filepath.Ext(file) == ".yml" {
			if to, ok := yamlForwards(text, "zone", "forward_zones", "forward_zones_recurse"); ok {
				return setup{how: Forwards, file: file, to: addresses(to)}, true, nil
			}
			continue
		}
		list, err := pdnsForwards(t, text)
		if err != nil {
			return setup{}, false, err
		}
		if to, ok := pdnsRoot(list); ok {
			return setup{how: Forwards, file: file, to: addresses(to)}, true, nil
		}
	}
	return setup{how: Itself}, true, nil
}

// pdnsForwards gathers "zone=addresses" of all settings that forward, by commas.
func pdnsForwards(t *tree, text string) (string, error) {
	var all []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		switch strings.TrimSuffix(strings.TrimSpace(key), "+") {
		case "forward-zones", "forward-zones-recurse":
			all = append(all, value)
		case "forward-zones-file":
			list, err := t.readIfThere(value)
			if err != nil {
				return "", err
			}
			for entry := range strings.Lines(list) {
				entry, _, _ = strings.Cut(entry, "#")
				// "+" asks for recursion, "^" passes notifications on.
				all = append(all, strings.ReplaceAll(strings.TrimLeft(strings.TrimSpace(entry), "+^"), ",", ";"))
			}
		}
	}
	return strings.Join(all, ","), nil
}

// pdnsRoot is what the root is forwarded to.
func pdnsRoot(list string) (string, bool) {
	for entry := range strings.SplitSeq(list, ",") {
		if zone, to, ok := strings.Cut(strings.TrimSpace(entry), "="); ok && strings.TrimSpace(zone) == "." {
			return to, true
		}
	}
	return "", false
}

// yamlForwards finds, in lists of forwards under those keys, the entry whose name
// (under nameKey) is the root, and gives its lines. It knows just enough of YAML for
// files as the programs' manuals write them.
func yamlForwards(text, nameKey string, keys ...string) (string, bool) {
	inside, root, found := -1, false, false
	var entry strings.Builder
	for line := range strings.Lines(text) {
		content, _, _ := strings.Cut(line, " #")
		content = strings.TrimSpace(content)
		if content == "" || content[0] == '#' {
			continue
		}
		indent := len(line) - len(strings.TrimLeft(line, " "))
		key, value, _ := strings.Cut(strings.TrimSpace(strings.TrimLeft(content, "-{ ")), ":")
		switch {
		case slices.Contains(keys, key):
			inside, root = indent, false
		case indent <= inside && content[0] != '-':
			inside, root = -1, false
		}
		if inside < 0 {
			continue
		}
		if key == nameKey {
			name, _, _ := strings.Cut(value, ",")
			root = strings.Trim(name, ` "'[]}`) == "."
			found = found || root
		}
		if root {
			entry.WriteString(strings.NewReplacer("[", " ", "]", " ").Replace(content))
			entry.WriteByte('\n')
		}
	}
	return entry.String(), found
}
