package systemtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/smtptest"
	"relayguard/systemtest/relay"
)

func TestGuardKilledAndBack(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{})
	taro := func(id string) []string { return []string{id + "@example.net"} }

	inBody := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	wantCode(t, "MAIL", 250)(inBody.Mail("taro@example.jp"))
	wantCode(t, "RCPT", 250)(inBody.Rcpt("in-body@example.net"))
	wantCode(t, "DATA", 354)(inBody.Cmd("DATA"))
	if err := inBody.Write("From: taro@example.jp\r\n\r\nHel"); err != nil {
		t.Fatal(err)
	}
	afterRcpt := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	wantCode(t, "MAIL", 250)(afterRcpt.Mail("taro@example.jp"))
	wantCode(t, "RCPT", 250)(afterRcpt.Rcpt("after-rcpt@example.net"))
	idle := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	sendAccepted(t, idle, "taro@example.jp", taro("before"), fromTaro("before"))

	if err := r.StopGuard(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}

	t.Run("transactions under way are put off", func(t *testing.T) {
		if err := inBody.Write("lo\r\n.\r\n"); err != nil {
			t.Fatal(err)
		}
		wantCode(t, "end of message", 451)(inBody.Read())
		reply, err := afterRcpt.Data(fromTaro("after-rcpt"))
		if err != nil || reply.Code != 451 {
			t.Errorf("after RCPT: %v, %v; want 451", reply, err)
		}
		if refusal := send(t, idle, "taro@example.jp", taro("idle"), fromTaro("idle")).Refusal(); refusal.Code != 451 {
			t.Errorf("next message of a session: %v, want 451", refusal)
		}
	})

	t.Run("new sessions are put off", func(t *testing.T) {
		for _, service := range []string{relay.Submission, relay.Relaying, relay.Inbound} {
			client, err := r.Dial(soon(t), service)
			if err != nil {
				t.Fatal(err)
			}
			wantCode(t, "EHLO", 250)(client.Ehlo("client.example.org"))
			if refusal := send(t, client, "x@example.org", []string{"dead@example.jp"}, fromTaro("dead")).Refusal(); refusal.Code != 451 {
				t.Errorf("%s: got %v, want 451", service, refusal)
			}
			client.Close()
		}
	})

	t.Run("sendmail takes mail and keeps it", func(t *testing.T) {
		sendmail(t, r.Postfix, www, letter("waits", "From: shop@example.jp"), "-f", "shop@example.jp", "waits@example.net")
		if _, err := r.WaitLog(soon(t), `pickup\[\d+\]: \w+: uid=33`); err != nil {
			t.Error(err)
		}
	})

	if err := r.StartGuard(soon(t)); err != nil {
		t.Fatal(err)
	}

	t.Run("new sessions work at once", func(t *testing.T) {
		client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
		sendAccepted(t, client, "taro@example.jp", taro("back"), fromTaro("back"))
		wantArrived(t, r.Postfix, "back@example.net")
	})

	t.Run("what sendmail kept is delivered", func(t *testing.T) {
		sendmail(t, r.Postfix, www, letter("nudge", "From: shop@example.jp"), "-f", "shop@example.jp", "nudge@example.net") // pickup looks again
		wantArrived(t, r.Postfix, "nudge@example.net")
		wantArrived(t, r.Postfix, "waits@example.net")
		wantVerdict(t, r, "waits", "accept", "", "local_user:www-data")
	})

	t.Run("nothing is lost, and nothing came that was put off", func(t *testing.T) {
		wantArrived(t, r.Postfix, "before@example.net")
		wantNothing(t, r.Postfix, "in-body@example.net", "after-rcpt@example.net", "idle@example.net", "dead@example.jp")
	})
}

