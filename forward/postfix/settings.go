package postfix

import (
	"context"
	"path"
	"slices"
	"strings"

	"relayguard/forward"
	"relayguard/forward/tables"
)

// settings is the unit of everything that main.cf and master.cf state without a
// table. It reads both again.
func (f *finder) settings(ctx context.Context) forward.Unit {
	id := "settings of Postfix in " + f.i.dir
	if f.i.master != f.i.dir {
		id += " with master.cf of " + f.i.master
	}
	return forward.Unit{
		ID: id, Paths: []string{f.i.mainFile(), f.i.masterFile()},
		Writer: f.i.uid, Server: true, Read: f.readSettings,
	}
}

func (f *finder) readSettings(ctx context.Context) forward.Reading {
	fresh, exists := load(ctx, f.h, f.i.dir, f.i.master)
	if !exists {
		return forward.Reading{}
	}
	fresh.dormant = f.i.dormant
	g := &finder{h: f.h, o: f.o, i: fresh}
	r := forward.Reading{Gaps: slices.Clone(fresh.gaps)}
	for _, read := range []func(context.Context) forward.Reading{
		g.alwaysBCC, g.luser, g.nextHops, g.mailboxCommand, g.commandShell, g.commandFilter, g.notices, g.origin, g.milters, g.services, g.daemonDirectory, g.environment,
	} {
		add(&r, read(ctx))
	}
	return r
}

func (f *finder) alwaysBCC(context.Context) forward.Reading {
	var r forward.Reading
	for _, p := range f.i.places("always_bcc", "cleanup") {
		rule := p.rule(forward.AlwaysBCC)
		rule.Target, rule.Mode = p.value, forward.Copy
		r.Rules = append(r.Rules, bounded(rule))
	}
	return r
}

// luser is luser_relay: where mail for names without account and alias goes.
// local(8) comes to it last.
func (f *finder) luser(context.Context) forward.Reading {
	var r forward.Reading
	for _, p := range f.i.places("luser_relay", "local") {
		f.taken(&p, "mailbox_transport", "fallback_transport")
		for _, target := range possible(p.value) {
			rule := p.rule(forward.LuserRelay)
			rule.Target, rule.Dynamic = target, strings.Contains(target, forward.Unknown)
			rule.Note = "for local names that nobody has"
			if f.i.value("local_recipient_maps") != "" {
				rule.Note += "; local_recipient_maps lets such mail in from this host only"
			}
			r.Rules = append(r.Rules, bounded(rule))
		}
	}
	return r
}

// nextHops are the settings that name a transport or a next hop themselves.
func (f *finder) nextHops(ctx context.Context) forward.Reading {
	var r forward.Reading
	for _, w := range routings {
		if w.table {
			continue
		}
		for _, p := range f.i.places(w.setting, w.commands...) {
			if w.setting == "fallback_transport" {
				f.taken(&p, "mailbox_transport")
			}
			if f.absentDefault(w, &p) {
				continue
			}
			add(&r, f.route(ctx, w, p.rule(forward.Transport), p.value))
		}
	}
	return r
}

// absentDefault reports a transport that only Postfix's default names, and that
// master.cf has not: mail for it waits.
func (f *finder) absentDefault(w routing, p *place) bool {
	_, written := f.i.written[w.setting]
	name, _, _ := strings.Cut(p.value, ":")
	return w.form == transportForm && !written && p.service == nil && f.i.find(name, "unix") == nil
}

func (f *finder) mailboxCommand(ctx context.Context) forward.Reading {
	var r forward.Reading
	for _, p := range f.i.places("mailbox_command", "local") {
		f.taken(&p, "mailbox_transport")
		rule, uses := f.localProgram(ctx, &p, p.rule(forward.Command), p.value)
		r.Rules, r.Uses = append(r.Rules, rule), append(r.Uses, uses...)
	}
	return r
}

// commandShell is local_command_shell: a program that runs every command of
// aliases, .forward files and mailbox_command.
func (f *finder) commandShell(ctx context.Context) forward.Reading {
	var r forward.Reading
	for _, p := range f.i.places("local_command_shell", "local") {
		rule, uses := f.program(ctx, p.rule(forward.Command), p.value)
		rule.Target = "local_command_shell " + rule.Target
		rule.Note = "runs every command that mail is handed to"
		r.Rules, r.Uses = append(r.Rules, bounded(rule)), append(r.Uses, uses...)
	}
	return r
}

