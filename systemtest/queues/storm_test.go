package queues_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/sendmail/sendmailtest"
	"relayguard/mta/smtptest"
	"relayguard/systemtest/relay"
)

// originCap is hold.origin_messages where nobody sets it.
const originCap = 500

// stormSize is how many messages are sent by SMTP, one in nullEvery of them
// without a sender, and how many more by sendmail(1).
type stormSize struct{ smtp, local int64 }

const nullEvery = 40

// TestStormOnPostfix: one site of an account that many share is suspended, and
// sends what it can. What it sends by SMTP is refused; what it sends by
// sendmail(1), whose caller hears no answer, is held up to the cap and comes back
// beyond. Nobody else's mail waits for it.
func TestStormOnPostfix(t *testing.T) {
	n := int64(5000)
	if text := os.Getenv("RELAYGUARD_STORM"); text != "" {
		var err error
		if n, err = strconv.ParseInt(text, 10, 64); err != nil || n < 1000 {
			t.Fatalf("RELAYGUARD_STORM: got %q, want a number, 1000 at least", text)
		}
	}
	local := min(max(n/8, originCap+200), 20_000)
	alerts, config := alertsTo(t)
	h := startPostfix(t, plain, relay.Options{ShippedLimits: true, Config: config, Postfix: postfixtest.Options{Inside: []string{"example.jp"}}})
	newStorm(h, relay.Relaying, stormSize{n - local, local}).rage(alerts)
}

// TestStormOnSendmail: there sendmail(1) hands mail in by SMTP, and hears the
// answer.
func TestStormOnSendmail(t *testing.T) {
	alerts, config := alertsTo(t)
	h := startSendmail(t, plain, relay.Options{ShippedLimits: true, Config: config, Sendmail: sendmailtest.Options{Inside: []string{"example.jp"}}})
	newStorm(h, relay.Local, stormSize{1000, 100}).rage(alerts)
}

// alertsTo is a configuration whose alerts are lines of a file.
func alertsTo(t *testing.T) (file, config string) {
	t.Helper()
	dir := t.TempDir()
	file, command := filepath.Join(dir, "alerts"), filepath.Join(dir, "alert")
	for path, text := range map[string]string{file: "", command: fmt.Sprintf("#!/bin/sh\necho \"$@\" >>%s\n", file)} {
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return file, fmt.Sprintf("[alert]\nsyslog = false\ncommand = %q\n", command)
}

// storm is what a suspended site sends, and what others do meanwhile.
type storm struct {
	*house
	service string // that takes its SMTP
	size    stormSize
	site    *website
	other   *website // of the same account

	next, nextLocal             atomic.Int64
	taken, refused, later, back atomic.Int64 // answers to SMTP; back: exit statuses of sendmail(1)
	mu                          sync.Mutex
	wrong                       []string // answers that are none of those
	most                        peak
	slowest                     map[string]time.Duration // of commands
	probes                      int
	tenths                      []int64 // the daemon's memory, in MB, as the storm goes on
}

// peak is the most of anything at one time.
type peak struct {
	hold, others, maildrop int // files: of the hold queue, of others, handed in by sendmail(1)
	bytes                  int64
}

func newStorm(h *house, service string, size stormSize) *storm {
	return &storm{house: h, service: service, size: size, site: h.host("shop.example.org", 1), other: h.host("blog.example.org", 2), slowest: map[string]time.Duration{}}
}

// rage lets it happen.
func (s *storm) rage(alerts string) {
	t := s.t
	s.order(0, "suspend", "site:"+s.site.Name, "--reason", "a hole in a plugin")
	began := time.Now()
	var senders, others sync.WaitGroup
	for range 6 {
		senders.Go(s.pour)
	}
	for range 2 {
		senders.Go(s.drip)
	}
	over := make(chan struct{})
	others.Go(func() { s.until(over, 300*time.Millisecond, s.measure) })
	others.Go(func() { s.until(over, s.probeEvery(), s.probe) })
	others.Go(func() { s.until(over, 2*time.Second, s.look) })
	senders.Wait()
	took := time.Since(began)
	s.eventually("what sendmail(1) handed in is taken", func() string {
		if n := len(s.files("maildrop")); n > 0 {
			return fmt.Sprint(n, " left")
		}
		return ""
	})
	close(over)
	others.Wait()
	s.measure()
	s.probe()
	_, most := s.memory()
	t.Logf("%d messages by SMTP and %d by sendmail(1) in %v, %.0f/s: %d taken, %d refused, %d told to come later, %d times sendmail(1) said no", s.size.smtp, s.size.local,
		took.Round(time.Second), float64(s.size.smtp+s.size.local)/took.Seconds(), s.taken.Load(), s.refused.Load(), s.later.Load(), s.back.Load())
	t.Logf("at most: %d held, %d files in other queues, %d handed in, %d kB; daemon %d MB at most, as it went on %v; slowest commands %v; %d probes each", s.most.hold, s.most.others, s.most.maildrop,
		s.most.bytes>>10, most>>20, s.tenths, s.slowest, s.probes)
	s.verify(alerts, most)
	s.after()
}

// until does something again and again.
func (s *storm) until(over chan struct{}, every time.Duration, do func()) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		do()
		select {
		case <-over:
			return
		case <-tick.C:
		}
	}
}

