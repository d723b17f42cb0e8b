package systemtest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayguard/systemtest/relay"
)

func TestExplainAndDecisions(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{Config: webNodes + perLogin("login-volume", "", "5/10m", "9/1h")})
	begin := time.Now().Add(-time.Second)
	taro := loggedInAs(t, r.Postfix, "taro@example.jp", "ADDR=203.0.113.7", "PORT=40001")
	sendAccepted(t, taro, "taro@example.jp", rcpts("three", 3), fromTaro("three"))
	sendAccepted(t, taro, "taro@example.jp", rcpts("two", 2), fromTaro("two"))
	sendAccepted(t, taro, "taro@example.jp", append(rcpts("four", 3), "d@example.org"), fromTaro("four"))
	sendmail(t, r.Postfix, games, letter("local", "From: g@games.example.jp"), "-f", "g@games.example.jp", "x@example.net")
	node := strangerAt(t, r.Postfix, relay.Relaying, "ADDR=198.51.100.7", "PORT=40001")
	sendAccepted(t, node, "n@example.org", rcpts("node", 1), letter("node", "From: n@example.org"))
	stranger := strangerAt(t, r.Postfix, relay.Relaying, "ADDR=203.0.113.99", "PORT=40001")
	wantCode(t, "MAIL", 250)(stranger.Mail("spam@example.com"))
	wantCode(t, "RCPT", 530)(stranger.Rcpt("v@example.net"))
	wantArrived(t, r.Postfix, "two-1@example.net")
	wantArrived(t, r.Postfix, "node-0@example.net")
	held := wantHeld(t, r.Postfix, "d@example.org")

	find := func(args ...string) []decided {
		t.Helper()
		return ask[[]decided](t, r, 0, append([]string{"decisions"}, args...)...)
	}
	eventually(t, "the journal has all six", func() bool { return len(find()) == 6 })
	of := map[string]decided{}
	for _, d := range find() {
		of[d.MessageID] = d
	}

	t.Run("explain by decision and by queue id says the same, and the numbers are right", func(t *testing.T) {
		four := of["<four>"]
		if four.QueueID != held.QueueID || four.Verdict != "hold" || four.Rule != "login-volume" {
			t.Fatalf("decision: %+v", four)
		}
		byID, byQueue := ask[[]explained](t, r, 0, "explain", four.ID), ask[[]explained](t, r, 0, "explain", held.QueueID)
		if len(byID) != 1 || len(byQueue) != 1 || byID[0].Decision == nil || byQueue[0].Decision == nil || byID[0].Decision.ID != byQueue[0].Decision.ID {
			t.Fatalf("by decision: %+v\nby queue id: %+v", byID, byQueue)
		}
		d := byID[0].Decision
		if d.Account != "login:taro@example.jp" || d.Confidence != "kernel" || d.LoginBy != "PLAIN" || d.ClientIP != "203.0.113.7" ||
			d.Recipients != 4 || d.Domains["example.net"] != 3 || d.Domains["example.org"] != 1 {
			t.Errorf("decision: %+v", d)
		}
		want := map[float64]counter{600: {Count: 5, Used: 5, Amount: 4, Over: true}, 3600: {Count: 9, Used: 5, Amount: 4}}
		for _, c := range d.Limits {
			w := want[c.Window]
			if c.Limit != "login-volume" || c.Key != "login:taro@example.jp" || c.Count != w.Count || c.Used != w.Used || c.Amount != w.Amount || c.Over != w.Over {
				t.Errorf("counter %+v, want %+v", c, w)
			}
			two := of["<two>"].Time
			if window := time.Duration(c.Window) * time.Second; c.Over && (c.FreeAt.Before(two.Add(window)) || c.FreeAt.After(two.Add(window*17/16+time.Second))) {
				t.Errorf("free again at %v, the two went at %v", c.FreeAt, two)
			}
		}
		if len(d.Limits) != 2 || len(byID[0].Held) != 1 || byID[0].Held[0].State != "held" {
			t.Errorf("explain: %+v", byID[0])
		}
		stdout, _ := order(t, r, 0, "explain", four.ID)
		for _, want := range []string{"5/5", "5/9", "+4 rcpt", "OVER", "fits", "taro@example.jp", "203.0.113.7", "held release " + held.QueueID} {
			if !strings.Contains(stdout, want) {
				t.Errorf("explain does not say %q:\n%s", want, stdout)
			}
		}
		if strings.Contains(stdout, "four-0") {
			t.Errorf("explain names a recipient:\n%s", stdout)
		}
		eventually(t, "the log told of the deliveries", func() bool {
			e := ask[[]explained](t, r, 0, "explain", of["<three>"].QueueID)
			return len(e) == 1 && e[0].Delivered["sent"] == 3
		})
		order(t, r, 3, "explain", "0000000000000")
	})

	t.Run("decisions are found by each key", func(t *testing.T) {
		now := time.Now().Add(time.Second).UTC().Format(time.RFC3339)
		for _, c := range []struct {
			want string // Message-IDs, the newest first; "-" is the stranger's refused recipient
			args []string
		}{
			{"four two three", []string{"--login", "taro@example.jp"}},
			{"four two three", []string{"--account", "login:taro@example.jp"}},
			{"local", []string{"--local-user", "games"}},
			{"local", []string{"--account", "local_user:games"}},
			{"node", []string{"--account", "network:web"}},
			{"-", []string{"--account", "unknown"}},
			{"four two three", []string{"--address", "taro@example.jp"}},
			{"local", []string{"--address", "@games.example.jp"}},
			{"-", []string{"--address", "spam@example.com"}},
			{"four", []string{"--rule", "login-volume"}},
			{"- four", []string{"--verdict", "hold", "--verdict", "reject"}},
			{"four", []string{"--queue-id", held.QueueID}},
			{"three", []string{"--message-id", "<three>"}},
			{"four two three", []string{"--client", "203.0.113.7"}},
			{"-", []string{"--stage", "rcpt"}},
			{"four", []string{"--login", "taro@example.jp", "--stage", "message", "--verdict", "hold", "--since", "1h"}},
			{"four", []string{"--login", "taro@example.jp", "--limit", "1"}},
			{"two three", []string{"--login", "taro@example.jp", "--before", of["<four>"].ID}},
			{"four two three", []string{"--login", "taro@example.jp", "--since", begin.UTC().Format(time.RFC3339), "--until", now}},
			{"", []string{"--until", begin.UTC().Format(time.RFC3339)}},
			{"", []string{"--login", "taro@example.jp", "--rule", "auth"}},
			{"", []string{"--login", "%"}},
		} {
			var got []string
			for _, d := range find(c.args...) {
				id := strings.Trim(d.MessageID, "<>")
				if id == "" {
					id = "-"
				}
				got = append(got, id)
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("decisions %s: got %q, want %q", strings.Join(c.args, " "), got, c.want)
			}
		}
		order(t, r, 2, "decisions", "--verdict", "maybe")
	})

	t.Run("root reads the same while the daemon is dead", func(t *testing.T) {
		alive := find()
		if err := r.StopGuard(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		same := func(a, b decided) bool {
			return a.ID == b.ID && a.Verdict == b.Verdict && len(a.Limits) == len(b.Limits)
		}
		if dead := find(); !slices.EqualFunc(alive, dead, same) {
			t.Errorf("dead: %+v\nalive: %+v", dead, alive)
		}
		if e := ask[[]explained](t, r, 0, "explain", held.QueueID); len(e) != 1 || e[0].Decision == nil || e[0].Decision.ID != of["<four>"].ID {
			t.Errorf("explain: %+v", e)
		}
		order(t, r, 3, "status")
		order(t, r, 0, "held", "release", held.QueueID, "--reason", "without the daemon")
		wantArrived(t, r.Postfix, "d@example.org")
		if err := r.StartGuard(soon(t)); err != nil {
			t.Fatal(err)
		}
		if e := ask[[]explained](t, r, 0, "explain", held.QueueID); len(e) != 1 || len(e[0].Held) != 1 || e[0].Held[0].State != "released" || e[0].Held[0].Why != "without the daemon" {
			t.Errorf("explain: %+v", e)
		}
	})
	wantOnce(t, r.Postfix, "three-0@example.net", "four-0@example.net", "d@example.org", "two-0@example.net", "x@example.net", "node-0@example.net")
}

