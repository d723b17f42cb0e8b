package postfix

import (
	"context"
	"fmt"
	"strings"

	"relayguard/policy"
)

// local looks at the way of sendmail(1): pickup(8) hands mail to a cleanup(8)
// service, whose non_smtpd_milters count.
func (r *report) local() {
	i := r.Instance
	pickup := i.Service("pickup", "unix")
	if pickup == nil {
		return // no local mail at all
	}
	if strings.Contains(r.effective(pickup, "receive_override_options"), "no_milters") {
		r.add(Finding{"no-milters", Critical, pickup.ID(), "receive_override_options has no_milters",
			"mail from sendmail(1), PHP and cron never reaches the guard", "remove no_milters from the service"})
	}
	name := r.effective(pickup, "cleanup_service_name")
	cleanup := i.Service(name, "unix")
	if cleanup == nil {
		r.add(Finding{"cleanup-missing", Warning, pickup.ID(), fmt.Sprintf("hands mail to the service %q, which is not in master.cf", name),
			"local mail stays in the maildrop directory", fmt.Sprintf("add the service %s, or remove cleanup_service_name from pickup", name)})
		return
	}
	r.milters(cleanup, "non_smtpd_milters", Finding{"local-unguarded", Critical, cleanup.ID(), "",
		"mail from sendmail(1), PHP's mail() and cron goes out without the guard", "relayguard setup postfix --apply"})
	if l, ok := byRole(r.Listeners, policy.Local); ok {
		if r.effective(cleanup, "milter_macro_daemon_name") != daemonLocal || !strings.Contains(r.effective(cleanup, "header_checks"), uidChecksFile) {
			r.add(Finding{"uid-unseen", Warning, cleanup.ID(), fmt.Sprintf("Postfix does not tell %s which Unix account sent a local mail", i.endpoint(l)),
				"all sites of this machine look like one sender", "relayguard setup postfix --apply"})
		}
	}
}

// smtpService looks at one service that takes SMTP.
func (r *report) smtpService(ctx context.Context, s *Service) {
	relays, reason := r.mayRelay(ctx, s)
	severity, why := Info, "strangers' mail to inside recipients is not watched; they cannot relay here"
	if relays {
		severity, why = Critical, "whoever may relay here ("+reason+") does so without the guard"
	}
	own, overridden := s.Overrides["smtpd_milters"]
	switch {
	case strings.Contains(r.effective(s, "receive_override_options"), "no_milters"):
		r.noMilters(s, "receive_override_options has no_milters", relays, reason)
	case overridden && own == "" && r.onLoopback(s):
		r.noMilters(s, "smtpd_milters is empty in master.cf", relays, reason)
	default:
		r.milters(s, "smtpd_milters", Finding{"service-unguarded", severity, s.ID(), "", why, "relayguard setup postfix --apply, or add the guard's socket to smtpd_milters of this service"})
		if _, _, l, err := r.Instance.attached(s, r.effective(s, "smtpd_milters"), r.Listeners); err == nil && l.Role == policy.Inbound && relays {
			r.add(Finding{"relay-as-inbound", Critical, s.ID(), "attached to a listener of role inbound, but it lets clients relay: " + reason,
				"on an inbound listener the guard only tells", "let clients relay on a service of their own (submission, or a relay port) and forbid it here, or attach the relay listener"})
		}
	}
	r.saslTLS(s)
	r.xclient(ctx, s)
}

// noMilters judges a service that switches milters off: usual for what a
// content filter gives back, since that mail has been judged on its way in.
func (r *report) noMilters(s *Service, what string, relays bool, reason string) {
	f := Finding{"no-milters", Critical, s.ID(), what,
		"mail that comes in here never reaches the guard", "remove that setting, or let only the content filter reach the service"}
	switch {
	case r.onLoopback(s) && relays:
		f.Severity = Warning
		f.Why = "for mail that a content filter gives back this is right, it has passed the guard before; but every local account may connect here too and relay (" + reason + ")"
		f.Remedy = "let only the filter connect, by a firewall rule on its Unix account or over a Unix socket (master.cf type unix) in a directory of its own"
	case r.onLoopback(s) || !relays:
		f.Severity = Info
		f.Why = "for mail that a content filter gives back this is right: it has passed the guard before"
		f.Remedy = "nothing, while nobody relays here"
	}
	r.add(f)
}