// commandFilter is smtpd_command_filter: tables that rewrite what a client says,
// so RCPT TO, too.
func (f *finder) commandFilter(ctx context.Context) forward.Reading {
	var r forward.Reading
	for _, p := range f.i.places("smtpd_command_filter", "smtpd") {
		add(&r, f.each(ctx, &p, forward.Setting, false, false, func(base forward.Rule, e tables.Entry) forward.Reading {
			base.Server, base.Owner = true, forward.Everybody
			base.Note = "smtpd_command_filter: for commands that match " + brief(e.Key)
			target, concerns := filtered(e.Key, e.Value)
			if !concerns {
				return forward.Reading{}
			}
			base.Target, base.Dynamic = target, strings.Contains(target, forward.Unknown)
			return forward.Reading{Rules: []forward.Rule{bounded(base)}}
		}))
	}
	return r
}

// notice is who is told of a class of trouble, and of whose mail.
type notice struct{ setting, class, what string }

var notices = []notice{
	{"bounce_notice_recipient", "bounce", "headers of mail that bounced"},
	{"2bounce_notice_recipient", "2bounce", "mail that could not be given back to its sender"},
	{"delay_notice_recipient", "delay", "headers of mail that is late"},
	{"error_notice_recipient", "data protocol policy resource software", "transcripts of SMTP sessions"},
}

// noticeReaders are the programs that send notices.
var noticeReaders = []string{"bounce", "smtpd", "smtp", "lmtp", "cleanup"}

// notices are rules only where a recipient is set: the default is postmaster here.
// A class may be on at one service alone.
func (f *finder) notices(context.Context) forward.Reading {
	var r forward.Reading
	for _, n := range notices {
		for _, p := range f.noticePlaces(n) {
			if p.value == defaults()[n.setting] {
				continue
			}
			rule := p.rule(forward.Setting)
			rule.Target, rule.Mode, rule.Note = p.value, forward.Copy, n.what
			if !n.on(f.at(&p, "notify_classes")) && rule.Dormant == "" {
				rule.Dormant = "notify_classes has no " + strings.ReplaceAll(n.class, " ", ", ")
			}
			r.Rules = append(r.Rules, bounded(rule))
		}
	}
	return r
}

// on reports whether a value of notify_classes has one of the notice's classes.
func (n *notice) on(value string) bool {
	classes := splitList(strings.ToLower(value))
	return slices.ContainsFunc(strings.Fields(n.class), func(c string) bool { return slices.Contains(classes, c) })
}

// noticePlaces are where the recipient of a notice is set, and the services that
// have main.cf's with classes of their own.
func (f *finder) noticePlaces(n notice) []place {
	places := f.i.places(n.setting, noticeReaders...)
	main := f.i.mainPlace(n.setting)
	for k := range f.i.services {
		s := &f.i.services[k]
		classes := f.i.effective(s, "notify_classes")
		if slices.Contains(noticeReaders, s.command) && f.i.effective(s, n.setting) == main.value && n.on(classes) && !n.on(f.i.value("notify_classes")) {
			p := main
			p.source, p.line, p.uid, p.service = n.setting+" of "+s.id()+" in "+f.i.masterFile(), s.line, f.i.masterID, s
			places = append(places, p)
		}
	}
	return places
}

// origin is a rule where myorigin is no domain that is delivered here: then every
// address without a domain, that of a local account too, leads there. This host's
// own name leads back here.
func (f *finder) origin(ctx context.Context) forward.Reading {
	origin, uses := f.myorigin(ctx)
	r := forward.Reading{Uses: uses}
	if origin == "" || f.isThisHost(ctx, origin) || f.isLocal(ctx, origin) {
		return r
	}
	p := f.i.mainPlace("myorigin")
	rule := p.rule(forward.Setting)
	rule.Target, rule.Dynamic = forward.Unknown+"@"+origin, true
	rule.Note = "what is appended to addresses without a domain is no domain of mydestination"
	r.Rules = append(r.Rules, bounded(rule))
	return r
}

