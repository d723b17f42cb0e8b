package evidence

import (
	"slices"
	"strings"
	"time"

	"relayguard/forward"
	"relayguard/mta/maillog"
)

// explain looks for what sent r outside, and makes a row if that is known: that it
// was addressed inside, or by which rule it went.
func (t *Tracker) explain(f *flight, r *rcpt) {
	rules := t.rules()
	if rules == nil || r.Inside {
		return
	}
	if f.RowsOf != "" {
		t.follow(f, r)
		if r.Orig == "" || slices.ContainsFunc(f.Origs, func(o string) bool { return key(o) == key(r.Orig) }) {
			return
		}
	}
	if t.ofScript(f, r) {
		return
	}
	how, sure, orig, ids := t.why(f, r, rules)
	if sure == 0 && t.origin(f, r, rules) {
		how, sure, orig, ids = t.why(f, r, rules)
	}
	// A message that only looks like one that came in is a row at once if a rule
	// fits, else when it is settled.
	if r.Program && len(ids) == 0 {
		return
	}
	if sure == 0 || how == ByResubmitted && len(ids) == 0 {
		if !r.Told {
			t.unsettled[f] = true
		}
		return
	}
	t.tell(f, r, how, sure, orig, ids)
}

// why says how it is known that r went outside by a rule, and by which. sure is 0:
// it is not.
func (t *Tracker) why(f *flight, r *rcpt, rules Rules) (how How, sure Sure, orig string, ids []string) {
	if r.Orig != "" && (rules.Inside(r.Orig) || len(t.match(rules, []string{r.Orig}, r.To)) > 0) {
		how, sure, orig = ByOrigTo, Certain, r.Orig
		if f.How == ByCopy {
			how = ByCopy
		}
		ids = t.match(rules, append([]string{r.Orig}, f.Origs...), r.To)
		if len(ids) == 0 && slices.Contains(f.Added, r.Key) { // REDIRECT keeps the address as orig_to
			how, ids, sure = t.byAction(r, rules)
		}
		return how, sure, orig, ids
	}
	if len(f.Origs) > 0 && f.How != "" && r.Orig == "" {
		how, sure = f.How, f.Sure
		if r.Session == string(ByNotice) {
			how = ByNotice
		}
		return how, sure, f.Origs[0], t.match(rules, f.Origs, r.To)
	}
	if slices.Contains(f.Added, r.Key) {
		how, ids, sure = t.byAction(r, rules)
		return how, sure, t.single(f), ids
	}
	return t.grown(f, r, rules)
}

// match are the findings that explain mail to any of origs leaving to rcpt.
func (t *Tracker) match(rules Rules, origs []string, rcpt string) (ids []string) {
	for _, o := range origs {
		if o == "" {
			continue
		}
		if id, ok := rules.Match(o, rcpt); ok && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// byAction names the rules behind a redirect: or bcc: line by their target.
func (t *Tracker) byAction(r *rcpt, rules Rules) (How, []string, Sure) {
	ids := rules.ByTarget(r.To)
	if finder, ok := rules.(Finder); ok {
		ids = slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
			f, ok := finder.Find(id)
			return ok && f.Mechanism != forward.Access && f.Mechanism != forward.Checks
		})
	}
	if len(ids) > 1 {
		return ByAction, ids, Possible // which of them, the line does not say
	}
	return ByAction, ids, Certain
}

// single is the only inside recipient of a message; empty: there are several, or it is
// not known.
func (t *Tracker) single(f *flight) (orig string) {
	for i := range f.Rcpts {
		if r := &f.Rcpts[i]; r.Inside {
			if orig != "" && key(orig) != r.Key {
				return ""
			}
			orig = r.To
		}
	}
	return orig
}

// grown tells whether the MTA added a recipient, as BCC maps do: nothing in the log
// says so, but a milter knows who was named, a stranger may name nobody outside, and
// the others of the message may have a rule with that target.
func (t *Tracker) grown(f *flight, r *rcpt, rules Rules) (how How, sure Sure, orig string, ids []string) {
	named := slices.Index(f.Envelope, r.Key)
	if named >= 0 {
		if orcpt := f.ORCPT[named]; orcpt != "" && key(orcpt) != r.Key && rules.Inside(orcpt) {
			// Whoever sent it may have chosen the parameter.
			if ids := t.match(rules, []string{orcpt}, r.To); len(ids) > 0 {
				return ByORCPT, Possible, orcpt, ids
			}
		}
		return "", 0, "", nil
	}
	others := slices.Clone(f.Envelope)
	for i := range f.Rcpts {
		if o := &f.Rcpts[i]; o.Inside {
			others = append(others, o.To, o.Orig)
		}
	}
	added := f.Envelope != nil // and r is not in it
	for i, o := range others {
		for _, id := range t.match(rules, []string{o}, r.To) {
			if !t.isBCC(id, rules) && !(added && i < len(f.Envelope)) || slices.Contains(ids, id) {
				continue
			}
			if ids = append(ids, id); orig == "" {
				orig = o
			}
		}
	}
	if bySender := t.senderBCC(f, r, rules); len(ids) == 0 && len(bySender) > 0 {
		ids, orig = bySender, f.MailFrom
	}
	if finder, ok := rules.(Finder); ok && len(ids) == 0 {
		for _, id := range rules.ByTarget(r.To) {
			if found, ok := finder.Find(id); ok && found.Mechanism == forward.AlwaysBCC {
				ids = append(ids, id)
			}
		}
	}
	switch {
	case len(ids) > 0 && added:
		return ByGrowth, Certain, orig, ids
	case len(ids) > 0 && f.Stranger:
		return ByGrowth, Likely, orig, ids
	case len(ids) > 0:
		return ByGrowth, Possible, orig, ids
	}
	return "", 0, "", nil
}

