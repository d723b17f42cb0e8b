package main

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
)

func TestQueueTableFitsAndTellsMisses(t *testing.T) {
	table := &queueTable{server: "sendmail", each: 100_000, rows: []queueRow{
		{name: "queue list", goal: true, reference: "mailq", ours: ours{cost{1.23456, 1234.5, 200_001, 12.3}, 101.2, 34.5}, plain: cost{2, 617.25, 200_004, 50}},
		{name: "held list", goal: true, ours: ours{cost{0.5, 3, 100_001, 12.3}, 60, 34.5}},
		{name: "queue release", reference: "sendmail-Q", ours: ours{cost{1.5, 30, 0, 12.3}, 60, 34.5}, plain: cost{0, 10, 0, 5}},
	}}
	var out bytes.Buffer
	printQueues(&out, []*queueTable{table, {server: "postfix"}})
	text := out.String()
	for line := range strings.Lines(text) {
		if len(line) > 80 {
			t.Errorf("line of %d columns: %s", len(line)-1, line)
		}
	}
	if !strings.Contains(text, " !1.23 ") || !strings.Contains(text, " !101 ") || strings.Count(text, "!") != 3 || strings.Contains(text, "postfix") {
		t.Errorf("got:\n%s", text)
	}

	found := map[string]result{}
	for _, r := range table.results() {
		found[r.Name] = r
	}
	for name, want := range map[string]result{
		"queue/sendmail/100k/queue_list/first_s":        {Value: 1.235, Reference: "mailq", Ratio: 0.6173, goal: &goal{1, false, false}},
		"queue/sendmail/100k/queue_list/s/mailq":        {Value: 617.2, Reference: "mailq", Ratio: 1},
		"queue/sendmail/100k/queue_list/daemon_rss":     {Value: 101.2, goal: &goal{100, false, false}},
		"queue/sendmail/100k/held_list/s":               {Value: 3},
		"queue/sendmail/100k/queue_release/progress_s":  {Value: 1.5},
		"queue/sendmail/100k/queue_release/s":           {Value: 30, Reference: "sendmail-Q", Ratio: 3},
		"queue/sendmail/100k/queue_release/command_rss": {Value: 12.3, Reference: "sendmail-Q", Ratio: 2.46, goal: &goal{100, false, false}},
	} {
		got := found[name]
		if got.Value != want.Value || got.Reference != want.Reference || got.Ratio != want.Ratio || (got.goal == nil) != (want.goal == nil) || want.goal != nil && *got.goal != *want.goal {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

// What a command had resident is its own, not what the program had that started it.
func TestStopwatchTellsACommandsOwnMemory(t *testing.T) {
	large := bytes.Repeat([]byte("x"), 64<<20)
	c, err := stopwatch((*exec.Cmd).Start, exec.Command("/bin/sh", "-c", "echo title; sleep 0.1; echo row; echo row"), 1)
	if err != nil {
		t.Fatal(err)
	}
	if c.lines != 3 || c.first < 0.1 || c.all < c.first || c.mb == 0 || c.mb > 30 {
		t.Errorf("%+v beside %d MB of ours", c, len(large)/1e6)
	}
	if _, err := stopwatch((*exec.Cmd).Start, exec.Command("/bin/sh", "-c", "echo why >&2; exit 3"), 0); err == nil || !strings.Contains(err.Error(), "exit status 3: why") {
		t.Errorf("of a command that fails: %v", err)
	}
}

func TestFirstProgressIsSeenOnATerminal(t *testing.T) {
	c, err := onTerminal((*exec.Cmd).Start, exec.Command("/bin/sh", "-c", "echo elsewhere; sleep 0.1; test -t 2 && echo 1 of 2 >&2; sleep 0.1"))
	if err != nil {
		t.Fatal(err)
	}
	if c.first < 0.1 || c.all < c.first+0.1 {
		t.Errorf("%+v, want the first word after 0.1 s and the end after 0.2 s", c)
	}
}

func TestIDsOfAStockAreApart(t *testing.T) {
	s := &stock{each: mostQueued, id: "6AN18P39030318"}
	for _, server := range queueServers {
		seen := make(map[string]bool, 2*s.each)
		for n := range 2 * s.each {
			id := server.id(s, n)
			if seen[id] || len(id) != len(server.id(s, 0)) {
				t.Fatalf("%s: message %d of %d is %s", server.name, n, 2*s.each, id)
			}
			seen[id] = true
		}
	}
}