// milters are asked about every message, and may change its recipients.
func (f *finder) milters(ctx context.Context) forward.Reading {
	var r forward.Reading
	for _, m := range []struct{ setting, command string }{{"smtpd_milters", "smtpd"}, {"non_smtpd_milters", "cleanup"}} {
		for _, p := range f.i.places(m.setting, m.command) {
			r.Rules = append(r.Rules, f.milterRules(&p, p.value)...)
		}
	}
	for _, p := range f.i.places("smtpd_milter_maps", "smtpd") {
		add(&r, f.each(ctx, &p, forward.Setting, false, false, func(base forward.Rule, e tables.Entry) forward.Reading {
			if strings.EqualFold(strings.Trim(e.Value, spaces), "DISABLE") {
				return forward.Reading{}
			}
			q := p
			q.source, q.line, q.uid = base.Source, base.Line, base.UID
			return forward.Reading{Rules: f.milterRules(&q, e.Value)}
		}))
	}
	return r
}

func (f *finder) milterRules(p *place, value string) []forward.Rule {
	var rules []forward.Rule
	for _, item := range splitList(value) {
		body, braced := inBraces(item)
		if parts := splitList(body); braced && len(parts) > 0 {
			item = parts[0]
		}
		if f.isGuard(item) {
			continue
		}
		rule := p.rule(forward.Setting)
		rule.Kind, rule.Target, rule.Note = forward.Asked, "milter "+item, noted("a milter may change recipients", usualProgram(item))
		rules = append(rules, bounded(rule))
	}
	return rules
}

// isGuard reports sockets of relayguard itself: those that Options name, and no
// other in the same directory.
func (f *finder) isGuard(endpoint string) bool {
	kind, name, found := strings.Cut(endpoint, ":")
	if !found || kind != "unix" && kind != "local" {
		return found && slices.Contains(f.o.Guard, endpoint)
	}
	if name == "" {
		return false
	}
	if !path.IsAbs(name) {
		name = path.Join(f.i.queueDir, name)
	}
	name = path.Clean(name)
	return slices.ContainsFunc(f.o.guard(), func(own string) bool {
		if !path.IsAbs(own) {
			own = path.Join(f.i.queueDir, own)
		}
		return path.Clean(own) == name || path.Clean(own) == path.Join(f.i.queueDir, name) // as a chrooted service sees it
	})
}

// policyService is the rule for a server that answers with an action, which may
// be REDIRECT. ours: it is relayguard's own.
func (f *finder) policyService(p *place, endpoint string) (rule forward.Rule, ours bool) {
	rule = p.rule(forward.Access)
	rule.Kind, rule.Target, rule.Note = forward.Asked, "check_policy_service "+endpoint, noted("a policy service may answer REDIRECT, BCC or FILTER", usualProgram(endpoint))
	return bounded(rule), f.isGuard(endpoint)
}

// withSpawned adds the digest of the program, if Postfix itself starts it.
func (f *finder) withSpawned(ctx context.Context, rule forward.Rule, endpoint string) forward.Reading {
	kind, name, _ := strings.Cut(endpoint, ":")
	s := f.i.find(path.Base(name), "unix")
	if kind != "unix" || s == nil || s.command != "spawn" {
		return forward.Reading{Rules: []forward.Rule{rule}}
	}
	program, uses := f.program(ctx, forward.Rule{}, s.argv())
	rule.Digest = program.Digest
	rule.Note += "; " + s.id() + " starts " + brief(s.argv())
	return forward.Reading{Rules: []forward.Rule{rule}, Uses: uses}
}

