package sendmail

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"relayguard/policy"
)

// handsTo is where the submission program behind sendmail(1) hands its mail in:
// by submit.cf's ${MTAHost} and the arguments of its mailer relay.
func (s *Settings) handsTo() (host, port string) {
	host, port = s.Macro("MTAHost"), "25"
	if relay, found := s.Mailer("relay"); found {
		if args := strings.Fields(relay.Args); len(args) > 2 {
			port = args[2]
		}
	}
	return strings.Trim(host, "[]"), port
}

// takes finds the daemon that a program of this machine reaches at that place.
func (s *Settings) takes(host, port string) (n int, d Daemon, found bool) {
	for n, d := range s.Daemons() {
		if d.Family != "unix" && samePort(d.Port, port) && (everywhere(d) || sameHost(strings.Trim(d.Addr, "[]"), host)) {
			return n, d, true
		}
	}
	return 0, Daemon{}, false
}

func everywhere(d Daemon) bool {
	return d.Addr == "" || d.Addr == "0.0.0.0" || d.Addr == "::" || d.Addr == "0"
}

// samePort compares ports, which may be names of services.
func samePort(a, b string) bool { return portNumber(a) == portNumber(b) }

func portNumber(port string) int {
	if port == "" {
		port = "smtp"
	}
	n, err := net.LookupPort("tcp", port)
	if err != nil {
		return -1
	}
	return n
}

func sameHost(a, b string) bool {
	return strings.EqualFold(a, b) || isLoopback(a) && isLoopback(b)
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(strings.TrimPrefix(strings.Trim(host, "[]"), "IPv6:"))
	return ip != nil && ip.IsLoopback()
}

// dedicated reports a service that can be sendmail(1)'s alone: it is on loopback,
// at a port that other programs do not try by themselves.
func dedicated(d Daemon) bool {
	return isLoopback(d.Addr) && d.Family != "unix" && !isSubmission(d) && !samePort(d.Port, "25")
}

// isLocal reports the service of sendmail(1), if it has one of its own.
func (p *plan) isLocal(d Daemon) bool {
	if _, has := byRole(p.setup.Listeners, policy.Local); !has || p.now.submit == nil {
		return false
	}
	_, target, found := p.now.mta.takes(p.now.submit.handsTo())
	return d.Name == localDaemon || found && target.Line == d.Line && dedicated(d)
}

const (
	whyLocal  = "mail from sendmail(1), PHP's mail() and cron comes in at a port of its own, so the guard knows it from other programs' SMTP; first, before other milters change the message"
	whySubmit = "sendmail(1) hands its mail in there"
)

// localMail gives mail from sendmail(1) a service of its own. The port is below
// 1024, so that nobody takes the mail while Sendmail is away.
func (p *plan) localMail() error {
	l, has := byRole(p.setup.Listeners, policy.Local)
	if !has {
		return nil
	}
	if p.now.submit == nil {
		return errors.New("there is no submit.cf: sendmail(1) does not hand its mail to a service, where the guard could see it; set up Sendmail's submission program (FEATURE(`msp')), or remove the listener of role local")
	}
	host, port := p.now.submit.handsTo()
	if !isLoopback(host) {
		return fmt.Errorf("submit.cf hands mail from sendmail(1) to %q, not to this machine: attach the guard there, or remove the listener of role local", host)
	}
	if n, d, found := p.now.mta.takes(host, port); found && dedicated(d) {
		p.attach(n, d, l, whyLocal)
		p.submitSettings(port, port)
		return nil
	}
	want := strconv.Itoa(p.setup.LocalPort)
	p.submit = want
	p.submitSettings(want, port)
	if n := slices.IndexFunc(p.now.mta.Daemons(), func(d Daemon) bool { return d.Name == localDaemon }); n >= 0 {
		d := p.now.mta.Daemons()[n]
		p.submit = strconv.Itoa(portNumber(d.Port))
		p.attach(n, d, l, whyLocal)
		return nil
	}
	name := filterPrefix + l.Role.String()
	p.define(name, p.equates(l))
	p.local = fmt.Sprintf("Name=%s, Family=inet, Addr=127.0.0.1, Port=%s, M=E, InputMailFilters=%s", localDaemon, want, name)
	p.add(p.daemonSetting(localDaemon, p.local, "", whyLocal))
	return nil
}

func (p *plan) submitSettings(want, is string) {
	line := func(port string) string { return "define(`RELAY_MAILER_ARGS', `TCP $h " + port + "')dnl" }
	s := Setting{Place: InSubmit, Name: "RELAY_MAILER_ARGS", Why: whySubmit}
	if p.now.submitMC == nil {
		s.Place = InSubmitCF
		line = func(port string) string { return "Mrelay, ..., A=TCP $h " + port }
	}
	s.Value, s.Was = line(want), line(is)
	p.add(s)
}

// isSubmission reports services where people hand in mail: RFC 6409, RFC 8314, or
// that take nothing without AUTH.
func isSubmission(d Daemon) bool {
	return slices.Contains([]int{587, 465}, portNumber(d.Port)) || strings.Contains(d.Modifiers, "a")
}
