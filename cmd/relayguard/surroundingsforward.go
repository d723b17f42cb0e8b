package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/render"
	"relayguard/mta"
	"relayguard/policy"
)

// forwards looks at what the watch over forwarding rules needs, and says within
// which time a planted rule is told.
func (s surroundings) forwards(ctx context.Context) []mta.Finding {
	c := s.config
	if !c.Forward.Watch {
		all := []mta.Finding{{ID: "forward-watch", Severity: mta.Info, Where: "forward.watch", What: "nobody watches forwarding rules",
			Why: "a rule that sends people's mail outside is not noticed", Remedy: "delete forward.watch; or run relayguard forwards scan by a timer"}}
		if c.Forward.Stop == config.StopHold {
			all = append(all, mta.Finding{ID: "forward-stop", Severity: mta.Warning, Where: "forward.stop", What: "mail that is forwarded is to be held, and forward.watch is false",
				Why: "nothing is held: without the watch no rule is known", Remedy: "delete forward.watch, and restart the daemon; or set forward.stop = \"off\""})
		}
		return all
	}
	var all []mta.Finding
	if c.Alert.Webhook == "" && c.Alert.SyslogServer == "" {
		all = append(all, mta.Finding{ID: "alert-outside", Severity: mta.Info, Where: "alert.webhook, alert.syslog_server", What: "alerts do not leave this machine, nor does the head of the ledger of forwarding rules",
			Why: "who owns the machine can silence them, and rewrite what was known", Remedy: "name another machine in alert.webhook or alert.syslog_server"})
	}
	if c.Alert.WebhookTokenFile != "" {
		if f, err := os.Open(c.Alert.WebhookTokenFile); err != nil && !errors.Is(err, fs.ErrPermission) {
			all = append(all, mta.Finding{ID: "alert-webhook-token", Severity: mta.Warning, Where: c.Alert.WebhookTokenFile, What: err.Error(),
				Why: "alerts do not reach alert.webhook", Remedy: "write the secret into that file, readable for the daemon's account alone"})
		} else if err == nil {
			f.Close()
			if s.account != nil && !s.account.may(reading, c.Alert.WebhookTokenFile) {
				all = append(all, mta.Finding{ID: "alert-webhook-token", Severity: mta.Warning, Where: c.Alert.WebhookTokenFile, What: fmt.Sprintf("the daemon's account %s may not read it", s.account.Username),
					Why: "alerts do not reach alert.webhook", Remedy: "chgrp it to the daemon's group, mode 0640"})
			}
		}
	}
	if f := s.together(); f != nil {
		all = append(all, *f)
	}
	if c.Forward.Stop == config.StopHold && !slices.ContainsFunc(c.Listeners, func(l config.Listener) bool { return l.Role == policy.Egress }) {
		all = append(all, mta.Finding{ID: "forward-stop", Severity: mta.Warning, Where: "forward.stop", What: "mail that is forwarded is to be held, and there is no listener with the role egress",
			Why: "aliases, .forward, tables and BCC are seen on the way out only; what is stopped now is only what comes back by sendmail(1) or SMTP", Remedy: "add an egress listener and lead outgoing mail through it, one recipient at a time (TRANSPORT_destination_recipient_limit = 1): see FORWARDING, \"Holding what is forwarded\""})
	}
	return append(all, s.watching(ctx)...)
}

// together is a finding if one forwarded recipient would hold the mail of others, too:
// where the transport that leads to the egress hop hands it several at once. Only
// what the settings of main.cf name is looked at, not transport tables.
func (s surroundings) together() *mta.Finding {
	c := s.config
	if c.Forward.Stop != config.StopHold || s.setting == nil || !slices.ContainsFunc(c.Listeners, func(l config.Listener) bool { return l.Role == policy.Egress }) {
		return nil
	}
	for _, name := range [...]string{"default_transport", "relay_transport", "relayhost"} {
		transport, hop, found := strings.Cut(s.setting(name), ":")
		if name == "relayhost" {
			transport, hop, found = "smtp", s.setting(name), true
		}
		if !found || !loopback(hop) {
			continue
		}
		limit := transport + "_destination_recipient_limit"
		if value := strings.TrimSpace(s.setting(limit)); value == "1" || (value == "" || strings.HasPrefix(value, "$")) && strings.TrimSpace(s.setting("default_destination_recipient_limit")) == "1" {
			continue
		}
		return &mta.Finding{ID: "forward-stop", Severity: mta.Warning, Where: "main.cf: " + limit, What: fmt.Sprintf("%s leads to this machine by the transport %s, which hands over several recipients at once", name, transport),
			Why: "if one of them is by a forwarding rule that is not approved, the mail to all of them is held", Remedy: fmt.Sprintf("postconf -e '%s = 1'; postfix reload", limit)}
	}
	return nil
}

