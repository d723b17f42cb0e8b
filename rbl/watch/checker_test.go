package watch_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/check"
	"relayguard/rbl/history"
	"relayguard/rbl/watch"
)

// listing is a resolver that knows a healthy blocklist, and whether that lists us.
type listing struct {
	name  string
	lists func() bool
}

func (l listing) Name() string { return l.name }

func (l listing) Ask(_ context.Context, name string, t rbl.Type) rbl.Response {
	r := rbl.Response{Outcome: rbl.NoName, Server: l.name}
	label, ok := strings.CutSuffix(name, ".bl.example")
	if ok && (label == "2.0.0.127" || label == "5.113.0.203" && l.lists()) {
		r.Outcome = rbl.NoData
		if t == rbl.TypeA {
			r.Outcome, r.Addrs = rbl.Answered, []netip.Addr{netip.MustParseAddr("127.0.0.2")}
		}
	}
	return r
}

// With a real Checker, a listing is told if a second resolver sees it, too.
func TestSecondResolverConfirms(t *testing.T) {
	for name, seen := range map[string]bool{"both see it": true, "only one sees it": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, d *desk) {
				first := listing{"192.0.2.1:53", func() bool { return true }}
				second := listing{"192.0.2.2:53", func() bool { return seen }}
				c := check.New(check.Options{Resolvers: []rbl.Resolver{first, second}})
				d.change(func(p *watch.Plan) {
					p.Checker, p.Subjects = c, []rbl.Subject{ours}
					p.Zones = []rbl.Zone{{Name: "bl.example", Kinds: []rbl.Kind{rbl.IP4}, Severity: rbl.High, Test: rbl.Test{Listed4: "2.0.0.127", Clean4: "1.0.0.127"}}}
				})
				d.run()
				after(2 * time.Minute)
				if open := d.open(); len(open) != 1 || open[0].Phase != history.Suspected || open[0].Resolver != first.name {
					zones, _ := d.store.Zones(t.Context())
					t.Fatalf("%+v; zones %+v", open, zones)
				}
				after(confirm)
				told, open := d.tellings(), d.open()
				if seen && (len(told) != 1 || len(open) != 1 || open[0].Phase != history.Standing) || !seen && (told != nil || len(open) != 0) {
					t.Errorf("told %q, %+v", told, open)
				}
			})
		})
	}
}
