package fingerprint_test

import (
	"bytes"
	"mime"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"relayguard/policy/origin/fingerprint"
)

// fields are those of a message, as policy.Header gives them.
type fields mail.Header

func (f fields) Get(name string) (string, bool) {
	for n, v := range f {
		if strings.EqualFold(n, name) {
			return v[0], true
		}
	}
	return "", false
}

// message is a mail as Find takes it.
func message(t testing.TB, raw []byte) (fields, string, []byte) {
	t.Helper()
	m, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	var body bytes.Buffer
	if _, err := body.ReadFrom(m.Body); err != nil {
		t.Fatal(err)
	}
	subject, _ := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	return fields(m.Header), subject, body.Bytes()
}

// Each directory of testdata is of the software that its messages look like.
func TestSoftwareIsRecognised(t *testing.T) {
	files, err := filepath.Glob("testdata/*/*.eml")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d messages, %v", len(files), err)
	}
	seen := map[string]bool{}
	for _, file := range files {
		want := filepath.Base(filepath.Dir(file))
		seen[want] = true
		if want == "none" {
			want = ""
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := fingerprint.Default().Find(message(t, raw)); got != want {
			t.Errorf("%s: looks like %q", file, got)
		}
	}
	for _, name := range fingerprint.Default().Names() {
		if !seen[name] {
			t.Errorf("no message of %s in testdata", name)
		}
	}
}

func find(t *testing.T, text, header, body string) string {
	t.Helper()
	s, err := fingerprint.Default().Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s.Find(message(t, []byte(header+"\r\n\r\n"+body)))
}

