package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/smtptest"
)

// End to end: a real Postfix takes mail from authenticated clients and throws
// it away at its end.

const (
	smtpClients = 16

	// A shorter round measures how Postfix starts its processes.
	shortestRound = 2 * time.Second

	tmpfs = "/dev/shm" // a queue there: what is compared is work, not a disk's moods
)

// postfixOrder is the order of measuring and of printing.
var postfixOrder = []string{theGuard, rawMilter, withoutOne}

// postfix measures messages/s through a real Postfix.
func (b *bench) postfix(ctx context.Context) error {
	b.progress("starting Postfix")
	dir, err := os.MkdirTemp(queueParent(), "rgbench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	p, err := postfixtest.Start(ctx, postfixOptions(dir))
	if err != nil {
		return err
	}
	defer p.Stop()
	for _, m := range []milter{guard(b.guard, b.dir, "postfix"), goMilter(rawMilter)} {
		r, err := startMilter(m, b.dir, socketIn(p.MilterDir(), m.name))
		if err != nil {
			return err
		}
		defer r.stop()
		defer r.forget()
	}
	per, err := b.calibrate(ctx, p)
	if err != nil {
		return err
	}
	rates := samples{}
	for round := range b.rounds {
		for i := range postfixOrder {
			name := postfixOrder[(i+round)%len(postfixOrder)] // nobody is always first
			b.progress("Postfix, %d messages, round %d of %d: %s", per, round+1, b.rounds, name)
			rate, err := carry(ctx, p, name, b.mails, per)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			rates.add(name, rate)
		}
	}
	b.add("postfix/messages_per_s", "1/s", rawMilter, &goal{0.92, true, true}, rates, postfixOrder)
	return nil
}

func queueParent() string {
	if info, err := os.Stat(tmpfs); err == nil && info.IsDir() {
		return tmpfs
	}
	return "" // the system's own
}

// postfixOptions: one submission service for each milter, and one without.
func postfixOptions(dir string) postfixtest.Options {
	o := postfixtest.Options{Dir: dir, Inside: []string{insideDomain}, Discard: true, Users: map[string]string{}}
	for i := range smtpClients {
		o.Users[login(i)] = password
	}
	for _, name := range postfixOrder {
		s := postfixtest.Service{Name: name, Auth: true, DaemonName: "ORIGINATING"}
		if name != withoutOne {
			s.Milters = []string{postfixtest.MilterName(name + ".sock")}
		}
		o.Services = append(o.Services, s)
	}
	return o
}

// calibrate finds how many messages make a round of the wanted length, and
// warms every service up.
func (b *bench) calibrate(ctx context.Context, p *postfixtest.Postfix) (int, error) {
	slowest := 0.0
	for _, name := range postfixOrder {
		rate, err := carry(ctx, p, name, b.mails, 20*smtpClients)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		if slowest == 0 || rate < slowest {
			slowest = rate
		}
	}
	per := int(slowest * max(b.window, shortestRound).Seconds())
	return min(max(per, 20*smtpClients), 50000), nil
}

// carry sends n messages through a service and returns messages/s from the
// first connection until the queue is empty.
func carry(ctx context.Context, p *postfixtest.Postfix, service string, mails []mail, n int) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	var next atomic.Int64
	var group sync.WaitGroup
	errs := make([]error, smtpClients)
	began := time.Now()
	for i := range smtpClients {
		group.Go(func() {
			for errs[i] == nil && next.Load() < int64(n) {
				errs[i] = smtpSession(ctx, p, service, i, mails, &next, n)
			}
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return 0, err
	}
	for !empty(p.QueueDir, "incoming", "active") {
		if err := ctx.Err(); err != nil {
			return 0, fmt.Errorf("empty the queue: %w", err)
		}
		time.Sleep(2 * time.Millisecond)
	}
	took := time.Since(began)
	if !empty(p.QueueDir, "hold", "deferred") {
		return 0, errors.New("mail was held or deferred that was to pass")
	}
	return float64(n) / took.Seconds(), nil
}

// smtpSession logs in as client number i and sends its share of one connection.
func smtpSession(ctx context.Context, p *postfixtest.Postfix, service string, i int, mails []mail, next *atomic.Int64, n int) error {
	c, err := p.Dial(ctx, service)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Ehlo("client.example.org"); err != nil {
		return err
	}
	r, err := c.Auth(login(i), password)
	if err != nil {
		return err
	}
	if r.Code != 235 {
		return fmt.Errorf("AUTH: %d %s", r.Code, r.Text())
	}
	from := login(i)
	for range perConnection {
		number := next.Add(1)
		if number > int64(n) {
			break
		}
		m := &mails[(int(number)*logins+i)%len(mails)]
		if err := smtpMessage(c, from, m); err != nil {
			return err
		}
	}
	_, err = c.Quit()
	return err
}

// smtpMessage sends a message in two round trips (RFC 2920), with the client's
// own address in From.
func smtpMessage(c *smtptest.Client, from string, m *mail) error {
	replies, err := c.Pipeline("MAIL FROM:<"+from+"> SIZE=4096", "RCPT TO:<"+m.to+">", "DATA")
	if err != nil {
		return err
	}
	for _, r := range replies {
		if !r.Positive() {
			return fmt.Errorf("refused: %d %s", r.Code, r.Text())
		}
	}
	if err := c.Write(strings.ReplaceAll(m.smtp(), "<"+m.from+">", "<"+from+">")); err != nil {
		return err
	}
	r, err := c.Read()
	if err != nil {
		return err
	}
	if r.Code != 250 {
		return fmt.Errorf("final dot: %d %s", r.Code, r.Text())
	}
	return nil
}

// empty looks into queues itself: postqueue would take processor time from
// those who empty them.
func empty(queue string, names ...string) bool {
	for _, name := range names {
		d, err := os.Open(filepath.Join(queue, name))
		if err != nil {
			continue // Postfix makes what it needs
		}
		files, _ := d.Readdirnames(1)
		d.Close()
		if len(files) > 0 {
			return false
		}
	}
	return true
}
