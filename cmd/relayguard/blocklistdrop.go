package main

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"relayguard/cmd/internal/config"
	"relayguard/policy/address"
	"relayguard/rbl"
	"relayguard/rbl/history"
)

// apply takes out of the history what a changed configuration will not have checked
// any more. All else that is not asked about goes on there.
func (b *blocklistWatch) apply(ctx context.Context) {
	c := b.state.config.Load()
	b.mu.Lock()
	before := b.applied
	b.mu.Unlock()
	if err := b.drop(ctx, before, c); err != nil {
		b.state.log.Warn("listings that nobody wants to have checked any more go on in the history", "error", err)
		return // the next reload tries again
	}
	b.mu.Lock()
	b.applied = c
	b.mu.Unlock()
}

func (b *blocklistWatch) drop(ctx context.Context, before, c *config.Config) error {
	off := gone(c.RBL.Disable, before.RBL.Disable)
	addresses := !slices.Equal(before.RBL.Addresses, c.RBL.Addresses)
	domains := gone(before.RBL.Domains, c.RBL.Domains)
	if len(off) == 0 && !addresses && len(domains) == 0 {
		return nil
	}
	a, err := b.asking(ctx, c)
	if err != nil {
		return err
	}
	mine := a.targets.Subjects()
	whole := len(a.targets.Trouble) == 0 // nothing of ours is left out by chance
	return b.store.Drop(ctx, time.Now(), func(l *history.Listing) bool {
		switch {
		case slices.ContainsFunc(off, func(zone string) bool { return strings.EqualFold(zone, l.Zone) }):
			return true
		case slices.Contains(mine, l.Subject):
			return false
		case l.Subject.Addr.IsValid():
			return addresses && (len(c.RBL.Addresses) > 0 || whole && named(before.RBL.Addresses, l.Subject))
		}
		return whole && slices.ContainsFunc(domains, func(d string) bool { return asksAbout(d, l.Subject.Name) })
	})
}

// gone are those of some names that are not among others.
func gone(names, others []string) (all []string) {
	for _, name := range names {
		if !slices.Contains(others, name) {
			all = append(all, name)
		}
	}
	return all
}

// named reports whether a subject is among addresses of a configuration.
func named(addresses []string, s rbl.Subject) bool {
	return slices.ContainsFunc(addresses, func(text string) bool {
		addr, err := netip.ParseAddr(text)
		return err == nil && addr.Unmap() == s.Addr
	})
}

// asksAbout reports whether a name is asked about because of a domain in rbl.domains.
func asksAbout(domain, name string) bool {
	domain = address.Domain(domain)
	if domain == name {
		return true
	}
	registered, err := publicsuffix.EffectiveTLDPlusOne(domain)
	return err == nil && registered == name
}

// dropUnknownLists takes out of the history what lists said that have closed, or that
// a table does not have any more.
func (b *blocklistWatch) dropUnknownLists(ctx context.Context, a *asking) {
	open, err := b.store.Listings(ctx, history.Query{OpenOnly: true, Limit: 1 << 20})
	unknown := func(l *history.Listing) bool {
		_, known := a.table.Find(l.Zone)
		return !known
	}
	if err == nil && slices.ContainsFunc(open, func(l history.Listing) bool { return unknown(&l) }) {
		err = b.store.Drop(ctx, time.Now(), unknown)
	}
	if err != nil && ctx.Err() == nil {
		b.state.log.Warn("listings of lists that are not known any more go on in the history", "error", err)
	}
}
