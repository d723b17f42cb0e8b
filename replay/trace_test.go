package replay_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"relayguard/replay"
)

const designed = `{"time":"2026-03-02T08:59:03Z","event":"message","id":"m1","label":"legit","client_ip":"203.0.113.7","login":"taro@example.jp","mail_from":"taro@example.jp","header_from":"taro@example.jp","rcpt_to":["hanako@example.net"],"subject":"Minutes","size":2310,"message_id":"<1@example.jp>","body":"optional text"}
{"time":"2026-03-02T09:00:00Z","event":"message","id":"m2","label":"abuse:share","local_user":"site12","site":"shop.example.jp","plugin":"share-by-mail","mail_from":"site12@web1.example.jp","header_from":"wordpress@shop.example.jp","rcpt_to":["x@example.org"],"subject":"[Shared Post] News","size":1810,"message_id":"<2@shop.example.jp>"}

{"time":"2026-03-02T09:00:04Z","event":"delivery","id":"m2","rcpt_to":"x@example.org","status":"bounced","dsn":"5.1.1","later":{"fields":1}}
`

func TestReaderReadsWhatTheDesignShows(t *testing.T) {
	r := replay.NewReader(strings.NewReader(designed))
	var kinds []string
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, e.Kind+" "+e.ID+" "+strings.Join(e.RcptTo, ","))
		if e.ID == "m2" && e.Kind == replay.KindMessage && (e.Plugin == nil || *e.Plugin != "share-by-mail" || e.Label != "abuse:share") {
			t.Errorf("%+v", e)
		}
	}
	if got, want := strings.Join(kinds, "; "), "message m1 hanako@example.net; message m2 x@example.org; delivery m2 x@example.org"; got != want {
		t.Errorf("read %q, want %q", got, want)
	}
	if r.Line() != 4 {
		t.Errorf("at line %d, want 4", r.Line())
	}
}

func TestMalformedLineIsAnErrorWithItsNumber(t *testing.T) {
	const good = `{"time":"2026-03-02T09:00:00Z","event":"login_failed","login":"a","client_ip":"192.0.2.1"}`
	for line, want := range map[string]string{
		`{"time":`:                           "line 2: unexpected end of JSON input",
		`[]`:                                 "line 2: found a JSON array, want an object",
		`5`:                                  "line 2: found a JSON number, want an object",
		`{"time":"2026-03-02T09:00:00Z"} {}`: "line 2: invalid character",
		`{"time":"yesterday"}`:               "line 2: parsing time",
		`{"event":"message"}`:                `line 2: time: found none, want RFC 3339`,
		`{"time":"9999-01-01T00:00:00Z","event":"message"}`:                                                "line 2: time: found 9999",
		`{"time":"2026-03-02T09:00:00Z"}`:                                                                  "line 2: event: found none",
		`{"time":"2026-03-02T09:00:00Z","event":"message"}`:                                                "line 2: rcpt_to: found none",
		`{"time":"2026-03-02T09:00:00Z","event":"message","rcpt_to":5}`:                                    "line 2: rcpt_to: found a JSON number",
		`{"time":"2026-03-02T09:00:00Z","event":"message","rcpt_to":["a@b"],"login":"x","local_user":"y"}`: "line 2: login and local_user: found both",
		`{"time":"2026-03-02T09:00:00Z","event":"message","rcpt_to":["a@b"],"size":-1}`:                    "line 2: size: found -1",
		`{"time":"2026-03-02T09:00:00Z","event":"message","rcpt_to":["a@b"],"client_ip":"host"}`:           `line 2: client_ip: found "host"`,
		`{"time":"2026-03-02T09:00:00Z","event":"message","rcpt_to":null}`:                                 "line 2: rcpt_to: found none",
		`{"time":"2026-03-02T09:00:00Z","event":"message","rcpt_to":["a@b",""]}`:                           "line 2: rcpt_to: found an empty address",
		`{"time":"2026-03-02T09:00:00Z","event":"message","rcpt_to":["a@b"],"uid":-1}`:                     "line 2: uid: found -1",
		`{"time":"2026-03-02T09:00:00Z","event":"message","rcpt_to":["a@b"],"login":7}`:                    "line 2: login: found a JSON number",
		`{"time":"2026-03-02T09:00:00Z","event":"message","rcpt_to":["a@b"],"skeleton":{"a":1}}`:           "line 2: skeleton: want a text or a number",
		`{"time":"2026-03-02T09:00:00Z","event":"message","rcpt_to":["a@b"],"line_hashes":"a"}`:            "line 2: line_hashes: want a list",
		`{"time":"2026-03-02T09:00:00Z","event":"message","rcpt_to":["a@b"],"line_hashes":["a",[1]]}`:      "line 2: line_hashes: want a list",
		`{"time":"2026-03-02T09:00:00Z","event":"delivery","id":"m1"}`:                                     "line 2: delivery: want id and status",
		`{"time":"2026-03-02T09:00:00Z","event":"complaint"}`:                                              "line 2: complaint: want the id",
		`{"time":"2026-03-02T09:00:00Z","event":"suspend"}`:                                                `line 2: suspend: found origin "", want login:NAME`,
		`{"time":"2026-03-02T08:59:59.999Z","event":"login_failed"}`:                                       "line 2: time 2026-03-02T08:59:59.999Z is before that of the line before it",
	} {
		r := replay.NewReader(strings.NewReader(good + "\n" + line + "\n"))
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		var format *replay.FormatError
		if _, err := r.Next(); !errors.As(err, &format) || format.Line != 2 || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s:\n got %v\nwant %s", line, err, want)
		}
	}
}

