package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/desk"
)

func someSummary(who string) desk.QueueSummary {
	old := noon.Add(-50 * time.Hour)
	portionOf := func(name string, n int, errs ...string) desk.Share {
		return desk.Share{Name: name, Messages: n, Bytes: int64(n) * 2310, Oldest: old, Ages: []int{n / 2, 0, 0, n / 4, 0, 0, 0, 0, n / 8, n - n/2 - n/4 - n/8}, Errors: errs}
	}
	why := "421 4.7.0 too many messages from you, you are listed: " + who
	rest := portionOf("", 1000)
	rest.Others = 512
	s := desk.QueueSummary{QueueEnd: desk.QueueEnd{Messages: 103_401, Bytes: 238_856_310, Seen: 103_401}, Looked: noon, Bounds: minutes(5, 10, 20, 40, 80, 160, 320, 640, 1280),
		Queues:       []desk.Share{portionOf("hold", 1200), portionOf("deferred", 102_000), portionOf("active", 200), portionOf("incoming", 1), portionOf("maildrop", 0)},
		Origins:      []desk.Share{portionOf("plugin:share-by-mail@"+who, 90_000, why), portionOf("login:"+who, 9_000, why), portionOf("unknown", 3_000), portionOf("local_user:backup", 401, "timed out"), rest},
		Destinations: []desk.Share{portionOf("example.net", 80_000, why), portionOf(who, 12_000, why), portionOf("example.org", 10_000, "timed out"), rest},
		Errors:       []desk.Share{portionOf(why, 90_000), portionOf("connect to mx: Connection timed out", 10_000), rest},
		Senders:      []desk.Share{portionOf(who, 99_000), portionOf("<>", 4_401)}}
	return s
}

func minutes(all ...time.Duration) []time.Duration {
	for i := range all {
		all[i] *= time.Minute
	}
	return all
}

func TestQueueSummaryFitsAScreen(t *testing.T) {
	d := newFakeDaemon(t)
	d.always("POST /v1/queue/summary", someSummary("shop.example.jp"))
	for _, columns := range []uint16{80, 200} {
		code, shown, stderr := newTerminal(t, columns).run(t, "", "queue", "summary", "--config", d.config)
		if code != exitFine || stderr != "" || strings.Count(shown, "\n") > 23 {
			t.Errorf("exit %d, %d lines, %s", code, strings.Count(shown, "\n"), stderr)
		}
		fits(t, "queue summary", shown, int(columns))
		goldenIs(t, fmt.Sprintf("summary-%d.txt", columns), shown)
	}
	_, stdout, _ := d.run("queue", "summary")
	goldenIs(t, "summary-piped.txt", stdout)
	term := newTerminal(t, 80)
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	_, shown, _ := term.run(t, "", "queue", "summary", "--config", d.config)
	goldenIs(t, "summary-80-bold.txt", shown)
}

func TestEveryPrintedStepWorksAsItIs(t *testing.T) {
	d := newFakeDaemon(t)
	d.always("POST /v1/queue/summary", someSummary("it's; rm -rf.example"))
	d.lines("POST /v1/queue/list", desk.QueueLine{End: &desk.QueueEnd{}})
	_, stdout, _ := d.run("queue", "summary")
	_, steps, found := strings.Cut(stdout, "NEXT\n")
	if !found || strings.Count(steps, "relayguard") != 3 {
		t.Fatal(stdout)
	}
	for line := range strings.Lines(steps) {
		words := shellSplit(t, strings.TrimSpace(line))
		if words[0] != "relayguard" || words[1] == "rbl" {
			continue
		}
		if code, _, stderr := d.run(words[1:]...); code != exitFine {
			t.Errorf("%s: exit %d, %s", line, code, stderr)
		}
	}
	if got := d.lastAsked("POST /v1/queue/list"); !strings.Contains(got, "example.net") {
		t.Error(got)
	}
}