// milters looks whether the guard is in a list, where, and with what settings.
func (r *report) milters(s *Service, setting string, missing Finding) {
	value := r.effective(s, setting)
	place, m, _, err := r.Instance.attached(s, value, r.Listeners)
	switch {
	case err != nil:
		r.add(Finding{"milters-unreadable", Critical, s.ID(), err.Error(), "whether this service asks the guard cannot be told; Postfix itself refuses such a list", "correct " + setting})
		return
	case place < 0:
		missing.What = fmt.Sprintf("%s is %q and does not name the guard", setting, value)
		if _, own := s.Overrides[setting]; own {
			missing.What += "; the service has its own setting in master.cf"
		}
		r.add(missing)
		return
	case place > 0:
		r.add(Finding{"guard-not-first", Warning, s.ID(), fmt.Sprintf("the guard is number %d in %s", place+1, setting),
			"milters before it may change what it judges: the uid of a local sender is trusted only as the very first header; and they work (sign, scan) for mail that is then refused",
			"put the guard's socket first"})
	}
	action, from := r.effective(s, "milter_default_action"), "milter_default_action"
	if own, ok := m.Settings["default_action"]; ok {
		action, from = own, "default_action of the guard's entry in "+setting
	}
	if strings.EqualFold(action, "accept") {
		r.add(Finding{"default-accept", Critical, s.ID(), from + " is accept",
			"when the guard is away, restarts or is slow, all mail passes unjudged", "set it to tempfail: clients try again"})
	}
	r.ownTimeouts(s, setting, m)
}

// qmqp looks for qmqpd(8), which takes mail from trusted hosts without SMTP.
func (r *report) qmqp() {
	for n := range r.Instance.Services {
		s := &r.Instance.Services[n]
		if s.Command != "qmqpd" {
			continue
		}
		f := Finding{"qmqpd", Info, s.ID(), "qmqpd listens, but qmqpd_authorized_clients is empty: nobody may use it", "nothing now", "remove the service"}
		if clients := r.effective(s, "qmqpd_authorized_clients"); clients != "" {
			f = Finding{"qmqpd", Critical, s.ID(), fmt.Sprintf("qmqpd takes mail from %q", clients),
				"QMQP has no AUTH and no refusal by recipient; the guard sees such mail as local and cannot tell who sent it", "remove the service; let those machines use SMTP on a relay port"}
		}
		r.add(f)
	}
}

// timeouts compares Postfix's patience with the guard's deadline.
func (r *report) timeouts() {
	if p := r.Instance.Setting("milter_protocol"); p != "" && p < "6" {
		r.add(Finding{"protocol-old", Warning, "main.cf", "milter_protocol is " + p, "the guard is told less of each message", "remove the setting: 6 is the default"})
	}
	for _, setting := range []string{"milter_connect_timeout", "milter_command_timeout", "milter_content_timeout"} {
		r.timeout("main.cf", setting, r.Instance.Setting(setting))
	}
	for n := range r.Instance.Services {
		s := &r.Instance.Services[n]
		for _, setting := range []string{"milter_connect_timeout", "milter_command_timeout", "milter_content_timeout"} {
			if _, own := s.Overrides[setting]; own && s.settings != nil {
				r.timeout(s.ID(), setting, s.settings[setting])
			}
		}
	}
}

func (r *report) ownTimeouts(s *Service, setting string, m Milter) {
	for _, name := range []string{"connect_timeout", "command_timeout", "content_timeout"} {
		if value, ok := m.Settings[name]; ok {
			r.timeout(s.ID(), name+" in "+setting, value)
		}
	}
}

func (r *report) timeout(where, setting, value string) {
	if d, ok := parseTime(value); value == "" || ok && d > r.Deadline {
		return
	}
	r.add(Finding{"timeout-short", Warning, where, fmt.Sprintf("%s is %s", setting, value),
		fmt.Sprintf("the guard may take %s for a decision; Postfix gives up before and uses milter_default_action, for all the rest of the SMTP session", r.Deadline),
		"set it to 30s (milter_content_timeout: 300s), Postfix's default"})
}
