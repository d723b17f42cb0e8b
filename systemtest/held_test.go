package systemtest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/smtptest"
	"relayguard/systemtest/relay"
)

// foreignHold makes Postfix itself hold what has this subject.
var foreignHold = postfixtest.Options{
	Main:  map[string]string{"header_checks": "regexp:$config_directory/holds"},
	Files: map[string]string{"holds": "/^Subject: held by Postfix/ HOLD\n"},
}

// overLimit sends a message of taro's, who has no room left, and returns what is
// held.
func overLimit(t *testing.T, r *relay.Relay, taro *smtptest.Client, message string, to ...string) heldMail {
	t.Helper()
	sendAccepted(t, taro, "taro@example.jp", to, message)
	inQueue := wantHeld(t, r.Postfix, to[0])
	all := heldOf(t, r, "--login", "taro@example.jp")
	i := slices.IndexFunc(all, func(h heldMail) bool { return h.QueueID == inQueue.QueueID })
	if i < 0 {
		t.Fatalf("held list knows nothing of %s: %+v", inQueue.QueueID, all)
	}
	return all[i]
}

const secret, subject = "the body that nobody may see", "the subject that nobody may see"

func TestHeldMail(t *testing.T) {
	t.Parallel()
	r := startWithPlain(t, relay.Options{Config: perLogin("login-volume", "", "2/10m"), Postfix: foreignHold})
	taro := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	hanako := loggedIn(t, r.Postfix, relay.Submission, "hanako@example.jp")
	for _, id := range []string{"t0", "t1"} {
		sendAccepted(t, taro, "taro@example.jp", rcpts(id, 1), fromTaro(id))
		sendAccepted(t, hanako, "hanako@example.jp", rcpts("h"+id, 1), letter("h"+id, "From: hanako@example.jp"))
	}
	hold := func(t *testing.T, id string, to ...string) heldMail {
		t.Helper()
		return overLimit(t, r, taro, fromTaro(id, "Subject: "+subject)+secret+"\n", to...)
	}

	t.Run("is listed, shown, released and delivered as it came", func(t *testing.T) {
		message := fromTaro("released", "Date: Mon, 02 Mar 2026 09:00:00 +0900") + "..\n.dots\nand 8 bits: \xe9\n"
		sendAccepted(t, taro, "taro@example.jp", []string{"released@example.net"}, message)
		sendAccepted(t, loggedIn(t, r.Postfix, plain, "taro@example.jp"), "taro@example.jp", []string{"unguarded@example.net"}, message)
		inQueue := wantHeld(t, r.Postfix, "released@example.net")
		all := heldOf(t, r)
		if len(all) != 1 || all[0].QueueID != inQueue.QueueID || all[0].Account != "login:taro@example.jp" || all[0].Rule != "login-volume" ||
			all[0].State != "held" || all[0].MailFrom != "taro@example.jp" || all[0].Recipients != 1 || all[0].Domains["example.net"] != 1 || all[0].Size == 0 {
			t.Fatalf("held list: %+v", all)
		}
		stdout, stderr := order(t, r, 0, "held", "list")
		if !strings.Contains(stdout, inQueue.QueueID) || !strings.Contains(stderr, "1 message ") {
			t.Errorf("held list:\n%s%s", stdout, stderr)
		}
		for _, id := range []string{inQueue.QueueID, all[0].ID} {
			if stdout, _ := order(t, r, 0, "held", "show", id); !strings.Contains(stdout, "2 of 2 recipients in 10m used by login:taro@example.jp") {
				t.Errorf("held show %s:\n%s", id, stdout)
			}
		}
		order(t, r, 0, "held", "release", inQueue.QueueID, "--reason", "it is the newsletter")
		wantSame(t, r.Postfix, "released@example.net", "unguarded@example.net")
		wantOnce(t, r.Postfix, "released@example.net", "unguarded@example.net")
		if left := heldOf(t, r); len(left) != 0 {
			t.Errorf("still held: %+v", left)
		}
		if again, _, stderr := command(t, r, "held", "release", inQueue.QueueID); again != 1 {
			t.Errorf("released again: status %d, want 1: %s", again, stderr)
		}
		if n := used(t, r, "taro@example.jp", "login-volume"); n != 2 {
			t.Errorf("%d used after the release, want 2: what an admin releases is not charged", n)
		}
	})

	t.Run("is deleted, and a copy stays for a while", func(t *testing.T) {
		h := hold(t, "deleted", "deleted@example.net")
		order(t, r, 0, "held", "delete", h.QueueID, "--reason", "spam")
		if ids := inHold(t, r.Postfix); len(ids) != 0 {
			t.Errorf("still in the hold queue: %q", ids)
		}
		wantNothing(t, r.Postfix, "deleted@example.net")
		copies, err := filepath.Glob(filepath.Join(r.Dir, "queue-state", "deleted", "????-??-??", h.QueueID+".*", "*"))
		if err != nil || len(copies) != 1 {
			t.Fatalf("copies in the grace folder: %q, %v", copies, err)
		}
		text, err := os.ReadFile(copies[0])
		if err != nil || !strings.Contains(string(text), secret) {
			t.Errorf("the copy has not the message: %v", err)
		}
		for path := copies[0]; path != r.Dir; path = filepath.Dir(path) {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s: %v, %v; want it root's alone", path, info.Mode(), err)
			}
		}
		e := ask[[]explained](t, r, 0, "explain", h.QueueID)
		if len(e) != 1 || len(e[0].Held) != 1 || e[0].Held[0].State != "deleted" || e[0].Held[0].Why != "spam" {
			t.Errorf("explain: %+v", e)
		}
	})

	t.Run("shows neither recipients nor content without a reason", func(t *testing.T) {
		h := hold(t, "private", "confidential.name@example.net", "another.person@example.org")
		for _, args := range [][]string{{"held", "show", h.QueueID}, {"held", "list"}, {"explain", h.QueueID}, {"decisions"}, {"status"}} {
			for _, more := range []string{"", "--json"} {
				_, stdout, stderr := command(t, r, slices.DeleteFunc(append(slices.Clone(args), more), func(s string) bool { return s == "" })...)
				for _, private := range []string{"confidential.name", "another.person", secret, subject} {
					if strings.Contains(stdout+stderr, private) {
						t.Errorf("%s %s tells %q:\n%s", strings.Join(args, " "), more, private, stdout)
					}
				}
				if slices.Contains(args, "show") && !strings.Contains(stdout, "example.org") {
					t.Errorf("held show does not name the recipients' domains:\n%s", stdout)
				}
			}
		}
		order(t, r, 2, "held", "show", h.QueueID, "--headers")
		order(t, r, 2, "held", "show", h.QueueID, "--content")
		headers, _ := order(t, r, 0, "held", "show", h.QueueID, "--headers", "--reason", "complaint 4711")
		content, _ := order(t, r, 0, "held", "show", h.QueueID, "--content", "--reason", "complaint 4712")
		if !strings.Contains(headers, subject) || strings.Contains(headers, secret) || !strings.Contains(content, secret) || strings.Contains(content, subject) {
			t.Errorf("headers:\n%s\ncontent:\n%s", headers, content)
		}
		type action struct{ Verb, Target, Reason, By string }
		actions := ask[[]action](t, r, 0, "journal", "actions")
		want := []action{{"held show --content", h.QueueID, "complaint 4712", "root"}, {"held show --headers", h.QueueID, "complaint 4711", "root"}}
		for i, w := range want {
			if i >= len(actions) || actions[i].Verb != w.Verb || actions[i].Target != w.Target || actions[i].Reason != w.Reason || !strings.HasPrefix(actions[i].By, w.By) {
				t.Errorf("action %d: %+v, want %+v", i, actions, w)
			}
		}
		order(t, r, 0, "held", "delete", h.QueueID)
	})

	t.Run("is released and deleted by origin, others' left alone", func(t *testing.T) {
		for i := range 3 {
			sendAccepted(t, taro, "taro@example.jp", rcpts(fmt.Sprintf("bulk-t%d", i), 1), fromTaro(fmt.Sprintf("bulk-t%d", i)))
			sendAccepted(t, hanako, "hanako@example.jp", rcpts(fmt.Sprintf("bulk-h%d", i), 1), letter(fmt.Sprintf("bulk-h%d", i), "From: hanako@example.jp"))
		}
		other := loggedIn(t, r.Postfix, plain, "taro@example.jp") // past the guard
		sendAccepted(t, other, "taro@example.jp", rcpts("foreign-check", 1), fromTaro("foreign-check", "Subject: held by Postfix"))
		r.Sink.Refuse("foreign-super-0@example.net", tempfail)
		sendAccepted(t, other, "taro@example.jp", rcpts("foreign-super", 1), fromTaro("foreign-super"))
		deferred, err := r.WaitQueue(soon(t), func(q postfixtest.Queued) bool { return q.QueueName == "deferred" })
		if err != nil {
			t.Fatal(err)
		}
		postsuper(t, r.Postfix, "-h", deferred.QueueID)
		before := inHold(t, r.Postfix)
		if len(before) != 8 {
			t.Fatalf("%d messages are held, want 3, 3 and 2: %q", len(before), before)
		}

		var list heldList
		eventually(t, "the list, which may be some seconds old, has all eight", func() bool {
			list = ask[heldList](t, r, 0, "held", "list")
			return len(list.Held) >= 8 && list.Foreign >= 2
		})
		foreign := 0
		for _, h := range list.Held {
			if h.HeldBy == "other" {
				foreign++
			}
		}
		if list.Foreign != 2 || foreign != 2 || len(list.Held) != 8 {
			t.Errorf("held list: %d by others, %d of them listed, of %d", list.Foreign, foreign, len(list.Held))
		}
		if stdout, stderr := order(t, r, 0, "held", "list"); strings.Count(stdout, "other") != 2 || !strings.Contains(stderr, "2 by others") {
			t.Errorf("held list:\n%s%s", stdout, stderr)
		}

		for _, verb := range []string{"release", "delete"} {
			dry := ask[outcome](t, r, 0, "held", verb, "--login", "taro@example.jp", "--dry-run")
			if len(dry.Messages) != 3 || dry.Counts["would"] != 3 {
				t.Errorf("held %s --dry-run: %+v", verb, dry)
			}
			if now := inHold(t, r.Postfix); !slices.Equal(now, before) {
				t.Errorf("a dry run changed the queue: %q, was %q", now, before)
			}
		}
		if code, _, stderr := command(t, r, "held", "release", "--login", "taro@example.jp"); code != 2 || len(inHold(t, r.Postfix)) != 8 {
			t.Errorf("three messages without --yes: status %d, want 2: %s", code, stderr)
		}
		order(t, r, 2, "held", "release") // nothing chooses
		if code, stdout, _ := command(t, r, "held", "release", deferred.QueueID); code != 1 || len(inHold(t, r.Postfix)) != 8 {
			t.Errorf("a foreign hold by its id: status %d, want 1: %s", code, stdout)
		}

		done := ask[outcome](t, r, 0, "held", "release", "--login", "taro@example.jp", "--rule", "login-volume", "--yes")
		if done.Counts["done"] != 3 {
			t.Errorf("released: %+v", done)
		}
		wantArrived(t, r.Postfix, "bulk-t2-0@example.net")
		if now := inHold(t, r.Postfix); len(now) != 5 {
			t.Errorf("%d messages are held, want hanako's 3 and 2 of others", len(now))
		}
		if none := ask[outcome](t, r, 0, "held", "delete", "--login", "hanako@example.jp", "--older-than", "1h", "--yes"); len(none.Messages) != 0 {
			t.Errorf("older than an hour: %+v", none)
		}
		if done := ask[outcome](t, r, 0, "held", "delete", "--login", "hanako@example.jp", "--limit", "1", "--yes"); done.Counts["done"] != 1 {
			t.Errorf("deleted: %+v", done)
		}
		for _, verb := range []string{"delete", "release"} { // release has nothing left
			ask[outcome](t, r, 0, "held", verb, "--all", "--yes")
		}
		if now := inHold(t, r.Postfix); len(now) != 2 || !slices.Contains(now, deferred.QueueID) {
			t.Errorf("held: %q, want the 2 of others", now)
		}
		wantOnce(t, r.Postfix, "bulk-t0-0@example.net", "bulk-t1-0@example.net", "bulk-t2-0@example.net")
		wantNothing(t, r.Postfix, "bulk-h0-0@example.net", "bulk-h1-0@example.net", "bulk-h2-0@example.net", "foreign-check-0@example.net")
		for _, id := range inHold(t, r.Postfix) {
			postsuper(t, r.Postfix, "-d", id)
		}
	})
}

