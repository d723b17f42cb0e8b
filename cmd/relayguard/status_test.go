package main

import (
	"strings"
	"testing"

	"relayguard/policy"
)

// Review 1, finding 22.
func TestStatusNamesSuspendedUnixAccounts(t *testing.T) {
	d := newFakeDaemon(t)
	s := someStatus()
	const nobody = "4294967290" // no account has it
	s.Suspended = []policy.Switch{{Subject: policy.SubjectLocalUser, Value: "0", By: "ann"}, {Subject: policy.SubjectLocalUser, Value: nobody, By: "ann"}, {Subject: policy.SubjectLogin, Value: "33", By: "ann"}}
	d.always("GET /v1/status", s)
	_, stdout, _ := d.run("status")
	for _, want := range []string{"local_user:root until", "local_user:uid:" + nobody + " until", "login:33 until"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
}

// Review 1, finding 31: alerts that reach nobody are seen at least here.
func TestStatusShowsADeadAlertChannel(t *testing.T) {
	for _, c := range []struct {
		alerts []alertStatus
		code   int
		says   string
	}{
		{nil, exitFine, "nobody is told"},
		{[]alertStatus{{Channel: "syslog", Delivered: 3}}, exitFine, "syslog: 3 sent"},
		{[]alertStatus{{Channel: "syslog", Delivered: 3}, {Channel: "command", Waiting: 2, Kept: 5, Failed: 9, Problem: "exit status 1"}}, exitFinding,
			"syslog: 3 sent; command: 0 sent, 2 waiting, 5 kept back, the last attempt failed: exit status 1"},
	} {
		d := newFakeDaemon(t)
		s := someStatus()
		s.Alerts = c.alerts
		d.always("GET /v1/status", s)
		code, stdout, _ := d.run("status")
		if code != c.code || !strings.Contains(strings.Join(strings.Fields(stdout), " "), c.says) {
			t.Errorf("%+v: exit %d, no %q in\n%s", c.alerts, code, c.says, stdout)
		}
	}
}

// Review 2, findings 5 and 17.
func TestStatusShowsWhatTheMTAStopsAndWhatWasForgotten(t *testing.T) {
	for _, c := range []struct {
		change func(s *status)
		code   int
		says   string
	}{
		{func(s *status) { s.MTAStop = "the MTA still stops all mail" }, exitFinding, "mta stop: the MTA still stops all mail"},
		{func(s *status) { s.Forbidden = []string{"games", "deploy"} }, exitFine, "refuses accounts that are not suspended: games, deploy;"},
		{func(s *status) { s.Store.Forgotten = 12 }, exitFine, "12 budgets forgotten before their time"},
		{func(s *status) { s.NoForwards = "not watched: disk on fire" }, exitFinding, "forwards: not watched: disk on fire"},
		{func(s *status) { s.Blocklists, s.NoBlocklists = nil, "mkdir: not a directory" }, exitFinding, "blocklists: not watched: mkdir: not a directory"},
		{func(s *status) { s.Blocklists = &blocklistStatus{Unchecked: "no address is known"} }, exitFinding, "blocklists"},
		{func(s *status) { s.Queue = "root helper not reachable" }, exitFinding, "root helper not reachable; see journalctl -u relayguard-queue"},
	} {
		d := newFakeDaemon(t)
		s := someStatus()
		c.change(&s)
		d.always("GET /v1/status", s)
		code, stdout, _ := d.run("status")
		if code != c.code || !strings.Contains(strings.Join(strings.Fields(stdout), " "), c.says) {
			t.Errorf("exit %d, no %q in\n%s", code, c.says, stdout)
		}
	}
}
