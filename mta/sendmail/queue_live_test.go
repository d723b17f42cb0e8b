package sendmail_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayguard/mta"
	"relayguard/mta/sendmail"
	"relayguard/mta/sendmail/sendmailtest"
	"relayguard/mta/smtptest"
)

func TestScanTellsEveryQueue(t *testing.T) {
	q := startQueue(t, sendmailtest.Options{DeliveryMode: "queueonly"})
	began := time.Now().Truncate(time.Second)
	q.Sink.Refuse("late@example.net", smtptest.Reply{Code: 451, Lines: []string{"4.2.0 come again"}})
	deferred := q.submit("a@example.jp", "late@example.net")
	if err := q.RunQueue(q.ctx); err != nil {
		t.Fatal(err)
	}
	incoming := q.submit("a@example.jp", "x@example.net", "y@example.net")
	null := q.submit("", "z@example.net")
	quoted := q.submit(`"a b"@example.jp`, "z@example.net")
	var many []string
	for n := range 1200 {
		many = append(many, fmt.Sprintf("r%d@example.net", n))
	}
	big := q.submit("a@example.jp", many...)
	held := q.submit("a@example.jp", "h@example.net")
	if _, err := q.Command(q.ctx, "sendmail", "-Am", "-Qby hand: why", "-qI"+held.QueueID); err != nil {
		t.Fatal(err)
	}
	if err := q.Kill(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Sendmail.Sendmail(q.ctx, 33, []string{"-f", "web@example.jp", "m@example.net"}, strings.NewReader("Subject: s\n\nlocal\n")); err != nil {
		t.Fatal(err)
	}
	found := q.scan()
	if len(found) != 7 {
		t.Errorf("found %d messages: %v", len(found), found)
	}
	for what, c := range map[string]struct {
		id, queue, sender string
		recipients, more  int
		hold, reason      string
	}{
		"deferred": {deferred.QueueID, "deferred", "a@example.jp", 1, 0, "", "4.2.0 come again"},
		"incoming": {incoming.QueueID, "incoming", "a@example.jp", 2, 0, "", ""},
		"null":     {null.QueueID, "incoming", "", 1, 0, "", ""},
		"quoted":   {quoted.QueueID, "incoming", `"a b"@example.jp`, 1, 0, "", ""},
		"big":      {big.QueueID, "incoming", "a@example.jp", 1000, 200, "", ""},
		"held":     {held.QueueID, "hold", "a@example.jp", 1, 0, "by hand: why", ""},
	} {
		f := found[c.id]
		if f.Queue != c.queue || f.Sender != c.sender || len(f.Recipients) != c.recipients || f.More != c.more || f.HoldReason != c.hold || !strings.Contains(f.Reason, c.reason) || (f.Reason == "") != (c.reason == "") {
			t.Errorf("%s: %q from %q to %d and %d, held %q, stuck %q; want %+v", what, f.Queue, f.Sender, len(f.Recipients), f.More, f.HoldReason, f.Reason, c)
		}
		if f.Arrival.Before(began) || f.Arrival.After(time.Now()) || f.Size < 150 || what != "big" && f.Size > 1000 {
			t.Errorf("%s: arrived %v with %d octets", what, f.Arrival, f.Size)
		}
	}
	if to := found[incoming.QueueID].Recipients; len(to) != 2 || to[0] != "x@example.net" || to[1] != "y@example.net" {
		t.Errorf("recipients %q", to)
	}
	drop := 0
	for _, f := range found {
		if f.Queue == "maildrop" && f.Sender == "web@example.jp" {
			drop++
			results, err := q.i.HoldMail(q.ctx, []mta.Target{f.Target()}, "why")
			all(t, "hold of the submission program's mail", mta.Gone, results, err)
		}
	}
	if drop != 1 {
		t.Errorf("%d of the submission program's", drop)
	}
}

// Sendmail's own -Q is the measure: on the same file it makes the same.
func TestActsMakeWhatSendmailMakes(t *testing.T) {
	q := startQueue(t, sendmailtest.Options{DeliveryMode: "queueonly"})
	q.Sink.Refuse("x@example.net", smtptest.Reply{Code: 451, Lines: []string{"4.2.0 come again"}})
	tried := q.submit("a@example.jp", "x@example.net", "y@example.net")
	if err := q.RunQueue(q.ctx); err != nil {
		t.Fatal(err)
	}
	silent := q.load("exit 0\n")
	const reason = "relayguard: 550 of a@example.jp"
	for what, entry := range map[string]sendmailtest.Queued{"tried": tried, "new": q.submit("", "x@example.net")} {
		qf, hf := entry.Path, asHeld(entry.Path)
		original := readFile(t, qf)
		held := q.target(entry.QueueID)
		sendmailQ := func(args ...string) {
			t.Helper()
			if _, err := q.Command(q.ctx, "sendmail", append([]string{"-Am", "-qI" + entry.QueueID}, args...)...); err != nil {
				t.Fatal(err)
			}
		}
		sendmailQ("-Q" + reason)
		theirs := readFile(t, hf)
		sendmailQ("-qQ", "-Q")
		if back := readFile(t, qf); !bytes.Equal(back, original) {
			t.Errorf("%s: Sendmail itself released\n%s\nas\n%s", what, original, back)
		}
		results, err := silent.HoldMail(q.ctx, []mta.Target{held}, reason)
		all(t, what, mta.Done, results, err)
		if ours := readFile(t, hf); !bytes.Equal(ours, theirs) {
			t.Errorf("%s: held as\n%s\nwant\n%s", what, ours, theirs)
		}
		if _, err := os.Lstat(qf); err == nil {
			t.Errorf("%s: both files", what)
		}
		if said, err := q.Command(q.ctx, "mailq", "-Am", "-qQ"); err != nil || !strings.Contains(said, entry.QueueID) || !strings.Contains(said, "QUARANTINE: "+reason) {
			t.Errorf("%s: mailq -qQ says %v\n%s", what, err, said)
		}
		results, err = silent.ReleaseMail(q.ctx, []mta.Target{held}, mta.Release{Now: time.Now()})
		all(t, what, mta.Done, results, err)
		if back := readFile(t, qf); !bytes.Equal(back, original) {
			t.Errorf("%s: released as\n%s\nwant\n%s", what, back, original)
		}
		info, err := os.Stat(qf)
		if sys := info.Sys().(*syscall.Stat_t); err != nil || info.Mode().Perm() != 0o640 || sys.Uid != 0 {
			t.Errorf("%s: mode %v, uid %d", what, info.Mode(), sys.Uid)
		}
	}
}

func TestReleasedMailIsDeliveredAndNoOther(t *testing.T) {
	q := startQueue(t, sendmailtest.Options{DeliveryMode: "queueonly"})
	other := q.submit("a@example.jp", "other@example.net")
	foreign := q.submit("a@example.jp", "foreign@example.net")
	mine := q.submit("a@example.jp", "mine@example.net")
	for id, reason := range map[string]string{foreign.QueueID: "somebody's", mine.QueueID: "ours"} {
		results, err := q.i.HoldMail(q.ctx, []mta.Target{q.target(id)}, reason)
		all(t, "hold", mta.Done, results, err)
	}
	if err := q.RunQueue(q.ctx); err != nil { // it leaves alone what is held
		t.Fatal(err)
	}
	if _, err := q.Sink.WaitFor(q.ctx, "other@example.net"); err != nil {
		t.Fatal(err)
	}
	again := q.submit("a@example.jp", "again@example.net")
	results, err := q.i.HoldMail(q.ctx, []mta.Target{q.target(mine.QueueID)}, "twice")
	all(t, "hold of what is held", mta.Gone, results, err)
	results, err = q.i.ReleaseMail(q.ctx, []mta.Target{q.target(mine.QueueID), q.target(mine.QueueID), {ID: other.QueueID}}, mta.Release{Now: time.Now()})
	if err != nil || results[0].Fate != mta.Done || results[1].Fate != mta.Done || results[2].Fate != mta.Gone {
		t.Fatalf("release: %+v, %v", results, err)
	}
	mail, err := q.Sink.WaitFor(q.ctx, "mine@example.net")
	if err != nil {
		t.Fatal(err)
	}
	if mail.MailFrom != "a@example.jp" || !strings.Contains(string(mail.Data), "body of mine@example.net") {
		t.Errorf("delivered: %+v", mail)
	}
	if _, err := q.WaitLog(q.ctx, mine.QueueID+`: to=<mine@example.net>, .*stat=Sent`); err != nil {
		t.Error(err)
	}
	if _, err := q.WaitLog(q.ctx, mine.QueueID+`: done; `); err != nil {
		t.Error(err)
	}
	left := q.scan()
	if len(left) != 2 || left[foreign.QueueID].HoldReason != "somebody's" || left[again.QueueID].Queue != "incoming" {
		t.Errorf("left: %+v", left)
	}
}

func TestMatchesWhatAMilterWasTold(t *testing.T) {
	q := startQueue(t, sendmailtest.Options{DeliveryMode: "queueonly"})
	for _, from := range []string{"a@example.jp", "", `"a b"@example.jp`, "A.B+c@EXAMPLE.jp", "nodomain"} {
		entry := q.submit(from, "x@example.net")
		f := q.scan()[entry.QueueID]
		told := mta.Target{ID: entry.QueueID, Sender: from, Arrival: time.Now()}
		if !told.Matches(f) {
			t.Errorf("MAIL FROM:<%s> is in the queue as %q", from, f.Sender)
		}
	}
}

func TestOldMailGetsANewLifetime(t *testing.T) {
	q := startQueue(t, sendmailtest.Options{DeliveryMode: "queueonly"})
	q.Sink.Refuse("x@example.net", smtptest.Reply{Code: 451, Lines: []string{"4.2.0 come again"}})
	created := time.Now().Add(-6 * 24 * time.Hour).Truncate(time.Second).UTC()
	hold := func(what string) mta.Target {
		t.Helper()
		entry := q.submit("a@example.jp", "x@example.net")
		edit(t, entry.Path, map[byte]string{'T': fmt.Sprintf("T%d", created.Unix())})
		old := q.target(entry.QueueID)
		results, err := q.i.HoldMail(q.ctx, []mta.Target{old}, "why")
		all(t, what, mta.Done, results, err)
		return old
	}
	renewed := hold("hold")
	results, err := q.i.ReleaseMail(q.ctx, []mta.Target{renewed}, mta.Release{Now: time.Now()})
	all(t, "release", mta.Done, results, err)
	if _, err := q.WaitLog(q.ctx, renewed.ID+`: to=<x@example.net>, .*stat=Deferred`); err != nil {
		t.Fatal(err)
	}
	kept, err := q.WaitQueue(q.ctx, func(e sendmailtest.Queued) bool { return e.QueueID == renewed.ID && e.Attempts == "1" })
	if err != nil {
		t.Fatal(err)
	}
	if f := q.scan()[kept.QueueID]; f.Queue == "hold" || time.Since(f.Arrival) > time.Hour {
		t.Errorf("after a failed try: %+v", f)
	}
	// Without that, Sendmail returns it at the first failure.
	lost := hold("hold again")
	results, err = q.i.ReleaseMail(q.ctx, []mta.Target{lost}, mta.Release{Now: time.Now(), Margin: -1})
	all(t, "release as it is", mta.Done, results, err)
	if _, err := q.WaitLog(q.ctx, lost.ID+`: .*DSN: Cannot send message for 5 days`); err != nil {
		t.Error(err)
	}
	requeued := hold("hold a third")
	results, err = q.i.RequeueMail(q.ctx, []mta.Target{requeued})
	all(t, "requeue", mta.Done, results, err)
	if _, err := q.WaitQueue(q.ctx, func(e sendmailtest.Queued) bool { return e.QueueID == requeued.ID && e.Attempts == "1" }); err != nil {
		t.Error(err)
	}
}

func TestDeletedMailCanBeRestored(t *testing.T) {
	q := startQueue(t, sendmailtest.Options{DeliveryMode: "queueonly"})
	entry := q.submit("a@example.jp", "x@example.net", "y@example.net")
	held := q.target(entry.QueueID)
	results, err := q.i.DeleteMail(q.ctx, []mta.Target{held}, q.keep)
	all(t, "delete of what is not held", mta.Gone, results, err)
	results, err = q.i.HoldMail(q.ctx, []mta.Target{held}, "relayguard: why")
	all(t, "hold", mta.Done, results, err)
	results, err = q.i.DeleteMail(q.ctx, []mta.Target{held, held}, q.keep)
	all(t, "delete", mta.Done, results, err)
	if left := names(t, q.QueueDir); len(left) > 0 {
		t.Errorf("left in the queue: %v", left)
	}
	results, err = q.i.DeleteMail(q.ctx, []mta.Target{held}, q.keep)
	all(t, "delete again", mta.Gone, results, err)
	kept, err := q.keep.List()
	if err != nil || len(kept) != 1 || kept[0].ID != entry.QueueID || !kept[0].Arrival.Equal(held.Arrival) {
		t.Fatalf("kept: %+v, %v", kept, err)
	}
	id, err := q.i.Restore(q.ctx, q.keep, kept[0].Name)
	if err != nil || !sendmail.ValidQueueID(id) || id == entry.QueueID {
		t.Fatalf("restored as %q: %v", id, err)
	}
	back := q.scan()[id]
	if back.Queue != "hold" || back.HoldReason != "relayguard: why" || back.Sender != held.Sender || !back.Arrival.Equal(held.Arrival) || len(back.Recipients) != 2 {
		t.Errorf("restored: %+v", back)
	}
	if _, err := q.i.Restore(q.ctx, q.keep, kept[0].Name); !errors.Is(err, mta.ErrGone) {
		t.Errorf("restored twice: %v", err)
	}
	results, err = q.i.ReleaseMail(q.ctx, []mta.Target{back.Target()}, mta.Release{Now: time.Now()})
	all(t, "release", mta.Done, results, err)
	for _, to := range []string{"x@example.net", "y@example.net"} {
		mail, err := q.Sink.WaitFor(q.ctx, to)
		if err != nil || !strings.Contains(string(mail.Data), "body of x@example.net") {
			t.Errorf("delivered to %s: %v\n%s", to, err, mail.Data)
		}
	}
	if err := q.WaitEmpty(q.ctx); err != nil {
		t.Error(err)
	}
	if all := q.Sink.All(); len(all) != 1 {
		t.Errorf("%d arrived", len(all))
	}
	queued := q.submit("a@example.jp", "z@example.net")
	results, err = q.i.DeleteQueued(q.ctx, []mta.Target{q.target(queued.QueueID)}, q.keep)
	all(t, "delete of queued mail", mta.Done, results, err)
	if kept, err = q.keep.List(); err != nil || len(kept) != 1 {
		t.Fatalf("kept: %+v, %v", kept, err)
	}
	id, err = q.i.Restore(q.ctx, q.keep, kept[0].Name)
	if err != nil || q.scan()[id].HoldReason != "restored" {
		t.Errorf("restored: %+v, %v", q.scan()[id], err)
	}
}

func TestSeveralQueueDirectories(t *testing.T) {
	for name, split := range map[string]bool{"plain": false, "split": true} {
		t.Run(name, func(t *testing.T) {
			q := startQueue(t, sendmailtest.Options{DeliveryMode: "queueonly", QueueDirs: 3, SplitQueue: split,
				QueueGroups: []sendmailtest.QueueGroup{{Name: "slow", Dirs: 2}}})
			for n := range 12 {
				q.submit("a@example.jp", fmt.Sprintf("r%d@example.net", n))
			}
			targets := q.targets("incoming")
			if len(targets) != 12 {
				t.Fatalf("%d found", len(targets))
			}
			results, err := q.i.HoldMail(q.ctx, targets, "why")
			all(t, "hold", mta.Done, results, err)
			results, err = q.i.DeleteMail(q.ctx, targets[:4], q.keep)
			all(t, "delete", mta.Done, results, err)
			kept, err := q.keep.List()
			if err != nil || len(kept) != 4 {
				t.Fatalf("kept: %v, %v", kept, err)
			}
			for _, k := range kept {
				if _, err := q.i.Restore(q.ctx, q.keep, k.Name); err != nil {
					t.Fatal(err)
				}
			}
			targets = q.targets("hold")
			results, err = q.i.ReleaseMail(q.ctx, targets, mta.Release{Now: time.Now()})
			all(t, "release", mta.Done, results, err)
			for n := range 12 {
				to := fmt.Sprintf("r%d@example.net", n)
				if mail, err := q.Sink.WaitFor(q.ctx, to); err != nil || !strings.Contains(string(mail.Data), "body of "+to) {
					t.Errorf("%s: %v\n%s", to, err, mail.Data)
				}
			}
			if err := q.WaitEmpty(q.ctx); err != nil {
				t.Error(err)
			}
			if n := len(q.Sink.All()); n != 12 {
				t.Errorf("%d arrived", n)
			}
		})
	}
}

func TestHeadersAndContent(t *testing.T) {
	q := startQueue(t, sendmailtest.Options{DeliveryMode: "queueonly"})
	entry := q.submitText("a@example.jp", "Subject: one\r\n two\r\nX-Odd: \x1b[31m\r\n\r\nfirst line\r\n.second\r\n", "x@example.net")
	at := q.target(entry.QueueID)
	var header, body bytes.Buffer
	if err := q.i.Headers(q.ctx, at, &header); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\nSubject: one\n two\n", "\nX-Odd: \x1b[31m\n", "Received: from client.example.jp"} {
		if !strings.Contains("\n"+header.String(), want) {
			t.Errorf("header without %q:\n%s", want, header.String())
		}
	}
	if err := q.i.Content(q.ctx, at, &body); err != nil || body.String() != "first line\n.second\n" {
		t.Errorf("body %q, %v", body.String(), err)
	}
	at.Sender = "b@example.jp"
	if err := q.i.Content(q.ctx, at, &body); !errors.Is(err, mta.ErrChanged) {
		t.Errorf("another sender's: %v", err)
	}
	at.ID = "6AN18P39020437"
	if err := q.i.Headers(q.ctx, at, &body); !errors.Is(err, mta.ErrGone) {
		t.Errorf("another id: %v", err)
	}
}

func TestQueueRunThatCannotStartIsTold(t *testing.T) {
	q := startQueue(t, sendmailtest.Options{DeliveryMode: "queueonly"})
	for name, script := range map[string]string{"refused": "echo no such >&2\nexit 78\n", "gone": "rm -f $0; exit 127"} {
		entry := q.submit("a@example.jp", "x@example.net")
		at := q.target(entry.QueueID)
		i := q.load(script)
		if name == "gone" {
			var err error
			if i, err = sendmail.Load(q.ctx, sendmail.Tools{Dir: filepath.Join(t.TempDir(), "none")}, q.ConfigDir); err != nil {
				t.Fatal(err)
			}
		}
		results, err := i.HoldMail(q.ctx, []mta.Target{at}, "why")
		all(t, name, mta.Done, results, err)
		results, err = i.ReleaseMail(q.ctx, []mta.Target{at}, mta.Release{Now: time.Now()})
		if !errors.Is(err, mta.ErrNotStarted) || len(results) != 1 || results[0].Fate != mta.Done {
			t.Errorf("%s: %+v, %v", name, results, err)
		}
		if name == "refused" && !strings.Contains(err.Error(), "no such") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