func TestAFloodIsOneIncidentAndOneAlert(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script, calls := filepath.Join(dir, "alert"), filepath.Join(dir, "calls")
	if err := os.WriteFile(script, fmt.Appendf(nil, "#!/bin/sh\nprintf '%%s|' \"$@\" >>%[1]s\ncat >>%[1]s\n", calls), 0o755); err != nil {
		t.Fatal(err)
	}
	r := startRelay(t, relay.Options{Config: perLogin("login-volume", "", "3/10m") + perUser("user-volume", "1/10m") + fmt.Sprintf("[alert]\nsyslog = false\ncommand = %q\n", script)})
	if stdout, _ := order(t, r, 0, "status"); !strings.HasPrefix(stdout, "no open incident\n") {
		t.Errorf("status when all is quiet:\n%s", stdout)
	}
	alerts := func() []string {
		text, _ := os.ReadFile(calls) // before the first there is none
		return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	}
	client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	for i := range 60 {
		id := fmt.Sprintf("flood-%d", i)
		sendAccepted(t, client, "taro@example.jp", rcpts(id, 1), fromTaro(id))
	}
	eventually(t, "an alert comes", func() bool { return len(alerts()) > 0 && alerts()[0] != "" })
	for i := range 20 {
		id := fmt.Sprintf("more-%d", i)
		sendAccepted(t, client, "taro@example.jp", rcpts(id, 1), fromTaro(id))
	}
	sendmail(t, r.Postfix, games, letter("other", "From: g@example.jp"), append([]string{"-f", "g@example.jp"}, rcpts("other", 2)...)...)
	eventually(t, "another one's, too", func() bool { return len(alerts()) > 1 })
	time.Sleep(500 * time.Millisecond)
	if all := alerts(); len(all) != 2 {
		t.Errorf("%d alerts about two origins:\n%s", len(all), strings.Join(all, "\n"))
	}
	args, body, _ := strings.Cut(alerts()[0], "{")
	fields := strings.Split(args, "|")
	if len(fields) != 5 || fields[2] != "login:taro@example.jp" || fields[3] != "login-volume" {
		t.Errorf("alert: %q", alerts()[0])
	}
	if !json.Valid([]byte("{"+body)) || strings.Contains(body, "flood-") {
		t.Errorf("an alert is JSON and names no recipient: {%s", body)
	}

	type incident struct {
		Origin, Cause, Last string
		Stops               int
	}
	var found []incident
	i := -1
	eventually(t, "the last stop is in its incident", func() bool {
		found = ask[[]incident](t, r, 0, "incident", "list")
		i = slices.IndexFunc(found, func(i incident) bool { return i.Origin == "login:taro@example.jp" })
		return i >= 0 && found[i].Stops >= 77
	})
	stdout, _ := order(t, r, 1, "status")
	lines := strings.Split(stdout, "\n")
	if len(lines) < 4 || !strings.Contains(lines[0], "ORIGIN") || !strings.Contains(lines[1]+lines[2], "login:taro@example.jp") || !strings.Contains(lines[1]+lines[2], "local_user:games") {
		t.Errorf("status does not begin with the open incidents:\n%s", stdout)
	}
	if len(found) != 2 || found[i].Stops != 77 || found[i].Cause != "login-volume" {
		t.Fatalf("incidents: %+v, want two, one of them with 77 stops", found)
	}
	if !strings.Contains(stdout, found[i].Last) || !strings.Contains(stdout, "relayguard explain ") {
		t.Errorf("status does not say what explains it:\n%s", stdout)
	}
	if e := ask[[]explained](t, r, 0, "explain", found[i].Last); len(e) != 1 || e[0].Decision.Verdict != "hold" {
		t.Errorf("explain: %+v", e)
	}
}
