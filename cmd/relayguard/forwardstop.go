package main

import (
	"slices"
	"strings"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/forward"
	"relayguard/forward/ledger"
	"relayguard/policy"
)

// rule is what policy asks about forwarded mail; nil if it is not to be stopped.
// What it asks is answered without a lock that a scan or the ledger's file holds.
func (f *forwarding) rule(c *config.Config) *policy.Forwarding {
	if f == nil || c.Forward.Stop != config.StopHold {
		return nil
	}
	return &policy.Forwarding{
		Rules: func(owner, target string) []policy.ForwardRule {
			return f.rules(owner, target, c.Address.RecipientDelimiter)
		},
		Ready:    func() bool { return f.scanned() || time.Since(f.began) > scanWait },
		Except:   exceptOf(c.Forward.StopExcept),
		Released: func(m *policy.Message) bool { return f.released.take(time.Now(), m.MessageID) },
	}
}

// scanWait is how long forwarded mail is kept waiting for the first scan. A scan that
// cannot be made for longer is somebody's to mend: mail is held then, by what the
// ledger knows, before senders get it back as undeliverable.
const scanWait = time.Hour

// scanned reports whether the first scan is over.
func (f *forwarding) scanned() bool {
	select {
	case <-f.guard.Ready():
		return true
	default:
		return false
	}
}

// exceptOf reports the owners that a list names: addresses, local names, "@domain".
// A rule of a local name is of the mailbox with it.
func exceptOf(list []string) func(owner string) bool {
	except, accounts := map[string]bool{}, map[string]bool{}
	for _, owner := range list {
		local, _, _ := strings.Cut(owner, "@")
		except[owner], accounts[local] = true, true
	}
	return func(owner string) bool {
		local, domain, found := strings.Cut(owner, "@")
		if !found {
			return owner != "" && accounts[owner]
		}
		return except[owner] || local != "" && except[local] || except["@"+domain]
	}
}

// rules are those by which mail of an owner goes to a target; with owner "" all that
// lead there. If one of them is approved it may be the only one. Before the first
// scan is over they are those that the ledger knew.
func (f *forwarding) rules(owner, target, delimiters string) []policy.ForwardRule {
	keys := ownerKeys(owner, delimiters)
	for _, key := range keys { // also where no place states it: traffic that somebody approved
		if f.ledger.Approved("", key, target) {
			return []policy.ForwardRule{{Owner: key, Approved: true}}
		}
	}
	if !f.scanned() {
		return f.rulesBefore(keys, target)
	}
	graph := f.scanner.Graph()
	var all []policy.ForwardRule
	add := func(id string, fits func(*forward.Finding) bool) (approved bool) {
		found, ok := graph.Find(id)
		if !ok || !fits(&found) {
			return false
		}
		r := forwardRule(&found)
		r.Approved = f.ledger.Approved(r.ID, r.Owner, found.Target)
		all = append(all, r)
		return r.Approved
	}
	if owner != "" {
		id, ok := graph.Match(owner, target)
		if ok && add(id, func(*forward.Finding) bool { return true }) {
			return all
		}
	}
	for _, id := range graph.Targets(target) {
		if add(id, func(found *forward.Finding) bool {
			return owner == "" || !found.Sender && slices.Contains(keys, found.Owner)
		}) {
			return all
		}
	}
	return all
}

// rulesBefore are rules by what the ledger knew when the daemon began.
func (f *forwarding) rulesBefore(keys []string, target string) []policy.ForwardRule {
	var all []policy.ForwardRule
	for _, r := range f.before[strings.ToLower(target)] {
		if len(keys) == 0 || slices.Contains(keys, r.Owner) {
			r.Approved = f.ledger.Approved(r.ID, r.Owner, target)
			all = append(all, r)
		}
	}
	return all
}

// byTarget puts the rules of a ledger in order by their target.
func byTarget(entries []ledger.Entry) map[string][]policy.ForwardRule {
	by := map[string][]policy.ForwardRule{}
	for i := range entries {
		if e := &entries[i]; e.Leaves() {
			target := strings.ToLower(e.Target)
			by[target] = append(by[target], forwardRule(&e.Finding))
		}
	}
	return by
}

func forwardRule(f *forward.Finding) policy.ForwardRule {
	r := policy.ForwardRule{ID: f.ID, Owner: f.Owner}
	switch f.Mechanism {
	case forward.BCC, forward.AlwaysBCC, forward.Access, forward.Checks:
		r.Blind = true
	}
	return r
}

// ownerKeys are the owners whose rules mail to an address goes by: itself, without
// its extension, the local name, the domain, and everybody. None for "".
func ownerKeys(owner, delimiters string) []string {
	if owner == "" {
		return nil
	}
	owner = strings.ToLower(owner)
	local, domain, at := strings.Cut(owner, "@")
	keys := []string{owner}
	add := func(key string) {
		if key != "" && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	bare := local
	if i := strings.IndexAny(local, delimiters); i > 0 {
		bare = local[:i]
	}
	if at {
		add(bare + "@" + domain)
	}
	add(local)
	add(bare)
	if at {
		add("@" + domain)
	}
	add(forward.Everybody)
	return keys
}

// stopOff says why forwarded mail is not held although the configuration wants it,
// or why forwarding rules are not watched although it wants that; "" if all is well.
func (s *state) stopOff(c *config.Config) string {
	hold := c.Forward.Stop == config.StopHold
	if s.forwarding != nil || !c.Forward.Watch && !hold {
		return ""
	}
	why := "not watched: " + s.forwardsOff
	if hold {
		why += `; forward.stop = "hold" is not in force: no forwarded mail is held`
	}
	return why
}
