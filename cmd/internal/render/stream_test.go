package render_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"relayguard/cmd/internal/render"
)

func queueColumns() []render.Column {
	return []render.Column{{Title: "QUEUE ID", Whole: true, Min: 11}, {Title: "AGE", Right: true, Whole: true, Min: 3}, {Title: "FROM", Weight: 2, Min: 10}, {Title: "ERROR", Weight: 3}}
}

// many writes rows that grow wider after the first hundred.
func many(t *testing.T, w io.Writer, p render.Page) {
	t.Helper()
	s := render.NewStream(w, p, queueColumns())
	for i := range 103 {
		from, why := "taro@example.jp", "timed out"
		if i >= 100 {
			from = "hanako.yamada.of.the.accounting.department@subsidiary.example.co.jp"
			why = "host mx.example.net[192.0.2.25] said: 421 4.7.0 \x1b[2Jtoo many \u202emessages, 山田太郎 try again later and then once more"
		}
		if err := s.Row("4ZJ1k82Vz1y", "3m", from, why); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestStreams(t *testing.T) {
	for name, p := range map[string]render.Page{
		"stream-80.txt": {Width: 80, Cut: true}, "stream-200.txt": {Width: 200, Cut: true}, "stream-200-bold.txt": {Width: 200, Cut: true, Bold: true}, "stream-piped.txt": {},
	} {
		var b bytes.Buffer
		many(t, &b, p)
		lines := strings.SplitAfter(b.String(), "\n")
		golden(t, name, lines[0]+lines[1]+strings.Join(lines[len(lines)-5:], ""))
		for _, line := range lines[1:] {
			if w := render.Width(strings.TrimSuffix(line, "\n")); p.Cut && w > p.Width {
				t.Errorf("%s: %d columns: %s", name, w, line)
			}
		}
	}
}

func TestAStreamOfAllThatFitsIsTheTable(t *testing.T) {
	table := held()
	table.Rows = table.Rows[4:]
	var streamed, written bytes.Buffer
	s := render.NewStream(&streamed, render.Page{}, table.Columns)
	for _, row := range table.Rows {
		s.Row(row...)
	}
	if err := errors.Join(s.Close(), table.Write(&written, render.Page{})); err != nil || streamed.String() != written.String() {
		t.Errorf("%q, want %q, %v", &streamed, &written, err)
	}
	var nothing bytes.Buffer
	if err := render.NewStream(&nothing, render.Page{}, table.Columns).Close(); err != nil || nothing.Len() > 0 {
		t.Errorf("no rows: %q, %v", &nothing, err)
	}
}

// buffer is written by the timer of a stream.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestRowsAreSeenThoughNoMoreCome(t *testing.T) {
	var b buffer
	s := render.NewStream(&b, render.Page{}, queueColumns())
	defer s.Close()
	for _, id := range []string{"A1", "A2", "A3"} {
		if err := s.Row(id, "3m", "taro", "-"); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(10 * time.Second); !strings.Contains(b.String(), id); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s is not there: %q", id, b.String())
			}
		}
	}
}

// full is a reader that has enough.
type full struct{ err error }

func (f full) Write([]byte) (int, error) { return 0, f.err }

func TestAStreamThatNobodyReadsSaysSo(t *testing.T) {
	enough := errors.New("enough")
	s := render.NewStream(full{enough}, render.Page{}, queueColumns())
	var err error
	for i := 0; i < 100_000 && err == nil; i++ {
		err = s.Row("A1", "3m", "taro", "-")
	}
	if !errors.Is(err, enough) || !errors.Is(s.Close(), enough) {
		t.Error(err)
	}
}

func TestJSONLists(t *testing.T) {
	for _, n := range []int{0, 1, 3} {
		var b bytes.Buffer
		l := render.NewJSONList(&b, "messages")
		for range n {
			if err := l.Add(map[string]string{"from": "<a\u202e\x1b&>"}); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Flush(); err != nil || n > 0 && json.Valid(b.Bytes()) {
			t.Errorf("half of it is %q: %v", &b, err)
		}
		if err := l.End(map[string]any{"end": map[string]int{"messages": n}}); err != nil {
			t.Fatal(err)
		}
		var back struct {
			Messages []map[string]string
			End      map[string]int
		}
		if err := json.Unmarshal(b.Bytes(), &back); err != nil || len(back.Messages) != n || back.End["messages"] != n || n > 0 && back.Messages[n-1]["from"] != "<a\u202e\x1b&>" {
			t.Errorf("%s: %v", &b, err)
		}
		if text := b.String(); strings.ContainsAny(text, "\x1b\u202e") || n > 0 && !strings.Contains(text, "\n    {\"from\":\"<a\\u202e\\u001b&>\"}") {
			t.Error(text)
		}
	}
	if err := render.NewJSONList(io.Discard, "x").End(3); err == nil {
		t.Error("no error for what has no fields")
	}
}

func TestHeadingsAreBoldOnATerminalThatWantsIt(t *testing.T) {
	terminal := openTerminal(t)
	for _, c := range []struct {
		term, no string
		want     bool
	}{{"xterm", "", true}, {"xterm", "1", false}, {"dumb", "", false}, {"", "", false}} {
		t.Setenv("TERM", c.term)
		t.Setenv("NO_COLOR", c.no)
		if p := render.PageOf(terminal).Headings(terminal); p.Bold != c.want {
			t.Errorf("%+v: %+v", c, p)
		}
		if p := render.PageOf(&bytes.Buffer{}).Headings(&bytes.Buffer{}); p.Bold {
			t.Errorf("%+v: bold in a buffer", c)
		}
	}
	if got := (render.Page{Bold: true}).Heading("a\x1bb"); got != "\x1b[1ma\\x1bb\x1b[m" {
		t.Errorf("%q", got)
	}
}