// probeEvery keeps probes below the limits of those who send them.
func (s *storm) probeEvery() time.Duration {
	if s.size.smtp > 50_000 {
		return 20 * time.Second
	}
	return time.Second
}

// perSession: Postfix slows who is refused more often than that.
const perSession = 8

// pour sends by SMTP, from many sessions.
func (s *storm) pour() {
	var c *smtptest.Client
	left := 0
	for n := s.next.Add(1); n <= s.size.smtp; n = s.next.Add(1) {
		for tries := 1; left == 0; tries++ {
			if c != nil {
				c.Close()
			}
			var err error
			if c, err = s.dial(wwwData, s.service); err == nil {
				left = perSession
			} else if tries == 20 { // a crowded server is no news
				s.odd("a session: %v", err)
				return
			}
		}
		from := "wordpress@" + s.site.Name
		if n%nullEvery == 0 {
			from = ""
		}
		to := fmt.Sprintf("t-storm-%d@example.net", n)
		reply, err := send(c, from, to, s.site.letter("share-by-mail", n, to))
		left--
		if err != nil {
			s.odd("%s: %v", to, err)
			left = 0
			continue
		}
		s.count(from, reply)
	}
	if c != nil {
		c.Close()
	}
}

func (s *storm) count(from string, reply smtptest.Reply) {
	switch {
	case reply.Code == 250:
		s.taken.Add(1)
	case reply.Code == 550 && from != "":
		s.refused.Add(1)
	case reply.Code == 452 && from == "":
		s.later.Add(1)
	default:
		s.odd("from <%s>: %v", from, reply)
	}
}

// drip sends by sendmail(1).
func (s *storm) drip() {
	for n := s.nextLocal.Add(1); n <= s.size.local; n = s.nextLocal.Add(1) {
		to := fmt.Sprintf("t-local-%d@example.net", n)
		code, err := s.hand(wwwData, []string{"-f", "wordpress@" + s.site.Name, to}, s.site.letter("share-by-mail", 1<<32+n, to))
		if err != nil {
			s.odd("sendmail(1): %v", err)
		}
		if code != 0 {
			s.back.Add(1)
		}
	}
}

func (s *storm) odd(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.wrong) < 20 {
		s.wrong = append(s.wrong, fmt.Sprintf(format, args...))
	}
}

