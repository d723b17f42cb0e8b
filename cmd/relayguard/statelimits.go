package main

import (
	"context"
	"path/filepath"
	"strings"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/share"
	"relayguard/cmd/internal/trail"
	"relayguard/policy"
	"relayguard/policy/address"
	"relayguard/policy/limit"
)

// openLimits opens what limits stand on.
func (s *state) openLimits(ctx context.Context, c *config.Config) error {
	var err error
	if s.budgets, err = openStore(ctx, c, s.log); err != nil {
		return err
	}
	if s.items, err = openItems(c); err != nil { // it works until the next start
		s.log.Error("whom accounts have written to is not known after a restart", "error", err)
	}
	s.aliases = expansionsFile(c)
	s.expansions = trail.NewExpansions(func(to string) limit.Item { return s.items.of(s.aliasName(to)) }, s.teaches)
	if err := s.expansions.Load(s.aliases, time.Now()); err != nil {
		s.log.Warn("aliases", "error", err)
	}
	return nil
}

// expansionsFile is where what aliases stand for is kept, beside the journal.
func expansionsFile(c *config.Config) string {
	return filepath.Join(filepath.Dir(c.Journal.Directory), "aliases.json")
}

// teaches reports whether an address is surely ours, so that aliases may be at
// work.
func (s *state) teaches(rcptTo string) bool {
	r := s.rules.Load()
	return r != nil && r.policy.Inside.Has(rcptTo)
}

// aliasName is one name for all addresses that the MTA expands alike: of ours
// those without a domain, and those with a tag that it does not look at. What is
// written to the address of a machine (list@[192.0.2.1]) may be for this one, and
// is taken so; but it teaches nothing.
func (s *state) aliasName(rcptTo string) string {
	r := s.rules.Load()
	if r == nil {
		return rcptTo
	}
	by := &r.policy.Addresses
	if !strings.Contains(rcptTo, "@") && by.DefaultDomain != "" {
		rcptTo += "@" + by.DefaultDomain
	}
	a, ok := address.Parse(rcptTo)
	if literal := strings.HasPrefix(a.Domain, "["); !ok || !literal && !r.policy.Inside.Has(rcptTo) {
		return rcptTo
	} else if literal && by.DefaultDomain != "" {
		a.Domain = by.DefaultDomain
	}
	if i := strings.IndexAny(a.Local, by.Delimiters); i > 0 && !keepsTag(a.Local, by.Delimiters) {
		a.Local = a.Local[:i]
	}
	return a.String()
}

// keepsTag reports whether Postfix looks at a local part as a whole, though it
// has a delimiter (owner_request_special).
func keepsTag(local, delimiters string) bool {
	local = strings.ToLower(local)
	return strings.Contains(delimiters, "-") && (strings.HasPrefix(local, "owner-") || strings.HasSuffix(local, "-request"))
}

// keepExpansions writes what aliases stand for, if it has changed.
func (s *state) keepExpansions() {
	if err := s.expansions.Save(s.aliases); err != nil {
		s.log.Warn("aliases: what they stand for is learnt anew after a restart", "error", err)
	}
}

// parts are what the limits of all configurations stand on.
func (s *state) parts() parts {
	p := parts{store: s.budgets, retries: s.retries, item: s.items.of, uid: userID, learnt: s.learnt}
	if s.expansions != nil {
		p.expansions = s.expansions
	}
	if s.lines != nil {
		p.lines = s.lines
	}
	return p
}

// openShare shares orders with the other relays of a Redis.
func (s *state) openShare(c *config.Config) {
	if s.budgets.client == nil {
		return
	}
	s.share = share.New(share.Options{
		Client: s.budgets.client, Prefix: c.Redis.Prefix, Relay: relayName(c), File: s.switches, LocalUsers: c.Redis.LocalUsers == "shared", Log: s.log, Node: c.Sign.Node != "",
		Arrived: s.desk.Arrived, Left: s.desk.Departed,
	})
}

// syncAtStart is how long the start waits for the other relays' orders.
const syncAtStart = 2 * time.Second

// startShare asks for Redis and for what other relays' admins ordered meanwhile,
// before mail is judged.
func (s *state) startShare(ctx context.Context) {
	if s.share == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, syncAtStart)
	defer cancel()
	if s.budgets.probe != nil {
		if err := s.budgets.probe(ctx); err != nil {
			s.log.Warn("Redis is away: this relay goes by its own budgets", "error", err)
		}
	}
	if err := s.share.Sync(ctx); err != nil {
		s.log.Warn("what admins ordered on other relays is not known yet", "error", err)
	}
}

// toldWithin is how long an order waits to be told to the other relays before
// its admin has to know that it is not.
const toldWithin = time.Second

// unshared says what an admin has to know who just gave an order.
func (s *state) unshared(ctx context.Context) []string {
	if s.share == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, toldWithin)
	defer cancel()
	if text := s.share.Remark(ctx); text != "" {
		return []string{text}
	}
	return nil
}

// sharing says what is not shared with the other relays; empty if all is.
func sharing(h share.Health) string {
	var parts []string
	if h.Away {
		parts = append(parts, "orders are not shared, Redis is away: "+h.Why)
	}
	if h.Away && h.Waiting > 0 {
		parts = append(parts, counted(h.Waiting, "order")+" of this relay are told when it is back")
	}
	if h.Refused > 0 {
		parts = append(parts, counted(h.Refused, "record")+" in Redis cannot be understood")
	}
	if h.Over > 0 {
		parts = append(parts, counted(h.Over, "order")+" of other relays are not in force here: there are too many")
	}
	return strings.Join(parts, "; ")
}

// agreeEvery is how often a Redis that was away is asked for the key of
// recipients' digests.
const agreeEvery = 5 * time.Second

// shareItems agrees with the other relays on the key of recipients' digests.
func (s *state) shareItems(ctx context.Context) {
	if s.budgets.secret == nil {
		return
	}
	for {
		if err := s.items.share(ctx, s.budgets.secret); err == nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(agreeEvery):
		}
	}
}

// pacing is how held mail is released by itself under the rules in force.
func (s *state) pacing() desk.Pacing {
	c := s.config.Load()
	return desk.Pacing{Release: c.Hold.Release && c.Phase != policy.Observe, MaxAge: c.Hold.MaxAge, BouncePercent: c.Hold.BouncePercent,
		RemindAfter: c.Hold.RemindAfter, DeleteAfter: c.Hold.DeleteAfter}
}

// near tells of windows that a message brought close to their count.
func (s *state) near(now time.Time, account string, all []policy.Counter) {
	for _, c := range all {
		s.book.Near(now, nearing(account, c.Key), c)
	}
}

// nearing names who comes near a limit: of a site, a plugin or a text that bucket,
// as many may share the account.
func nearing(account, bucket string) string {
	switch kind, _, _ := strings.Cut(bucket, ":"); kind {
	case "plugin", "site", "template":
		return bucket
	}
	return account
}
