package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"relayguard/cmd/internal/desk"
)

func TestHeldShowSaysWhatOthersHold(t *testing.T) {
	d := newFakeDaemon(t)
	d.always("POST /v1/held/list", desk.List{Held: []desk.Held{someHeld("A1", "taro@example.jp")}})
	d.on("POST /v1/queue/show", func(body json.RawMessage) (any, error) {
		var l desk.QueueLook
		if err := json.Unmarshal(body, &l); err != nil || !slices.Equal(l.IDs, []string{"B1", "C1", "D1"}) {
			t.Errorf("asked %s, want once for those that relayguard does not hold", body)
		}
		theirs, onItsWay := someQueued("B1", "x@example.org"), someQueued("C1", "taro@example.jp")
		theirs.Queue, theirs.HeldBy, theirs.ID = "hold", "other", ""
		onItsWay.Queue, onItsWay.HeldBy = "deferred", ""
		return []desk.QueueShown{{Queued: theirs}, {Queued: onItsWay}}, nil
	})
	code, stdout, stderr := d.run("held", "show", "A1", "B1", "C1", "D1")
	if code != exitFinding || !strings.Contains(stdout, "A1") || strings.Contains(stdout, "B1") {
		t.Errorf("exit %d, %s", code, stdout)
	}
	for _, want := range []string{"B1 is on hold, and relayguard did not put it there; relayguard queue show B1", "relayguard holds nothing under C1", "relayguard holds nothing under D1"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("no %q in %s", want, stderr)
		}
	}
}

func TestHeldListSaysWhatItTotals(t *testing.T) {
	d := newFakeDaemon(t)
	d.lines("POST /v1/held/list/stream", heldLines(desk.HeldEnd{Messages: 1, Bytes: 2310, More: true, Foreign: 3}, someHeld("A1", ""))...)
	code, stdout, stderr := d.run("held", "list", "--from", "<>", "--limit", "1", "--json")
	var out struct {
		Messages int  `json:"messages"`
		More     bool `json:"more"`
	}
	if err := json.Unmarshal([]byte(stdout), &out); err != nil || code != exitFine || out.Messages != 1 || !out.More {
		t.Errorf("exit %d, %v, %s", code, err, stdout)
	}
	if got := d.lastAsked("POST"); !strings.Contains(got, `"mail_from":"\u003c\u003e"`) {
		t.Errorf("asked %s, want the null sender's", got)
	}
	if !strings.Contains(stderr, "1 message (2.3 kB) held by relayguard; there are more, --limit ended the list, 3 by others") {
		t.Error(stderr)
	}
}
