package report_test

import (
	"bytes"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"golang.org/x/net/html"

	"relayguard/cmd/internal/render"
	"relayguard/cmd/internal/report"
)

// allowed are the elements of the page. None of them runs or loads anything.
const allowed = " html head meta title style body main h1 h2 h3 p span strong bdi code pre ul ol li div section footer table caption thead tbody tr th td figure figcaption a svg path "

// shape is what a path may consist of.
var shape = regexp.MustCompile(`^[MhvzV0-9 -]+$`)

// inspect tells what is wrong with a page.
func inspect(page []byte) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	root, err := html.Parse(bytes.NewReader(page))
	if err != nil {
		return []string{err.Error()}
	}
	ids := map[string]int{}
	h1, heading := 0, 0
	for n := range root.Descendants() {
		if n.Type == html.CommentNode {
			fault("a comment: %q", n.Data)
		}
		if n.Type == html.TextNode && (n.Parent == nil || n.Parent.Data != "style") {
			for _, c := range n.Data {
				if c != '\n' && c != '\u3000' && !unicode.IsPrint(c) {
					fault("%U in %q", c, n.Data)
				}
			}
			if n.Data == "NaN" || strings.Contains(n.Data, "Inf ") || strings.Contains(n.Data, "%!") {
				fault("no number: %q", n.Data)
			}
		}
		if n.Type != html.ElementNode {
			continue
		}
		if !strings.Contains(allowed, " "+n.Data+" ") {
			fault("element <%s>", n.Data)
		}
		has := map[string]string{}
		for _, a := range n.Attr {
			has[a.Key] = a.Val
			switch a.Key {
			case "href":
				if n.Data != "a" || !strings.HasPrefix(a.Val, "https://") {
					fault("%s leads to %q", n.Data, a.Val)
				}
			case "id":
				ids[a.Val]++
			case "d":
				if !shape.MatchString(a.Val) {
					fault("path %.60q", a.Val)
				}
			case "class", "lang", "dir", "rel", "scope", "colspan", "role", "aria-labelledby", "aria-hidden", "viewbox", "viewBox", "preserveaspectratio", "preserveAspectRatio", "width", "height", "focusable",
				"fill", "stroke", "charset", "http-equiv", "content", "name":
			default:
				fault("attribute %s of <%s>", a.Key, n.Data)
			}
		}
		switch n.Data {
		case "a":
			if !strings.Contains(has["rel"], "noreferrer") {
				fault("a link tells where it came from: %q", has["rel"])
			}
		case "style":
			if css := n.FirstChild.Data; strings.Contains(css, "url(") || strings.Contains(css, "@import") || strings.Contains(css, "var(") {
				fault("the style loads something, or what mail programs do not know")
			}
		case "svg":
			if has["role"] != "img" || n.FirstChild == nil || n.FirstChild.Data != "title" {
				fault("a picture without a title")
			}
		case "th":
			if has["scope"] == "" {
				fault("a heading cell of nothing")
			}
		case "h1", "h2", "h3":
			level := int(n.Data[1] - '0')
			if level > heading+1 {
				fault("<%s> after a heading of level %d", n.Data, heading)
			}
			if heading = level; level == 1 {
				h1++
			}
		}
	}
	for id, n := range ids {
		if n > 1 {
			fault("id %s %d times", id, n)
		}
	}
	if h1 != 1 {
		fault("%d times <h1>", h1)
	}
	return faults
}

// longLine are lines that may be longer than the page: they are copied whole.
var longLine = regexp.MustCompile(`^ *(\$ |https?://)`)

func inspectText(text string) (faults []string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if render.Escape(line) != line {
			faults = append(faults, fmt.Sprintf("not plain: %q", line))
		}
		if w := render.Width(line); w > 80 && !longLine.MatchString(line) {
			faults = append(faults, fmt.Sprintf("%d columns: %q", w, line))
		}
		if strings.Contains(line, "NaN") || strings.Contains(line, "%!") {
			faults = append(faults, fmt.Sprintf("no number: %q", line))
		}
	}
	return faults
}

