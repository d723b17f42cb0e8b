// Package postfix finds the forwarding rules of Postfix: every table and setting
// of every instance by which mail goes to another address, host or program.
//
// It asks postconf(1) what is in force; on a copied disk it reads main.cf and
// master.cf itself, with Postfix's expansions and defaults. It leaves tables to
// package tables, aliases(5) and .forward to package aliases, and all opinion
// to package judge.
//
// The trap: a setting counts for the program that reads it. -o always_bcc in
// master.cf does nothing at smtpd(8) and everything at cleanup(8); a rule in
// main.cf is dead if all services override it. So each setting is looked up at
// the programs that read it, and what is stated elsewhere is dormant.
package postfix

import (
	"context"

	"relayguard/forward"
	"relayguard/forward/tables"
	mta "relayguard/mta/postfix"
)

// Options say where to look. The zero value is fit for use.
type Options struct {
	ConfigDir string           // of the first instance; empty: /etc/postfix
	Databases tables.Databases // nil: tables of databases are gaps
	// Known are addresses to try on tables that cannot be listed; nil: none.
	Known func() []string

	// Guard are relayguard's own sockets, which are no finding: paths (relative
	// ones start at the queue directory), or "inet:host:port". nil: DefaultGuard.
	Guard []string

	// list takes the place of tables.Reader.List in tests.
	list func(ctx context.Context, r *tables.Reader, t mta.Table) tables.Listing
}

// DefaultConfigDir is where Debian's Postfix has its settings.
const DefaultConfigDir = "/etc/postfix"

// DefaultGuard are relayguard's sockets as it is set up without a word about them.
var DefaultGuard = []string{
	"relayguard/milter.sock", "relayguard/policy.sock", "relayguard/submission.sock", "relayguard/relay.sock", "relayguard/inbound.sock",
	"relayguard/outbound.sock", "relayguard/egress.sock", "relayguard/local.sock", "relayguard/sendmail.sock",
}

func (o *Options) guard() []string {
	if o.Guard == nil {
		return DefaultGuard
	}
	return o.Guard
}

// Plan is what Postfix on this machine has to be read: the zero plan, but for
// Uses, where there is no Postfix. The units hold what main.cf and master.cf said
// at the time; a change of one of those asks for another plan.
func Plan(ctx context.Context, h *forward.Host, o Options) forward.Plan {
	if o.ConfigDir == "" {
		o.ConfigDir = DefaultConfigDir
	}
	var plan forward.Plan
	all := instances(ctx, h, o.ConfigDir)
	if len(all) == 0 {
		none := instance{dir: o.ConfigDir, master: o.ConfigDir}
		plan.Uses = []string{none.mainFile(), none.masterFile()}
		return plan
	}
	for n, i := range all {
		f := &finder{h: h, o: o, i: i, first: n == 0}
		plan.Add(f.plan(ctx))
	}
	return plan
}

func (f *finder) plan(ctx context.Context) forward.Plan {
	p := forward.Plan{Gaps: f.i.gaps, Uses: []string{f.i.mainFile(), f.i.masterFile()}}
	f.domain, _ = f.myorigin(ctx)
	f.listed = map[string]*domainList{}
	defer func() { f.listed = nil }()
	if f.i.dormant == "" {
		f.world(ctx, &p)
	}
	p.Units = append(p.Units, f.settings(ctx))
	p.Units = append(p.Units, f.aliases(ctx)...)
	p.Units = append(p.Units, f.rewritings(ctx)...)
	p.Units = append(p.Units, f.routings(ctx)...)
	p.Units = append(p.Units, f.commands(ctx)...)
	p.Units = append(p.Units, f.checks(ctx)...)
	p.Units = append(p.Units, f.restrictions(ctx)...)
	p.Units = append(p.Units, f.homes(ctx)...)
	return p
}
