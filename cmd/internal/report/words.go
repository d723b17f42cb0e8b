package report

import (
	"bytes"
	"embed"
	"fmt"
	"slices"
	"strings"
	"sync"
)

//go:embed words/*.txt
var wordFiles embed.FS

// catalogues are the phrases of every language, read once.
var catalogues = sync.OnceValues(func() (map[string]map[string]string, error) {
	all := map[string]map[string]string{}
	for _, lang := range Languages {
		data, err := wordFiles.ReadFile("words/" + lang + ".txt")
		if err != nil {
			return nil, err
		}
		if all[lang], err = readPhrases(data); err != nil {
			return nil, fmt.Errorf("read words/%s.txt: %w", lang, err)
		}
	}
	return all, nil
})

// readPhrases reads "key = phrase" lines; # begins a comment. Quotes keep the spaces
// around a phrase.
func readPhrases(data []byte) (map[string]string, error) {
	phrases := map[string]string{}
	number := 0
	for raw := range bytes.Lines(data) {
		number++
		text := strings.TrimSpace(string(raw))
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		key, phrase, found := strings.Cut(text, "=")
		key = strings.TrimSpace(key)
		if _, twice := phrases[key]; twice || !found || key == "" {
			return nil, fmt.Errorf("line %d: want one \"key = phrase\" a key, found %q", number, text)
		}
		phrase = strings.TrimSpace(phrase)
		if len(phrase) > 1 && phrase[0] == '"' && phrase[len(phrase)-1] == '"' {
			phrase = phrase[1 : len(phrase)-1]
		}
		phrases[key] = phrase
	}
	return phrases, nil
}

// words speaks one language.
type words struct {
	lang    string
	phrases map[string]string
}

func wordsOf(lang string) (*words, error) {
	if !slices.Contains(Languages, lang) {
		return nil, fmt.Errorf("language %q: want one of %v", lang, Languages)
	}
	all, err := catalogues()
	if err != nil {
		return nil, err
	}
	return &words{lang: lang, phrases: all[lang]}, nil
}

// values fill the places of a phrase: a number (int, int64), text of our own
// (string), a span or a line.
type values map[string]any

// say is a phrase with its places filled. "{what}" is a value, "{n|one list|# lists}"
// goes by a number, which stands for #.
func (w *words) say(key string, v values) line {
	rest := w.phrase(key)
	var out line
	for {
		before, after, found := strings.Cut(rest, "{")
		out = out.text(before)
		if !found {
			return out
		}
		place, behind, _ := strings.Cut(after, "}")
		out = append(out, w.fill(key, place, v)...)
		rest = behind
	}
}

func (w *words) fill(key, place string, v values) line {
	name, forms, counted := strings.Cut(place, "|")
	value, ok := v[name]
	if !ok {
		panic(fmt.Sprintf("phrase %s of %s has {%s}, and nothing fills it", key, w.lang, name))
	}
	var n int64
	switch value := value.(type) {
	case string:
		return line{}.text(value)
	case span:
		return line{value}
	case line:
		return value
	case int:
		n = int64(value)
	case int64:
		n = value
	default:
		panic(fmt.Sprintf("phrase %s: a %T cannot fill {%s}", key, value, name))
	}
	if !counted {
		return line{}.text(grouped(n))
	}
	one, many, _ := strings.Cut(forms, "|")
	if n != 1 || many == "" {
		one = many
	}
	return line{}.text(strings.ReplaceAll(one, "#", grouped(n)))
}

// text is a phrase as plain text.
func (w *words) text(key string, v values) string { return w.say(key, v).String() }

// has reports whether there is such a phrase.
func (w *words) has(key string) bool { _, ok := w.phrases[key]; return ok }

// phrase panics if there is none: the catalogues are ours, and a test compares them.
func (w *words) phrase(key string) string {
	phrase, ok := w.phrases[key]
	if !ok {
		panic(fmt.Sprintf("no phrase %q in %s", key, w.lang))
	}
	return phrase
}