// isBCC reports whether a finding is of a rule that adds recipients to what
// somebody gets.
func (t *Tracker) isBCC(id string, rules Rules) bool {
	finder, ok := rules.(Finder)
	if !ok {
		return false // an alias with the same target would look the same
	}
	f, ok := finder.Find(id)
	if !ok {
		return false
	}
	switch f.Mechanism {
	case forward.BCC:
		return !f.Sender
	case forward.AlwaysBCC, forward.Access, forward.Checks:
		return true
	}
	return false
}

// senderBCC are the rules that send a copy of what the sender sends to r. Match
// knows only of those that go by who gets the mail.
func (t *Tracker) senderBCC(f *flight, r *rcpt, rules Rules) (ids []string) {
	finder, ok := rules.(Finder)
	if !ok || f.MailFrom == "" {
		return nil
	}
	from := strings.ToLower(f.MailFrom)
	local, domain, _ := strings.Cut(from, "@")
	for _, id := range rules.ByTarget(r.To) {
		found, ok := finder.Find(id)
		if !ok || found.Mechanism != forward.BCC || !found.Sender {
			continue
		}
		if o := found.Owner; o == from || o == "@"+domain || o == forward.Everybody || o == local && rules.Inside(from) {
			ids = append(ids, id)
		}
	}
	return ids
}

// settle makes rows of what no rule explains and nobody will explain any more.
func (t *Tracker) settle(f *flight) {
	delete(t.unsettled, f)
	rules := t.rules()
	if rules == nil || f.RowsOf != "" {
		return
	}
	for i := range f.Rcpts {
		r := &f.Rcpts[i]
		if r.Inside || r.Told || r.Program {
			continue
		}
		how, sure, orig, ids := t.why(f, r, rules)
		switch {
		case sure != 0:
		case f.From == fromClient && f.Envelope != nil && !slices.Contains(f.Envelope, r.Key):
			how, sure, orig = ByGrowth, Certain, t.single(f)
		case f.Stranger:
			how, sure, orig = ByGrowth, Likely, t.single(f)
		default:
			continue // sent outside by who may
		}
		t.tell(f, r, how, sure, orig, ids)
	}
}

// again looks at all that left of f once more: something new is known of it.
func (t *Tracker) again(f *flight) {
	for i := range f.Rcpts {
		t.explain(f, &f.Rcpts[i])
	}
}

// tell writes a row.
func (t *Tracker) tell(f *flight, r *rcpt, how How, sure Sure, orig string, ids []string) {
	r.Told = true
	w := row{flight: f.Key, rcpt: r.Key, orig: addressKey(orig), queueID: f.ID, rootID: f.root(), messageID: f.MessageID,
		time: timeOf(r.Time), mailFrom: addressKey(f.sender()), status: r.Status, dsn: r.DSN, relay: r.Relay, depth: f.Depth,
		how: how, sure: sure, rules: ids}
	if f.Script {
		w.queueID = ""
	}
	if rules := t.rules(); rules != nil && w.mailFrom != "" {
		w.outside = !rules.Inside(f.sender())
	}
	t.batch.rows = append(t.batch.rows, w)
	t.dirty[f] = true
}

// handed makes a row of a message that a script gave to a program, if a rule names
// that.
func (t *Tracker) handed(s *flight, command string, at time.Time) {
	r := s.recipient("|"+command, "")
	if r == nil {
		return
	}
	r.Program, r.Status, r.Time = true, Handed, at.UnixMicro()
	t.explain(s, r)
}

// program does the same for local(8) and pipe(8).
func (t *Tracker) program(f *flight, r *rcpt, e *maillog.Event) {
	if e.Command == "" {
		return
	}
	rules := t.rules()
	ids := t.match(rules, append([]string{r.Orig, r.To}, f.Origs...), "|"+e.Command)
	if len(ids) == 0 {
		return
	}
	orig := r.Orig
	if orig == "" {
		orig = r.To
	}
	p := rcpt{To: "|" + clip(e.Command), Key: "|" + clip(e.Command), Status: Handed, Relay: r.Relay, Time: r.Time}
	t.tell(f, &p, ByProgram, Certain, orig, ids)
}

// maxRelays bounds the next hops of one batch.
const maxRelays = 10_000

// wire learns by which next hop mail for an inside address went.
func (t *Tracker) wire(f *flight, r *rcpt, e *maillog.Event) {
	if e.Relay == "none" || e.Relay == "" || e.Status != maillog.Sent {
		return
	}
	switch e.Program {
	case "smtp", "lmtp", "pipe":
	default:
		return
	}
	k := relayKey{e.Service + "/" + e.Program, clip(relayName(e.Relay))}
	hop := t.batch.relays[k]
	if hop == nil && len(t.batch.relays) >= maxRelays {
		return
	}
	if hop == nil {
		hop = &Relay{First: e.Time}
		t.batch.relays[k] = hop
	}
	hop.Last = e.Time
	hop.Mails += max(e.Count, 1)
	rules := t.rules()
	if wire, ok := rules.(Wire); ok {
		if id, target, ok := wire.OnWire(r.To, e.Relay); ok {
			p := *r
			if p.To, p.Key = target, clip(key(target)); strings.HasPrefix(target, "|") {
				p.To, p.Key, p.Status = clip(target), clip(target), Handed
				t.tell(f, &p, ByProgram, Certain, r.To, []string{id})
			} else {
				t.tell(f, &p, ByRelay, Likely, r.To, []string{id})
			}
		}
	}
	if f.Filter != "" {
		if ids := rules.ByTarget(f.Filter); len(ids) > 0 {
			t.tell(f, r, ByAction, Certain, r.To, ids)
		}
	}
}
