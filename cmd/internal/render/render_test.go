package render_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"relayguard/cmd/internal/render"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

func held() *render.Table {
	return &render.Table{
		Columns: []render.Column{
			{Title: "ID", Whole: true},
			{Title: "AGE", Right: true},
			{Title: "ORIGIN", Weight: 2, Min: 12},
			{Title: "RULE"},
			{Title: "RCPT", Right: true},
			{Title: "WHY", Wrap: true, Weight: 3},
		},
		Rows: [][]string{
			{"06fz3k9q0a7bc", "3m", "login:taro@example.jp", "login-hour", "37", "37 recipients in an hour, 300 allowed, and this reason is a long one that goes on for some more words"},
			{"06fz3k9q0a7bd", "2h", "login:hanako.yamada.of.the.accounting.department@subsidiary.example.co.jp", "envelope-address", "1", "sender <x@example.org> is not the login's"},
			{"06fz3k9q0a7be", "12d", "local_user:山田太郎", "login-burst", "1500", "十分間に百五十通を超えました。一時的に保留しています。管理者が解放するまで配送されません"},
			{"06fz3k9q0a7bf", "0s", "login:\x1b]0;owned\a\x1b[2J\u202eevil\xff\n", "auth", "2", "a\tb\u2028c\u0085d"},
			{"06fz3k9q0a7bg", "5d"},
		},
	}
}

func TestTables(t *testing.T) {
	for name, p := range map[string]render.Page{
		"table-80.txt":    {Width: 80, Cut: true},
		"table-120.txt":   {Width: 120, Cut: true},
		"table-200.txt":   {Width: 200, Cut: true},
		"table-piped.txt": {},
	} {
		var b bytes.Buffer
		if err := held().Write(&b, p); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.String())
		for line := range strings.Lines(b.String()) {
			line = strings.TrimSuffix(line, "\n")
			if w := render.Width(line); p.Cut && w > p.Width {
				t.Errorf("%s: %d columns: %s", name, w, line)
			}
			if line != strings.TrimRight(line, " ") {
				t.Errorf("%s: spaces at the end of %q", name, line)
			}
		}
		for _, row := range held().Rows {
			if !strings.Contains(b.String(), row[0]) {
				t.Errorf("%s: %s was cut", name, row[0])
			}
			if !p.Cut && !strings.Contains(b.String(), render.Escape(strings.Join(row[2:min(3, len(row))], ""))) {
				t.Errorf("%s: %q was cut", name, row)
			}
		}
	}
}

func TestTableWithoutRows(t *testing.T) {
	var b bytes.Buffer
	if err := (&render.Table{Columns: held().Columns}).Write(&b, render.Page{}); err != nil || b.Len() > 0 {
		t.Errorf("%q, %v", b.String(), err)
	}
}

func TestTableOfOddShapes(t *testing.T) {
	for _, width := range []int{0, 1, 20, 23, 40} {
		for _, rows := range [][][]string{{{}}, {{"", "", "", "", "", "", "", "more than there are columns"}}, {{strings.Repeat("x", 300), "", strings.Repeat("字", 300)}}} {
			var b bytes.Buffer
			table := held()
			table.Rows = rows
			if err := table.Write(&b, render.Page{Width: width, Cut: true}); err != nil || !utf8.Valid(b.Bytes()) {
				t.Errorf("width %d: %q, %v", width, b.String(), err)
			}
		}
	}
}

