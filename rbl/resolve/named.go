package resolve

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
)

// statement is one of named.conf: words, perhaps a block, and a semicolon.
type statement struct {
	words []string
	block []statement
	file  string
}

// readNamed looks for forwarders of all names: in options, in a view, or in a zone
// for the root. One that answers for its own zones alone is no resolver.
func readNamed(t *tree, config string) (setup, bool, error) {
	all, err := namedFile(t, config, filepath.Dir(config), 0)
	if err != nil {
		return setup{}, false, err
	}
	if refusesRecursion(all) {
		return setup{}, false, nil
	}
	if s, ok := forwarders(all, 0); ok {
		return s, true, nil
	}
	return setup{how: Itself}, true, nil
}

func refusesRecursion(all []statement) bool {
	for _, s := range all {
		if s.is("options") && slices.ContainsFunc(s.block, func(o statement) bool { return o.is("recursion") && o.word(1) == "no" }) {
			return true
		}
	}
	return false
}

func forwarders(all []statement, depth int) (setup, bool) {
	for _, s := range all {
		switch {
		case s.is("forwarders") && depth > 0 && len(s.block) > 0:
			var to []string
			for _, f := range s.block {
				to = append(to, f.word(0))
			}
			return setup{how: Forwards, file: s.file, to: addresses(strings.Join(to, " "))}, true
		case s.is("options"), s.is("view"), s.is("zone") && s.word(1) == ".":
			if found, ok := forwarders(s.block, depth+1); ok {
				return found, true
			}
		}
	}
	return setup{}, false
}

func (s statement) is(word string) bool { return s.word(0) == word }

func (s statement) word(i int) string {
	if i < len(s.words) {
		return s.words[i]
	}
	return ""
}

// namedFile reads a file and all that it includes, in their places.
func namedFile(t *tree, path, dir string, depth int) ([]statement, error) {
	if depth > mostDepth {
		return nil, errors.New("files include each other")
	}
	text, err := t.read(path)
	if err != nil {
		return nil, err
	}
	words := namedWords(text)
	all, _ := namedBlock(words, path, 0)
	return included(t, all, dir, depth)
}

func included(t *tree, all []statement, dir string, depth int) ([]statement, error) {
	var out []statement
	for _, s := range all {
		if !s.is("include") {
			block, err := included(t, s.block, dir, depth)
			if err != nil {
				return nil, err
			}
			s.block = block
			out = append(out, s)
			continue
		}
		for _, name := range t.glob(dir, s.word(1)) {
			more, err := namedFile(t, name, dir, depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, more...)
		}
	}
	return out, nil
}

// namedBlock takes the statements up to the brace that ends the block, and says
// how many words they were.
func namedBlock(words []string, file string, depth int) ([]statement, int) {
	var all []statement
	now := statement{file: file}
	for i := 0; i < len(words); i++ {
		switch w := words[i]; w {
		case ";":
			if len(now.words) > 0 {
				all = append(all, now)
			}
			now = statement{file: file}
		case "{":
			if depth == mostDepth {
				return all, len(words)
			}
			block, taken := namedBlock(words[i+1:], file, depth+1)
			now.block = block
			i += taken
		case "}":
			return all, i + 1
		default:
			now.words = append(now.words, strings.Trim(w, `"`))
		}
	}
	return all, len(words)
}

// namedWords are words, braces and semicolons, without the three kinds of comments.
func namedWords(text string) []string {
	var words []string
	for text != "" {
		switch {
		case strings.HasPrefix(text, "/*"):
			_, text, _ = strings.Cut(text[2:], "*/")
		case text[0] == '#', strings.HasPrefix(text, "//"):
			_, text, _ = strings.Cut(text, "\n")
		case strings.ContainsRune(" \t\r\n", rune(text[0])):
			text = text[1:]
		case strings.ContainsRune("{};", rune(text[0])):
			words, text = append(words, text[:1]), text[1:]
		case text[0] == '"':
			end := strings.IndexByte(text[1:], '"') + 2
			if end < 2 {
				end = len(text)
			}
			words, text = append(words, text[:end]), text[end:]
		default:
			end := strings.IndexAny(text, " \t\r\n{};\"")
			if end < 0 {
				end = len(text)
			}
			words, text = append(words, text[:end]), text[end:]
		}
	}
	return words
}
