package template_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"relayguard/policy/template"
)

// mailOf reads a file of a mail: the first field of each name, unfolded.
func mailOf(t *testing.T, name string) (header, []byte) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "mail", name+".eml"))
	if err != nil {
		t.Fatal(err)
	}
	head, body, ok := bytes.Cut(data, []byte("\r\n\r\n"))
	if !ok {
		t.Fatalf("%s has no body", name)
	}
	h := header{}
	for field := range strings.SplitSeq(strings.ReplaceAll(string(head), "\r\n ", " "), "\r\n") {
		if name, value, _ := strings.Cut(field, ":"); h[name] == "" {
			h[name] = strings.TrimSpace(value)
		}
	}
	return h, body
}

func partsOf(t *testing.T, text template.Text, kind string) []uint64 {
	t.Helper()
	switch kind {
	case "subject":
		if text.Skeleton == 0 {
			return nil
		}
		return []uint64{text.Skeleton}
	case "link":
		return text.Links
	case "line":
		return text.Lines
	case "shape":
		return text.Shape
	}
	t.Fatalf("no kind of part: %q", kind)
	return nil
}

func common(a, b []uint64) (both []uint64) {
	for _, h := range a {
		if slices.Contains(b, h) {
			both = append(both, h)
		}
	}
	return both
}

// TestMailsShareParts goes by testdata/mail/expect.txt, which says what it means.
func TestMailsShareParts(t *testing.T) {
	expect, err := os.ReadFile(filepath.Join("testdata", "mail", "expect.txt"))
	if err != nil {
		t.Fatal(err)
	}
	m := template.New(template.Options{Parts: 16})
	texts, used := map[string]template.Text{}, 0
	files, _ := filepath.Glob(filepath.Join("testdata", "mail", "*.eml"))
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".eml")
		fields, body := mailOf(t, name)
		texts[name] = m.Read(fields, body)
	}
	for rule := range strings.Lines(string(expect)) {
		if rule = strings.TrimSpace(rule); rule == "" || rule[0] == '#' {
			continue
		}
		used++
		what, list, _ := strings.Cut(rule, ": ")
		names := strings.Fields(list)
		for _, name := range names {
			if _, ok := texts[name]; !ok {
				t.Fatalf("%s: no such mail: %s", rule, name)
			}
		}
		verb, kind, _ := strings.Cut(what, " ")
		first := texts[names[0]]
		switch verb {
		case "none":
			for _, name := range names {
				if parts := partsOf(t, texts[name], kind); len(parts) > 0 {
					t.Errorf("%s has %d parts, want no %s", name, len(parts), kind)
				}
			}
		case "same":
			both := partsOf(t, first, kind)
			for _, name := range names[1:] {
				if both = common(both, partsOf(t, texts[name], kind)); len(both) == 0 {
					t.Errorf("%s has no %s in common with the mails before it, from %s on", name, kind, names[0])
					break
				}
			}
		case "all":
			for _, name := range names[1:] {
				a, b := partsOf(t, first, kind), partsOf(t, texts[name], kind)
				if len(a) == 0 || !slices.Equal(a, b) {
					t.Errorf("%s and %s: %d and %d parts of kind %s, %d of them the same; want all", names[0], name, len(a), len(b), kind, len(common(a, b)))
				}
			}
		case "differ":
			for i, a := range names {
				for _, b := range names[:i] {
					for _, kind := range []string{"subject", "link", "line", "shape"} {
						if both := common(partsOf(t, texts[a], kind), partsOf(t, texts[b], kind)); len(both) > 0 {
							t.Errorf("%s and %s have a %s in common", a, b, kind)
						}
					}
				}
			}
		default:
			t.Fatalf("expect.txt: %q, want same, all, none or differ", rule)
		}
	}
	if used < 10 || len(texts) < 40 {
		t.Errorf("looked at %d rules and %d mails: are there not more?", used, len(texts))
	}
}

func TestReadIsBounded(t *testing.T) {
	m := template.New(template.Options{Parts: 16})
	var many strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&many, "A line with the word w%cx%cy%c in it and more\r\nhttps://example.com/page-%c-%c\r\n", 'a'+i%26, 'a'+i/26%26, 'a'+i/676, 'a'+i%26, 'a'+i/26%26)
	}
	nested := "x"
	for i := range 200 {
		nested = fmt.Sprintf("--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n%s\r\n--b%d--\r\n", 200-i, 201-i, nested, 200-i)
	}
	for name, c := range map[string]struct {
		fields header
		body   string
	}{
		"many lines":    {nil, many.String()},
		"one long line": {header{"Subject": strings.Repeat("a b ", 1e5)}, strings.Repeat("word next ", 1e5)},
		"one word":      {nil, strings.Repeat("a", 1e6)},
		"open tags":     {header{"Content-Type": "text/html"}, strings.Repeat("<", 1e6)},
		"open links":    {header{"Content-Type": "text/html"}, strings.Repeat("<a href=", 1e5)},
		"nested":        {header{"Content-Type": "multipart/mixed; boundary=b1"}, nested},
		"many parts":    {header{"Content-Type": "multipart/mixed; boundary=b"}, strings.Repeat("--b\r\n\r\n\r\n", 1e5)},
		"long letters":  {nil, strings.Repeat("\ufdfa", 1e5)},
		"marks":         {nil, "a" + strings.Repeat("\u0301", 1e5)},
		"escapes":       {nil, strings.Repeat("\x1b$B", 1e5)},
	} {
		var text template.Text
		allocated := testing.AllocsPerRun(1, func() { text = m.Read(c.fields, []byte(c.body)) })
		if len(text.Links) > 6 || len(text.Lines) > 32 || len(text.Shape) > 8 {
			t.Errorf("%s: %d links, %d lines, %d of the shape; want at most 6, 32, 8", name, len(text.Links), len(text.Lines), len(text.Shape))
		}
		if allocated > 1000 {
			t.Errorf("%s: %v allocations", name, allocated)
		}
	}
}

func TestKeyIsInEveryHash(t *testing.T) {
	fields, body := mailOf(t, "jetpack-00")
	a := template.New(template.Options{Parts: 16}).Read(fields, body)
	b := template.New(template.Options{Parts: 16, Key: [16]byte{1}}).Read(fields, body)
	for _, kind := range []string{"subject", "link", "line", "shape"} {
		if len(partsOf(t, a, kind)) == 0 || len(common(partsOf(t, a, kind), partsOf(t, b, kind))) > 0 {
			t.Errorf("%s: %x and %x, want all different", kind, partsOf(t, a, kind), partsOf(t, b, kind))
		}
	}
}
