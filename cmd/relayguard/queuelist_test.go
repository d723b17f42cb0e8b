package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayguard/cmd/internal/desk"
)

// updateGolden writes the golden files anew.
var updateGolden = os.Getenv("RELAYGUARD_UPDATE_GOLDEN") != ""

// pointsInTime are points in time, which are others each time.
var pointsInTime = regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(Z| ?[+-]\d\d:?\d\d)`)

// goldenIs compares what was shown with a file.
func goldenIs(t *testing.T, name, got string) {
	t.Helper()
	got = pointsInTime.ReplaceAllString(got, "TIME")
	path := filepath.Join("testdata", "queue", name)
	if updateGolden {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(got), 0o644)); err != nil {
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

func someQueued(id, who string) desk.Queued {
	return desk.Queued{Queue: "deferred", QueueID: id, Arrival: noon, Size: 2310, MailFrom: who, Recipients: 37, Domains: map[string]int{"example.net": 30, "example.org": 7},
		Error: "host mx.example.net[192.0.2.25] said: 421 4.7.0 too many messages from you: " + who, ID: "0d5kqw3m8x7ya", Account: "login:" + who, Verdict: "accept", Rule: "login-volume"}
}

// someQueue is a queue of every kind.
func someQueue() []any {
	site := someQueued("4ZJ1k82Vz2a", "wordpress@shop.example.jp")
	site.Account, site.Site, site.Plugin = "local_user:www-data", "shop.example.jp", "share-by-mail"
	held := someQueued("4ZJ1k82Vz3b", "hanako.yamada.of.the.accounting.department@subsidiary.example.co.jp")
	held.Queue, held.HeldBy, held.Error = "hold", "relayguard", ""
	other := desk.Queued{Queue: "hold", HeldBy: "other", QueueID: "4ZJ1k82Vz4c", Arrival: noon.Add(-100 * time.Hour), Size: 250_000_000, Recipients: -1}
	second := desk.Queued{Instance: "postfix-out", Queue: "active", QueueID: "4ZJ1k82Vz5d", Arrival: noon, Size: 812, MailFrom: "x@example.org", Recipients: 1, Domains: map[string]int{"example.org": 1}}
	all := []any{}
	for _, m := range []desk.Queued{someQueued("4ZJ1k82Vz1y", "taro@example.jp"), site, held, other, second} {
		all = append(all, desk.QueueLine{Message: &m})
	}
	return append(all, desk.QueueLine{End: &desk.QueueEnd{Messages: 5, Bytes: 250_007_742, Seen: 7}})
}

func TestQueueListOnEveryPage(t *testing.T) {
	d := newFakeDaemon(t)
	d.lines("POST /v1/queue/list", someQueue()...)
	for _, columns := range []uint16{80, 200} {
		code, shown, stderr := newTerminal(t, columns).run(t, "", "queue", "list", "--config", d.config)
		if code != exitFine || stderr != "5 messages (250 MB) of 7 in the queue\n" {
			t.Errorf("exit %d, %s", code, stderr)
		}
		fits(t, "queue list", shown, int(columns))
		goldenIs(t, fmt.Sprintf("list-%d.txt", columns), shown)
	}
	term := newTerminal(t, 80)
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	_, shown, _ := term.run(t, "", "queue", "list", "--config", d.config)
	goldenIs(t, "list-80-bold.txt", shown)
	_, stdout, _ := d.run("queue", "list")
	goldenIs(t, "list-piped.txt", stdout)
	for row := range strings.Lines(stdout) { // each has the same words before the last column
		if n := len(strings.Fields(row)); n < 15 {
			t.Errorf("awk finds %d fields in %q", n, row)
		}
	}
}

func TestQueueListInJSONIsOneObject(t *testing.T) {
	d := newFakeDaemon(t)
	d.lines("POST /v1/queue/list", someQueue()...)
	for _, args := range []string{"", " --sort size --limit 2"} {
		code, stdout, stderr := d.run(strings.Fields("queue list --json" + args)...)
		var got struct {
			Messages []desk.Queued
			End      *desk.QueueEnd
		}
		if err := json.Unmarshal([]byte(stdout), &got); code != exitFine || err != nil || got.End == nil || got.End.Seen != 7 {
			t.Fatalf("exit %d, %v: %s, %s", code, err, stdout, stderr)
		}
		if args == "" && len(got.Messages) != 5 || args != "" && (len(got.Messages) != 2 || got.Messages[0].QueueID != "4ZJ1k82Vz4c") {
			t.Errorf("%q: %s", args, stdout)
		}
	}
}

func TestQueueListIsSortedByWhatIsAsked(t *testing.T) {
	d := newFakeDaemon(t)
	d.lines("POST /v1/queue/list", someQueue()...)
	for order, first := range map[string]string{"age": "4ZJ1k82Vz4c", "size": "4ZJ1k82Vz4c", "recipients": "4ZJ1k82Vz4c", "queue": "4ZJ1k82Vz1y", "account": "4ZJ1k82Vz4c", "sender": "4ZJ1k82Vz4c", "domain": "4ZJ1k82Vz4c", "error": "4ZJ1k82Vz3b"} {
		code, stdout, stderr := d.run("queue", "list", "--sort", order, "--limit", "1")
		rows := strings.Split(stdout, "\n")
		if code != exitFine || len(rows) != 3 || !strings.HasPrefix(rows[1], first) {
			t.Errorf("%s: exit %d, %s%s", order, code, stdout, stderr)
		}
	}
	if got := d.lastAsked("POST /v1/queue/list"); strings.Contains(got, "limit") {
		t.Errorf("the daemon is to leave out none: %s", got)
	}
}

func TestQueueFiltersAreWhatFlagsSay(t *testing.T) {
	d := newFakeDaemon(t)
	d.lines("POST /v1/queue/list", desk.QueueLine{End: &desk.QueueEnd{}})
	line := "queue list A1 --queue hold --account taro --login Taro@Example.jp --local-user www-data --plugin Share@shop.example.jp --template x --rule r --from <> --to-domain Example.NET --error timed --held-by admin --older-than 2h --newer-than 3d --larger-than 1M --smaller-than 2000k --instance out --limit 9"
	if code, _, stderr := d.run(strings.Fields(line)...); code != exitFinding {
		t.Errorf("exit %d: %s", code, stderr)
	}
	var got desk.QueueFilter
	_, body, _ := strings.Cut(d.lastAsked("POST /v1/queue/list"), "{")
	if err := json.Unmarshal([]byte("{"+body), &got); err != nil {
		t.Fatal(err)
	}
	want := desk.QueueFilter{IDs: []string{"A1"}, Instance: "out", Queue: "hold", Account: "login:taro", Login: "taro@example.jp", LocalUser: "www-data", Site: "shop.example.jp", Plugin: "share", Template: "x", Rule: "r",
		MailFrom: "<>", Domain: "example.net", Error: "timed", HeldBy: "admin", OlderThan: 2 * time.Hour, NewerThan: 72 * time.Hour, MinSize: 1_000_001, MaxSize: 1_999_999, Limit: 9}
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestWrongQueueFlagsSayWhatIsWrong(t *testing.T) {
	d := newFakeDaemon(t)
	for line, says := range map[string]string{
		"queue":                   "Usage:",
		"queue lists":             `relayguard queue has no command "lists"`,
		"queue list --queue held": `--queue: found "held", want one of hold, deferred`,
		"queue list --held-by me": `--held-by: found "me"`,
		"queue list --held-by admin --queue=active":     "--held-by goes with the queue hold, not with active",
		"queue list --limit 0":                          "--limit: got 0",
		"queue list --sort colour":                      `--sort: found "colour", want one of account, age`,
		"queue list --larger-than big":                  `want a size such as "800"`,
		"queue list --larger-than -1":                   `want a size such as "800"`,
		"queue list --larger-than 99999999999G":         `want a size such as "800"`,
		"queue list --larger-than 1M --smaller-than 1M": "--smaller-than 1000000 leaves nothing",
		"queue list --smaller-than 1":                   "--smaller-than 1 leaves nothing",
		"queue list --older-than 2d --newer-than 1h":    "leaves nothing of",
		"queue list --from=":                            "--from is empty; the null sender is --from '<>'",
		"queue list --site=":                            "--site is empty",
		"queue summary x":                               "takes no argument",
		"queue summary --top 0":                         "--top: got 0",
		"queue show":                                    "ID is missing; relayguard queue list",
		"queue delete":                                  "nothing chooses among the queued mail",
		"queue delete --queue deferred":                 "nothing chooses among the queued mail",
		"queue delete --limit 5":                        "nothing chooses among the queued mail",
		"queue delete --all --site x":                   "--all goes with nothing else",
		"queue hold --all --foreign":                    "unknown flag: --foreign",
		"queue release --all --no-copy":                 "unknown flag: --no-copy",
	} {
		code, stdout, stderr := d.run(strings.Fields(line)...)
		if code != exitUsage || !strings.Contains(stderr, says) || stdout != "" {
			t.Errorf("%s: exit %d, %q, %q", line, code, stdout, stderr)
		}
	}
	if got := d.lastAsked("POST"); got != "" {
		t.Errorf("the daemon was asked: %s", got)
	}
}

func TestAListThatIsCutShortCannotTell(t *testing.T) {
	m := someQueued("4ZJ1k82Vz1y", "taro@example.jp")
	h := someHeld("4ZJ1k82Vz1y", "taro@example.jp")
	d := newFakeDaemon(t)
	d.stream("POST /v1/queue/list", func(_ json.RawMessage, send func(any)) error {
		send(desk.QueueLine{Message: &m})
		return errHangUp
	})
	d.stream("POST /v1/held/list/stream", func(_ json.RawMessage, send func(any)) error {
		send(desk.HeldLine{Message: &h})
		return errHangUp
	})
	for _, line := range []string{"queue list", "queue list --sort age", "held list"} {
		code, stdout, stderr := d.run(strings.Fields(line)...)
		if code != exitCannotTell || !strings.Contains(stdout, "4ZJ1k82Vz1y") || !strings.Contains(stderr, "the list is cut short") {
			t.Errorf("%s: exit %d, %s%s", line, code, stdout, stderr)
		}
		if code, stdout, _ := d.run(strings.Fields(line + " --json")...); code != exitCannotTell || json.Valid([]byte(stdout)) {
			t.Errorf("%s: exit %d, half a list passes for a whole one: %s", line, code, stdout)
		}
	}
	refused := newFakeDaemon(t)
	refused.stream("POST /v1/queue/list", func(json.RawMessage, func(any)) error { return errors.New("postqueue: \x1bfatal") })
	if code, stdout, stderr := refused.run("queue", "list"); code != exitCannotTell || stdout != "" || !strings.Contains(stderr, `postqueue: \x1bfatal`) || strings.Contains(stderr, "cut short") {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
}

func TestWhatIsNotKnownOfTheQueueIsSaid(t *testing.T) {
	d := newFakeDaemon(t)
	m := someQueued("4ZJ1k82Vz1y", "taro@example.jp")
	d.lines("POST /v1/queue/list", desk.QueueLine{Message: &m}, desk.QueueLine{End: &desk.QueueEnd{Messages: 1, Bytes: 2310, Seen: 4, Skipped: 3, Problem: "corrupt", NoJournal: "locked"}})
	code, _, stderr := d.run("queue", "list")
	for _, part := range []string{"1 message (2.3 kB) of 4 in the queue", "3 files of the queue could not be read: corrupt", "whose mail it is is not known: locked"} {
		if code != exitCannotTell || !strings.Contains(stderr, part) {
			t.Errorf("exit %d, no %q in %s", code, part, stderr)
		}
	}
	d = newFakeDaemon(t)
	d.lines("POST /v1/queue/list", desk.QueueLine{Message: &m}, desk.QueueLine{End: &desk.QueueEnd{Messages: 1, More: true}})
	code, _, stderr = d.run("queue", "list", "4ZJ1k82Vz1y", "B9", "--limit", "1")
	if code != exitFinding || !strings.Contains(stderr, "there may be more, --limit ended the list") || !strings.Contains(stderr, "nothing is in the queue under B9; relayguard explain B9") {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

func TestAReaderThatHasEnoughIsNoFault(t *testing.T) {
	d := newFakeDaemon(t)
	m, h := someQueued("4ZJ1k82Vz1y", "taro@example.jp"), someHeld("4ZJ1k82Vz1y", "taro@example.jp")
	endless := func(line any) func(json.RawMessage, func(any)) error {
		return func(_ json.RawMessage, send func(any)) error {
			for range 1_000_000 {
				send(line)
			}
			return nil
		}
	}
	d.stream("POST /v1/queue/list", endless(desk.QueueLine{Message: &m}))
	d.stream("POST /v1/held/list/stream", endless(desk.HeldLine{Message: &h}))
	for _, line := range []string{"queue list", "queue list --json", "held list"} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			r.Read(make([]byte, 100))
			r.Close()
		}()
		var errs strings.Builder
		code := run(t.Context(), append(strings.Fields(line), "--config", d.config), w, &errs)
		w.Close()
		if code != exitFine || errs.String() != "" {
			t.Errorf("%s: exit %d, %q", line, code, errs.String())
		}
	}
	if !unread(fmt.Errorf("write: %w", syscall.EPIPE)) || unread(errors.New("disk full")) {
		t.Error("a full disk is no reader")
	}
}

// A list of any length is in nobody's memory at once.
func TestLongListsAreWrittenAsTheyCome(t *testing.T) {
	const messages = 50_000
	d := newFakeDaemon(t)
	d.stream("POST /v1/queue/list", func(_ json.RawMessage, send func(any)) error {
		for i := range messages {
			m := someQueued(fmt.Sprintf("4ZJ%08d", i), "taro@example.jp")
			send(desk.QueueLine{Message: &m})
		}
		send(desk.QueueLine{End: &desk.QueueEnd{Messages: messages, Seen: messages}})
		return nil
	})
	for _, line := range []string{"queue list", "queue list --json"} {
		lines := &lineCount{}
		var errs strings.Builder
		if code := run(t.Context(), append(strings.Fields(line), "--config", d.config), lines, &errs); code != exitFine || lines.n < messages {
			t.Errorf("%s: exit %d, %d lines, %s", line, code, lines.n, errs.String())
		}
		if lines.most > 40<<20 {
			t.Errorf("%s: %d octets in use", line, lines.most)
		}
	}
}

// lineCount counts lines, and looks at the heap now and then.
type lineCount struct {
	n, writes int
	most      uint64
}

func (c *lineCount) Write(p []byte) (int, error) {
	c.n += strings.Count(string(p), "\n")
	if c.writes++; c.writes%20 == 0 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		c.most = max(c.most, m.HeapAlloc)
	}
	return len(p), nil
}