func TestLineNumbersCountEveryLine(t *testing.T) {
	const good = `{"time":"2026-03-02T09:00:00Z","event":"login_failed","later":[{"fields":null}]}`
	r := replay.NewReader(strings.NewReader("\n" + good + "\r\n\n  \n" + good + "\nno JSON"))
	for _, want := range []int{2, 5} {
		if _, err := r.Next(); err != nil || r.Line() != want {
			t.Fatalf("line %d, %v; want %d", r.Line(), err, want)
		}
	}
	if _, err := r.Next(); err == nil || !strings.HasPrefix(err.Error(), "line 6: invalid character") {
		t.Errorf("%v", err)
	}
	r = replay.NewReader(strings.NewReader(good + "\n{\"time\":\"" + strings.Repeat("x", 17<<20)))
	r.Next()
	if _, err := r.Next(); err == nil || err.Error() != "line 2: longer than 16777216 octets" {
		t.Errorf("%.100v", err)
	}
	broken := errors.New("the disk is broken")
	var format *replay.FormatError
	if _, err := replay.NewReader(iotest.ErrReader(broken)).Next(); !errors.Is(err, broken) || errors.As(err, &format) {
		t.Errorf("%v", err)
	}
}

func FuzzReader(f *testing.F) {
	for line := range strings.SplitSeq(designed, "\n") {
		f.Add([]byte(line))
	}
	f.Add([]byte(`{"time":"2026-03-02T09:00:00Z","event":"message","rcpt_to":["a@b"],"skeleton":"9f","line_hashes":["1a",2,null,"1a"],"script":"a.php:7","web_client_ip":"192.0.2.9"}`))
	f.Add([]byte(`{"time":"2026-03-02T09:00:00Z","event":"suspend","origin":"login:taro@example.jp"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := replay.NewReader(strings.NewReader(string(data)))
		for {
			e, err := r.Next()
			if err != nil {
				return
			}
			if e.Time.IsZero() || e.Kind == "" || e.Kind == replay.KindMessage && len(e.RcptTo) == 0 {
				t.Fatalf("%+v", e)
			}
		}
	})
}
