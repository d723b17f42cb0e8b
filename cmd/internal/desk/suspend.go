package desk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"relayguard/cmd/internal/switches"
	"relayguard/incident"
	"relayguard/journal"
	"relayguard/mta"
	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

// Suspension asks for an account's sending to stop.
type Suspension struct {
	Account string        `json:"account"`
	Term    time.Duration `json:"term,omitempty"` // 0: until it is resumed
	Reason  string        `json:"reason"`
}

// Suspended is what a suspension did.
type Suspended struct {
	Switch  policy.Switch `json:"switch"`
	Account string        `json:"account"`
	Held    int           `json:"held"`  // messages that were in the queue
	Local   string        `json:"local"` // how local mail is stopped; "" for others
	Remarks []string      `json:"remarks,omitempty"`
}

// Suspend stops an account's sending at once, and holds what it has in the
// active and deferred queue.
func (d *Desk) Suspend(ctx context.Context, now time.Time, by By, s Suspension) (Suspended, error) {
	subject, value, err := d.Account(s.Account)
	if err != nil {
		return Suspended{}, err
	}
	sw := policy.Switch{Kind: policy.Suspend, Subject: subject, Value: value, Reason: s.Reason, By: by.Name, Since: now}
	if s.Term < 0 {
		return Suspended{}, fmt.Errorf("%w: a term of %v", ErrUsage, s.Term)
	}
	if s.Term != 0 {
		sw.Until = now.Add(s.Term)
	}
	if err := sw.Check(); err != nil {
		return Suspended{}, fmt.Errorf("%w: %w", ErrUsage, err)
	}
	out := Suspended{Account: d.name(&sw)}
	d.append(d.audit(now, by, "suspend", out.Account, s.Reason, until(sw)))
	sw, err = d.Switches.Set(sw)
	out.Switch = sw
	if errors.Is(err, switches.ErrFull) {
		return out, err
	}
	if err != nil { // it is in force all the same
		out.Remarks = append(out.Remarks, err.Error())
	}
	// A probation that an earlier resume began ends with what it was to prevent.
	if _, err := d.Switches.Remove(func(o policy.Switch) bool {
		return o.Kind == policy.Probation && o.Subject == subject && o.Value == sw.Value
	}); err != nil {
		out.Remarks = append(out.Remarks, err.Error())
	}
	switch subject {
	case policy.SubjectLocalUser:
		out.Local, err = d.forbidSubmit(ctx, value)
		if err != nil {
			out.Remarks = append(out.Remarks, "sendmail(1) still takes its mail, which is held instead: "+err.Error())
		}
	case policy.SubjectSite, policy.SubjectPlugin:
		out.Local = "refused by relayguard-sendmail with status 75 where PHP uses it, else held"
	}
	d.tell(now, out.Account, "suspended "+out.Account+" by "+by.Name)
	out.Held, err = d.holdQueued(ctx, now, by, out.Account, "suspended: "+s.Reason)
	if err != nil {
		out.Remarks = append(out.Remarks, "not all of its mail in the queue is held, suspend it once more: "+err.Error())
	}
	if !d.heardOf(ctx, subject, sw.Value) {
		out.Remarks = append(out.Remarks, "nothing is known of "+out.Account+": no mail of it is in the journal, and no site of that name is registered. It is suspended all the same; look at the name, relayguard resume ends it")
	}
	if d.Dropped != nil && d.Dropped() > 0 {
		out.Remarks = append(out.Remarks, "not all accepted mail is in the journal (journal.accepted_per_second); some of its mail may be in the queue yet: relayguard stop holds it")
	}
	return out, nil
}

// heardOf reports whether a site or a plugin is registered, or mail of it is in the
// journal; of others, and where that cannot be told, it is true.
func (d *Desk) heardOf(ctx context.Context, subject policy.Subject, value string) bool {
	q := journal.Query{Site: value, Limit: 1}
	switch subject {
	case policy.SubjectSite:
	case policy.SubjectPlugin:
		q.Plugin, q.Site = value, ""
		if at := strings.LastIndexByte(value, '@'); at >= 0 {
			q.Plugin, q.Site = value[:at], value[at+1:]
		}
		if q.Plugin == policy.Unlabelled { // no mail has that name
			q.Plugin = ""
		}
	default:
		return true
	}
	if registered := d.Registered != nil && d.Registered(q.Site); registered && (q.Plugin == "" || q.Plugin == origin.OwnSoftware) {
		return true
	}
	found, err := d.Journal.Decisions(ctx, q)
	return err != nil || len(found) > 0
}

