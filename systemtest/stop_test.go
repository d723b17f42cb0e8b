package systemtest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/systemtest/relay"
)

// traffic sends until it is told to end.
type traffic struct {
	mu       sync.Mutex
	accepted []string // recipients of what got 250
	ended    atomic.Bool
	work     sync.WaitGroup
}

// run sends mail of a login to ever new recipients of a domain.
func (l *traffic) run(t *testing.T, r *relay.Relay, service, login, name, domain string) {
	client := greet(t, r.Postfix, service)
	from := "x@example.org"
	if login != "" {
		wantCode(t, "AUTH", 235)(client.Auth(login, "secret"))
		from = login
	}
	l.work.Go(func() {
		for i := 0; !l.ended.Load(); i++ {
			id := fmt.Sprintf("%s-%d", name, i)
			to := id + "@" + domain
			if domain == "example.jp" {
				to = "hanako@example.jp"
			}
			sent, err := client.Send(from, []string{to}, letter(id, "From: "+from))
			if err != nil {
				t.Error(err)
				return
			}
			if sent.Accepted() {
				l.mu.Lock()
				l.accepted = append(l.accepted, to)
				l.mu.Unlock()
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
}

func (l *traffic) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.accepted)
}

func (l *traffic) end() []string {
	l.ended.Store(true)
	l.work.Wait()
	return l.accepted
}

// quiet is how long nothing may go out after the red switch was pulled: a
// delivery that had begun before is over by then, or postqueue shows it.
const quiet = 500 * time.Millisecond

// mx is a service for strangers without the guard.
const mx = "mx"

func startWithMX(t *testing.T) *relay.Relay {
	t.Helper()
	return startRelay(t, relay.Options{Postfix: postfixtest.Options{
		Services:  append(relay.Services(), postfixtest.Service{Name: mx}),
		Mailboxes: []string{"hanako@example.jp"},
	}})
}

func TestRedSwitch(t *testing.T) {
	t.Parallel()
	r := startWithMX(t)
	outgoing, inbound := &traffic{}, &traffic{}
	outgoing.run(t, r, relay.Submission, "taro@example.jp", "taro", "example.net")
	outgoing.run(t, r, relay.Relaying, "", "root", "example.org") // this machine's own account
	outgoing.run(t, r, mx, "", "past", "example.org")             // mynetworks, past the guard
	inbound.run(t, r, relay.Inbound, "", "in", "example.jp")
	r.Sink.Refuse("stuck@example.net", tempfail)
	sendmail(t, r.Postfix, games, letter("stuck"), "-f", "g@example.jp", "stuck@example.net")
	waitDeferred(t, r.Postfix, 1)
	eventually(t, "mail flows", func() bool { return len(r.Sink.All()) > 20 })

	begin := time.Now()
	order(t, r, 2, "stop") // without a reason
	order(t, r, 0, "stop", "--reason", "spam, source unknown")
	t.Logf("stop took %v; the goal is 5s", time.Since(begin))
	stopped, in := len(r.Sink.All()), inbound.count()
	sendmail(t, r.Postfix, games, letter("meanwhile"), "-f", "g@example.jp", "meanwhile@example.net")
	wantStopped(t, r, "new-session")
	time.Sleep(quiet)
	if n := len(r.Sink.All()); n != stopped {
		t.Errorf("%d mails went out after stop", n-stopped)
	}
	if status, _ := order(t, r, 1, "status"); !strings.Contains(status, "red switch") || !strings.Contains(status, "spam, source unknown") {
		t.Errorf("status:\n%s", status)
	}
	mailbox, err := r.WaitMaildir(soon(t), "hanako@example.jp", in+5)
	if err != nil {
		t.Errorf("inbound stopped, too: %v", err)
	}
	wantVerdict(t, r, "meanwhile", "hold", "stopped", "local_user:games")
	out, inwards := outgoing.end(), inbound.end()
	time.Sleep(quiet)
	if n := len(r.Sink.All()); n != stopped {
		t.Errorf("%d mails went out after stop", n-stopped)
	}
	t.Logf("%d messages out, %d of them before stop; %d in, %d when last looked", len(out), stopped, len(inwards), len(mailbox))

	r.Sink.Refuse("stuck@example.net", nothing)
	order(t, r, 0, "start", "--reason", "found")
	for _, to := range append(out, "stuck@example.net", "meanwhile@example.net") {
		wantArrived(t, r.Postfix, to)
	}
	wantOnce(t, r.Postfix, append(out, "stuck@example.net", "meanwhile@example.net")...)
	if n := len(r.Sink.All()); n != len(out)+2 {
		t.Errorf("%d mails went out, want %d", n, len(out)+2)
	}
	if mailbox, err := r.WaitMaildir(soon(t), "hanako@example.jp", len(inwards)+1); err != nil || len(mailbox) != len(inwards)+1 {
		t.Errorf("%d mails came in, want %d and that of the new session: %v", len(mailbox), len(inwards), err)
	}
	if left := inHold(t, r.Postfix); len(left) != 0 {
		t.Errorf("still held: %q", left)
	}
	order(t, r, 0, "start") // once more: nothing was stopped
}

func TestRedSwitchWithTheDaemonDead(t *testing.T) {
	t.Parallel()
	r := startWithMX(t)
	client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	for i := range 3 {
		to := fmt.Sprintf("stuck-%d@example.net", i)
		r.Sink.Refuse(to, tempfail)
		sendAccepted(t, client, "taro@example.jp", []string{to}, fromTaro(fmt.Sprintf("stuck-%d", i)))
	}
	sendAccepted(t, client, "boss@example.org", []string{"held@example.net"}, fromTaro("held")) // by another rule
	wantHeldBeside(t, r, "held@example.net")
	waitDeferred(t, r.Postfix, 3)
	if err := r.StopGuard(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}

	begin := time.Now()
	order(t, r, 0, "stop", "--reason", "the daemon is dead, too")
	t.Logf("stop took %v; the goal is 5s", time.Since(begin))
	for i := range 3 {
		r.Sink.Refuse(fmt.Sprintf("stuck-%d@example.net", i), nothing)
	}
	open := greet(t, r.Postfix, mx) // mail without the guard
	sendAccepted(t, open, "x@example.org", []string{"hanako@example.jp"}, letter("in-dead"))
	if sent := send(t, open, "x@example.org", []string{"past@example.org"}, letter("past-dead")); !slices.Equal(codes(sent.Rcpts), []int{450}) {
		t.Errorf("past the guard to outside: %v, want 450: Postfix knows by itself", sent.Rcpts)
	}
	sendmail(t, r.Postfix, games, letter("local-dead"), "-f", "g@example.jp", "local@example.net")
	wantCode(t, "AUTH without the daemon", 454)(greet(t, r.Postfix, relay.Submission).Auth("taro@example.jp", "secret"))
	if _, err := r.WaitMaildir(soon(t), "hanako@example.jp", 1); err != nil {
		t.Errorf("inbound stopped, too: %v", err)
	}
	if _, err := r.Command(soon(t), "postqueue", "-f"); err != nil { // as an admin may, who does not know
		t.Fatal(err)
	}
	time.Sleep(quiet)
	if n := len(r.Sink.All()); n != 0 {
		t.Errorf("%d mails went out after stop", n)
	}
	if n := len(inHold(t, r.Postfix)); n != 4 {
		t.Errorf("%d messages are held, want the 3 that were deferred and the one that was held", n)
	}

	if err := r.StartGuard(soon(t)); err != nil {
		t.Fatal(err)
	}
	t.Run("it stays pulled when the daemon is back", func(t *testing.T) {
		sendmail(t, r.Postfix, www, letter("back"), "-f", "w@example.jp", "back@example.net")
		wantVerdict(t, r, "back", "hold", "stopped", "local_user:www-data")
		wantStopped(t, r, "new-session")
		pickUp(t, r)
		wantVerdict(t, r, "local-dead", "hold", "stopped", "local_user:games")
		held := heldOf(t, r, "--rule", "stopped")
		if len(held) != 5 {
			t.Errorf("held by the red switch: %+v", held)
		}
		for _, h := range held {
			if !slices.Contains([]string{"login:taro@example.jp", "local_user:games", "local_user:www-data"}, h.Account) {
				t.Errorf("nobody's: %+v", h)
			}
		}
		if n := len(r.Sink.All()); n != 0 {
			t.Errorf("%d mails went out", n)
		}
	})

	if err := r.StopGuard(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	order(t, r, 0, "start", "--reason", "over")
	all := []string{"stuck-0@example.net", "stuck-1@example.net", "stuck-2@example.net", "local@example.net", "back@example.net"}
	for _, to := range all {
		wantArrived(t, r.Postfix, to)
	}
	wantOnce(t, r.Postfix, all...)
	if ids := inHold(t, r.Postfix); len(ids) != 1 {
		t.Errorf("held: %q, want the one of another rule", ids)
	}
	if n := len(r.Sink.All()); n != len(all) {
		t.Errorf("%d mails went out, want %d", n, len(all))
	}
	if err := r.StartGuard(soon(t)); err != nil {
		t.Fatal(err)
	}
	client = loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	sendAccepted(t, client, "taro@example.jp", []string{"after@example.net"}, fromTaro("after"))
	wantArrived(t, r.Postfix, "after@example.net")
	if held := heldOf(t, r); len(held) != 1 || held[0].Rule != "envelope-address" {
		t.Errorf("held: %+v, want the one of another rule", held)
	}
}

// wantHeldBeside waits until a message is held, whatever else is in the queue.
func wantHeldBeside(t *testing.T, r *relay.Relay, to string) {
	t.Helper()
	if _, err := r.WaitHeld(soon(t), to); err != nil {
		t.Fatal(err)
	}
}

// wantStopped checks what a client is told that comes after the red switch was
// pulled: Postfix itself knows by then that nothing goes out.
func wantStopped(t *testing.T, r *relay.Relay, id string) {
	t.Helper()
	client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	sent := send(t, client, "taro@example.jp", []string{"hanako@example.jp", id + "@example.net"}, fromTaro(id))
	if got := codes(sent.Rcpts); !slices.Equal(got, []int{250, 450}) || !sent.Accepted() {
		t.Errorf("a new session: RCPT inside and outside got %v, end %v", sent.Rcpts, sent.Data)
	}
}