// shellSplit is a line as a shell takes it, without its comment.
func shellSplit(t *testing.T, line string) []string {
	t.Helper()
	var words []string
	word, quoted, any := "", false, false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case quoted && c == '\'':
			quoted = false
		case quoted:
			word += string(c)
		case c == '\'':
			quoted, any = true, true
		case c == '\\':
			i++
			word, any = word+string(line[i]), true
		case c == '#' && word == "" && !any:
			return words
		case c == ' ':
			if word != "" || any {
				words = append(words, word)
			}
			word, any = "", false
		default:
			word += string(c)
		}
	}
	if word != "" || any {
		words = append(words, word)
	}
	return words
}

func TestQueueSummaryNamesTheSenderOfMailThatNobodyKnows(t *testing.T) {
	d := newFakeDaemon(t)
	s := someSummary("shop.example.jp")
	s.Origins[0], s.Senders[0].Name = desk.Share{Name: "unknown", Messages: 99_000, Oldest: noon}, "spam@example.jp"
	d.always("POST /v1/queue/summary", s)
	if _, stdout, _ := d.run("queue", "summary"); !strings.Contains(stdout, "from spam@example.jp") || !strings.Contains(stdout, "relayguard queue list --from spam@example.jp --limit 20") {
		t.Error(stdout)
	}
}

func TestQueueSummaryOfNothing(t *testing.T) {
	d := newFakeDaemon(t)
	d.always("POST /v1/queue/summary", desk.QueueSummary{Looked: noon})
	if code, stdout, stderr := d.run("queue", "summary"); code != exitFine || stdout != "0 messages (0 B) in the queue\n" || stderr != "" {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
	if code, stdout, _ := d.run("queue", "summary", "--json"); code != exitFine || !json.Valid([]byte(stdout)) {
		t.Errorf("exit %d, %s", code, stdout)
	}
}

func TestQueueSummaryOfAQueueThatCannotBeReadWhole(t *testing.T) {
	d := newFakeDaemon(t)
	s := someSummary("shop.example.jp")
	s.NoJournal = "the journal is away"
	d.always("POST /v1/queue/summary", s)
	if code, stdout, stderr := d.run("queue", "summary"); code != exitCannotTell || stdout == "" || !strings.Contains(stderr, "whose mail it is is not known: the journal is away") {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

func TestQueueShowTellsAllButContent(t *testing.T) {
	d := newFakeDaemon(t)
	d.on("POST /v1/queue/show", func(body json.RawMessage) (any, error) {
		var l desk.QueueLook
		if err := json.Unmarshal(body, &l); err != nil {
			return nil, err
		}
		all := []desk.QueueShown{}
		for _, id := range l.IDs {
			if id == "B9" {
				continue
			}
			m := desk.QueueShown{Queued: someQueued(id, "taro@example.jp"), Decision: ptr(someDecision("taro@example.jp")), Held: []desk.Held{someHeld(id, "taro@example.jp")}}
			m.Queue, m.HeldBy = "hold", "relayguard"
			all = append(all, m)
		}
		return all, nil
	})
	code, stdout, stderr := d.run("queue", "show", "4ZJ1k82Vz1y")
	goldenIs(t, "show.txt", stdout)
	if code != exitFine || stderr != "its header: relayguard held show 4ZJ1k82Vz1y --headers --reason '...'\n" {
		t.Errorf("exit %d, %s", code, stderr)
	}
	code, stdout, stderr = d.run("queue", "show", "B9", "4ZJ1k82Vz1y", "--instance", "out")
	if code != exitFinding || !strings.Contains(stdout, "4ZJ1k82Vz1y") || !strings.Contains(stderr, "nothing is in the queue under B9; relayguard explain B9") {
		t.Errorf("exit %d, %s, %s", code, stdout, stderr)
	}
	if got := d.lastAsked("POST"); got != `POST /v1/queue/show {"ids":["B9","4ZJ1k82Vz1y"],"instance":"out"}` {
		t.Error(got)
	}
}