// measure looks at the queue.
func (s *storm) measure() {
	var now peak
	for _, f := range s.files() {
		switch f.queue {
		case "hold":
			now.hold++
		case "maildrop":
			now.maildrop++
		default:
			now.others++
		}
		now.bytes += f.size
	}
	if memory, _ := s.memory(); min(s.next.Load(), s.size.smtp)*10/s.size.smtp >= int64(len(s.tenths)) {
		s.tenths = append(s.tenths, memory>>20)
	}
	s.most = peak{max(s.most.hold, now.hold), max(s.most.others, now.others), max(s.most.maildrop, now.maildrop), max(s.most.bytes, now.bytes)}
}

// probe has others send: a login, another site of the same account, a stranger to
// one inside. Each must arrive, once.
func (s *storm) probe() {
	s.probes++
	n := s.probes
	var err error
	by := func(who string, c *smtptest.Client, dialed error, from, to string) {
		if err = errors.Join(err, dialed); dialed != nil {
			return
		}
		defer c.Close()
		text := fmt.Sprintf("From: %s\nTo: %s\nSubject: probe\nMessage-ID: <%s-%d@probe.example>\n\nHello\n", from, to, who, n)
		reply, sent := send(c, from, to, text)
		if sent != nil || reply.Code != 250 {
			err = errors.Join(err, fmt.Errorf("probe %d of %s: %v, %w", n, who, reply, sent))
		}
	}
	c, dialed := s.login()
	by("login", c, dialed, taro, "friend@example.net")
	c, dialed = s.dial(0, relay.Inbound)
	by("stranger", c, dialed, "stranger@example.com", taro)
	to := "customer@example.net"
	code, handed := s.hand(wwwData, []string{"-f", "wordpress@" + s.other.Name, to}, s.other.letter("orders", int64(n), to))
	if handed != nil || code != 0 {
		err = errors.Join(err, fmt.Errorf("probe %d of %s: status %d, %w", n, s.other.Name, code, handed))
	}
	for _, id := range []string{fmt.Sprintf("<login-%d@probe.example>", n), fmt.Sprintf("<stranger-%d@probe.example>", n), fmt.Sprintf("<%d@%s>", n, s.other.Name)} {
		if _, waited := s.sink.Wait(s.soon(), func(m smtptest.Mail) bool { return strings.Contains(string(m.Data), "Message-ID: "+id) }); waited != nil {
			err = errors.Join(err, fmt.Errorf("%s has not arrived: %w", id, waited))
		}
	}
	if err != nil {
		s.odd("%v", err)
	}
}

// look has an admin ask.
func (s *storm) look() {
	for _, args := range [][]string{{"status"}, {"queue", "summary"}, {"held", "list", "--limit", "20"}} {
		said := s.command(args...)
		name := strings.Join(args[:min(2, len(args))], " ")
		if said.code > 1 || said.stdout+said.stderr == "" {
			s.odd("%s: status %d: %s%s", name, said.code, said.stdout, said.stderr)
		}
		s.mu.Lock()
		s.slowest[name] = max(s.slowest[name], said.took.Round(time.Millisecond))
		s.mu.Unlock()
	}
}

// verify checks what is to be so after it.
func (s *storm) verify(alerts string, memory int64) {
	t := s.t
	for _, w := range s.wrong {
		t.Error(w)
	}
	held := len(s.files("hold"))
	if s.most.hold > originCap || held != originCap {
		t.Errorf("%d on hold, %d at most, want the cap of %d", held, s.most.hold, originCap)
	}
	if max := 200; s.most.others > max {
		t.Errorf("%d files in other queues at one time, want at most %d", s.most.others, max)
	}
	if max := int64(20 << 20); s.most.bytes > max+8192*int64(s.most.maildrop) {
		t.Errorf("%d octets in the queue at one time, want at most %d beside what sendmail(1) handed in", s.most.bytes, max)
	}
	if max := int64(200 << 20); memory > max {
		t.Errorf("the daemon took %d MB, want at most %d", memory>>20, max>>20)
	}
	for _, m := range s.sink.All() {
		if token.MatchString(strings.Join(m.RcptTo, " ")) {
			t.Errorf("mail of the suspended site went out to %v", m.RcptTo)
		}
	}
	probes := map[string]int{}
	for _, m := range s.sink.All() {
		if m.MailFrom != "" {
			probes[m.RcptTo[0]]++
		}
	}
	for _, to := range []string{"friend@example.net", taro, "customer@example.net"} {
		if probes[to] != s.probes {
			t.Errorf("%d probes arrived at %s, want %d", probes[to], to, s.probes)
		}
	}
	s.oneIncident(alerts)
	s.eventually("the journal knows each stop", s.journaled)
}

