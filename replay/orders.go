package replay

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
)

// orders are what admins said, as the trace tells, and what they may end: shut
// buckets.
type orders struct {
	all        map[ordered]policy.Switch
	changed    bool                          // since the board has them
	complained map[string]bool               // accounts
	shut       map[string]map[limit.Key]bool // by each name that opens them
}

// ordered finds an order.
type ordered struct {
	kind  policy.SwitchKind
	about string
}

// probation is how long who was resumed has half of each limit.
const probation = 7 * 24 * time.Hour

// maxOrders bounds the orders in force.
const maxOrders = 10_000

func newOrders() orders {
	return orders{all: map[ordered]policy.Switch{}, complained: map[string]bool{}, shut: map[string]map[limit.Key]bool{}}
}

// note remembers which buckets a decision has found shut, or has shut.
func (o *orders) note(d *policy.Decision) {
	for i := range d.Counters {
		c := &d.Counters[i]
		if c.Soft || !c.Latched && (!c.Over || c.Kind != limit.Abuse.String()) {
			continue
		}
		key := limit.Key{Limit: c.Limit, Value: c.Key}
		for _, name := range openedBy(c.Key, d.Origin.Stable()) {
			if o.shut[name] == nil {
				o.shut[name] = map[limit.Key]bool{}
			}
			o.shut[name][key] = true
		}
	}
}

// openedBy are the names by which a resume opens a bucket that mail of an account
// has found shut: its value, each part of it, plugin and site of NAME@SITE, and the
// account, unless others send under that bucket, too.
func openedBy(value, account string) []string {
	parts := strings.Split(value, " ")
	all := append(slices.Clone(parts), value)
	for _, part := range parts {
		if at := strings.LastIndexByte(part, '@'); at >= 0 && strings.HasPrefix(part, "plugin:") {
			all = append(all, part[:at], "site:"+part[at+1:])
		}
	}
	if kind, _, _ := strings.Cut(value, ":"); subjects[kind] != "" {
		all = append(all, account)
	}
	return all
}

// subjects are what orders of a trace are about.
var subjects = map[string]policy.Subject{"login": policy.SubjectLogin, "local_user": policy.SubjectLocalUser, "network": policy.SubjectTrusted, "site": policy.SubjectSite, "plugin": policy.SubjectPlugin}

// order makes a switch of an event.
func (r *run) order(kind policy.SwitchKind, name string) (policy.Switch, error) {
	of, value, _ := strings.Cut(name, ":")
	s := policy.Switch{ID: string(kind) + " " + name, Kind: kind, Subject: subjects[of], Value: value, Reason: "the trace says so", By: "replay", Since: r.now}
	switch s.Subject {
	case "":
		return s, &FormatError{0, fmt.Errorf("found origin %q, want %s", name, originForm)}
	case policy.SubjectLocalUser:
		s.Value = strconv.Itoa(r.Accounts.Find(value))
	}
	if err := s.Check(); err != nil {
		return s, &FormatError{0, err}
	}
	return s, nil
}

// use puts an order into force, and ends those of a kind about the same.
func (r *run) use(s policy.Switch, ends policy.SwitchKind) error {
	all := r.orders.all
	delete(all, ordered{ends, s.About()})
	all[ordered{s.Kind, s.About()}] = s
	r.orders.changed = true
	if len(all) <= maxOrders {
		return nil
	}
	maps.DeleteFunc(all, func(_ ordered, s policy.Switch) bool { return s.Over(r.now) })
	if len(all) > maxOrders {
		return &FormatError{0, fmt.Errorf("more than %d suspensions are in force", maxOrders)}
	}
	return nil
}

// settle puts the orders on the board, once for all that came together.
func (r *run) settle() {
	if !r.orders.changed {
		return
	}
	r.orders.changed = false
	maps.DeleteFunc(r.orders.all, func(_ ordered, s policy.Switch) bool { return s.Over(r.now) })
	r.Board.Store(policy.NewSwitches(slices.Collect(maps.Values(r.orders.all))))
}

// suspend stops an origin's sending.
func (r *run) suspend(e *Event) error {
	s, err := r.order(policy.Suspend, e.Origin)
	if err != nil {
		return err
	}
	return r.use(s, policy.Probation)
}

// complaint ends the paced release of an account, until it is resumed or its mail
// released. About a message that would have been stopped nobody complains.
func (r *run) complaint(e *Event) error {
	name := "login:" + strings.ToLower(e.Login)
	if s := r.sent.of(e.ID); s != nil {
		if !s.through {
			return nil
		}
		name = s.origin.Stable()
	} else if e.Login == "" {
		return nil
	}
	if r.orders.complained[name] = true; len(r.orders.complained) > maxWhose {
		return &FormatError{0, fmt.Errorf("complaints of more than %d accounts", maxWhose)}
	}
	return nil
}

// resume lets an origin send again, on probation, and opens what is shut of it.
// Its mail that waits for budget goes on.
func (r *run) resume(ctx context.Context, e *Event) error {
	about, opened := e.Origin, false
	s, unknown := r.order(policy.Probation, e.Origin)
	if unknown == nil {
		about = s.About()
	}
	for _, part := range []string{about, strings.ReplaceAll(about, " ", "%20")} {
		for key := range r.orders.shut[part] {
			opened = true
			err := r.Buckets.Resume(ctx, r.now, key)
			if err == nil { // it counts from nothing again, as where a desk opens it
				err = r.Buckets.Reset(ctx, r.now, key)
			}
			if err != nil {
				return err
			}
		}
		delete(r.orders.shut, part)
	}
	if unknown != nil { // no account's: a machine, a sender's domain
		return nil
	}
	delete(r.orders.complained, about)
	if _, suspended := r.orders.all[ordered{policy.Suspend, about}]; suspended || opened {
		s.Until = r.now.Add(probation)
		if at := strings.LastIndexByte(s.Value, '@'); s.Subject == policy.SubjectPlugin && at >= 0 { // of one site, and a switch knows plugins of all
			s.Subject, s.Value = policy.SubjectSite, s.Value[at+1:]
		}
		if err := r.use(s, policy.Suspend); err != nil {
			return err
		}
	}
	r.bounces.forgive(func(k policy.LineKey) bool { return k.Account == about || policy.HasPart(k.Bucket.Value, about) })
	for _, h := range r.heldOf(about) {
		if r.held.waiting[h.id] != nil {
			r.Lines.Later(h.id, h.id, r.now)
			r.heads(h.waits.Lines())
		}
	}
	return nil
}

// release lets an origin's held mail go by an admin's word, uncharged. In the
// score it stays held. What its sender is complained of is settled.
func (r *run) release(e *Event) {
	about := e.Origin
	if s, err := r.order(policy.Suspend, e.Origin); err == nil { // else it is nobody's account
		about = s.About()
	}
	delete(r.orders.complained, about)
	for _, h := range r.heldOf(about) {
		if r.held.waiting[h.id] != nil {
			r.leave(h, policy.Hold)
			r.heads(h.waits.Lines())
		}
		r.judge.passed[h.whose] += h.recipients
		h.sent.through = true
		r.free(h)
	}
}

// heldOf is an origin's held mail, the oldest first.
func (r *run) heldOf(about string) []*held {
	all := make([]*held, 0, len(r.held.of[about]))
	for _, h := range r.held.of[about] {
		all = append(all, h)
	}
	slices.SortFunc(all, func(a, b *held) int { return cmp.Compare(a.id, b.id) })
	return all
}