// loopback reports whether a next hop is this machine: "[127.0.0.1]:10027".
func loopback(hop string) bool {
	host, rest, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(hop), "["), "]")
	if rest == "" {
		host, _, _ = strings.Cut(host, ":")
	}
	ip, err := netip.ParseAddr(strings.TrimPrefix(strings.ToLower(host), "ipv6:"))
	return err == nil && ip.IsLoopback() || strings.EqualFold(host, "localhost")
}

// watching says how soon a planted rule is told, and why not sooner.
func (s surroundings) watching(ctx context.Context) []mta.Finding {
	f := mta.Finding{ID: "forward-delay", Severity: mta.Info, Where: "forward.rescan"}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", s.config.Forward.Helper)
	if err == nil {
		conn.Close()
	} else if !errors.Is(err, fs.ErrPermission) || isRoot() {
		f.ID, f.Severity, f.Where = "watch-helper", mta.Warning, s.config.Forward.Helper
		f.What = "the helper that reads homes and sees who writes cannot be reached: " + err.Error()
		f.Why = "no forwarding rule in a file is seen until it answers; what was known stays known"
		f.Remedy = "systemctl enable --now relayguard-watch.socket"
		return []mta.Finding{f}
	}
	var l forwardsListed
	if err := control.NewClient(s.config.Control.Socket).Get(ctx, "/v1/forwards", forwardQueryNothing.values(), &l); err != nil || l.Watch == nil {
		var refused *control.Error
		if !errors.As(err, &refused) || refused.Status != http.StatusServiceUnavailable {
			return nil // that the daemon is dead is said elsewhere
		}
		f.ID, f.Severity, f.Where, f.What = "forward-watch", mta.Warning, s.config.ForwardDirectory(), err.Error()
		f.Why, f.Remedy = "a rule that sends people's mail outside is not noticed", "mend that, then systemctl restart relayguard"
		if s.config.Forward.Stop == config.StopHold {
			f.Why += `; forward.stop = "hold" is not in force`
		}
		return []mta.Finding{f}
	}
	rescan, poll := render.Duration(s.config.Forward.Rescan), render.Duration(s.config.Forward.Poll)
	switch l.Watch.Method {
	case "fanotify":
		f.What = fmt.Sprintf("a planted forwarding rule is told within 3 s (fanotify), one in a database within %s", poll)
	case "inotify":
		f.What = fmt.Sprintf("a planted forwarding rule is told within seconds where its directory is watched (inotify), else within %s; one in a database within %s; who wrote it is not known", rescan, poll)
	default:
		f.What = fmt.Sprintf("a planted forwarding rule is told within %s, by the full scan only; one in a database within %s", rescan, poll)
	}
	f.Why, f.Remedy = "the sooner it is known, the less goes out by it", "nothing, or another forward.rescan and forward.poll"
	all := []mta.Finding{f}
	if l.Watch.Error != "" {
		all = append(all, mta.Finding{ID: "forward-scan", Severity: mta.Warning, Where: "forwards", What: l.Watch.Error, Why: "forwarding rules may not be seen", Remedy: "relayguard forwards list says what is known; journalctl -u relayguard why"})
	}
	if n := len(l.Watch.Gaps); n > 0 {
		all = append(all, mta.Finding{ID: "forward-gaps", Severity: mta.Info, Where: l.Watch.Gaps[0].Source, What: fmt.Sprintf("%s where forwarding rules can be could not be read, such as this one: %s", counted(n, "place"), l.Watch.Gaps[0].Why),
			Why: "a rule there is not seen", Remedy: "relayguard forwards list --json has all of them under watch.gaps"})
	}
	return all
}

// forwardQueryNothing chooses no rule: only how the watch stands is wanted.
var forwardQueryNothing = forwardQuery{Status: "none"}