func TestSIGTERMDrains(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{})
	idle := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	running := map[string]*smtptest.Client{}
	for _, id := range []string{"in-header", "in-body"} {
		client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
		wantCode(t, "MAIL", 250)(client.Mail("taro@example.jp"))
		wantCode(t, "RCPT", 250)(client.Rcpt(id + "@example.net"))
		wantCode(t, "DATA", 354)(client.Cmd("DATA"))
		begin := "From: taro@example.jp\r\nMessage-ID: <" + id + ">\r\n"
		if id == "in-body" {
			begin += "\r\nHello\r\n"
		}
		if err := client.Write(begin); err != nil {
			t.Fatal(err)
		}
		running[id] = client
	}
	betweenRcpts := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	wantCode(t, "MAIL", 250)(betweenRcpts.Mail("boss@example.org"))
	wantCode(t, "RCPT", 250)(betweenRcpts.Rcpt("one@example.net"))

	mark := r.Mark()
	if err := r.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := r.WaitLine(soon(t), mark, "draining"); err != nil {
		t.Fatal(err)
	}

	for id, client := range running {
		if err := client.Write("\r\nWorld\r\n.\r\n"); err != nil {
			t.Fatal(err)
		}
		wantCode(t, id+": end of message", 250)(client.Read())
		wantArrived(t, r.Postfix, id+"@example.net")
		wantVerdict(t, r, id, "accept", "", "login:taro@example.jp")
	}
	wantCode(t, "RCPT while draining", 250)(betweenRcpts.Rcpt("two@example.net"))
	reply, err := betweenRcpts.Data(fromTaro("drained-held"))
	if err != nil || reply.Code != 250 {
		t.Errorf("DATA while draining: %v, %v", reply, err)
	}
	wantHeld(t, r.Postfix, "two@example.net")

	if code, err := r.GuardExit(soon(t)); err != nil || code != 0 {
		t.Errorf("the guard ended with %d, %v", code, err)
	}
	if refusal := send(t, idle, "taro@example.jp", []string{"idle@example.net"}, fromTaro("idle")).Refusal(); refusal.Code != 451 {
		t.Errorf("an idle session after the end: %v, want 451", refusal)
	}
	for _, socket := range []string{"submission.sock", "relay.sock"} {
		if _, err := os.Stat(r.MilterDir() + "/" + socket); !os.IsNotExist(err) {
			t.Errorf("%s is left behind: %v", socket, err)
		}
	}
}

func TestSIGTERMWaitsNoLongerThanConfigured(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{Config: "[milter]\ndrain_timeout = \"1s\"\ndecision_timeout = \"1s\"\n[address]\nmap_timeout = \"500ms\"\n"})
	client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	wantCode(t, "MAIL", 250)(client.Mail("taro@example.jp"))
	wantCode(t, "RCPT", 250)(client.Rcpt("slow@example.net"))
	if err := r.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, err := r.GuardExit(soon(t)); err != nil || code != 0 {
		t.Fatalf("the guard ended with %d, %v", code, err)
	}
	reply, err := client.Data(fromTaro("slow"))
	if err != nil || reply.Code != 451 {
		t.Errorf("DATA after the end: %v, %v; want 451", reply, err)
	}
	wantNothing(t, r.Postfix, "slow@example.net")
}

func TestSIGHUP(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{})
	client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")

	t.Run("applies a good configuration to open sessions too", func(t *testing.T) {
		sendAccepted(t, client, "boss@example.org", []string{"before@example.net"}, fromTaro("before"))
		wantVerdict(t, r, "before", "hold", "envelope-address", "login:taro@example.jp")
		reload(t, r, "enforce", "[address.logins]\n\"taro@example.jp\" = [\"boss@example.org\"]\n")
		sendAccepted(t, client, "boss@example.org", []string{"after@example.net"}, fromTaro("after"))
		wantVerdict(t, r, "after", "accept", "", "login:taro@example.jp")
	})

	t.Run("keeps the old one when the new one is wrong, and logs every problem", func(t *testing.T) {
		mark := r.Mark()
		if err := r.WriteConfig("enforce", "[address]\nenvelope = \"maybe\"\nfiles = [\"relative\"]\nenvelop = \"hold\"\n[[network]]\nname = \"all\"\ncidr = [\"0.0.0.0/0\"]\n"); err != nil {
			t.Fatal(err)
		}
		if err := r.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"maybe", "relative", "envelop ", "0.0.0.0/0", "reason", "owner"} {
			if _, err := r.WaitProblem(soon(t), mark, strings.TrimSpace(key)); err != nil {
				t.Errorf("no problem tells of %s: %v", key, err)
			}
		}
		sendAccepted(t, client, "boss@example.org", []string{"kept@example.net"}, fromTaro("kept"))
		wantVerdict(t, r, "kept", "accept", "", "login:taro@example.jp")
	})

	t.Run("keeps the old one when a file that it names is missing", func(t *testing.T) {
		mark := r.Mark()
		if err := r.WriteConfig("enforce", "[address]\nfiles = [\"/nonexistent/addresses\"]\n"); err != nil {
			t.Fatal(err)
		}
		if err := r.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		if _, err := r.WaitProblem(soon(t), mark, "/nonexistent/addresses"); err != nil {
			t.Error(err)
		}
		sendAccepted(t, client, "boss@example.org", []string{"kept2@example.net"}, fromTaro("kept2"))
		wantVerdict(t, r, "kept2", "accept", "", "login:taro@example.jp")
	})

	t.Run("takes the next good one", func(t *testing.T) {
		reload(t, r, "enforce", "")
		sendAccepted(t, client, "boss@example.org", []string{"last@example.net"}, fromTaro("last"))
		wantVerdict(t, r, "last", "hold", "envelope-address", "login:taro@example.jp")
	})
}