func text(t *testing.T, r *report.Report, lang string) string {
	t.Helper()
	var b strings.Builder
	if err := report.Text(&b, r, lang); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// both are a report as text and as a page.
func both(t *testing.T, r *report.Report, lang string) (string, string) {
	t.Helper()
	var b strings.Builder
	if err := report.HTML(&b, r, lang); err != nil {
		t.Fatal(err)
	}
	return text(t, r, lang), b.String()
}

func TestNothingInAReportRunsLoadsOrLeavesItsPlace(t *testing.T) {
	all := cases()
	all["nothing"] = &report.Report{}
	all["much"] = much()
	for name, r := range all {
		for _, lang := range report.Languages {
			text, page := both(t, r, lang)
			for _, f := range inspect([]byte(page)) {
				t.Errorf("%s.%s.html: %s", name, lang, f)
			}
			for _, f := range inspectText(text) {
				t.Errorf("%s.%s.txt: %s", name, lang, f)
			}
		}
	}
}

func TestInspectionSeesWhatIsWrong(t *testing.T) {
	for _, page := range []string{
		"<h1>x</h1><script>1</script>", "<h1>x</h1><img src=x>", "<h1>x</h1><a href='http://x/' rel=noreferrer>x</a>", "<h1>x</h1><a href='https://x/'>x</a>",
		"<h1 onclick=x>x</h1>", "<h1>x</h1><svg role=img><path d='M1 1'/></svg>", "<h1>x</h1><svg role=img><title>x</title><path d='MNaN 1'/></svg>", "<h1>\u202ex</h1>", "<h1>x</h1><h3>y</h3>", "<p>x</p>",
		"<h1>x</h1><style>a{background:url(x)}</style>",
	} {
		if len(inspect([]byte(page))) == 0 {
			t.Errorf("nothing is found wrong with %s", page)
		}
	}
}

func TestOnlyRemovalPagesAreLinks(t *testing.T) {
	_, page := both(t, hostile(), "en")
	if !strings.Contains(page, `href="https://list.example/remove?ip=203.0.113.5&amp;x=1"`) {
		t.Error("the one good address is no link")
	}
	for _, bad := range []string{"javascript:", "data:text", "evil.example/\"", "HTTPS://", "user:pass@"} {
		if strings.Contains(page, `href="`+bad) || strings.Contains(page, bad) && strings.HasPrefix(bad, "javascript") {
			t.Errorf("%s is in the page", bad)
		}
	}
}

func TestACommandIsShownWholeOrNotAtAll(t *testing.T) {
	r := clean()
	for command, shown := range map[string]bool{
		"relayguard suspend 'a b' --reason 'x'":            true,
		"relayguard suspend " + strings.Repeat("x", 1000):  false,
		"relayguard suspend 'a\nb'":                        false,
		"relayguard suspend '\u202eb'":                     false,
		"relayguard suspend " + strings.Repeat("x", 300):   true,
		"relayguard suspend '" + "שלום" + "@shop.example'": true,
	} {
		r.Steps = []report.Step{{Kind: report.StepSuspend, What: "x", Command: command}}
		text, page := both(t, r, "en")
		if strings.Contains(text, "$ "+command+"\n") != shown || strings.Contains(text, "$ relayguard") != shown {
			t.Errorf("%.60q in the text: want %v", command, shown)
		}
		if strings.Contains(page, "<pre") != shown {
			t.Errorf("%.60q in the page: want %v", command, shown)
		}
	}
}

// fill puts s into every string, of what v points to.
func fill(v reflect.Value, s string) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			fill(v.Elem(), s)
		}
	case reflect.Slice:
		for i := range v.Len() {
			fill(v.Index(i), s)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() {
				fill(f, s)
			}
		}
	case reflect.String:
		v.SetString(s)
	}
}

// FuzzNames puts a text into every string of a report.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"", "plain", "<script>", `"'><a href=https://x>`, "\u202e\u2066x\u200b", "\x1b[31m\r\n\x00\xff", "חנות", "{{.}}{what}%s", "javascript:alert(1)", "https://list.example/?a=1&b=<", "Z\u0338\u0337\u0335\u0336\u0321a", "日本語、の名前。", strings.Repeat("w", 3000), "\u3000", "wild", "spf", "form", "-5", "9223372036854775807"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r := listed()
		r.Missing = []report.Missing{{Section: "x", Why: "y"}}
		r.Stopped = &report.Span{Since: made}
		fill(reflect.ValueOf(r), s)
		for _, lang := range report.Languages {
			text, page := both(t, r, lang)
			for _, fault := range append(inspect([]byte(page)), inspectText(text)...) {
				t.Error(fault)
			}
		}
		if _, err := report.Letter(r, "ja", "guard@example.jp", []string{"root@example.jp"}, "1@example.jp"); err != nil {
			t.Error(err)
		}
		if strings.ContainsAny(report.Subject(r, "en"), "\r\n\x00") {
			t.Error("the subject is not one line")
		}
	})
}
