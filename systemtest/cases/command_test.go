package cases

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"

	"relayguard/systemtest/relay"
)

var idOf = regexp.MustCompile(`\{id ([^{} ]+)\}`)

// command runs one, with {id ADDRESS} for the queue id of the mail to an address.
func (p *play) command(c *Command) {
	p.t.Helper()
	args := slices.Clone(c.Args)
	for i, arg := range args {
		args[i] = p.withIDs(arg)
	}
	wanted := slices.Clone(c.Out)
	for i, pattern := range wanted {
		wanted[i].Expression = p.withIDs(pattern.Expression)
	}
	want, ok := c.Exit[p.server.name()]
	if !ok {
		want = c.Exit[""]
	}
	if args[0] == "sendmail" {
		status, stderr, err := p.server.submit(p.soon(), p.uidOf(c.Account), args[1:], p.stamped(c.Stdin))
		p.check(err)
		if status != want {
			p.fatalf("sendmail as %s: status %d, want %d: %s", c.Account, status, want, stderr)
		}
		p.match(c.Err, stderr, "standard error")
		return
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		r := p.relayguard(args[1:]...)
		missed := p.missed(wanted, r.Stdout)
		if missed == "" {
			missed = p.missed(c.Err, r.Stderr)
		}
		if r.ExitCode == want && missed == "" {
			return
		}
		if !reads(args[1:]) || time.Now().After(deadline) {
			p.fatalf("%s: status %d, want %d; %s\nstdout:\n%sstderr:\n%s", strings.Join(args, " "), r.ExitCode, want, missed, r.Stdout, r.Stderr)
		}
	}
}

// withIDs puts queue ids in, or, of mail that is no longer queued, those it had.
func (p *play) withIDs(text string) string {
	p.t.Helper()
	return idOf.ReplaceAllStringFunc(text, func(s string) string {
		to := idOf.FindStringSubmatch(s)[1]
		if id, known := p.ids[to]; known && len(p.queuedTo(to)) == 0 {
			return id
		}
		return p.waitQueued(to, "in a queue", func(queued) bool { return true }).id
	})
}

// reads tells whether a command changes nothing, so that it may be run until it
// says what is wanted: journal and lists come a moment behind.
func reads(args []string) bool {
	if slices.Contains([]string{"status", "explain", "decisions", "origins", "check", "top"}, args[0]) {
		return true
	}
	return len(args) > 1 && slices.Contains([]string{"held", "queue", "limits", "journal", "deny", "allow", "incident"}, args[0]) &&
		slices.Contains([]string{"list", "show", "summary", "actions"}, args[1])
}

func (p *play) relayguard(args ...string) relay.CommandResult {
	p.t.Helper()
	r, err := p.server.guard().Relayguard(p.soon(), args...)
	p.check(err)
	return r
}

// told is what a command says as JSON.
func told[T any](p *play, args ...string) (answer T) {
	p.t.Helper()
	r := p.relayguard(append(args, "--json")...)
	if r.ExitCode != 0 {
		return answer // nothing is known yet
	}
	if err := json.Unmarshal([]byte(r.Stdout), &answer); err != nil {
		p.fatalf("relayguard %s --json: %v\n%s", strings.Join(args, " "), err, r.Stdout)
	}
	return answer
}

type explained struct {
	Held []heldRow `json:"held"` // the newest first
}

type heldRow struct {
	Account string `json:"account"`
	Rule    string `json:"rule"`
	Reason  string `json:"reason"`
	State   string `json:"state"`
}

type decided struct {
	Stage     string `json:"stage"`
	Verdict   string `json:"verdict"`
	Rule      string `json:"rule"`
	Account   string `json:"account"`
	MessageID string `json:"message_id"`
}

// isHeld waits until the mail to an address is held, and the journal knows why.
func (p *play) isHeld(to string, want Held) {
	p.t.Helper()
	inQueue := p.waitQueued(to, "on hold", func(q queued) bool { return q.held })
	p.held[to] = true
	if p.server.name() == Sendmail && inQueue.reason == "" {
		p.fatalf("the queue has no reason for %+v", inQueue)
	}
	var last heldRow
	defer func() {
		if p.t.Failed() {
			p.t.Logf("the journal's last word on it: %+v", last)
		}
	}()
	p.eventually("the journal has "+inQueue.id+", for "+to+", held by "+want.Rule+" for "+want.Account, func() bool {
		all := told[[]explained](p, "explain", inQueue.id)
		if len(all) > 0 && len(all[0].Held) > 0 {
			last = all[0].Held[0]
		}
		return last.State == "held" && last.Rule == want.Rule && last.Account == want.Account
	})
	p.match(want.Because, last.Reason, "the reason")
}

// heldByOthers waits until the guard lists a held message as none of its own.
func (p *play) heldByOthers(to string) {
	p.t.Helper()
	id := p.waitQueued(to, "on hold", func(q queued) bool { return q.held }).id
	type list struct {
		Held []struct {
			QueueID string `json:"queue_id"`
			HeldBy  string `json:"held_by"`
		} `json:"held"`
	}
	p.eventually("held list has "+id+" as others'", func() bool {
		for _, h := range told[list](p, "held", "list").Held {
			if h.QueueID == id {
				return h.HeldBy == "other"
			}
		}
		return false
	})
}

// verdict waits for the decision on a whole message.
func (p *play) verdict(want Verdict) {
	p.t.Helper()
	var d decided
	p.eventually("there is a verdict on "+want.ID, func() bool {
		for _, d = range told[[]decided](p, "decisions", "--message-id", "<"+want.ID+">") {
			if d.Stage == "message" {
				return true
			}
		}
		return false
	})
	if d.Verdict != want.Verdict || d.Rule != want.Rule || d.Account != want.Account {
		p.fatalf("%s: %s by rule %q for %s, want %s by %q for %s", want.ID, d.Verdict, d.Rule, d.Account, want.Verdict, want.Rule, want.Account)
	}
}