// What got 250 is delivered or held, whatever became of the guard meanwhile;
// twice only where a sender got no answer to its final dot.
func TestRestartsUnderLoadLoseNothing(t *testing.T) {
	t.Parallel()
	const senders, restarts = 4, 4
	r := startRelay(t, relay.Options{})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()

	var book ledger
	var all sync.WaitGroup
	var taken atomic.Int64
	for s := range senders {
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				id := fmt.Sprintf("s%d-%d", s, n)
				from := "taro@example.jp"
				if n%3 == 0 {
					from = "boss@example.org" // will be held
				}
				for tries := 0; !book.try(r.Postfix, id, from); tries++ {
					if tries > 1000 {
						t.Errorf("%s: put off for ever", id)
						return
					}
					time.Sleep(10 * time.Millisecond) // as a client's retry
				}
				taken.Add(1)
			}
		})
	}
	more := func() {
		t.Helper()
		limit := soon(t)
		for want := taken.Load() + 4*senders; taken.Load() < want; time.Sleep(10 * time.Millisecond) {
			if limit.Err() != nil {
				t.Fatal("senders are stuck")
			}
		}
	}
	for i := range restarts {
		more()
		signal := syscall.SIGTERM
		if i%2 == 1 {
			signal = syscall.SIGKILL
		}
		if err := r.StopGuard(signal); err != nil {
			t.Fatal(err)
		}
		if err := r.StartGuard(soon(t)); err != nil {
			t.Fatal(err)
		}
	}
	more()
	stop()
	all.Wait()
	if err := r.WaitEmpty(soon(t)); err != nil {
		t.Fatal(err)
	}

	got := recipientsAtSink(r.Postfix)
	queue, err := r.QueueList(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range queue {
		for _, to := range q.Recipients {
			got[to.Address]++
		}
	}
	for id, e := range book.entries {
		switch n := got[id+"@example.net"]; {
		case e.accepted && n == 0:
			t.Errorf("%s got 250 and is lost", id)
		case n > 1+e.unanswered:
			t.Errorf("%s came %d times, %d tries were without an answer", id, n, e.unanswered)
		}
	}
	t.Logf("%d messages over %d restarts, %d tries put off", len(book.entries), restarts, book.putOff.Load())
}

// ledger is what senders know of their messages.
type ledger struct {
	mu      sync.Mutex
	entries map[string]*entry
	putOff  atomic.Int64
}

type entry struct {
	accepted   bool
	unanswered int // final dots without a reply
}

// try sends a message in a session of its own; true if it got 250.
func (l *ledger) try(p *postfixtest.Postfix, id, from string) bool {
	l.mu.Lock()
	if l.entries == nil {
		l.entries = map[string]*entry{}
	}
	e := l.entries[id]
	if e == nil {
		e = &entry{}
		l.entries[id] = e
	}
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client, err := p.Dial(ctx, relay.Submission)
	if err != nil {
		return false
	}
	defer client.Close()
	client.Ehlo("client.example.org")
	if reply, err := client.Auth("taro@example.jp", "secret"); err != nil || reply.Code != 235 {
		return false
	}
	sent, err := client.Send(from, []string{id + "@example.net"}, fromTaro(id))
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil:
		e.unanswered++
	case sent.Accepted():
		e.accepted = true
		client.Quit()
	default:
		l.putOff.Add(1)
	}
	return e.accepted
}

func TestReloadKeepsTheOldRulesWhenPostfixCannotBeRead(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{})
	settings := filepath.Join(r.ConfigDir, "main.cf")
	if err := os.Rename(settings, settings+".away"); err != nil {
		t.Fatal(err)
	}
	mark := r.Mark()
	if err := r.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if _, err := r.WaitProblem(soon(t), mark, "inside.from_mta"); err != nil {
		t.Error(err)
	}
	if err := os.Rename(settings+".away", settings); err != nil {
		t.Fatal(err)
	}
	if err := r.Reload(soon(t), "enforce", ""); err != nil {
		t.Error(err)
	}
}

func TestSIGTERMIsNotLostBehindManySIGHUP(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{})
	for range 8 {
		if err := r.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, err := r.GuardExit(soon(t)); code != 0 || err != nil {
		t.Errorf("exit %d, %v", code, err)
	}
}
