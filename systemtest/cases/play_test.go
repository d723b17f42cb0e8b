package cases

import (
	"context"
	"maps"
	"os/user"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayguard/mta/smtptest"
	"relayguard/policy/origin/stamp"
)

// play is a case that is played beside a server.
type play struct {
	t       *testing.T
	server  server
	c       *Case
	line    int // of the step
	clients map[string]*smtptest.Client
	client  *smtptest.Client
	arrived map[string]int    // how much mail each address should have got
	held    map[string]bool   // whose mail should be on hold at the end
	ids     map[string]string // queue ids by recipient, as last seen
	sites   map[string]*stamp.Site
	stamps  int // that were made
	inBox   int // what was in the mailbox before
}

// playCase plays a case beside a server without mail.
func playCase(t *testing.T, s server, c *Case) {
	p := &play{t: t, server: s, c: c, clients: map[string]*smtptest.Client{}, arrived: map[string]int{}, held: map[string]bool{}, ids: map[string]string{}, sites: map[string]*stamp.Site{}}
	s.sink().Forget()
	before, err := s.settings()
	p.check(err)
	mails, err := s.mailbox()
	p.check(err)
	p.inBox = len(mails)
	defer p.hangUp()
	for _, step := range c.Steps {
		if step.Only == "" || step.Only == s.name() {
			p.line = step.Line
			p.step(step.Do)
		}
	}
	p.line = c.Steps[len(c.Steps)-1].Line
	p.hangUp()
	p.nothingElse()
	if after, err := s.settings(); err != nil || after != before {
		p.fatalf("the mail server's settings are not what they were: %v", err)
	}
	if bad := s.guard().Broken(); len(bad) > 0 {
		p.fatalf("the guard's log has:\n%s", strings.Join(bad, "\n"))
	}
}

func (p *play) step(do any) {
	p.t.Helper()
	switch d := do.(type) {
	case Guard:
		p.setGuard(d)
	case GuardDies:
		p.check(p.server.guard().StopGuard(syscall.SIGKILL))
	case GuardReturns:
		p.check(p.server.guard().StartGuard(p.soon()))
	case Site:
		p.makeSite(d)
	case Client:
		p.turnTo(d)
	case *Say:
		p.say(d)
	case Mail:
		p.mail(d)
	case *Command:
		p.command(d)
	case SinkAnswers:
		reply := smtptest.Reply{Code: d.Code}
		if d.Code != 0 {
			reply.Lines = []string{d.Text}
		}
		p.server.sink().Refuse(d.Address, reply)
	case TryAgain:
		p.check(p.server.tryAgain(p.soon()))
	case AdminHolds:
		for _, to := range d.Addresses {
			p.check(p.server.hold(p.soon(), p.waitQueued(to, "in the queue", func(queued) bool { return true }).id))
			p.waitQueued(to, "on hold", func(q queued) bool { return q.held })
			p.held[to] = true
		}
	default:
		p.waitFor(do)
	}
}

func (p *play) waitFor(do any) {
	p.t.Helper()
	switch d := do.(type) {
	case Arrives:
		for _, to := range d.Addresses {
			p.arrives(to, d.Text)
		}
	case Absent:
		for _, to := range d.Addresses {
			if n := p.got()[to] - p.arrived[to]; n > 0 {
				p.fatalf("%s has got %d mails", to, n)
			}
		}
	case Held:
		for _, to := range d.Addresses {
			p.isHeld(to, d)
		}
	case HeldByOthers:
		for _, to := range d.Addresses {
			p.heldByOthers(to)
		}
	case Deferred:
		for _, to := range d.Addresses {
			p.waitQueued(to, "deferred", func(q queued) bool { return q.tried && !q.held })
		}
	case Gone:
		for _, to := range d.Addresses {
			p.eventually("mail to "+to+" leaves the queue", func() bool { return len(p.queuedTo(to)) == 0 })
			delete(p.held, to)
		}
	case Verdict:
		p.verdict(d)
	default:
		p.fatalf("nobody knows how to play %T", do)
	}
}

func (p *play) setGuard(g Guard) {
	p.t.Helper()
	if p.line == p.c.Steps[0].Line {
		p.check(p.server.guard().StartAfresh(p.soon(), g.Phase, g.Config))
		return
	}
	p.check(p.server.guard().Reload(p.soon(), g.Phase, g.Config))
}