func until(s policy.Switch) string {
	if s.Until.IsZero() {
		return "until it is resumed"
	}
	return "until " + s.Until.UTC().Format(time.RFC3339)
}

// order says what a switch is about besides its subject, and until when.
func order(s policy.Switch) string {
	var parts []string
	if s.Rule != "" {
		parts = append(parts, s.Rule)
	}
	for _, w := range s.Windows {
		parts = append(parts, fmt.Sprintf("%d/%v", w.Count, w.Length))
	}
	if s.Count > 0 {
		parts = append(parts, fmt.Sprintf("%d recipients", s.Count))
	}
	return strings.Join(append(parts, until(s)), " ")
}

// forbidSubmit makes sendmail(1) refuse a whole account. One that many sites
// share is not refused: its mail is held, site by site where they can be told.
func (d *Desk) forbidSubmit(ctx context.Context, id string) (how string, err error) {
	n, here := d.here(id)
	if !here {
		_, node, _ := strings.Cut(id, "@")
		return "held here; node " + node + " refuses it as soon as it has the order", nil
	}
	name := d.UserName(n)
	switch {
	case d.Shared != nil && d.Shared(n):
		return "held: many sites share this account, so sendmail(1) goes on to take its mail", nil
	case name == "":
		return "held", errors.New("the account has no name that the MTA could refuse")
	}
	err = d.Queue.ForbidSubmit(ctx, name)
	if errors.Is(err, mta.ErrUnsupported) {
		return "refused at the end of each message: this mail server has nothing that keeps sendmail(1) from one account", nil
	}
	if err != nil {
		return "held", err
	}
	return "refused by sendmail(1) with status 75 (authorized_submit_users)", nil
}

// probation is how long a resumed account has half of each limit.
const probation = 7 * 24 * time.Hour

// Resumption asks for an account to send again.
type Resumption struct {
	Account string `json:"account"`
	Cause   string `json:"cause"` // what had been wrong, and is mended
}

// Resumed is what a resumption did.
type Resumed struct {
	Account   string   `json:"account"`
	Was       bool     `json:"was"` // suspended
	Opened    []string `json:"opened,omitempty"`
	Probation string   `json:"probation"`
	Held      int      `json:"held"` // messages of it that are still held
	Note      string   `json:"note,omitempty"`
	Remarks   []string `json:"remarks,omitempty"`
}

// Resume lets an account send again, on probation, and opens what an abuse limit
// shut, also of the sites and plugins that its incidents name. What of its mail is held stays held: an admin looks at it first.
func (d *Desk) Resume(ctx context.Context, now time.Time, by By, r Resumption) (Resumed, error) {
	if kind, _, _ := strings.Cut(r.Account, ":"); slices.Contains(onlyBuckets, kind) {
		return d.resumeBucket(ctx, now, by, r), nil
	}
	subject, value, err := d.Account(r.Account)
	if err != nil {
		return Resumed{}, err
	}
	about := policy.Switch{Kind: policy.Suspend, Subject: subject, Value: value}
	if err := about.Check(); err != nil {
		return Resumed{}, fmt.Errorf("%w: %w", ErrUsage, err)
	}
	out := Resumed{Account: d.name(&about)}
	d.append(d.audit(now, by, "resume", out.Account, r.Cause, ""))
	gone, err := d.Switches.Remove(func(o policy.Switch) bool {
		return o.Kind == policy.Suspend && o.Subject == subject && o.Value == about.Value
	})
	if err != nil {
		out.Remarks = append(out.Remarks, err.Error())
	}
	out.Was = len(gone) > 0
	var more []string
	if d.Shut != nil {
		more = slices.DeleteFunc(d.Shut(out.Account), func(value string) bool { // others send under these, too
			kind, _, _ := strings.Cut(value, ":")
			return slices.Contains(onlyBuckets, kind) && kind != "template" // which is one sender's
		})
	}
	texts, err := d.shutTexts(ctx, now, subject, out.Account)
	if err != nil {
		out.Remarks = append(out.Remarks, "not all texts of it that are shut are known: "+err.Error())
	}
	opened, err := d.openLatched(ctx, now, about.About(), append(more, texts...)...)
	if err != nil {
		out.Remarks = append(out.Remarks, "not all of its limits are open: "+err.Error())
	}
	out.Opened = limitsOf(opened)
	if d.ownNode() != "" {
		out.Remarks = append(out.Remarks, onlyHere)
	}
	if subject == policy.SubjectLocalUser {
		if err := d.allowSubmit(ctx, about.Value); err != nil {
			out.Remarks = append(out.Remarks, "sendmail(1) still refuses its mail: "+err.Error())
		}
	}
	for _, p := range d.onProbation(&about, out.Was, d.shared(out.Account), opened) {
		p.Kind, p.Reason, p.By, p.Since, p.Until = policy.Probation, r.Cause, by.Name, now, now.Add(probation)
		p, err := d.Switches.Set(p)
		if err != nil {
			out.Remarks = append(out.Remarks, err.Error())
		}
		out.Probation = "half of each limit " + until(p)
		if p.Subject != subject {
			out.Probation += ", of the sites alone whose limits were open again"
		}
	}
	out.Note = countsAnew(out.Opened)
	d.forgive(about.About())
	d.tell(now, out.Account, resumedBy(out.Account, by, out.Opened))
	held, err := d.find(ctx, now, Filter{Account: out.Account})
	out.Held = len(held)
	return out, err
}

