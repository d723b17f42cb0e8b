package postfix

import (
	"context"
	"slices"
	"strings"

	"relayguard/forward"
	"relayguard/forward/tables"
)

// routing is a setting, or the tables of one, that names a transport or a next
// hop: the address stays, another host or program gets the mail.
type routing struct {
	setting  string
	commands []string
	table    bool
	form     form
	sender   bool // keys are senders
	domains  bool // a key without @ is a domain, else a local name
	inside   bool // it is for our own domains: a transport without a next hop goes to their MX
	filter   bool // without a next hop, default_filter_nexthop
	note     string
}

// form is how a value is to be read.
type form uint8

const (
	transportForm form = iota // transport:nexthop; "word" is a transport
	hopForm                   // relayhost: host, [host]:port; no transport
	hopsForm                  // several of those
	proxyForm                 // smtpd_proxy_filter: host:port, port, inet:host:port, unix:path
)

var rewrites = []string{"trivial-rewrite"}

var routings = []routing{
	{setting: "relayhost", commands: rewrites, form: hopForm, note: "smarthost: next hop of all mail for outside, and of no other"},
	{setting: "default_transport", commands: rewrites, note: "next hop of all mail for outside"},
	{setting: "relay_transport", commands: rewrites, note: "next hop of mail for relay domains"},
	{setting: "local_transport", commands: rewrites, inside: true, note: "next hop of mail for local domains"},
	{setting: "virtual_transport", commands: rewrites, inside: true, note: "next hop of mail for virtual mailboxes"},
	{setting: "mailbox_transport", commands: []string{"local"}, inside: true, note: "next hop of mail for accounts"},
	{setting: "fallback_transport", commands: []string{"local"}, inside: true, note: "next hop of mail for names without an account"},
	{setting: "smtp_fallback_relay", commands: []string{"smtp"}, form: hopsForm, note: "next hop of mail that cannot be delivered at once"},
	{setting: "lmtp_fallback_relay", commands: []string{"lmtp"}, form: hopsForm, note: "next hop of mail that cannot be delivered at once"},
	{setting: "content_filter", commands: []string{"smtpd", "pickup", "qmqpd"}, inside: true, filter: true, note: "next hop of all mail that comes in"},
	{setting: "smtpd_proxy_filter", commands: []string{"smtpd"}, form: proxyForm, note: "proxy of all mail that comes in"},

	{setting: "transport_maps", commands: rewrites, table: true, domains: true},
	{setting: "sender_dependent_relayhost_maps", commands: rewrites, table: true, form: hopForm, sender: true, domains: true},
	{setting: "sender_dependent_default_transport_maps", commands: rewrites, table: true, sender: true, domains: true},
	{setting: "mailbox_transport_maps", commands: []string{"local"}, table: true, inside: true},
	{setting: "fallback_transport_maps", commands: []string{"local"}, table: true, inside: true},
}

// routings are the units of the tables among them.
func (f *finder) routings(ctx context.Context) []forward.Unit {
	var units []forward.Unit
	for _, w := range routings {
		if !w.table {
			continue
		}
		for _, p := range f.i.places(w.setting, w.commands...) {
			units = append(units, f.unit(ctx, p, func(ctx context.Context) forward.Reading {
				ours := f.ours(ctx)
				return f.each(ctx, &p, forward.Transport, false, true, func(base forward.Rule, e tables.Entry) forward.Reading {
					return f.routeEntry(ctx, w, ours, base, e)
				})
			}))
		}
	}
	return units
}

func (f *finder) routeEntry(ctx context.Context, w routing, ours func(string) bool, base forward.Rule, e tables.Entry) forward.Reading {
	base.Owner, base.Sender, base.Server = owner(e), w.sender, true
	switch {
	case e.Pattern:
		base.Note = "for what matches " + brief(e.Key)
		w.inside = !w.sender // it may be for ours
	case w.domains && base.Owner == "*":
		base.Owner = forward.Everybody
		w.inside = !w.sender
	case w.domains && !strings.Contains(base.Owner, "@"):
		base.Owner = "@" + base.Owner
		w.inside = !w.sender && ours(e.Key)
	case w.domains:
		_, domain, _ := cutLast(base.Owner, '@')
		w.inside = !w.sender && ours(domain)
	}
	value := strings.Trim(e.Value, spaces)
	if strings.EqualFold(value, "DUNNO") {
		return forward.Reading{}
	}
	return f.route(ctx, w, base, value)
}