// arrives waits for one more mail to an address.
func (p *play) arrives(to string, text []Pattern) {
	p.t.Helper()
	p.arrived[to]++
	p.eventually("mail to "+to+" arrives", func() bool { return p.got()[to] >= p.arrived[to] })
	delete(p.held, to)
	if len(text) > 0 {
		p.match(text, p.lastTo(to), "the mail")
	}
}

// got counts the mail that each address got in this case.
func (p *play) got() map[string]int {
	p.t.Helper()
	got := map[string]int{}
	for _, mail := range p.server.sink().All() {
		for _, to := range mail.RcptTo {
			got[to]++
		}
	}
	mails, err := p.server.mailbox()
	p.check(err)
	if n := len(mails) - p.inBox; n > 0 {
		got[box] += n
	}
	return got
}

func (p *play) lastTo(to string) string {
	p.t.Helper()
	if to == box {
		mails, err := p.server.mailbox()
		p.check(err)
		return mails[len(mails)-1]
	}
	mails := p.server.sink().To(to)
	return strings.ReplaceAll(string(mails[len(mails)-1].Data), "\r\n", "\n")
}

// nothingElse checks the world at the end: what was told to arrive has, once; what
// was told to be held is, and no queue has anything else.
func (p *play) nothingElse() {
	p.t.Helper()
	var left []queued
	p.eventually("the queues are empty, but for what is held", func() bool {
		left = p.queue()
		return !slices.ContainsFunc(left, func(q queued) bool { return !q.held })
	})
	for _, q := range left {
		if !slices.ContainsFunc(q.to, func(to string) bool { return p.held[to] }) {
			p.fatalf("held beside what the case tells of: %+v", q)
		}
	}
	for to := range p.held {
		if !slices.ContainsFunc(left, func(q queued) bool { return q.isTo(to) }) {
			p.fatalf("mail to %s is no longer held", to)
		}
	}
	if got := p.got(); !maps.Equal(got, p.arrived) {
		p.fatalf("mail arrived for %v, want %v", got, p.arrived)
	}
}

func (p *play) queue() []queued {
	p.t.Helper()
	all, err := p.server.queue(p.soon())
	p.check(err)
	return all
}

func (p *play) queuedTo(address string) []queued {
	p.t.Helper()
	return slices.DeleteFunc(p.queue(), func(q queued) bool { return !q.isTo(address) })
}

func (p *play) waitQueued(to, what string, is func(queued) bool) queued {
	p.t.Helper()
	var found queued
	p.eventually("mail to "+to+" is "+what, func() bool {
		all := p.queuedTo(to)
		i := slices.IndexFunc(all, is)
		if i >= 0 {
			found = all[i]
		}
		return i >= 0
	})
	p.ids[to] = found.id
	return found
}

// match checks a text against patterns.
func (p *play) match(all []Pattern, text, what string) {
	p.t.Helper()
	if missed := p.missed(all, text); missed != "" {
		p.fatalf("%s: %s:\n%s", what, missed, text)
	}
}

// missed says which pattern a text does not satisfy, "" if there is none.
func (p *play) missed(all []Pattern, text string) string {
	for _, pattern := range all {
		if pattern.Only != "" && pattern.Only != p.server.name() {
			continue
		}
		found := regexp.MustCompile("(?m)" + pattern.Expression).MatchString(text)
		if found == pattern.Not {
			return strconv.Quote(pattern.Expression) + map[bool]string{true: " is there", false: " is not there"}[found]
		}
	}
	return ""
}

// patience is how long anything may take on a slow machine.
const patience = 2 * time.Minute

func (p *play) soon() context.Context {
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	p.t.Cleanup(cancel)
	return ctx
}

func (p *play) eventually(what string, is func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.fatalf("waited in vain: %s; the queue: %+v; arrived: %v", what, p.queue(), p.got())
		}
	}
}

func (p *play) check(err error) {
	p.t.Helper()
	if err != nil {
		p.fatalf("%v", err)
	}
}

// fatalf ends the case; the message begins with where it stands.
func (p *play) fatalf(format string, args ...any) {
	p.t.Helper()
	p.t.Fatalf("%s:%d: "+format, append([]any{p.c.Path, p.line}, args...)...)
}

// uidOf is a Unix account's.
func (p *play) uidOf(account string) int {
	p.t.Helper()
	u, err := user.Lookup(account)
	p.check(err)
	uid, err := strconv.Atoi(u.Uid)
	p.check(err)
	return uid
}
