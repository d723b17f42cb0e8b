package faults_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"relayguard/mta/smtptest"
)

// load sends until ctx ends: people by AUTH, programs by sendmail(1), and an
// admin who goes through what is held.
type load struct {
	*site
	ledger *ledger
	pace   time.Duration // between two messages of one sender

	admin     sync.Mutex // one order at a time, but for those that a round gives
	suspended suspension
}

// suspension is what the admin knows of the one account that is suspended and
// resumed.
type suspension struct {
	known bool
	on    bool
}

// suspect is the account that is suspended and resumed.
const suspect = "jiro@example.jp"

// run sends until ctx ends; then nobody is in the middle of anything.
func (l *load) run(ctx context.Context) {
	var work sync.WaitGroup
	for i, login := range []string{logins[0], logins[1], logins[2], logins[0]} {
		work.Go(func() { l.person(ctx, login, i) })
	}
	work.Go(func() { l.program(ctx) })
	work.Go(func() { l.administer(ctx) })
	work.Wait()
}

// person sends by SMTP, some messages a session.
func (l *load) person(ctx context.Context, login string, n int) {
	random := rand.New(rand.NewPCG(uint64(n), 1))
	tick := time.NewTicker(l.pace)
	defer tick.Stop()
	var c *smtptest.Client
	var began time.Time
	left, serial := 0, 0
	for {
		select {
		case <-ctx.Done():
			if c != nil {
				c.Close()
			}
			return
		case <-tick.C:
		}
		if c == nil {
			began = time.Now()
			// Not ctx: who began goes on to the end. A refused connection is no news.
			if c, _ = l.site.session(context.Background(), login); c == nil {
				continue
			}
			left = 1 + random.IntN(8)
		}
		serial++
		t := &ticket{token: fmt.Sprintf("p%d-%d", n, serial), login: login, session: began, rcpts: 1 + random.IntN(3)}
		from := login
		if random.IntN(6) == 0 {
			from = fmt.Sprintf("somebody%d@example.org", n)
		}
		err := transact(c, t, from)
		l.ledger.add(t)
		if left--; err != nil || t.outcome != accepted || left == 0 {
			if err == nil && random.IntN(2) == 0 {
				c.Quit()
			} else {
				c.Close()
			}
			c = nil
		}
	}
}

// transact sends the message of a ticket, and notes when it came how far.
func transact(c *smtptest.Client, t *ticket, from string) error {
	t.sent = time.Now()
	commands := []string{fmt.Sprintf("MAIL FROM:<%s>", from)}
	for i := range t.rcpts {
		commands = append(commands, fmt.Sprintf("RCPT TO:<%s-%d@example.net>", t.token, i))
	}
	for _, command := range append(commands, "DATA") {
		reply, err := c.Cmd("%s", command)
		if err != nil {
			t.outcome, t.reply, t.done = refused, "connection lost before the final dot", time.Now()
			return err
		}
		if !reply.Positive() { // one answer for all: the account is refused, or nobody decides
			t.note(reply)
			return nil
		}
	}
	t.dot = time.Now()
	reply, err := c.Message(letter(t.token, from, t.token+"-0@example.net"))
	if err == nil {
		t.note(reply)
	}
	return err
}

// program sends by sendmail(1).
func (l *load) program(ctx context.Context) {
	tick := time.NewTicker(3 * l.pace)
	defer tick.Stop()
	for serial := 1; ; serial++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		l.submit(fmt.Sprintf("l-%d", serial))
	}
}

// submit hands one message to sendmail(1).
func (l *load) submit(token string) {
	t := &ticket{token: token, rcpts: 1, sent: time.Now()}
	t.session = t.sent
	sent, err := l.Sendmail(context.Background(), localUID, []string{"-f", "www@example.jp", token + "-0@example.net"}, strings.NewReader(letter(token, "www@example.jp", token+"-0@example.net")))
	t.dot, t.done = t.sent, time.Now()
	switch {
	case err == nil && sent.ExitCode == 0:
		t.outcome = accepted
	default:
		t.outcome, t.reply = refused, fmt.Sprintf("sendmail: status %d %s %v", sent.ExitCode, sent.Stderr, err)
	}
	l.ledger.add(t)
}

// administer releases, deletes, suspends and resumes by the commands.
func (l *load) administer(ctx context.Context) {
	random := rand.New(rand.NewPCG(7, 7))
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if random.IntN(4) == 0 {
			l.toggle()
		} else {
			l.judge(context.Background(), random)
		}
	}
}

// judge releases some of what is held, or deletes it.
func (l *load) judge(ctx context.Context, random *rand.Rand) {
	all, err := l.listNow(ctx)
	if err != nil {
		return // the daemon is dead
	}
	var ids []string
	for _, h := range all {
		if h.ID != "" && h.State == "held" {
			ids = append(ids, h.ID)
		}
	}
	random.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	ids = ids[:min(len(ids), 1+random.IntN(60))]
	if len(ids) == 0 {
		return
	}
	verb := "release"
	if random.IntN(3) == 0 {
		verb = "delete"
		l.ledger.order(ids)
	}
	r, err := l.Relayguard(ctx, append([]string{"held", verb, "--reason", "fault test", "--json"}, ids...)...)
	if err == nil && r.ExitCode <= 1 {
		l.ledger.mu.Lock()
		l.ledger.orders++
		l.ledger.mu.Unlock()
	}
	if err != nil && !errors.Is(ctx.Err(), context.Canceled) {
		l.t.Errorf("held %s: %v: %s", verb, err, r.Stderr)
	}
	if strings.Contains(r.Stderr, "panic:") || strings.Contains(r.Stderr, "DATA RACE") {
		l.t.Errorf("held %s: %s", verb, r.Stderr)
	}
}

// toggle suspends the suspect, or lets him send again.
func (l *load) toggle() {
	l.admin.Lock()
	defer l.admin.Unlock()
	on := !l.suspended.on
	args := []string{"resume", suspect, "--cause", "fault test"}
	if on {
		args = []string{"suspend", suspect, "--reason", "fault test"}
	}
	l.suspended.known = false
	r, err := l.Relayguard(context.Background(), args...)
	if err != nil {
		l.t.Errorf("%v: %v", args, err)
		return
	}
	// What was cut off may have been done or not.
	l.suspended = suspension{known: r.ExitCode == 0, on: on}
}

// switchesStand tells whether the switches are as they were ordered.
func (l *load) switchesStand(ctx context.Context) error {
	l.admin.Lock()
	defer l.admin.Unlock()
	h, err := l.status(ctx)
	if err != nil {
		return err
	}
	if h.Denied != 1 {
		return fmt.Errorf("%d denials are in force, want the one that was ordered", h.Denied)
	}
	on := false
	for _, s := range h.Suspended {
		on = on || s.Value == suspect
	}
	if l.suspended.known && on != l.suspended.on {
		return fmt.Errorf("suspended: %v, but %v was ordered and confirmed", on, l.suspended.on)
	}
	l.suspended = suspension{true, on}
	return nil
}

// used is what each login's bucket holds of a limit that stops nobody.
func (l *load) used(ctx context.Context) (map[string]int64, error) {
	var text json.RawMessage
	if err := l.ask(ctx, "/v1/limits", nil, nil, &text); err != nil {
		return nil, err
	}
	var list struct {
		Buckets []struct {
			Limit, Key string
			Used       int64
		}
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, err
	}
	used := map[string]int64{}
	for _, b := range list.Buckets {
		if login, ok := strings.CutPrefix(b.Key, "login:"); ok && b.Limit == "far" {
			used[login] = b.Used
		}
	}
	return used, nil
}