// onProbation says who is on probation once buckets were opened for an account, a
// site or a plugin. Many share some accounts: those are not, for what one site did.
func (d *Desk) onProbation(about *policy.Switch, was, shared bool, opened []limit.Key) (all []policy.Switch) {
	if at := strings.LastIndexByte(about.Value, '@'); about.Subject == policy.SubjectPlugin && at >= 0 { // of one site, and a switch knows plugins of all
		about = &policy.Switch{Subject: policy.SubjectSite, Value: about.Value[at+1:]}
	}
	itself := policy.Switch{Subject: about.Subject, Value: about.Value}
	if was || len(opened) > 0 && !shared {
		return []policy.Switch{itself}
	}
	for _, key := range opened {
		if policy.HasPart(key.Value, about.About()) {
			return []policy.Switch{itself}
		}
		for part := range strings.SplitSeq(key.Value, " ") {
			site, _ := incident.SiteOf(part)
			if site != "" && !slices.ContainsFunc(all, func(s policy.Switch) bool { return s.Value == site }) {
				all = append(all, policy.Switch{Subject: policy.SubjectSite, Value: site})
			}
		}
	}
	return all
}

// lookBack is how far back it is looked for whose a text is.
const lookBack = 30 * 24 * time.Hour

// shutTexts are the buckets of texts that are shut, and of which mail of an account
// or a site was stopped lately. Each text is one sender's; the bucket does not say
// whose, the journal does.
func (d *Desk) shutTexts(ctx context.Context, now time.Time, of policy.Subject, name string) (buckets []string, err error) {
	all, ok := d.Buckets.(limit.Keeper)
	if !ok || of == policy.SubjectPlugin {
		return nil, nil
	}
	q := journal.Query{Account: name, Since: now.Add(-lookBack), Verdicts: []policy.Verdict{policy.Hold, policy.Defer, policy.Reject}, Limit: 1}
	if of == policy.SubjectSite {
		q.Account, q.Site = "", strings.TrimPrefix(name, "site:")
	}
	var shut []string
	if err := all.Each(ctx, func(e limit.Entry) error {
		if e.State != nil && !e.State.Latched.IsZero() && strings.HasPrefix(e.State.Key.Value, "template:") {
			shut = append(shut, e.State.Key.Value)
		}
		return nil
	}); err != nil || len(shut) == 0 {
		return nil, err
	}
	_ = d.upToDate(ctx) // else the newest are not known, which incidents name
	for _, bucket := range shut {
		q.Template = strings.TrimPrefix(bucket, "template:")
		found, err := d.Journal.Decisions(ctx, q)
		if err != nil {
			return buckets, err
		}
		if len(found) > 0 {
			buckets = append(buckets, bucket)
		}
	}
	return buckets, nil
}

// countsAnew says what became of the counts of buckets that were opened.
func countsAnew(opened []string) string {
	if len(opened) == 0 {
		return ""
	}
	return "from nothing again, under what was shut"
}

// resumedBy is a line of an incident: what may send again.
func resumedBy(what string, by By, opened []string) string {
	text := "resumed " + what + " by " + by.Name
	if len(opened) > 0 {
		text += ": opened " + strings.Join(opened, ", ")
	}
	return text
}

func (d *Desk) tell(now time.Time, account, text string) {
	if d.Tell != nil {
		d.Tell(now, account, text)
	}
}

