package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"relayguard/replay"
)

// replayCase is a case of testdata/replay: NAME.toml, whose first line has the
// arguments, NAME.jsonl, and what replay --json prints, NAME.want.json.
type replayCase struct {
	name, trace, want string
	args              []string
}

func replayCases(t *testing.T) (all []replayCase) {
	t.Helper()
	const dir = "../../testdata/replay"
	files, err := os.ReadDir(dir)
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases in %s: %v", dir, err)
	}
	kinds := map[string]int{}
	for _, f := range files {
		name, kind, _ := strings.Cut(f.Name(), ".")
		if !slices.Contains([]string{"toml", "jsonl", "want.json"}, kind) {
			t.Errorf("%s is no part of a case", f.Name())
		}
		kinds[name]++
	}
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		if kinds[name] != 3 {
			t.Errorf("%s: want a .toml, a .jsonl and a .want.json", name)
			continue
		}
		path := filepath.Join(dir, name)
		config, trace, want := slurp(t, path+".toml"), slurp(t, path+".jsonl"), slurp(t, path+".want.json")
		first, _, _ := strings.Cut(config, "\n")
		args, ok := strings.CutPrefix(first, "# relayguard replay")
		if !ok {
			t.Errorf("%s.toml: want a first line # relayguard replay ARGUMENTS", name)
		}
		all = append(all, replayCase{name, trace, want, append(append([]string{"replay"}, strings.Fields(args)...), "--json", "--config", path+".toml")})
	}
	return all
}