// ours reports domains that main.cf takes for its own, by name or by a table.
func (f *finder) ours(ctx context.Context) func(domain string) bool {
	var lists []map[string]bool
	for _, setting := range []string{"mydestination", "virtual_mailbox_domains", "virtual_alias_domains", "relay_domains"} {
		lists = append(lists, f.domains(ctx, setting).names)
	}
	return func(domain string) bool {
		below := ""
		if strings.HasPrefix(domain, ".") {
			below, domain = ".", domain[1:]
		}
		domain = exactDomain(domain)
		return slices.ContainsFunc(lists, func(names map[string]bool) bool { return domain != "" && names[below+domain] })
	}
}

// route makes the rules of a value: where mail goes by it, other than where it
// would go anyhow.
func (f *finder) route(ctx context.Context, w routing, base forward.Rule, value string) forward.Reading {
	base.Kind = forward.NextHop
	if base.Note == "" {
		base.Note = w.note
	}
	switch w.form {
	case hopForm, hopsForm:
		return f.hops(ctx, base, f.defaultTransport(), value)
	case proxyForm:
		return f.hops(ctx, base, "smtp", proxyHop(value))
	}
	transport, nexthop, _ := strings.Cut(value, ":")
	if transport == "" {
		return f.hops(ctx, base, f.defaultTransport(), nexthop)
	}
	return f.transport(ctx, w, base, transport, nexthop)
}

// transport says what the service behind a transport does with mail.
func (f *finder) transport(ctx context.Context, w routing, base forward.Rule, transport, nexthop string) forward.Reading {
	if strings.Contains(transport, forward.Unknown) {
		base.Target, base.Dynamic = transport+":"+nexthop, true
		return forward.Reading{Rules: []forward.Rule{bounded(base)}}
	}
	s := f.i.find(transport, "unix")
	if s == nil {
		base.Target = transport + ":" + nexthop
		base.Broken = "master.cf has no service " + transport + "/unix"
		return forward.Reading{Rules: []forward.Rule{bounded(base)}}
	}
	if s.unread != "" {
		return unreadService(base, s)
	}
	switch s.command {
	case "local", "virtual", "error", "discard":
		return forward.Reading{} // delivered here, or not at all
	case "pipe":
		return f.pipe(ctx, base, s)
	case "smtp", "lmtp":
		if nexthop == "" && w.filter {
			nexthop = f.i.value("default_filter_nexthop")
		}
		if transport = hopName(s); nexthop == "" && w.inside {
			base.Target, base.Dynamic = transport+":"+forward.Unknown, true
			base.Note = strings.TrimPrefix(base.Note+"; to the recipient domain's own mail exchanger", "; ")
			return forward.Reading{Rules: []forward.Rule{bounded(base)}}
		}
		return f.hops(ctx, base, transport, nexthop)
	}
	return f.strange(ctx, base, s)
}

// defaultTransport is by what a next hop without a transport is reached.
func (f *finder) defaultTransport() string {
	name, _, _ := strings.Cut(f.i.value("default_transport"), ":")
	if name == "" {
		return "smtp"
	}
	if s := f.i.find(name, "unix"); s != nil {
		return hopName(s)
	}
	return name
}

// hopName is what a rule calls a service that hands mail to a host: its name, but
// for names by which everybody expects a service that does not. What it is called
// changes nothing of what its program does.
func hopName(s *service) string {
	switch s.name {
	case "error", "retry", "discard", "defer", "local", "virtual":
		if s.command == "smtp" || s.command == "lmtp" {
			return s.command
		}
	}
	return s.name
}

// hops makes a rule of each next hop: since Postfix 3.5 there may be several,
// one tried after the other.
func (f *finder) hops(ctx context.Context, base forward.Rule, transport, list string) forward.Reading {
	var r forward.Reading
	for _, hop := range splitList(list) {
		rule := base
		rule.Target = transport + ":" + hop
		rule.Dynamic = base.Dynamic || strings.Contains(hop, forward.Unknown)
		r.Rules = append(r.Rules, bounded(f.listener(ctx, rule, hop)))
	}
	return r
}

// proxyHop brings a value of smtpd_proxy_filter into the form of a next hop.
func proxyHop(value string) string {
	value = strings.TrimPrefix(value, "inet:")
	switch {
	case strings.HasPrefix(value, "unix:"):
		return value
	case !strings.Contains(value, ":"):
		return "[127.0.0.1]:" + value // a port alone
	case strings.HasPrefix(value, ":"):
		return "[127.0.0.1]" + value
	}
	host, port, _ := cutLast(value, ':')
	if strings.HasPrefix(host, "[") {
		return value
	}
	return "[" + host + "]:" + port
}
