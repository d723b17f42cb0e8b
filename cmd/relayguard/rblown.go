package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"relayguard/cmd/internal/blocklists"
	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/control"
	"relayguard/mta"
	"relayguard/policy/address"
	"relayguard/rbl"
	"relayguard/rbl/history"
)

// rblTargets is what of ours is checked, and how it is known.
type rblTargets struct {
	Addresses []rblAddress     `json:"addresses"`
	Domains   []string         `json:"domains"`
	Helos     []string         `json:"helos"`
	Left      int              `json:"left,omitempty"` // domains that are not checked: they are too many
	About     []rblAbout       `json:"about"`          // all that lists are asked about
	Learnt    []history.Learnt `json:"learnt"`
	Trouble   []string         `json:"trouble"`
	Unsure    bool             `json:"unsure"` // an address that sends may not be among them
}

// rblAbout is something that lists are asked about, and how it is known to be ours.
type rblAbout struct {
	Subject rbl.Subject `json:"subject"`
	How     string      `json:"how"`
}

// rblAddress is an address that mail leaves from.
type rblAddress struct {
	Addr netip.Addr `json:"addr"`
	How  string     `json:"how"`
	Helo string     `json:"helo,omitempty"`
}

func rblTargetsOf(t blocklists.Targets, learnt []history.Learnt) rblTargets {
	out := rblTargets{Addresses: []rblAddress{}, Domains: append([]string{}, t.Domains...), Helos: append([]string{}, t.Helos...), Left: t.Left, About: []rblAbout{},
		Learnt: append([]history.Learnt{}, learnt...), Trouble: append([]string{}, t.Trouble...)}
	for _, a := range t.Addresses {
		out.Addresses = append(out.Addresses, rblAddress{a.Addr, a.How, a.Helo})
	}
	for _, a := range t.About() {
		out.About = append(out.About, rblAbout{a.Subject, a.How})
	}
	return out
}

// subjects are all that lists are asked about, addresses first, each once, and how
// each is known.
func (t *rblTargets) subjects() (all []rbl.Subject, how map[rbl.Subject]string) {
	how = map[rbl.Subject]string{}
	for _, a := range t.About {
		all, how[a.Subject] = append(all, a.Subject), a.How
	}
	return all, how
}

// ownTargets finds what really sends, without a daemon. What of it cannot be known is
// in Trouble.
func ownTargets(ctx context.Context, c *config.Config) rblTargets {
	var trouble []string
	doubt := false
	inside, err := insideOf(ctx, c)
	if err != nil {
		trouble = append(trouble, fmt.Sprintf("inside.from_mta: only inside.domains are known: %v", err))
	}
	var sending *mta.Sending
	if c.RBL.FromMTA {
		s, err := sendingOf(ctx, c)
		if err != nil {
			trouble = append(trouble, fmt.Sprintf("rbl.from_mta: the mail server's settings are not known: %v", err))
			doubt = true
		} else {
			sending = &s
		}
	}
	learnt, err := learntBy(ctx, c)
	if err != nil {
		trouble = append(trouble, fmt.Sprintf("addresses that were learnt are not known: %v", err))
		doubt = true
	}
	found := blocklists.Find(ctx, c, sending, learnt, inside, blocklists.Machine())
	out := rblTargetsOf(found, learnt)
	out.Unsure = unsure(found.Trouble) || doubt && len(c.RBL.Addresses) == 0
	out.Trouble = append(append([]string{}, trouble...), out.Trouble...)
	return out
}

// insideOf are the domains that count as inside, in order. With an error those that
// the mail server would have told are missing.
func insideOf(ctx context.Context, c *config.Config) ([]string, error) {
	inside := map[string]bool{}
	for _, d := range c.Inside.Domains {
		inside[d] = true
	}
	var err error
	if c.Inside.FromMTA {
		var i mailServer
		var domains []string
		if i, err = loadMailServer(ctx, c); err == nil {
			domains, _, err = i.InsideDomains(ctx)
		}
		for _, d := range domains {
			if d = address.Domain(d); d != "" {
				inside[d] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(inside)), err
}

// learntBy are the addresses that the daemon has learnt: from its history, or from the
// daemon where this account may not read that.
func learntBy(ctx context.Context, c *config.Config) ([]history.Learnt, error) {
	h, err := history.Peek(ctx, c.RBLDirectory())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.Is(err, fs.ErrPermission):
		ctx, cancel := context.WithTimeout(ctx, aliveTimeout)
		defer cancel()
		var s rblStatus
		err := control.NewClient(c.Control.Socket).Get(ctx, "/v1/rbl/status", nil, &s)
		return s.Own.Learnt, err
	case err != nil:
		return nil, err
	}
	defer h.Close()
	return h.LearntAll(ctx)
}

// rblSubject reads an address or a domain that somebody types.
func rblSubject(text string) (rbl.Subject, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		if addr = addr.Unmap(); addr.Zone() == "" {
			return rbl.Subject{Addr: addr}, nil
		}
		return rbl.Subject{}, fmt.Errorf("%q: leave out the zone behind the %%", text)
	}
	name := address.Domain(text)
	if !isHostName(name) {
		return rbl.Subject{}, fmt.Errorf("%q is neither an address nor a domain", text)
	}
	return rbl.Subject{Name: name}, nil
}

// isHostName reports whether a name can be asked of DNS: at least two labels of
// letters, digits, - and _ (RFC 1035 §2.3.4 for the lengths), the last not a number.
func isHostName(name string) bool {
	labels := strings.Split(name, ".")
	if len(name) > 253 || len(labels) < 2 || strings.Trim(labels[len(labels)-1], "0123456789") == "" {
		return false
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}

// outsideSubject reads what somebody wants lists to be asked about: what they can
// know. Of everything else they would say nothing, which reads as clean.
func outsideSubject(text string) (rbl.Subject, error) {
	s, err := rblSubject(text)
	switch {
	case err != nil:
		return s, err
	case s.Addr.IsValid() && notSeen(s.Addr) != "":
		return s, fmt.Errorf("%s %s", s, notSeen(s.Addr))
	case !s.Addr.IsValid() && !rbl.Askable(s.Name):
		return s, fmt.Errorf("%q is no domain that somebody can have registered: no list can know it", text)
	}
	return s, nil
}

// notSeen says of an address why no list outside can know it; "" if one can.
func notSeen(addr netip.Addr) string {
	if rbl.Public(addr) {
		return ""
	}
	return "is not seen outside: ask for the address that receivers see"
}