func slurp(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// replayOf runs a trace from standard input.
func replayOf(t *testing.T, trace string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	root := newRoot()
	var out, errs bytes.Buffer
	root.SetArgs(args)
	root.SetIn(strings.NewReader(trace))
	root.SetOut(&out)
	root.SetErr(&errs)
	if err := root.ExecuteContext(t.Context()); err != nil {
		code = exitUsage
		if exit, ok := err.(*exitError); ok {
			code = exit.code
		}
		tell(&errs, err)
	}
	return code, out.String(), errs.String()
}

func TestReplayCases(t *testing.T) {
	for _, c := range replayCases(t) {
		t.Run(c.name, func(t *testing.T) {
			for range 2 { // it is the same each time
				code, got, stderr := replayOf(t, c.trace, c.args...)
				if code != exitFine || got != c.want {
					t.Fatalf("exit %d, stderr %s\n%s\nwant\n%s", code, stderr, got, c.want)
				}
			}
		})
	}
}

// Without their labels the same messages have the same fate.
func TestReplayWithoutLabels(t *testing.T) {
	for _, c := range replayCases(t) {
		var trace strings.Builder
		for line := range strings.Lines(c.trace) {
			var e map[string]any
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			delete(e, "label")
			text, _ := json.Marshal(e)
			fmt.Fprintf(&trace, "%s\n", text)
		}
		_, out, _ := replayOf(t, trace.String(), c.args...)
		var got, want replay.Score
		if err := errorsOf(json.Unmarshal([]byte(out), &got), json.Unmarshal([]byte(c.want), &want)); err != nil {
			t.Fatal(c.name, err)
		}
		var sum replay.Tally
		for _, l := range want.Labels {
			for _, s := range []struct{ to, from *replay.Sum }{{&sum.Accept, &l.Accept}, {&sum.Hold, &l.Hold}, {&sum.Defer, &l.Defer}, {&sum.Reject, &l.Reject}} {
				s.to.Messages += s.from.Messages
				s.to.Recipients += s.from.Recipients
			}
		}
		if got.Labels[""] != sum || len(got.Labels) != 1 || !reflect.DeepEqual(got.Incidents, want.Incidents) {
			t.Errorf("%s: %+v, want %+v", c.name, got, sum)
		}
	}
}

func errorsOf(all ...error) error {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}

// The object of the design, to the letter.
func TestReplayJSON(t *testing.T) {
	config := filepath.Join(t.TempDir(), "c.toml")
	if err := os.WriteFile(config, []byte("[[limit]]\nname = \"login-hour\"\nper = \"login\"\ncounts = \"recipients\"\nwindows = [\"2/1h\"]\nkind = \"abuse\"\nthen = \"hold\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mail := func(second int) string {
		return fmt.Sprintf(`{"time":"2026-03-02T18:00:%02d.5+09:00","event":"message","label":"abuse:burst","login":"taro@example.jp","mail_from":"taro@example.jp","rcpt_to":["a@example.net"]}`+"\n", second)
	}
	code, stdout, stderr := replayOf(t, mail(0)+mail(1)+mail(12), "replay", "--learning", "none", "--json", "--config", config)
	want := `{
  "labels": {
    "abuse:burst": {
      "accept": {
        "messages": 2,
        "recipients": 2
      },
      "hold": {
        "messages": 1,
        "recipients": 1
      },
      "defer": {
        "messages": 0,
        "recipients": 0
      },
      "reject": {
        "messages": 0,
        "recipients": 0
      }
    }
  },
  "stops": [
    {
      "origin": "login:taro@example.jp",
      "label": "abuse:burst",
      "rule": "login-hour",
      "verdict": "hold",
      "time": "2026-03-02T09:00:12.5Z",
      "after_recipients": 2,
      "after_seconds": 12
    }
  ],
  "incidents": [
    {
      "origin": "login:taro@example.jp",
      "cause": "login-hour",
      "opened": "2026-03-02T09:00:12.5Z",
      "closed": null
    }
  ]
}
`
	if code != exitFine || stdout != want || stderr != "3 events, by "+config+"\ninside.domains names none, so all mail goes to the outside\n" {
		t.Errorf("exit %d, stderr %q\n%s\nwant\n%s", code, stderr, stdout, want)
	}
}

func TestReplayExitCodes(t *testing.T) {
	dir := t.TempDir()
	path := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	config := path("c.toml", "[inside]\nfrom_mta = false\ndomains = [\"example.jp\"]\n")
	good := path("good.jsonl", `{"time":"2026-03-02T09:00:00Z","event":"message","login":"a@example.jp","rcpt_to":"b@example.net"}`+"\n")
	bad := path("bad.jsonl", slurp(t, good)+"\n{\"time\":\"2026-03-02T09:00:00Z\",\"event\":\"suspend\",\"origin\":\"\\u001b[2Jme\"}\n")
	cut := path("cut.jsonl", slurp(t, good)+`{"time":"2026-03-02T09`)
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{config + " " + good, exitFine, "1 event, by "},
		{config + " --learning 12h " + good, exitFine, "1 event, by "},
		{config + " --learning none " + good, exitFine, "1 event, by "},
		{config + " --learning 0 " + good, exitUsage, `--learning: got "0"`},
		{config + " --learning= " + good, exitUsage, `--learning: got ""`},
		{config + " --nope " + good, exitUsage, "unknown flag: --nope"},
		{config + " " + bad, exitUsage, `relayguard: trace: line 3: found origin "\x1b[2Jme", want login:NAME`},
		{config + " " + cut, exitUsage, "relayguard: trace: line 2: unexpected end of JSON input"},
		{config + " " + filepath.Join(dir, "none.jsonl"), exitUsage, "none.jsonl: no such file"},
		{config + " " + dir, exitCannotTell, "relayguard: trace: line 1: read " + dir},
		{filepath.Join(dir, "none.toml") + " " + good, exitUsage, "none.toml"},
		{good + " " + good, exitUsage, "good.jsonl:1:"},
	} {
		code, stdout, stderr := runIn(t, strings.Fields("replay --config "+c.args)...)
		if code != c.code || !strings.Contains(stderr, c.says) || (stdout == "") != (code != exitFine) {
			t.Errorf("%s: exit %d, stdout %q, stderr %q; want %d and %q", c.args, code, stdout, stderr, c.code, c.says)
		}
	}
	if code, stdout, stderr := replayOf(t, "", "replay", "--config", config); code != exitFine || stdout != "" || !strings.HasPrefix(stderr, "0 events, by ") {
		t.Errorf("nothing: exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

// A trace is outside input: nothing of it reaches the terminal as it is, and its
// tables are for one of 80 columns.
func TestReplayOnATerminal(t *testing.T) {
	term := newTerminal(t, 80)
	dir := t.TempDir()
	config, trace := filepath.Join(dir, "c.toml"), filepath.Join(dir, "t.jsonl")
	hostile := "evil\x1b]0;title\x07\u202e\n\r\tname-that-is-much-longer-than-any-column-of-a-table@example.jp"
	var lines bytes.Buffer
	for i := range 4 {
		text, _ := json.Marshal(map[string]any{"time": fmt.Sprintf("2026-03-02T09:00:0%dZ", i), "event": "message", "label": "abuse:" + hostile, "login": hostile, "rcpt_to": "b@example.net"})
		fmt.Fprintf(&lines, "%s\n", text)
	}
	kind, _ := json.Marshal(hostile)
	fmt.Fprintf(&lines, `{"time":"2026-03-02T09:00:09Z","event":%s}`, kind)
	if err := errorsOf(os.WriteFile(config, []byte("[[limit]]\nname = \"login-hour\"\nper = \"login\"\ncounts = \"recipients\"\nwindows = [\"2/1h\"]\nkind = \"volume\"\nthen = \"hold\"\n"), 0o600), os.WriteFile(trace, lines.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	code, shown, stderr := term.run(t, "", "replay", "--learning", "none", "--config", config, trace)
	if code != exitFine || strings.Count(shown, "\n") != 8 || !strings.Contains(stderr, "1 event left out, of a kind that is not known: ") {
		t.Errorf("exit %d, stderr %q\n%s", code, stderr, shown)
	}
	for line := range strings.Lines(shown + stderr) {
		line = strings.TrimSuffix(line, "\n")
		if strings.ContainsAny(line, "\x1b\x07\r\t\u202e") || strings.HasPrefix(line, "name-that") {
			t.Errorf("as it is: %q", line)
		}
	}
	for line := range strings.Lines(shown) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

// Who sends a message that a shared account's site counts on, a trace may say by
// another number than this machine: what the configuration names is what counts.
func TestReplayKnowsAccountsByName(t *testing.T) {
	config := filepath.Join(t.TempDir(), "c.toml")
	if err := os.WriteFile(config, []byte("[local]\nshared_users = [\"apps\"]\n[[limit]]\nname = \"own\"\nper = \"local_user\"\ncounts = \"recipients\"\nwindows = [\"1/1h\"]\nkind = \"volume\"\nthen = \"hold\"\n"+
		"[[override]]\nlimit = \"own\"\nfor = \"local_user:shop\"\nwindows = [\"3/1h\"]\nreason = \"orders\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var trace strings.Builder
	for i := range 4 {
		for uid, name := range []string{"apps", "shop", "other"} {
			fmt.Fprintf(&trace, `{"time":"2026-03-02T09:00:0%dZ","event":"message","label":%q,"local_user":%q,"uid":%d,"rcpt_to":"b@example.net"}`+"\n", i, name, name, uid+1)
		}
	}
	_, stdout, _ := replayOf(t, trace.String(), "replay", "--learning", "none", "--json", "--config", config)
	var got replay.Score
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"apps": 4, "shop": 3, "other": 1} {
		if n := got.Labels[name].Accept.Messages; n != want {
			t.Errorf("%s: %d accepted, want %d", name, n, want)
		}
	}
}