func TestAnAdminAddsFingerprints(t *testing.T) {
	const share = "Subject: [Shared Post] Hello\r\nX-Mailer: House Mailer 7\r\nX-Empty:"
	for _, c := range []struct{ text, header, body, want string }{
		{"", share, "", "jetpack"},
		{"# nothing\r\n\r\n   \t\n", share, "", "jetpack"},
		{"\ufeffhouse X-Mailer: starts \"House \"", share, "", "house"},
		{"house x-mailer: is \"House Mailer 7\"", share, "", "house"},
		{"house X-Mailer: ends \" 7\"", share, "", "house"},
		{"house X-Mailer: has \"Mail\"", share, "", "house"},
		{"house X-Mailer: has \"mail\"", share, "", "jetpack"},
		{"house X-Empty: present", share, "", "house"},
		{"house X-Absent: present", share, "", "jetpack"},
		{"house subject has \"Hell\" and X-Mailer: present", share, "", "house"},
		{"house subject is \"Hello\"", share, "", "jetpack"},
		{"house body has \"some text\" and subject ends \"lo\"", share, "this is some text", "house"},
		{"house body has \"some text\" and subject ends \"la\"", share, "this is some text", "jetpack"},
		{"house body has \"some text\" and body has \"is some t\"", share, "this is some text", "house"},
		{"house body has \"say \\\"ja\\\" \\\\\"", share, `they say "ja" \`, "house"},
		{"house body has \"日本語で\"", share, "ここは日本語だ", "jetpack"},
		{"house body has \"日本語で\"", share, "ここは日本語です日本語で", "house"},
		{"a X-Mailer: present\nb X-Mailer: present", share, "", "b"},
		{"b X-Mailer: present\na subject has \"o\"\nb X-Empty: is \"x\"", share, "", "a"},
		{"jetpack never", share, "", ""},
		{"jetpack never\njetpack X-Empty: present", share, "", "jetpack"},
		{"house Message-ID: alnum 3-5", "Message-ID: <aB3@x>\r\nSubject: x", "", "house"},
		{"house Message-ID: alnum 3-5", "Message-ID: <aB3456@x>\r\nSubject: x", "", ""},
		{"house Message-ID: alnum 3-5", "Message-ID: <aB3@>\r\nSubject: x", "", ""},
		{"house Message-ID: alnum 3-5", "Message-ID: <aB-3@x>\r\nSubject: x", "", ""},
	} {
		if got := find(t, c.text, c.header, c.body); got != c.want {
			t.Errorf("%q on %q: %q, want %q", c.text, c.body, got, c.want)
		}
	}
}

func TestParseLeavesTheSetAsItIs(t *testing.T) {
	before := fingerprint.Default().Names()
	s, err := fingerprint.Default().Parse([]byte("jetpack never\nhouse body has \"a new long text\""))
	if err != nil {
		t.Fatal(err)
	}
	if after := fingerprint.Default().Names(); !slices.Equal(before, after) || !slices.Contains(after, "jetpack") {
		t.Errorf("%q became %q", before, after)
	}
	if names := s.Names(); slices.Contains(names, "jetpack") || !slices.Contains(names, "house") {
		t.Errorf("%q", names)
	}
}

func TestNoSetRecognisesNothing(t *testing.T) {
	for _, s := range []*fingerprint.Set{nil, {}} {
		if got := s.Find(fields{"X-Mailer": {"Drupal"}}, "[Shared Post] x", nil); got != "" || s.Names() != nil {
			t.Errorf("%q, %q", got, s.Names())
		}
	}
	s, err := (*fingerprint.Set)(nil).Parse([]byte("house subject is \"x\""))
	if err != nil || s.Find(fields{}, "x", nil) != "house" {
		t.Error(err)
	}
}

func TestParseTellsEveryFaultWithItsLine(t *testing.T) {
	for text, want := range map[string]string{
		"House X-Mailer: present":                                     `line 1: name "House"`,
		"\n\nhouse":                                                   `line 3: "", want "subject", "body"`,
		"house X-Mailer present":                                      `"X-Mailer", want "subject", "body", a header field with its colon`,
		"house : present":                                             `field ":"`,
		"house X-Mailer:":                                             `"" after X-Mailer:, want one of: present`,
		"house X-Mailer: contains \"x\"":                              `"contains" after X-Mailer:`,
		"house subject present":                                       `"present" after subject, want one of: is, starts, ends, has`,
		"house subject alnum 3-5":                                     `"alnum" after subject`,
		"house body starts \"some text\"":                             `"starts" after body, want one of: has`,
		"house body has \"short\"":                                    `text "short" has 5 octets, want 8 to 200`,
		"house subject is \"\"":                                       `has 0 octets, want 1 to 200`,
		"house subject is x":                                          `"x", want a text in double quotes`,
		"house subject is `x`":                                        "want a text in double quotes",
		"house subject is 'x'":                                        "want a text in double quotes",
		"house subject is \"x":                                        "want a text in double quotes",
		"house subject is \"\\xff\"":                                  "want UTF-8",
		"house subject is \"\xff\"":                                   "is not UTF-8",
		"house subject is \"x\" subject":                              `"subject" after a mark, want "and"`,
		"house subject is \"x\" and":                                  `"", want "subject", "body"`,
		"house never ever":                                            `"never", want "subject"`,
		"house Message-ID: alnum":                                     `"" after alnum`,
		"house Message-ID: alnum 5-3":                                 `"5-3" after alnum`,
		"house Message-ID: alnum 0-3":                                 `"0-3" after alnum`,
		"house subject is \"" + strings.Repeat("x", 300):              "want a text in double quotes",
		"house subject is \"" + strings.Repeat("x", 300) + "\"":       "has 300 octets, want 1 to 200",
		"house X-A: present" + strings.Repeat(" and X-A: present", 8): "at most 8",
		strings.Repeat("house X-A: present\n", 1000):                  "want at most 1000",
		strings.Repeat("h", 101) + " X-A: present":                    "at most 100",
		"house X-A: present\nB\n\nC X: present\n":                     "line 4: name \"C\"",
		strings.Repeat("\x00\n", 5000):                                "is it a file of fingerprints?",
	} {
		s, err := fingerprint.Default().Parse([]byte(text))
		if err == nil || s != nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 20_000 {
			t.Errorf("%.60q: %v, want %q", text, err, want)
		}
	}
	if _, err := fingerprint.Default().Parse([]byte("A\nB\n")); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("%v, want both faults", err)
	}
}

func TestFindFromManyAtOnce(t *testing.T) {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if got := fingerprint.Default().Find(fields{}, "", []byte("x) thinks you may be interested in the following post:")); got != "jetpack" {
					t.Errorf("%q", got)
				}
			}
		})
	}
	wg.Wait()
}