// services are the programs of master.cf: those of pipe(8) and spawn(8), and what
// is none of Postfix's own programs. A pipe that no setting names is not in force; a
// table that names it makes its own rule of it.
func (f *finder) services(ctx context.Context) forward.Reading {
	used := f.transports()
	var r forward.Reading
	var idle []*service
	for n := range f.i.services {
		s := &f.i.services[n]
		base := f.serviceRule(s)
		switch {
		case s.unread != "":
			add(&r, unreadService(base, s))
		case used[s.name] && s.kind == "unix": // the setting made its rule
		case s.command == "spawn":
			add(&r, f.spawned(ctx, base, s))
		case s.command == "pipe" && !stock(s):
			idle = append(idle, s)
		case !daemons[s.command]:
			add(&r, f.strange(ctx, base, s))
		}
	}
	if len(idle) == 0 {
		return r
	}
	named := f.tableTransports(ctx)
	for _, s := range idle {
		if named[s.name] && s.kind == "unix" {
			continue
		}
		base := f.serviceRule(s)
		if base.Dormant == "" {
			base.Dormant = "no setting names the transport " + s.name
		}
		add(&r, f.pipe(ctx, base, s))
	}
	return r
}

func (f *finder) serviceRule(s *service) forward.Rule {
	p := place{source: "service " + s.id() + " in " + f.i.masterFile(), line: s.line, uid: f.i.masterID, dormant: f.i.dormant}
	return p.rule(forward.Command)
}

// stockPipes are the programs of pipe services that master.cf comes with.
var stockPipes = []string{
	"/usr/bin/maildrop", "/usr/local/bin/maildrop", "uux", "/usr/lib/ifmail/ifmail", "/usr/lib/bsmtp/bsmtp", "/usr/local/sbin/bsmtp",
	"/usr/lib/scalemail/bin/scalemail-store", "/usr/lib/mailman/bin/postfix-to-mailman.py", "/usr/cyrus/bin/deliver", "/cyrus/bin/deliver",
}

// stock reports a pipe service that master.cf comes with.
func stock(s *service) bool {
	program, _, _ := strings.Cut(s.argv(), " ")
	return s.command == "pipe" && slices.Contains(stockPipes, program) && s.surroundings() == ""
}

// tableTransports are the transports that tables name.
func (f *finder) tableTransports(ctx context.Context) map[string]bool {
	used := map[string]bool{}
	for _, w := range routings {
		if !w.table || w.form != transportForm {
			continue
		}
		for _, p := range f.i.places(w.setting, w.commands...) {
			if p.dormant != "" {
				continue
			}
			all, _ := parseTables(p.value)
			for _, t := range all {
				for _, e := range f.list(ctx, t, false).Entries {
					name, _, _ := strings.Cut(strings.Trim(e.Value, spaces), ":")
					used[name] = used[name] || e.Dormant == ""
				}
			}
		}
	}
	return used
}

// spawned is the rule for a service that starts a program for whoever connects:
// spawn(8).
func (f *finder) spawned(ctx context.Context, base forward.Rule, s *service) forward.Reading {
	base.Note = "spawn service " + s.id() + ": whoever connects talks to the program"
	rule, uses := f.program(ctx, base, s.argv())
	rule.Target = "spawn " + rule.Target // a delivery agent would be none here
	return forward.Reading{Rules: []forward.Rule{bounded(rule)}, Uses: uses}
}

// transports are the names of all transports that settings name.
func (f *finder) transports() map[string]bool {
	used := map[string]bool{}
	for _, w := range routings {
		if w.table || w.form != transportForm {
			continue
		}
		for _, p := range f.i.places(w.setting, w.commands...) {
			name, _, _ := strings.Cut(p.value, ":")
			used[name] = used[name] || p.dormant == ""
		}
	}
	return used
}

// daemonDirectory is where master(8) takes its programs from: elsewhere, and all
// mail goes through other programs.
func (f *finder) daemonDirectory(context.Context) forward.Reading {
	value := f.i.value("daemon_directory")
	for _, usual := range []string{"/usr/lib/postfix/sbin", "/usr/lib/postfix", "/usr/libexec/postfix", "/usr/local/libexec/postfix", "/usr/lib/postfix/bin"} {
		if path.Clean(value) == usual {
			return forward.Reading{}
		}
	}
	p := f.i.mainPlace("daemon_directory")
	rule := p.rule(forward.Command)
	rule.Kind, rule.Target, rule.Note = forward.Program, value, "Postfix's programs are taken from here"
	return forward.Reading{Rules: []forward.Rule{bounded(rule)}}
}
