package queues_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayguard/mta/smtptest"
	"relayguard/systemtest/relay"
)

// A queue id in the journal may be another message's by the time an admin uses it:
// Postfix makes ids of the clock and the inode, Sendmail of the clock and the pid.
// Here a message gets the id of one that the guard held. Others' holds are not the
// guard's to end, either.

func TestReusedIDOnPostfix(t *testing.T) {
	h := startPostfix(t, racing, relay.Options{Config: holdTaro})
	reusedID(h)
}

func TestReusedIDOnSendmail(t *testing.T) {
	h := startSendmail(t, racing, relay.Options{Config: holdTaro})
	reusedID(h)
}

// reusedID has three messages held by the guard and three by somebody else; two of
// these then get ids of the guard's.
func reusedID(h *house) {
	t := h.t
	h.budget()
	ours := []file{h.holdOf("t-ours-1@example.net"), h.holdOf("t-ours-2@example.net"), h.holdOf("t-ours-3@example.net")}
	h.looked(len(ours))
	h.nextSecond(ours[2])
	var others []file
	for i, from := range []string{outsider, taro, outsider} { // the second has the sender of the one whose id it gets
		others = append(others, h.foreign(from, fmt.Sprintf("t-other-%d@example.net", i)))
	}
	for i := range 2 { // ours went some way that the guard knows nothing of, and came not back
		h.renamed(others[i], ours[i])
	}
	before := h.contents("t-other-")

	for _, args := range [][]string{
		{"held", "release", ours[0].id, "--reason", "test"},
		{"held", "delete", ours[1].id, "--reason", "test"},
		{"queue", "release", ours[0].id, "--reason", "test"},
		{"queue", "delete", ours[1].id, "--reason", "test"},
		{"queue", "requeue", ours[0].id, ours[1].id, others[2].id, "--reason", "test"},
		{"queue", "delete", "--from", outsider, "--yes", "--reason", "test"},
	} {
		said := h.command(args...)
		if said.code != 1 {
			t.Errorf("relayguard %s: status %d, want 1:\n%s%s", strings.Join(args, " "), said.code, said.stdout, said.stderr)
		}
		h.unchanged(strings.Join(args, " "), "t-other-", before)
	}
	out := h.command("queue", "release", others[2].id, "--json")
	if out.code != 1 || !strings.Contains(out.stdout, `"foreign"`) {
		t.Errorf("queue release of another's hold: status %d\n%s%s", out.code, out.stdout, out.stderr)
	}
	type queued struct {
		Messages []struct {
			QueueID string `json:"queue_id"`
			HeldBy  string `json:"held_by"`
		}
	}
	holders := map[string]int{}
	for _, m := range ask[queued](h, 0, "queue", "list", "--queue", "hold").Messages {
		holders[m.HeldBy]++
	}
	if holders["other"] != 3 || holders["relayguard"] != 1 {
		t.Errorf("held by %v, want three by others and one by the guard", holders)
	}

	h.command("held", "release", "--all", "--yes", "--reason", "test")
	h.unchanged("held release --all", "t-other-", before)
	if _, err := h.sink.WaitFor(h.soon(), "t-ours-3@example.net"); err != nil {
		t.Error(err)
	}
	h.command("held", "delete", "--all", "--yes", "--reason", "test")
	h.unchanged("held delete --all", "t-other-", before)
	if n := len(h.copies()); n != 0 {
		t.Errorf("%d messages were deleted", n)
	}

	h.order(0, "queue", "release", "--queue", "hold", "--all", "--foreign", "--yes", "--reason", "they said so")
	for i := range 3 {
		if _, err := h.sink.WaitFor(h.soon(), fmt.Sprintf("t-other-%d@example.net", i)); err != nil {
			t.Error(err)
		}
	}
	for _, to := range []string{"t-ours-1@example.net", "t-ours-2@example.net"} {
		if n := len(h.sink.To(to)); n != 0 {
			t.Errorf("%s got %d messages that were taken away", to, n)
		}
	}
}

// outsider is whose mail somebody else holds.
const outsider = "outsider@example.org"

// budget uses up what taro may send.
func (h *house) budget() {
	h.t.Helper()
	c, err := h.login()
	h.must(err)
	defer c.Close()
	reply, err := send(c, taro, "first@example.net", "Subject: first\n\nthe budget\n")
	if err != nil || reply.Code != 250 {
		h.t.Fatalf("first: %v, %v", reply, err)
	}
}

