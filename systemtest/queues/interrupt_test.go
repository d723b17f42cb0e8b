package queues_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/smtptest"
	"relayguard/systemtest/relay"
)

// holdTaro is a configuration that holds all mail of a login but its first, and
// lets none of it go by itself.
const holdTaro = "[[limit]]\nname = \"all\"\nper = \"login\"\nwindows = [\"1/1h\"]\n\n[hold]\norigin_messages = 20000\nreconcile_every = \"1m\"\nrelease = false\n"

// stock is mail that waits.
type stock struct {
	*house
	groups []*group
	all    []string // recipients of all groups
}

// group is mail of one sender, all of it held by the guard, or deferred.
type group struct {
	from string
	held bool
	to   []string // one each
}

func (g *group) queue() string {
	if g.held {
		return "hold"
	}
	return "deferred"
}

// TestBulkActsInterruptedOnPostfix breaks bulk acts off in their midst, in every
// way, and does them again.
func TestBulkActsInterruptedOnPostfix(t *testing.T) {
	h := startPostfix(t, racing, relay.Options{Config: holdTaro, Postfix: postfixtest.Options{Main: map[string]string{"service_throttle_time": "1s"}}})
	s := &stock{house: h}
	s.rounds(600, []round{
		{deleteHeld, killCLI}, {deleteHeld, interruptCLI}, {deleteHeld, killDaemon}, {deleteHeld, killHelper}, {deleteHeld, killMTA},
		{deleteLate, killCLI}, {deleteLate, killDaemon}, {deleteLate, killHelper}, {deleteLate, killMTA}, {deleteLate, killManager},
		{requeueLate, killCLI}, {requeueLate, interruptCLI}, {requeueLate, killDaemon}, {requeueLate, killHelper}, {requeueLate, killMTA}, {requeueLate, killManager},
		{releaseHeld, killCLI}, {releaseHeld, interruptCLI}, {releaseHeld, killDaemon}, {releaseHeld, killHelper}, {releaseHeld, killMTA}, {releaseHeld, killManager},
	})
	s.leaves(func() error { _, err := h.postfix.Command(h.soon(), "postqueue", "-f"); return err })
}

// TestBulkActsInterruptedOnSendmail does it there, with less mail: it tries what is
// released at once.
func TestBulkActsInterruptedOnSendmail(t *testing.T) {
	h := startSendmail(t, racing, relay.Options{Config: holdTaro})
	s := &stock{house: h}
	s.rounds(150, []round{
		{deleteHeld, killCLI}, {deleteHeld, killDaemon}, {deleteHeld, killHelper}, {deleteHeld, killMTA},
		{deleteLate, killCLI}, {deleteLate, killHelper}, {deleteLate, killMTA},
		{requeueLate, killCLI}, {requeueLate, killHelper}, {requeueLate, killMTA},
		{releaseHeld, interruptCLI}, {releaseHeld, killDaemon}, {releaseHeld, killHelper}, {releaseHeld, killMTA},
	})
	s.leaves(func() error { return h.smail.RunQueue(h.soon()) })
}

// act is a bulk act. back puts what it did back, so that the next one finds the
// same mail; nil: each time there is other mail for it.
type act struct {
	name string
	args []string // the sender follows
	held bool     // for what is held, else for what is deferred
	to   []string // where it is to be afterwards; nil: anywhere
	back func(*stock, *group)
}

var (
	deleteHeld  = &act{"held delete", []string{"held", "delete", "--yes", "--from"}, true, []string{"grace"}, nil}
	deleteLate  = &act{"queue delete", []string{"queue", "delete", "--queue", "deferred", "--yes", "--from"}, false, []string{"grace"}, nil}
	requeueLate = &act{"queue requeue", []string{"queue", "requeue", "--queue", "deferred", "--yes", "--from"}, false, nil, func(s *stock, g *group) { s.settle("deferred", g.to) }}
	releaseHeld = &act{"held release", []string{"held", "release", "--yes", "--from"}, true, []string{"deferred", "active", "incoming"}, func(s *stock, g *group) {
		s.settle("deferred", g.to)
		s.untilDone("queue", "hold", "--from", g.from, "--yes", "--reason", "once more")
		s.wantAt("hold", g.to)
	}}
)

// strike is how an act is broken off; after makes good what it broke.
type strike struct {
	name  string
	hit   func(s *stock, cli int) error
	after func(s *stock) error
}

