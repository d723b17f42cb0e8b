package wrapper

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestSettingsOfAFileThatIsRootsAlone(t *testing.T) {
	want := Settings{"/usr/lib/sendmail.real", "/run/elsewhere/socket", 250 * time.Millisecond}
	if got, err := parseSettings(want.Text()); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	path := filepath.Join(t.TempDir(), "sendmail.conf")
	if got, err := Load(path); err != nil || got != Defaults() {
		t.Errorf("no file: got %+v, %v", got, err)
	}
	if err := os.WriteFile(path, []byte(want.Text()), 0o644); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		if got, err := Load(path); err != nil || got != want {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	for name, change := range map[string]func() error{
		"group may write": func() error { return os.Chmod(path, 0o664) },
		"others may":      func() error { return os.Chmod(path, 0o646) },
		"another's":       func() error { os.Chmod(path, 0o644); return os.Chown(path, 65533, -1) },
	} {
		if err := change(); err != nil {
			t.Skipf("%s: %v", name, err)
		}
		if got, err := Load(path); err == nil || got != Defaults() {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

func TestMistakesInTheSettingsAreSaid(t *testing.T) {
	for text, want := range map[string]string{
		"sendmail\n":                         `line 1: want KEY = "VALUE"`,
		"# x\n\nsendmail = /usr/sbin/x\n":    `line 3: want KEY = "VALUE"`,
		"sendmail = \"sendmail\"\n":          `line 1: sendmail: got "sendmail", want an absolute path`,
		"socket = \"\"\n":                    `line 1: socket: got "", want an absolute path`,
		"timeout = \"0s\"\n":                 "line 1: timeout: got 0s, want more than 0",
		"timeout = \"1h\"\n":                 "line 1: timeout: got 1h",
		"timeout = \"soon\"\n":               "line 1: timeout: ",
		"path = \"/x\"\n":                    "line 1: path: there is sendmail, socket and timeout",
		"sendmail = \"/usr/sbin/x\\x00y\"\n": "want an absolute path",
	} {
		if _, err := parseSettings(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

func FuzzSettings(f *testing.F) {
	f.Add(Defaults().Text())
	f.Add("timeout = \"10s\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSettings(text)
		if err != nil {
			return
		}
		if again, err := parseSettings(s.Text()); err != nil || again != s {
			t.Fatalf("got %+v, %v, want %+v", again, err, s)
		}
	})
}
