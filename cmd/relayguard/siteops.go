package main

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	phpcall "relayguard/cmd/internal/call"
	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/sites"
	"relayguard/journal"
	"relayguard/policy"
	"relayguard/policy/origin/stamp"
)

// siteOperations are what commands may ask for of web sites that sign their mail.
func (d *daemon) siteOperations(m *control.Mux) {
	s := d.state
	control.Handle(m, "GET /v1/sites", control.Read, func(context.Context, *http.Request, control.Peer, nothing) ([]sites.Info, error) {
		return sites.Infos(s.learnt.sites()), nil
	})
	control.Handle(m, "POST /v1/sites", control.Admin, func(ctx context.Context, _ *http.Request, p control.Peer, r sites.Registration) (sites.Info, error) {
		site := r.Site()
		if s.learnt.registry == nil {
			return sites.Info{}, control.Errorf(http.StatusServiceUnavailable, "the register of sites cannot be read; see the daemon's log")
		}
		known := slices.ContainsFunc(s.learnt.sites(), func(other stamp.Site) bool { return other.Name == site.Name })
		if err := s.learnt.registry.Put(site); err != nil {
			return sites.Info{}, control.Errorf(http.StatusBadRequest, "%v", err)
		}
		if !known { // its orders did not begin today
			s.learnt.grant(time.Now(), "site:"+site.Name)
		}
		s.noteSite(p, "register site", site.Name)
		return sites.InfoOf(site), d.useSites(ctx)
	})
	control.Handle(m, "DELETE /v1/sites/{name}", control.Admin, func(ctx context.Context, r *http.Request, p control.Peer, _ nothing) (sites.Removed, error) {
		name := r.PathValue("name")
		if s.learnt.registry == nil {
			return sites.Removed{}, control.Errorf(http.StatusServiceUnavailable, "the register of sites cannot be read; see the daemon's log")
		}
		was, err := s.learnt.registry.Remove(name)
		if err != nil {
			return sites.Removed{}, control.Errorf(http.StatusInternalServerError, "%v", err)
		}
		if was {
			s.noteSite(p, "forget site", name)
		}
		return sites.Removed{Name: name, Was: was}, d.useSites(ctx)
	})
}

func (s *state) noteSite(p control.Peer, verb, name string) {
	by := byPeer(p)
	if err := s.journal.Append(journal.AdminAction{Time: time.Now(), By: by.Name, UID: by.UID, LoginUID: by.LoginUID, Verb: verb, Target: name, Outcome: "done"}); err != nil {
		s.log.Error("an admin's action is not in the journal yet", "error", err)
	}
}

// useSites puts the sites that are registered now into force.
func (d *daemon) useSites(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case d.changes <- func() { done <- d.renewSites() }:
		return <-done
	case <-ctx.Done():
		return control.Errorf(http.StatusServiceUnavailable, "it is kept, and comes into force with the next reload: %v", ctx.Err())
	}
}

// renewSites has the policy in force know the sites. run alone calls it.
func (d *daemon) renewSites() error {
	rules, p, a := *d.rules, *d.rules.policy, *d.rules.policy.Attribution
	if err := d.state.learnt.register(&a); err != nil {
		return err
	}
	p.Attribution, rules.policy = &a, &p
	d.guard.Use(&p)
	d.state.rules.Store(&rules)
	d.rules = &rules
	return nil
}

// serveCalls answers the sendmail wrapper. Mail goes on without it.
func (d *daemon) serveCalls(ctx context.Context) {
	ln, err := phpcall.Listen(d.config.Origin.CallSocket)
	if err != nil {
		d.log.Error("origin.call_socket: the sendmail wrapper does not reach the daemon", "error", err)
		return
	}
	server := &phpcall.Server{Calls: d.state.learnt.calls, Timeout: d.config.Origin.CallTimeout, Log: d.log, Refuse: d.refuseCall}
	d.state.learnt.wrapper.Store(server)
	ctx, cancel := context.WithCancel(ctx)
	stop := d.state.stop
	d.state.stop = func() {
		cancel()
		stop()
	}
	d.state.work.Go(func() {
		if err := server.Serve(ctx, ln); err != nil {
			d.log.Error("origin.call_socket", "error", err)
		}
	})
}

// refuseCall tells a program that hands in mail what would become of it.
func (d *daemon) refuseCall(ctx context.Context, r *phpcall.Request) phpcall.Answer {
	m, ok := r.Message(d.senderOf)
	if !ok {
		return phpcall.Answer{Verdict: phpcall.Accept}
	}
	m.Listener, m.Time = callListener, time.Now()
	switch a := d.guard.Call(ctx, m); a.Verdict {
	case policy.Defer:
		return phpcall.Answer{Verdict: phpcall.Defer, Text: a.Reply.Text}
	case policy.Reject:
		return phpcall.Answer{Verdict: phpcall.Reject, Text: a.Reply.Text}
	}
	return phpcall.Answer{Verdict: phpcall.Accept}
}

// callListener stands for a listener in what is kept of calls.
const callListener = "sendmail-wrapper"

// senderOf is the envelope sender of mail of a Unix account that names none.
func (d *daemon) senderOf(uid int) string {
	name := d.users.Name(uid)
	if domain := d.state.rules.Load().policy.Addresses.DefaultDomain; name != "" && domain != "" {
		return name + "@" + domain
	}
	return cmp.Or(name, "uid:"+strconv.Itoa(uid))
}

var _ policy.Calls = (*phpcall.Calls)(nil)