var (
	killCLI      = &strike{"kill -9 of the command", func(_ *stock, cli int) error { return syscall.Kill(cli, syscall.SIGKILL) }, nothing}
	interruptCLI = &strike{"^C", func(_ *stock, cli int) error { return syscall.Kill(cli, syscall.SIGINT) }, nothing}
	killDaemon   = &strike{"kill -9 of the daemon", func(s *stock, _ int) error { return s.StopGuard(syscall.SIGKILL) }, func(s *stock) error { return s.StartGuard(s.soon()) }}
	killHelper   = &strike{"kill -9 of the root helper", func(s *stock, _ int) error { return s.StopHelper(syscall.SIGKILL) }, func(s *stock) error { return s.StartHelper(s.soon()) }}
	killMTA      = &strike{"kill -9 of the mail server", killAndRestart, nothing}
	killManager  = &strike{"kill -9 of the queue manager", func(s *stock, _ int) error {
		for _, pid := range s.postfix.Pids() {
			if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil && string(name) == "qmgr\n" {
				return syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		return fmt.Errorf("there is no queue manager")
	}, nothing}
)

func nothing(*stock) error { return nil }

// killAndRestart brings it back at once, in the midst of the act: a postsuper that
// logs to a file waits long for the log service of a dead Postfix, at every line.
func killAndRestart(s *stock, _ int) error {
	if s.postfix != nil {
		return errors.Join(s.postfix.KillMaster(), s.postfix.Restart(s.soon()))
	}
	return errors.Join(s.smail.Kill(syscall.SIGKILL), s.smail.StartAgain(s.soon()))
}

type round struct {
	act    *act
	strike *strike
}

// rounds breaks acts off, one after another. What deletes has mail of its own each
// time, and the last of it is brought back.
func (s *stock) rounds(n int, all []round) {
	s.t.Helper()
	same, of := map[*act]*group{}, make([]*group, len(all))
	for i, r := range all {
		if of[i] = same[r.act]; of[i] == nil {
			of[i] = s.group(n, r.act.held)
		}
		if r.act.back != nil {
			same[r.act] = of[i]
		}
	}
	s.fill()
	for i, r := range all {
		if !s.t.Run(r.act.name+"/"+r.strike.name, func(t *testing.T) {
			old := s.t
			s.house.t = t
			defer func() { s.house.t = old }()
			s.round(r, of[i])
			if r.act.back != nil {
				r.act.back(s, of[i])
			} else if i+1 == len(all) || all[i+1].act != r.act {
				s.undelete(of[i])
			}
			s.exactly(nil, s.all)
		}) {
			s.t.FailNow()
		}
	}
}

func (s *stock) group(n int, held bool) *group {
	g := &group{from: fmt.Sprintf("sender%d@example.jp", len(s.groups)), held: held}
	for i := range n {
		g.to = append(g.to, fmt.Sprintf("t-%s-%d@example.net", g.queue(), len(s.groups)*100_000+i))
	}
	s.groups, s.all = append(s.groups, g), append(s.all, g.to...)
	return g
}

func (s *stock) round(r round, g *group) {
	t, args := s.t, append(slices.Clone(r.act.args), g.from)
	queue := g.queue()
	before := s.filesOf(queue, g)
	cli, wait := s.start(append(args, "--reason", "a test")...)
	for len(s.changed(queue, before)) == 0 && alive(cli.Process.Pid) {
		time.Sleep(time.Millisecond)
	}
	if err := r.strike.hit(s, cli.Process.Pid); err != nil {
		t.Error(err)
	}
	said := wait()
	left := len(before) - len(s.changed(queue, before))
	began := time.Now()
	s.none(g.to)
	s.must(r.strike.after(s))
	if r.strike == interruptCLI && said.code != 0 && (said.code != 1 || !strings.Contains(said.stderr, "ended early")) {
		t.Errorf("interrupted it ends with %d:\n%s%s", said.code, said.stdout, said.stderr)
	}
	s.untilDone(append(args, "--reason", "again")...)
	s.settle(queue, nil)
	s.exactly(r.act, g.to)
	t.Logf("broken off after %v (status %d) with %d of %d left; whole again %v later", said.took.Round(time.Millisecond), said.code, left, len(before), time.Since(began).Round(time.Millisecond))
}

func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// filesOf are the group's files in a queue, changed those that have left it, or are
// others under the same name: so Sendmail changes them.
func (s *stock) filesOf(queue string, g *group) map[string]uint64 {
	all := map[string]uint64{}
	for _, f := range s.files(queue) {
		if slices.Contains(g.to, tokenOf(f.path)) {
			all[f.id] = f.inode
		}
	}
	return all
}

func (s *stock) changed(queue string, before map[string]uint64) (gone []string) {
	now := map[string]uint64{}
	for _, f := range s.files(queue) {
		now[f.id] = f.inode
	}
	for id, inode := range before {
		if now[id] != inode {
			gone = append(gone, id)
		}
	}
	return gone
}

// none checks that nothing is lost. A message that moves while the queue is read
// may be missed, but not time and again.
func (s *stock) none(want []string) {
	s.t.Helper()
	unseen := slices.Clone(want)
	s.eventually("each message is somewhere", func() string {
		places := s.ledger()
		unseen = slices.DeleteFunc(unseen, func(name string) bool { return len(places[name]) > 0 })
		if len(unseen) > 0 {
			return fmt.Sprintf("%d are nowhere: %q", len(unseen), few(unseen))
		}
		return ""
	})
}

// few is the first of many.
func few(all []string) []string { return all[:min(len(all), 5)] }

// untilDone gives an order again until it is done to the end, as an admin would.
func (s *stock) untilDone(args ...string) {
	s.t.Helper()
	var last said
	for range 8 {
		if last = s.command(args...); last.code == 0 {
			return
		}
		time.Sleep(300 * time.Millisecond) // what is under way now is not then
	}
	s.t.Fatalf("relayguard %s: status %d\n%.2000s%.2000s", strings.Join(args, " "), last.code, last.stdout, last.stderr)
}

// settle waits until nothing moves any more; of some messages, until they are in
// that queue.
func (s *stock) settle(queue string, want []string) {
	s.t.Helper()
	s.eventually("the queue comes to rest", func() string {
		by, wrong := sum(s.ledger(), want)
		if len(wrong) > 0 || by[queue] != len(want) {
			return fmt.Sprintf("%v %q", by, few(wrong))
		}
		for _, moving := range []string{"maildrop", "incoming", "active"} {
			if n := len(s.files(moving)); n > 0 {
				return fmt.Sprint(n, " in ", moving)
			}
		}
		return ""
	})
}

// exactly checks that each message is in one place once, and after an act in
// that where it is to be: what was cut off with the helper is ended by the next
// look at the queue.
func (s *stock) exactly(a *act, want []string) {
	s.t.Helper()
	s.eventually("each message is there once", func() string {
		by, wrong := sum(s.ledger(), want)
		if len(wrong) > 0 {
			return fmt.Sprintf("%d are not: %q", len(wrong), few(wrong))
		}
		if a == nil || a.to == nil {
			return ""
		}
		for place, n := range by {
			if !slices.Contains(a.to, place) {
				s.order(0, "held", "list", "--limit", "1") // it looks
				return fmt.Sprintf("%d of %d are in %s, want them in %v", n, len(want), place, a.to)
			}
		}
		return ""
	})
}

func (s *stock) wantAt(place string, want []string) {
	s.t.Helper()
	if by, wrong := sum(s.ledger(), want); len(wrong) > 0 || by[place] != len(want) {
		s.t.Fatalf("%v %q, want %d in %s", by, few(wrong), len(want), place)
	}
}

// undelete brings back what was deleted of a group, and puts nothing else back.
func (s *stock) undelete(g *group) {
	s.t.Helper()
	type copied struct {
		QueueID  string `json:"queue_id"`
		MailFrom string `json:"mail_from"`
	}
	args := []string{"held", "undelete", "--reason", "that was wrong"}
	for _, c := range ask[[]copied](s.house, 0, "held", "deleted") {
		if c.MailFrom == g.from {
			args = append(args, c.QueueID)
		}
	}
	began := time.Now()
	s.order(0, args...)
	s.wantAt("hold", g.to)
	s.t.Logf("%d brought back in %v", len(g.to), time.Since(began).Round(time.Millisecond))
}

// leaves lets everything go while the mail server is killed once more: each message
// arrives, but for what was deleted. One that was in delivery just then may come
// twice: who delivered it was killed before he heard the answer.
func (s *stock) leaves(run func() error) {
	s.t.Helper()
	for _, to := range s.all {
		s.sink.Refuse(to, smtptest.Reply{})
	}
	_, wait := s.start("held", "release", "--all", "--yes")
	before := len(s.sink.All())
	s.eventually("some are sent", func() string {
		if len(s.sink.All()) < before+10 {
			return "not yet"
		}
		return ""
	})
	s.must(killAndRestart(s, 0))
	wait()
	s.untilDone("held", "release", "--all", "--yes")
	twice, most := 0, 50 // deliveries at a time
	s.eventually("all is sent", func() string {
		s.must(run())
		var left []string
		places := s.ledger()
		twice = 0
		for _, to := range s.all {
			sent := len(slices.DeleteFunc(slices.Clone(places[to]), func(place string) bool { return place != "sent" }))
			if sent > 1 {
				twice++
			}
			if sent == 0 && (len(places[to]) != 1 || places[to][0] != "grace") || sent > 0 && sent != len(places[to]) {
				left = append(left, fmt.Sprintf("%s is at %q", to, places[to]))
			}
		}
		if len(left) > 0 {
			return fmt.Sprintf("%d are not: %q", len(left), few(left))
		}
		return ""
	})
	s.t.Logf("%d were in delivery when the mail server was killed, and came twice", twice)
	if twice > most {
		s.t.Errorf("%d came twice, want at most %d", twice, most)
	}
}

// fill sends the mail of all groups.
func (s *stock) fill() {
	s.t.Helper()
	for _, to := range s.all { // what goes out comes back to the queue
		s.sink.Refuse(to, smtptest.Reply{Code: 451, Lines: []string{"4.2.0 later"}})
	}
	first, err := s.login()
	s.must(err)
	reply, err := send(first, taro, "first@example.net", "Subject: first\n\nthe budget\n")
	if err != nil || reply.Code != 250 {
		s.t.Fatalf("first: %v, %v", reply, err)
	}
	began := time.Now()
	var work sync.WaitGroup
	next := make(chan *group)
	for range 4 {
		work.Go(func() {
			for g := range next {
				open := s.login
				if !g.held {
					open = func() (*smtptest.Client, error) { return s.dial(0, relay.Relaying) }
				}
				s.sendAll(open, g)
			}
		})
	}
	want := map[string]int{}
	for _, g := range s.groups {
		next <- g
		want[g.queue()] += len(g.to)
	}
	close(next)
	work.Wait()
	s.eventually("the stock is there", func() string {
		by, wrong := sum(s.ledger(), s.all)
		if by["hold"] != want["hold"] || by["deferred"] != want["deferred"] {
			return fmt.Sprintf("%v, want %v; %q", by, want, few(wrong))
		}
		return ""
	})
	s.t.Logf("%v in %v", want, time.Since(began).Round(time.Second))
}

// sendAll sends the mail of a group.
func (h *house) sendAll(open func() (*smtptest.Client, error), g *group) {
	c, err := open()
	if err != nil {
		h.t.Error(err)
		return
	}
	defer c.Close()
	for _, to := range g.to {
		reply, err := send(c, g.from, to, fmt.Sprintf("From: %s\nTo: %s\nSubject: Minutes\nMessage-ID: <%s>\n\nHello\n", g.from, to, to))
		if err != nil || reply.Code != 250 {
			h.t.Errorf("%s: %v, %v", to, reply, err)
			return
		}
	}
}

// TestHelperKilledInQueueDelete kills the root helper in the midst of a delete. What
// that left is brought to its end as soon as there is a helper again, though nobody
// asks, and the next look at the queue is far away.
func TestHelperKilledInQueueDelete(t *testing.T) {
	const looks = 50 * time.Minute
	settings := strings.Replace(holdTaro, "\"1m\"", fmt.Sprintf("%q", looks), 1)
	for _, server := range []struct {
		name  string
		start func(*testing.T, func(*testing.T) string, relay.Options) *house
	}{{"Postfix", startPostfix}, {"Sendmail", startSendmail}} {
		t.Run(server.name, func(t *testing.T) {
			s := &stock{house: server.start(t, racing, relay.Options{Config: settings})}
			const rounds = 3 // the helper dies at other places
			for range rounds {
				s.group(150, false)
			}
			s.fill()
			cut := 0
			for _, g := range s.groups {
				if s.killedInDelete(g) {
					cut++
				}
			}
			if s.exactly(nil, s.all); cut == 0 {
				t.Error("each time all was deleted before the helper died: nothing is shown")
			}
		})
	}
}

func (s *stock) killedInDelete(g *group) (cut bool) {
	t := s.t
	before := s.filesOf(g.queue(), g)
	cli, wait := s.start("queue", "delete", "--queue", "deferred", "--yes", "--from", g.from, "--reason", "a test")
	for len(s.changed(g.queue(), before)) == 0 && alive(cli.Process.Pid) {
		time.Sleep(time.Millisecond)
	}
	s.must(s.StopHelper(syscall.SIGKILL))
	wait()
	by, _ := sum(s.ledger(), g.to)
	t.Logf("killed with %v", by)
	s.must(s.StartHelper(s.soon()))
	began := time.Now()
	s.eventually("all is deleted, and there is a copy of each", func() string {
		if by, wrong := sum(s.ledger(), g.to); by["grace"] != len(g.to) {
			return fmt.Sprintf("%v, %d elsewhere: %q", by, len(wrong), few(wrong))
		}
		return ""
	})
	t.Logf("settled %v after there was a helper again", time.Since(began).Round(time.Millisecond))
	return by["grace"] < len(g.to)
}
