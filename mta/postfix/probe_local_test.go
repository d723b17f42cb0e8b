package postfix

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// scripts makes Postfix tools of shell scripts, which find the directory in $dir.
func scripts(t *testing.T, texts map[string]string) (Tools, string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\ndir="+dir+"\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return Tools{Dir: dir}, dir
}

// A message on hold may not be readable the first time; it is looked at again.
func TestLocalProbeLooksAgainAtWhatItCouldNotRead(t *testing.T) {
	tools, dir := scripts(t, map[string]string{
		"postcat":   `if mkdir $dir/tried 2>/dev/null; then exit 1; fi; echo 'X-Relayguard-Probe: 1234'`,
		"postsuper": `echo "$@" >>$dir/removed; rm $dir/hold/4ABC`,
	})
	hold := filepath.Join(dir, "hold")
	if err := os.Mkdir(hold, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(hold, "4ABC"), "")
	p := &localProbe{setup: Setup{Tools: tools, LocalMail: localMail}, instance: &Instance{QueueDir: dir}, token: "1234"}
	if err := p.await(t.Context(), map[string]bool{}); err != nil {
		t.Error(err)
	}
	if text, _ := os.ReadFile(filepath.Join(dir, "removed")); strings.TrimSpace(string(text)) != "-d 4ABC hold" {
		t.Errorf("removed %q", text)
	}
}

// Of what is handed in more than once, one may come through later than another:
// nothing of it stays, whatever the end.
func TestLocalProbeSentTwiceIsCleared(t *testing.T) {
	for _, c := range []struct {
		name, sendmail string
		cleared        bool
	}{
		{"shown at once", `cat >$dir/hold/1`, false},
		{"shown the second time", `if mkdir $dir/tried 2>/dev/null; then (echo '` + localMail.UIDHeader + `: 1'; cat) >$dir/hold/1; else cat >$dir/hold/2; fi`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			tools, dir := scripts(t, map[string]string{
				"sendmail":  `mkdir -p $dir/new; ` + strings.ReplaceAll(c.sendmail, ">$dir/hold/", ">$dir/new/") + `; mv $dir/new/* $dir/hold/`,
				"postcat":   `for id; do :; done; cat $dir/hold/$id`,
				"postsuper": `echo "$2 $3" >>$dir/removed; rm -f $dir/hold/$2`,
				"postmap":   `echo 'PREPEND ` + localMail.UIDHeader + `: 1'`,
				"postqueue": `echo '{"queue_name":"deferred","queue_id":"9","recipients":[{"address":"1234@` + probeDomain + `"}]}'`,
			})
			if err := os.Mkdir(filepath.Join(dir, "hold"), 0o755); err != nil {
				t.Fatal(err)
			}
			i := &Instance{QueueDir: dir, tools: tools, main: map[string]string{
				"sendmail_path": filepath.Join(dir, "sendmail"), "header_checks": "regexp:/x", "milter_macro_daemon_name": localMail.DaemonName,
			}}
			p := &localProbe{setup: Setup{Tools: tools, LocalMail: localMail}, instance: i, pickup: &Service{}, cleanup: &Service{}, token: "1234"}
			if err := p.send(t.Context()); err != nil {
				t.Error(err)
			}
			text, _ := os.ReadFile(filepath.Join(dir, "removed"))
			if got := strings.Contains(string(text), "9 deferred"); got != c.cleared {
				t.Errorf("removed %q, the rest cleared: want %v", text, c.cleared)
			}
		})
	}
}