// onlyBuckets are keys of limits that are nobody's account: an abuse limit can
// shut their buckets, and only a resume opens them.
var onlyBuckets = []string{"machine", "client", "mail_from", "sender_domain", "from_domain", "recipient_domain", "domain", "customer", "template", "server", "key"}

func (d *Desk) resumeBucket(ctx context.Context, now time.Time, by By, r Resumption) Resumed {
	d.append(d.audit(now, by, "resume", r.Account, r.Cause, ""))
	keys, err := d.openLatched(ctx, now, strings.TrimPrefix(r.Account, "key:"))
	opened := limitsOf(keys)
	out := Resumed{Account: r.Account, Opened: opened, Note: countsAnew(opened)}
	d.tell(now, strings.TrimPrefix(r.Account, "key:"), resumedBy(r.Account, by, opened))
	if d.ownNode() != "" {
		out.Remarks = append(out.Remarks, onlyHere)
	}
	if err != nil {
		out.Remarks = append(out.Remarks, "not all of its limits are open: "+err.Error())
	}
	if strings.HasPrefix(r.Account, "template:") {
		held, err := d.find(ctx, now, Filter{Account: r.Account})
		if err != nil {
			out.Remarks = append(out.Remarks, "what of it is held is not known: "+err.Error())
		}
		out.Held = len(held)
	}
	return out
}

// Bucket is the value of the buckets of an account as people write it, or of
// what is nobody's account: "server", "machine:192.0.2.7", "sender_domain:example.jp".
func (d *Desk) Bucket(account string) (string, error) {
	if kind, _, _ := strings.Cut(account, ":"); slices.Contains(onlyBuckets, kind) {
		return strings.TrimPrefix(account, "key:"), nil
	}
	subject, value, err := d.Account(account)
	s := policy.Switch{Subject: subject, Value: value}
	return s.About(), err
}

// openLatched opens every shut bucket of an account, alone or with other parts in
// its key, and those of more values, here and on web nodes. Each counts from
// nothing again: it is full, and what comes first on half of it would shut it at
// once.
func (d *Desk) openLatched(ctx context.Context, now time.Time, value string, more ...string) (opened []limit.Key, err error) {
	of := func(bucket string) bool { return policy.HasPart(bucket, value) || slices.Contains(more, bucket) }
	defer func() {
		gone, failed := d.openForNodes(func(key limit.Key) bool { return of(key.Value) })
		for _, s := range gone {
			if key := (limit.Key{Limit: s.Rule, Value: s.Value}); !slices.Contains(opened, key) {
				opened = append(opened, key)
			}
		}
		err = errors.Join(err, failed)
	}()
	all, ok := d.Buckets.(limit.Keeper)
	if !ok {
		return nil, nil
	}
	var shut []limit.Key
	err = all.Each(ctx, func(e limit.Entry) error {
		if e.State != nil && !e.State.Latched.IsZero() && of(e.State.Key.Value) {
			shut = append(shut, e.State.Key)
		}
		return nil
	})
	for _, key := range shut {
		one := d.Buckets.Resume(ctx, now, key)
		if one == nil {
			one = d.Buckets.Reset(ctx, now, key)
		}
		if one != nil {
			err = errors.Join(err, one)
		} else {
			opened = append(opened, key)
		}
	}
	return opened, err
}

// limitsOf names the limits of buckets, each once.
func limitsOf(keys []limit.Key) (names []string) {
	for _, key := range keys {
		if !slices.Contains(names, key.Limit) {
			names = append(names, key.Limit)
		}
	}
	return names
}

func (d *Desk) allowSubmit(ctx context.Context, id string) error {
	n, here := d.here(id)
	if !here {
		return nil // its node does
	}
	name := d.UserName(n)
	if name == "" {
		return nil // it was never refused
	}
	err := d.Queue.AllowSubmit(ctx, name)
	if errors.Is(err, mta.ErrUnsupported) {
		return nil // nor was it refused
	}
	return err
}