// holdOf has the guard hold a message.
func (h *house) holdOf(to string) file {
	h.t.Helper()
	c, err := h.login()
	h.must(err)
	defer c.Close()
	h.sendOne(c, taro, to)
	return h.find("hold", to)
}

func (h *house) sendOne(c *smtptest.Client, from, to string) {
	h.t.Helper()
	reply, err := send(c, from, to, fmt.Sprintf("From: %s\nTo: %s\nSubject: Minutes\nMessage-ID: <%s>\n\nHello\n", from, to, to))
	if err != nil || reply.Code != 250 {
		h.t.Fatalf("%s: %v, %v", to, reply, err)
	}
}

// foreign has somebody hold a message with the mail server's own tools.
func (h *house) foreign(from, to string) file {
	h.t.Helper()
	h.sink.Refuse(to, smtptest.Reply{Code: 451, Lines: []string{"4.2.0 later"}})
	c, err := h.dial(0, relay.Relaying)
	h.must(err)
	defer c.Close()
	h.sendOne(c, from, to)
	f := h.find("deferred", to)
	if h.postfix != nil {
		_, err = h.postfix.Command(h.soon(), "postsuper", "-h", f.id)
		h.must(err)
	} else {
		h.eventually("it is quarantined", func() string { // not while it is being delivered
			_, err = h.smail.Command(h.soon(), "sendmail", "-Am", "-Qsomebody's own reason", "-qI"+f.id)
			h.must(err)
			for _, f := range h.files("hold") {
				if tokenOf(f.path) == to {
					return ""
				}
			}
			return to
		})
	}
	h.sink.Refuse(to, smtptest.Reply{})
	return h.find("hold", to)
}

// find waits for a message in a queue.
func (h *house) find(queue, to string) (found file) {
	h.t.Helper()
	h.eventually(to+" is in "+queue, func() string {
		for _, f := range h.files(queue) {
			if tokenOf(f.path) == to {
				found = f
				return ""
			}
		}
		return fmt.Sprint(h.ledger()[to])
	})
	return found
}

// renamed gives a message the id of another, which is gone.
func (h *house) renamed(f, old file) {
	h.t.Helper()
	if h.postfix != nil {
		h.must(os.Rename(f.path, old.path))
		return
	}
	body := func(f file) string { return filepath.Join(filepath.Dir(f.path), "df"+f.id) }
	h.must(errors.Join(os.Rename(body(f), body(old)), os.Rename(f.path, old.path)))
}

// looked waits until the guard has seen in the queue what it holds, and knows when
// it came: until then a message of the same sender and minute is taken for it.
func (h *house) looked(n int) {
	h.t.Helper()
	type held struct {
		Held []struct {
			Arrival time.Time `json:"arrival"`
		}
	}
	h.eventually("the guard looks at the queue", func() string {
		seen := 0
		for _, m := range ask[held](h, 0, "held", "list").Held {
			if !m.Arrival.IsZero() {
				seen++
			}
		}
		if seen != n {
			return fmt.Sprintf("%d of %d seen", seen, n)
		}
		return ""
	})
}

// nextSecond waits until what comes is not of the second of a message: sender and
// second are all that tells ids apart.
func (h *house) nextSecond(f file) {
	h.t.Helper()
	info, err := os.Stat(f.path)
	h.must(err)
	h.eventually("the next second", func() string {
		probe := filepath.Join(h.StateDir(), "probe")
		h.must(os.WriteFile(probe, nil, 0o600))
		now, err := os.Stat(probe)
		h.must(err)
		if now.ModTime().Unix() <= info.ModTime().Unix() {
			return "not yet"
		}
		return ""
	})
}

// contents are files of held messages with that beginning of their address, by
// path.
func (h *house) contents(prefix string) map[string]string {
	h.t.Helper()
	all := map[string]string{}
	for _, f := range h.files("hold") {
		if strings.HasPrefix(tokenOf(f.path), prefix) {
			text, err := os.ReadFile(f.path)
			h.must(err)
			all[f.path] = string(text)
		}
	}
	return all
}

func (h *house) unchanged(what, prefix string, before map[string]string) {
	h.t.Helper()
	now := h.contents(prefix)
	if len(now) != len(before) {
		h.t.Fatalf("after %s %d of %d are on hold: %v", what, len(now), len(before), h.ledger())
	}
	for path, text := range before {
		if now[path] != text {
			h.t.Fatalf("after %s %s is another", what, path)
		}
	}
}
