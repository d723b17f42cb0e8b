package faults_test

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// verify asks for every message, every hold, every refusal and every charge.
func (k *killer) verify() {
	k.t.Helper()
	k.settleHolds()
	k.inQueue = k.inHold(k.t.Context())
	seen, bounced := k.delivered()
	problems := 0
	for _, t := range k.ledger.tickets {
		if t.login == "" && bounced[t.token] {
			continue // no room to hold it: who sent it was told
		}
		if err := k.account(t, seen[t.token]); err != nil {
			if problems++; problems <= 10 {
				k.t.Errorf("%v\n%v\n%s", err, t, k.trace(t))
			}
		}
	}
	if problems > 10 {
		k.t.Errorf("and %d more messages", problems-10)
	}
	k.explainRefusals()
	k.checkCounters()
}

// settleHolds waits until journal and hold queue agree: an entry whose message
// never came to the queue is closed after a minute.
func (k *killer) settleHolds() {
	k.t.Helper()
	poll(k.t, 100*time.Second, "reconcile", func() error {
		all, err := k.listNow(k.t.Context())
		if err != nil {
			return err
		}
		queue, listed := k.inHold(k.t.Context()), map[string]bool{}
		for _, h := range all {
			listed[h.QueueID] = true
			_, there := queue[h.QueueID]
			switch {
			case h.State != "held":
				return fmt.Errorf("an act that was cut off is not completed: %+v; logs:\n%s", h, k.allLogs(h.QueueID, h.ID))
			case !there:
				return fmt.Errorf("an entry without mail: %+v; logs:\n%s", h, k.allLogs(h.QueueID, h.ID))
			}
		}
		for id := range queue {
			if !listed[id] {
				return fmt.Errorf("held and not listed: %s; logs:\n%s", id, k.allLogs(id))
			}
		}
		return nil
	})
	all, err := k.listNow(k.t.Context())
	if err != nil {
		k.t.Fatal(err)
	}
	for _, h := range all {
		if h.HeldBy != "relayguard" || h.Rule == "" || h.Reason == "" || strings.HasPrefix(h.Reason, "lost") {
			k.t.Errorf("a hold without its reason: %+v; logs:\n%s", h, k.allLogs(h.QueueID))
		}
	}
	k.t.Logf("%d messages are held, %d bulk orders were answered", len(all), k.ledger.orders)
}

var xToken = regexp.MustCompile(`X-Token: ([^;]+);`)

// delivered are the arrivals of each token at the sink, for its first recipient,
// oldest first, and those that came back.
func (k *killer) delivered() (seen map[string][]time.Time, bounced map[string]bool) {
	seen, bounced = map[string][]time.Time{}, map[string]bool{}
	for _, m := range k.Sink.All() {
		found := xToken.FindSubmatch(m.Data)
		if found == nil {
			k.t.Errorf("mail at the sink that nobody sent: %q -> %q\n%.500s", m.MailFrom, m.RcptTo, m.Data)
			continue
		}
		token := string(found[1])
		switch {
		case m.MailFrom == "":
			bounced[token] = true
		case slices.Contains(m.RcptTo, token+"-0@example.net"):
			seen[token] = append(seen[token], m.At)
		}
	}
	return seen, bounced
}

// account says what is wrong with where a message is.
func (k *killer) account(t *ticket, arrived []time.Time) error {
	// smtpd(8) refuses what it does not know to be queued: the cleanup(8) that was
	// killed may have queued it.
	unsure := strings.HasPrefix(t.reply, "451 4.3.0") && idOf(t.reply) == "" && k.ledger.kills(t.sent, t.done, "postfix") > 0
	switch {
	case t.outcome == refused && len(arrived) > 0 && !unsure:
		return fmt.Errorf("refused and delivered")
	case len(arrived) > 1:
		return k.duplicate(t, arrived)
	case t.outcome == accepted && len(arrived) == 0:
		return k.find(t)
	}
	return nil
}

