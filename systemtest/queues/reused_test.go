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

// reused is a house where three messages are held by the guard and three by
// somebody else; two of these have ids of the guard's.
type reused struct {
	*house
	ours, others []file
	before       map[string]string // the others' files
}

func reusedID(h *house) {
	h.budget()
	r := &reused{house: h}
	for i := 1; i <= 3; i++ {
		r.ours = append(r.ours, h.holdOf(fmt.Sprintf("t-ours-%d@example.net", i)))
	}
	h.looked(len(r.ours))
	h.nextSecond(r.ours[2])
	for i, from := range []string{outsider, taro, outsider} { // the second has the sender of the one whose id it gets
		r.others = append(r.others, h.foreign(from, fmt.Sprintf("t-other-%d@example.net", i)))
	}
	for i := range 2 { // ours went some way that the guard knows nothing of, and came not back
		h.renamed(r.others[i], r.ours[i])
	}
	r.before = h.contents("t-other-")
	r.byID()
	r.told()
	r.bulk()
	r.end()
}

// byID: what is ordered by id finds another message, and leaves it alone.
func (r *reused) byID() {
	first, second := r.ours[0].id, r.ours[1].id
	for _, args := range [][]string{
		{"held", "release", first, "--reason", "test"},
		{"held", "delete", second, "--reason", "test"},
		{"queue", "release", first, "--reason", "test"},
		{"queue", "delete", second, "--reason", "test"},
		{"queue", "requeue", first, second, r.others[2].id, "--reason", "test"},
		{"queue", "delete", "--from", outsider, "--yes", "--reason", "test"},
	} {
		said := r.command(args...)
		if said.code != 1 {
			r.t.Errorf("relayguard %s: status %d, want 1:\n%s%s", strings.Join(args, " "), said.code, said.stdout, said.stderr)
		}
		r.unchanged(strings.Join(args, " "), "t-other-", r.before)
	}
}

// told: they are said to be others'.
func (r *reused) told() {
	out := r.command("queue", "release", r.others[2].id, "--json")
	if out.code != 1 || !strings.Contains(out.stdout, `"foreign"`) {
		r.t.Errorf("queue release of another's hold: status %d\n%s%s", out.code, out.stdout, out.stderr)
	}
	type queued struct {
		Messages []struct {
			HeldBy string `json:"held_by"`
		}
	}
	holders := map[string]int{}
	for _, m := range ask[queued](r.house, 0, "queue", "list", "--queue", "hold").Messages {
		holders[m.HeldBy]++
	}
	if holders["other"] != 3 || holders["relayguard"] != 1 {
		r.t.Errorf("held by %v, want three by others and one by the guard", holders)
	}
}

// bulk: all that the guard holds is the one that is left to it.
func (r *reused) bulk() {
	r.command("held", "release", "--all", "--yes", "--reason", "test")
	r.unchanged("held release --all", "t-other-", r.before)
	if _, err := r.sink.WaitFor(r.soon(), "t-ours-3@example.net"); err != nil {
		r.t.Error(err)
	}
	r.command("held", "delete", "--all", "--yes", "--reason", "test")
	r.unchanged("held delete --all", "t-other-", r.before)
	if n := len(r.copies()); n != 0 {
		r.t.Errorf("%d messages were deleted", n)
	}
}

// end: who says --foreign means them.
func (r *reused) end() {
	r.order(0, "queue", "release", "--queue", "hold", "--all", "--foreign", "--yes", "--reason", "they said so")
	for i := range 3 {
		if _, err := r.sink.WaitFor(r.soon(), fmt.Sprintf("t-other-%d@example.net", i)); err != nil {
			r.t.Error(err)
		}
	}
	for _, to := range []string{"t-ours-1@example.net", "t-ours-2@example.net"} {
		if n := len(r.sink.To(to)); n != 0 {
			r.t.Errorf("%s got %d messages that were taken away", to, n)
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