func TestPairs(t *testing.T) {
	var b bytes.Buffer
	pairs := []render.Pair{
		{Label: "decision", Text: "06fz3k9q0a7bc"},
		{Label: "account", Text: "login:taro@example.jp\x1b[31m"},
		{Label: "why", Text: "login-hour: 337 recipients of 300 in an hour; free again at 10:42; login-day: 400 of 1,500"},
		{Label: "", Text: "in the phase learning"},
		{Label: "理由", Text: "一時間に三百通を超えました。一時的に保留しています。管理者が解放するまで配送されません。"},
		{Label: "long", Text: strings.Repeat("x", 90)},
		{Label: "empty"},
	}
	if err := (render.Page{Width: 60}).Pairs(&b, pairs); err != nil {
		t.Fatal(err)
	}
	b.WriteString("\n")
	if err := (render.Page{Width: 60}).Text(&b, 4, "One line\nthat is continued and long enough to be broken once at the width of the page.\x07"); err != nil {
		t.Fatal(err)
	}
	golden(t, "pairs-60.txt", b.String())
}

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"taro@example.jp":       "taro@example.jp",
		"山田　太郎":                 "山田　太郎",
		"e\u0301":               "e\u0301",
		"DOMAIN\\taro":          "DOMAIN\\taro",
		"a\x1b[2Jb":             `a\x1b[2Jb`,
		"a\r\n\tb\x7f\x00":      `a\x0d\x0a\x09b\x7f\x00`,
		"\u009b31m":             `\u009b31m`,
		"a\u202eb\u2066c\u200f": `a\u202eb\u2066c\u200f`,
		"zero\u200bwidth\ufeff": `zero\u200bwidth\ufeff`,
		"\u3164\u00a0":          `\u3164\u00a0`,
		"\xff\xc3":              `\xff\xc3`,
		"\ufffd":                "\ufffd",
		"❤\ufe0f":               `❤\ufe0f`,
		"\U000e0041":            `\U000e0041`,
	} {
		if got := render.Escape(in); got != want {
			t.Errorf("Escape(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestWidth(t *testing.T) {
	for in, want := range map[string]int{"": 0, "taro": 4, "山田": 4, "ﾔﾏﾀﾞ": 4, "Ａ１": 4, "한국": 4, "e\u0301": 1, "か\u3099": 2, "é→…": 3, "📧": 2, "𠮷": 2} {
		if got := render.Width(in); got != want {
			t.Errorf("Width(%q) = %d, want %d", in, got, want)
		}
	}
}

func FuzzEscape(f *testing.F) {
	f.Fuzz(func(t *testing.T, s string) {
		out := render.Escape(s)
		if !utf8.ValidString(out) || len(out) > 6*len(s) {
			t.Fatalf("Escape(%q) has %d octets: %q", s, len(out), out)
		}
		for _, c := range out {
			if unicode.IsControl(c) || unicode.In(c, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Bidi_Control, unicode.Cs, unicode.Co) {
				t.Fatalf("Escape(%q) lets %U through", s, c)
			}
		}
		if again := render.Escape(out); again != out {
			t.Fatalf("Escape(%q) = %q, which becomes %q", s, out, again)
		}
		for _, width := range []int{20, 33} {
			var b bytes.Buffer
			table := render.Table{Columns: []render.Column{{Title: "A"}, {Title: "B", Wrap: true}}, Rows: [][]string{{s, s}}}
			if err := table.Write(&b, render.Page{Width: width, Cut: true}); err != nil || !utf8.Valid(b.Bytes()) {
				t.Fatalf("table of %q: %q, %v", s, b.String(), err)
			}
			for line := range strings.Lines(b.String()) {
				if render.Width(strings.TrimSuffix(line, "\n")) > width {
					t.Fatalf("table of %q at %d columns: %q", s, width, line)
				}
			}
			if err := (render.Page{Width: width}).Pairs(&b, []render.Pair{{Label: s, Text: s}}); err != nil || !utf8.Valid(b.Bytes()) {
				t.Fatalf("pair of %q: %q, %v", s, b.String(), err)
			}
		}
		var b bytes.Buffer
		if err := render.JSON(&b, s); err != nil {
			t.Fatal(err)
		}
		var back string
		if err := json.Unmarshal(b.Bytes(), &back); err != nil || back != strings.ToValidUTF8(s, "\ufffd") && utf8.ValidString(s) {
			t.Fatalf("JSON of %q is %q: %v", s, b.String(), err)
		}
		if strings.ContainsFunc(strings.TrimSuffix(b.String(), "\n"), func(c rune) bool { return unicode.IsControl(c) || unicode.Is(unicode.Cf, c) }) {
			t.Fatalf("JSON of %q is %q", s, b.String())
		}
	})
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	v := map[string]any{"from": "<a&b\u202e\u009b\x7f\x1b\U000e0041>", "n": 1}
	if err := render.JSON(&b, v); err != nil {
		t.Fatal(err)
	}
	want := "{\n  \"from\": \"<a&b\\u202e\\u009b\\u007f\\u001b\\udb40\\udc41>\",\n  \"n\": 1\n}\n"
	if b.String() != want {
		t.Errorf("got %s, want %s", b.String(), want)
	}
	if err := render.JSON(&b, math.NaN()); err == nil {
		t.Error("no error for what JSON cannot say")
	}
}

func TestAmounts(t *testing.T) {
	now := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		0: "0s", 59 * time.Second: "59s", time.Minute: "1m", 119 * time.Minute: "1h", 47 * time.Hour: "47h", 48 * time.Hour: "2d", 5 * 24 * time.Hour: "5d",
		-300 * time.Millisecond: "0s", -3 * time.Minute: "in 3m",
		-2*time.Hour + time.Millisecond: "in 2h", -10*time.Minute + time.Second: "in 10m", -time.Hour + 10*time.Second: "in 1h", -47*time.Hour - 50*time.Minute: "in 2d", -4*24*time.Hour + time.Hour: "in 4d",
	} {
		if got := render.Ago(now, now.Add(-d)); got != want {
			t.Errorf("Ago %v = %q, want %q", d, got, want)
		}
	}
	if got := render.Ago(now, time.Time{}); got != "never" {
		t.Errorf("Ago of no time = %q", got)
	}
	for d, want := range map[time.Duration]string{
		0: "0s", 1500 * time.Microsecond: "1.5ms", 250 * time.Millisecond: "250ms", 45 * time.Second: "45s", 90 * time.Minute: "1h30m", 24 * time.Hour: "1d",
		52*time.Hour + 59*time.Minute: "2d4h", 24*time.Hour + 3*time.Minute: "1d", -time.Minute: "-1m", math.MinInt64: "-106751d23h",
	} {
		if got := render.Duration(d); got != want {
			t.Errorf("Duration(%v) = %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{
		0: "0 B", 812: "812 B", 999: "999 B", 1000: "1.0 kB", 1500: "1.5 kB", 9949: "9.9 kB", 9950: "10 kB", 999_499: "999 kB", 999_500: "1.0 MB", 200_000_000: "200 MB",
		math.MaxInt64: "9.2 EB", -5: "-5 B",
	} {
		if got := render.Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestPageOf(t *testing.T) {
	t.Setenv("COLUMNS", "")
	if p := render.PageOf(&bytes.Buffer{}); p != (render.Page{Width: 80}) {
		t.Errorf("a buffer: %+v", p)
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	t.Setenv("COLUMNS", "200") // for a terminal alone
	if p := render.PageOf(file); p != (render.Page{Width: 80}) {
		t.Errorf("a file: %+v", p)
	}
	terminal := openTerminal(t)
	for _, c := range []struct {
		columns string
		size    uint16
		want    int
	}{{"", 132, 132}, {"", 0, 80}, {"100", 132, 100}, {"x", 132, 132}, {"-1", 90, 90}, {"999999999", 90, 1000}, {"", 3, 20}} {
		t.Setenv("COLUMNS", c.columns)
		if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: c.size}); err != nil {
			t.Fatal(err)
		}
		if p := render.PageOf(terminal); p != (render.Page{Width: c.want, Cut: true}) {
			t.Errorf("COLUMNS=%q, %d columns: %+v, want %d", c.columns, c.size, p, c.want)
		}
	}
}

// openTerminal opens a pseudo-terminal of its own.
func openTerminal(t *testing.T) *os.File {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminal here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return slave
}