// duplicate says whether a second copy can be explained. Postfix's smtp(8) and
// pickup(8) are clients, too: killed before they learnt of the answer to their
// final dot, they send again.
func (k *killer) duplicate(t *ticket, arrived []time.Time) error {
	if t.login == "" { // pickup may have been killed between the queue file and the end of the one in maildrop
		if n := k.ledger.kills(t.sent, arrived[len(arrived)-1], "postfix"); n >= len(arrived)-1 {
			return nil
		}
		return fmt.Errorf("delivered %d times, without so many crashes of Postfix", len(arrived))
	}
	for i, at := range arrived[1:] {
		if k.ledger.kills(arrived[i], at, "postfix") == 0 {
			return fmt.Errorf("delivered at %s and again at %s, and Postfix was not killed between", clock(arrived[i]), clock(at))
		}
	}
	return nil
}

// find says what is wrong with a message that was taken and has not arrived: it
// must be held, or deleted by our own order.
func (k *killer) find(t *ticket) error {
	ctx := k.t.Context()
	all, err := k.decisions(ctx, url.Values{"message_id": {messageID(t.token)}})
	if err != nil {
		return err
	}
	why := "no decision about it"
	for _, d := range all {
		if d.Verdict != "hold" {
			why = fmt.Sprintf("decided %s (%s) and not delivered", d.Verdict, d.ID)
			continue
		}
		told, err := k.explain(ctx, d.ID)
		if err != nil {
			return err
		}
		if len(told) != 1 || len(told[0].Held) == 0 {
			why = fmt.Sprintf("held by %s, of which the journal tells %+v", d.ID, told)
			continue
		}
		h := told[0].Held[0]
		_, there := k.inQueue[h.QueueID]
		switch {
		case h.State == "held" && there:
			return nil
		case h.State == "deleted" && k.ledger.deleted[d.ID]:
			return nil
		case h.State == "gone" && k.ledger.deleted[d.ID]:
			return fmt.Errorf("ordered to be deleted, and the journal says only %+v", h)
		}
		why = fmt.Sprintf("the journal says %+v; in the hold queue: %v; ordered to be deleted: %v", h, there, k.ledger.deleted[d.ID])
	}
	return fmt.Errorf("LOST: taken, not delivered, not held, not deleted: %s", why)
}

// trace is all that is known of a message, for a failure's report.
func (k *killer) trace(t *ticket) string {
	words := []string{t.token + "@", t.token + "-0@", t.queueID}
	all, err := k.decisions(k.t.Context(), url.Values{"message_id": {messageID(t.token)}})
	if err != nil {
		return err.Error()
	}
	for _, d := range all {
		words = append(words, d.QueueID, d.ID)
	}
	var out []string
	for _, o := range k.ledger.outages {
		if !t.done.IsZero() && o.from.After(t.done.Add(20*time.Second)) || o.to.Before(t.sent.Add(-2*time.Second)) {
			continue
		}
		out = append(out, fmt.Sprintf("%s killed %s to %s", o.who, clock(o.from), clock(o.to)))
	}
	return fmt.Sprintf("decisions: %+v\n%s\nlogs:\n%s", all, strings.Join(out, "\n"), k.allLogs(words...))
}

// explainRefusals asks the guard about every id that a client was told. A
// refusal without an id is Postfix's own: one of its parts was dead.
func (k *killer) explainRefusals() {
	k.t.Helper()
	ids, problems := map[string]bool{}, 0
	for _, t := range k.ledger.tickets {
		if t.outcome != refused {
			continue
		}
		id := idOf(t.reply)
		var err error
		switch {
		case id == "" && k.ledger.kills(t.session.Add(-time.Second), t.done, "guard", "postfix") == 0:
			err = fmt.Errorf("refused without an id, and neither the guard nor Postfix was killed during its session")
		case id != "" && !ids[id]:
			ids[id] = true
			err = k.explainRefusal(id, t.reply)
		}
		if err != nil {
			if problems++; problems <= 10 {
				k.t.Errorf("%v: %v\n%s", err, t, k.trace(t))
			}
		}
	}
	k.t.Logf("%d ids of refusals were explained", len(ids))
}