// oneIncident: the storm is one of the suspension, and one of the cap that it
// met, and its alerts do not come more often for it.
func (s *storm) oneIncident(alerts string) {
	s.t.Helper()
	type incident struct {
		Origin, Cause string
		Stops         int64
	}
	want := s.refused.Load() + s.later.Load() + originCap
	s.eventually("few incidents with all stops", func() string {
		all, stops := ask[[]incident](s.house, 0, "incident", "list"), int64(0)
		for _, i := range all {
			if i.Cause == "suspended" || i.Cause == "hold-cap" {
				stops += i.Stops
			}
		}
		if len(all) > 2 || stops < want {
			return fmt.Sprintf("%+v, want one for each cause, with %d stops at least", all, want)
		}
		return ""
	})
	text, err := os.ReadFile(alerts)
	s.must(err)
	if n := strings.Count(string(text), "\n"); n > 4 {
		s.t.Errorf("%d alerts:\n%s", n, text)
	}
}

// journaled compares the journal with what was answered: refusals that are alike
// are counted at one of them.
func (s *storm) journaled() string {
	verdicts := map[string]int64{}
	for before := ""; ; {
		args := []string{"decisions", "--site", s.site.Name, "--limit", "1000", "--json"}
		if before != "" {
			args = append(args, "--before", before)
		}
		var page []struct {
			ID, Verdict string
			Repeats     int64
		}
		out := s.order(0, args...)
		s.must(json.Unmarshal([]byte(out), &page))
		for _, d := range page {
			verdicts[d.Verdict] += 1 + d.Repeats
			before = d.ID
		}
		if len(page) == 0 {
			break
		}
	}
	if verdicts["hold"] != originCap || verdicts["accept"] > 0 {
		return fmt.Sprintf("%v", verdicts)
	}
	refused, later := s.refused.Load(), s.later.Load()
	bySMTP := s.size.smtp == refused+later+s.taken.Load()
	if local := originCap - s.taken.Load(); !bySMTP || verdicts["defer"] < later || verdicts["reject"]+verdicts["defer"] < refused+later+s.size.local-local {
		return fmt.Sprintf("%v; %d refused, %d told to come later, %d taken of %d by SMTP, %d by sendmail(1)", verdicts, refused, later, s.taken.Load(), s.size.smtp, s.size.local)
	}
	return ""
}

// after is what the admin does: some of it was no spam, the rest is thrown away.
func (s *storm) after() {
	s.order(0, "resume", "site:"+s.site.Name, "--cause", "the plugin is mended")
	s.order(0, "held", "release", "--site", s.site.Name, "--limit", "3", "--yes")
	s.eventually("three are sent", func() string {
		n := 0
		for _, m := range s.sink.All() {
			if token.MatchString(strings.Join(m.RcptTo, " ")) {
				n++
			}
		}
		if n != 3 {
			return fmt.Sprint(n)
		}
		return ""
	})
	s.order(0, "held", "delete", "--site", s.site.Name, "--yes", "--reason", "spam")
	if n := len(s.files("hold")); n != 0 {
		s.t.Errorf("%d still on hold", n)
	}
	if n := len(s.copies()); n != originCap-3 {
		s.t.Errorf("%d copies of what was deleted, want %d", n, originCap-3)
	}
	s.probe()
	for _, w := range s.wrong {
		s.t.Error(w)
	}
}