// Expire ends what ended by itself: a suspension's term is over for sendmail(1),
// too. What cannot be carried out now is tried again by a later call, after a pause
// that doubles up to a minute. It also follows mail that got another queue id.
func (d *Desk) Expire(ctx context.Context, now time.Time) {
	d.followRequeued(ctx)
	keep := map[string]bool{} // by id
	for _, s := range d.Switches.Over(now) {
		if s.Kind != policy.Suspend || s.Subject != policy.SubjectLocalUser {
			continue
		}
		if d.pausing(now, s.ID) {
			keep[s.ID] = true
			continue
		}
		err := d.allowSubmit(ctx, s.Value)
		if err == nil && d.suspendedAgain(now, &s) { // meanwhile
			_, err = d.forbidSubmit(ctx, s.Value)
		}
		if err != nil {
			keep[s.ID] = true
			d.pause(now, s.ID)
			d.tellOnce(s.ID, "a suspension is over, and sendmail(1) still refuses the account; it is tried again", "account", d.name(&s), "error", err)
		}
	}
	gone, err := d.Switches.Sweep(now, func(s policy.Switch) bool { return keep[s.ID] })
	if err != nil {
		d.tellOnce("switches", "switches", "error", err)
	} else {
		d.mended("switches")
	}
	for _, s := range gone {
		d.mended(s.ID)
		d.append(d.audit(now, guardItself, "end of "+string(s.Kind), s.About(), s.Reason, ""))
	}
}

// pause is when something is tried again, and how long that is from the last try.
type pause struct {
	until  time.Time
	length time.Duration
}

// Each try makes the root helper start Postfix's tools.
const (
	firstPause   = time.Second
	longestPause = time.Minute
)

func (d *Desk) pause(now time.Time, id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pauses == nil {
		d.pauses = map[string]pause{}
	}
	length := min(max(2*d.pauses[id].length, firstPause), longestPause)
	d.pauses[id] = pause{now.Add(length), length}
}

// pausing reports whether it is not to be tried yet. A clock that was set back
// makes no pause longer.
func (d *Desk) pausing(now time.Time, id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	rest := d.pauses[id].until.Sub(now)
	return rest > 0 && rest <= longestPause
}

// failedBefore reports whether it failed when it was last tried.
func (d *Desk) failedBefore(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pauses[id].length > 0
}

// suspendedAgain reports whether another suspension of the same account is in
// force.
func (d *Desk) suspendedAgain(now time.Time, s *policy.Switch) bool {
	return slices.ContainsFunc(d.Switches.All(now), func(o policy.Switch) bool {
		return o.Kind == policy.Suspend && o.Subject == s.Subject && o.Value == s.Value
	})
}

// mended lets tellOnce tell again, and forgets the pause.
func (d *Desk) mended(about string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.told, about)
	delete(d.pauses, about)
}

// tellOnce logs an error that comes again with every try.
func (d *Desk) tellOnce(about, msg string, attrs ...any) {
	d.mu.Lock()
	known := d.told[about]
	if d.told == nil {
		d.told = map[string]bool{}
	}
	d.told[about] = true
	d.mu.Unlock()
	if !known {
		d.Log.Error(msg, attrs...)
	}
}

// Lift takes back denies and allows.
func (d *Desk) Lift(now time.Time, by By, kind policy.SwitchKind, which string, reason string) ([]policy.Switch, error) {
	match := func(s policy.Switch) bool { return s.Kind == kind && (s.ID == which || s.About() == which) }
	found := slices.DeleteFunc(d.Switches.All(now), func(s policy.Switch) bool { return !match(s) })
	if len(found) == 0 {
		return nil, fmt.Errorf("%w: %s %s", ErrNoSwitch, kind, which)
	}
	d.append(d.audit(now, by, string(kind)+" remove", found[0].About(), reason, order(found[0])))
	if kind == policy.Pause {
		d.tell(now, d.name(&found[0]), "what is held of it may be released by itself again, by "+by.Name)
	}
	defer d.Hurry()
	return d.Switches.Remove(match)
}

// ErrNoSwitch says that there is no such switch.
var ErrNoSwitch = errors.New("there is none such")

// Set puts a switch into force that needs no more than that. A complaint about an
// account is a Pause of it, with what was complained of as the reason: what is
// held may be more of that.
func (d *Desk) Set(now time.Time, by By, s policy.Switch) (policy.Switch, error) {
	s.By, s.Since = by.Name, now
	if s.Subject == policy.SubjectLocalUser {
		id, err := d.LocalID(s.Value)
		if err != nil {
			return s, fmt.Errorf("%w: %w", ErrUsage, err)
		}
		s.Value = id
	}
	if err := s.Check(); err != nil {
		return s, fmt.Errorf("%w: %w", ErrUsage, err)
	}
	d.append(d.audit(now, by, string(s.Kind)+" add", s.About(), s.Reason, order(s)))
	if s.Kind == policy.Pause {
		d.tell(now, d.name(&s), "nothing held of it is released by itself any more, by "+by.Name+": "+s.Reason)
	}
	defer d.Hurry()
	return d.Switches.Set(s)
}