func (k *killer) explainRefusal(id, reply string) error {
	told, err := k.explain(k.t.Context(), id)
	switch {
	case err != nil:
		return err
	case len(told) != 1 || told[0].Decision == nil:
		return fmt.Errorf("a client was told %s, of which the journal knows %+v", id, told)
	}
	d := told[0].Decision
	if d.Rule == "" || d.Reason == "" || !strings.HasPrefix(d.Reply, reply[:3]) {
		return fmt.Errorf("a client was told %q, which the journal explains as %+v", reply, d)
	}
	return nil
}

// What kill -9 may cost of the counters. What changed is written every 50 ms
// (limitstore/sqlite), and told as 100 with the write. The slack is for the time
// that a timer and a write wait for a processor here, where two of them serve the
// guard with the race detector in it, Postfix, and the load.
const (
	chargesWithin = 100 * time.Millisecond
	chargesSlack  = 150 * time.Millisecond
)

// checkCounters compares each reading of the counters with what clients know.
func (k *killer) checkCounters() {
	k.t.Helper()
	k.read(k.t.Context())
	holds := k.heldTokens()
	for _, login := range logins {
		for i := range k.readings {
			low, high := k.bounds(login, &k.readings[i], holds, chargesWithin+chargesSlack)
			if used := k.readings[i].used[login]; used < low || used > high {
				k.t.Errorf("after kill %d, at %s: %d recipients are charged to %s, want %d to %d", i, clock(k.readings[i].from), used, login, low, high)
			}
		}
		k.tellSlack(login, holds)
	}
}

// tellSlack tells how little time would have done.
func (k *killer) tellSlack(login string, holds map[string]bool) {
	for within := time.Duration(0); within <= chargesWithin+chargesSlack; within += 10 * time.Millisecond {
		ok := true
		for i := range k.readings {
			low, _ := k.bounds(login, &k.readings[i], holds, within)
			ok = ok && k.readings[i].used[login] >= low
		}
		if ok {
			low, high := k.bounds(login, &k.readings[len(k.readings)-1], holds, within)
			k.t.Logf("%s: %d charged at the end (%d to %d); nothing is missing but from the last %v before a kill", login, k.readings[len(k.readings)-1].used[login], low, high, within)
			return
		}
	}
}

// bounds are what a bucket may hold: all that clients were told is accepted,
// but for what may have been charged in the last moments before each kill; and
// no more than what came to a final dot and was not held, or went by itself later.
func (k *killer) bounds(login string, r *reading, holds map[string]bool, within time.Duration) (low, high int64) {
	for _, t := range k.ledger.tickets {
		if t.login != login || t.dot.IsZero() {
			continue
		}
		if holds[t.token] {
			if k.paced && t.dot.Before(r.to) { // paid for when it goes, and once more after a crash
				high += 2 * int64(t.rcpts)
			}
			continue
		}
		if t.dot.Before(r.to) {
			high += int64(t.rcpts)
		}
		if t.outcome != accepted || t.done.After(r.from) {
			continue
		}
		lost := false
		for _, o := range k.ledger.outages {
			lost = lost || o.who == "guard" && o.from.Before(r.from) && t.done.After(o.from.Add(-within)) && t.done.Before(o.to)
		}
		if !lost {
			low += int64(t.rcpts)
		}
	}
	return low, high
}

// heldTokens are the messages that the guard decided to hold: they are not
// charged.
func (k *killer) heldTokens() map[string]bool {
	holds := map[string]bool{}
	query := url.Values{"verdict": {"hold"}, "limit": {"1000"}}
	for {
		all, err := k.decisions(k.t.Context(), query)
		if err != nil {
			k.t.Fatal(err)
		}
		if len(all) == 0 {
			return holds
		}
		for _, d := range all {
			token, _, _ := strings.Cut(strings.TrimPrefix(d.MessageID, "<"), "@")
			holds[token] = true
		}
		query.Set("before", all[len(all)-1].ID)
	}
}