func TestHeldMailUnderAnotherID(t *testing.T) {
	t.Parallel()
	r := startWithPlain(t, relay.Options{Config: perLogin("login-volume", "", "1/10m"), Postfix: foreignHold})
	taro := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	sendAccepted(t, taro, "taro@example.jp", rcpts("t0", 1), fromTaro("t0"))
	hold := func(t *testing.T, id string, to ...string) heldMail {
		t.Helper()
		return overLimit(t, r, taro, fromTaro(id), to...)
	}

	t.Run("is left alone where its id is another message's by now", func(t *testing.T) {
		first := hold(t, "old-one", "old-one@example.net")
		second := hold(t, "old-two", "old-two@example.net")
		gone := hold(t, "old-three", "old-three@example.net")
		time.Sleep(2100 * time.Millisecond)
		// Somebody else's message, held by Postfix, is put under the ids: in the
		// very file, for a short id is the microsecond and the inode.
		other := loggedIn(t, r.Postfix, plain, "hanako@example.jp")
		sendAccepted(t, other, "hanako@example.jp", rcpts("innocent", 1), letter("innocent", "From: hanako@example.jp", "Subject: held by Postfix"))
		innocent := wantHeld(t, r.Postfix, "innocent-0@example.net")
		path := func(id string) string { return filepath.Join(r.QueueDir, "hold", id) }
		text, err := os.ReadFile(path(innocent.QueueID))
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range []heldMail{first, second} {
			if err := os.WriteFile(path(h.QueueID), text, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		postsuper(t, r.Postfix, "-d", innocent.QueueID)
		postsuper(t, r.Postfix, "-d", gone.QueueID)

		for verb, h := range map[string]heldMail{"release": first, "delete": second} {
			done := ask[outcome](t, r, 1, "held", verb, h.QueueID)
			if len(done.Messages) != 1 || done.Messages[0].Outcome != "changed" {
				t.Errorf("held %s of an id that another message has now: %+v", verb, done)
			}
		}
		if done := ask[outcome](t, r, 1, "held", "release", gone.QueueID); len(done.Messages) != 1 || done.Messages[0].Outcome != "gone" {
			t.Errorf("held release of an id that is gone: %+v", done)
		}
		if now := inHold(t, r.Postfix); len(now) != 2 {
			t.Errorf("held: %q, want both of the other's", now)
		}
		wantNothing(t, r.Postfix, "innocent-0@example.net", "old-one@example.net", "old-two@example.net")
		eventually(t, "the list, which may be some seconds old, has both as others'", func() bool {
			list := ask[heldList](t, r, 0, "held", "list")
			return len(list.Held) == 2 && list.Held[0].HeldBy == "other" && list.Held[1].HeldBy == "other"
		})
		order(t, r, 0, "held", "release", "--all", "--yes")
		if now := inHold(t, r.Postfix); len(now) != 2 {
			t.Errorf("held release --all touched the other's mail: %q", now)
		}
		for _, id := range inHold(t, r.Postfix) {
			postsuper(t, r.Postfix, "-d", id)
		}
	})

	t.Run("is queued anew where it is too old, and its new id is known", func(t *testing.T) {
		h := hold(t, "aged", "aged@example.net")
		r.Sink.Refuse("aged@example.net", tempfail) // so that it stays in the queue under its new id
		taro.Close()                                // a reload waits for sessions
		if err := r.SetMain(soon(t), map[string]string{"maximal_queue_lifetime": "4s"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2200 * time.Millisecond) // more than half of it
		done := ask[outcome](t, r, 0, "held", "release", h.QueueID)
		if len(done.Messages) != 1 || done.Messages[0].Outcome != "done" {
			t.Fatalf("released: %+v", done)
		}
		match, err := r.WaitLog(soon(t), `pickup\[\d+\]: (\w+): uid=\d+ from=<taro@example\.jp> orig_id=`+h.QueueID)
		if err != nil {
			t.Fatal(err)
		}
		newID := match[1]
		if told := done.Messages[0].NewID; told != "" && told != newID {
			t.Errorf("new id told: %s, in the log: %s", told, newID)
		}
		eventually(t, "explain knows the new id", func() bool {
			e := ask[[]explained](t, r, 0, "explain", h.QueueID)
			return len(e) == 1 && len(e[0].Held) == 1 && e[0].Held[0].NewQueueID == newID && e[0].Held[0].State == "released"
		})
		r.Sink.Refuse("aged@example.net", nothing)
		if err := r.SetMain(soon(t), map[string]string{"maximal_queue_lifetime": "5d"}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Command(soon(t), "postqueue", "-f"); err != nil {
			t.Fatal(err)
		}
		wantArrived(t, r.Postfix, "aged@example.net")
		wantOnce(t, r.Postfix, "aged@example.net")
		eventually(t, "deliveries under the new id count for the old", func() bool {
			e := ask[[]explained](t, r, 0, "explain", h.QueueID)
			return len(e) == 1 && e[0].Delivered["sent"] == 1
		})
		e := ask[[]explained](t, r, 0, "explain", newID)
		if len(e) != 1 || e[0].Decision == nil || e[0].Decision.QueueID != h.QueueID {
			t.Errorf("explain by the new id: %+v", e)
		}
	})
}
