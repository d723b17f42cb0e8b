package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/forwards"
	"relayguard/cmd/internal/holds"
	"relayguard/cmd/internal/queue"
	"relayguard/incident"
	"relayguard/journal"
	"relayguard/policy"
	"relayguard/policy/limit"
)

// nothing is what an operation is given that needs nothing.
type nothing struct{}

// serveControl opens the control socket. Mail goes on without it.
func (d *daemon) serveControl() {
	l, err := control.Listen(d.config.Control.Socket)
	if err != nil {
		d.log.Error("control.socket: no command reaches the daemon", "error", err)
		return
	}
	groups := func() control.Groups {
		c := d.state.config.Load().Control
		return control.Groups{Admin: c.AdminGroup, Read: c.ReadGroup, Inspect: c.InspectGroup}
	}
	d.control = control.NewServer(l, d.operations(), groups, d.log)
}

func byPeer(p control.Peer) desk.By { return desk.By{Name: p.By(), UID: p.UID, LoginUID: p.LoginUID} }

// asked turns what a desk says into what a client is told.
func asked[T any](out T, err error) (T, error) {
	status := http.StatusInternalServerError
	switch {
	case err == nil:
		return out, nil
	case errors.Is(err, desk.ErrNotHeld), errors.Is(err, desk.ErrNoSwitch):
		status = http.StatusNotFound
	case errors.Is(err, desk.ErrUsage):
		status = http.StatusBadRequest
	case errors.Is(err, queue.ErrUnreachable):
		status = http.StatusServiceUnavailable
	}
	return out, control.Errorf(status, "%v", err)
}

// operations are what commands may ask for. An act that was begun is finished,
// whether the client waits or not.
func (d *daemon) operations() *control.Mux {
	m, s := &control.Mux{}, d.state
	control.Handle(m, "GET /v1/status", control.Read, func(ctx context.Context, _ *http.Request, _ control.Peer, _ nothing) (status, error) {
		return d.status(ctx, time.Now()), nil
	})
	control.Handle(m, "GET /v1/decisions", control.Read, func(ctx context.Context, r *http.Request, _ control.Peer, _ nothing) ([]desk.Decision, error) {
		q, err := decisionQuery(r.URL.Query())
		if err != nil {
			return nil, control.Errorf(http.StatusBadRequest, "%v", err)
		}
		return asked(s.desk.Decisions(ctx, q))
	})
	control.Handle(m, "GET /v1/explain/{id}", control.Read, func(ctx context.Context, r *http.Request, _ control.Peer, _ nothing) ([]desk.Explanation, error) {
		return asked(s.desk.Explain(ctx, time.Now(), r.PathValue("id")))
	})
	control.Handle(m, "POST /v1/held/list", control.Read, func(ctx context.Context, _ *http.Request, _ control.Peer, f desk.Filter) (desk.List, error) {
		return asked(s.desk.List(ctx, time.Now(), f))
	})
	control.Handle(m, "POST /v1/held/inspect", control.Inspect, func(ctx context.Context, _ *http.Request, p control.Peer, l desk.Look) (desk.Inspected, error) {
		return asked(s.desk.Inspect(ctx, time.Now(), byPeer(p), l))
	})
	control.Handle(m, "POST /v1/suspend", control.Admin, func(ctx context.Context, _ *http.Request, p control.Peer, o desk.Suspension) (desk.Suspended, error) {
		out, err := s.desk.Suspend(context.WithoutCancel(ctx), time.Now(), byPeer(p), o)
		out.Remarks = append(out.Remarks, s.unshared(ctx)...)
		return asked(out, err)
	})
	control.Handle(m, "POST /v1/resume", control.Admin, func(ctx context.Context, _ *http.Request, p control.Peer, o desk.Resumption) (desk.Resumed, error) {
		out, err := s.desk.Resume(context.WithoutCancel(ctx), time.Now(), byPeer(p), o)
		out.Remarks = append(out.Remarks, s.unshared(ctx)...)
		return asked(out, err)
	})
	control.Handle(m, "POST /v1/stop", control.Admin, func(ctx context.Context, _ *http.Request, p control.Peer, o stopOrder) (desk.Stopped, error) {
		return asked(s.desk.Stop(context.WithoutCancel(ctx), time.Now(), byPeer(p), o.Reason))
	})
	control.Handle(m, "POST /v1/start", control.Admin, func(ctx context.Context, _ *http.Request, p control.Peer, o stopOrder) (desk.Started, error) {
		return asked(s.desk.Start(context.WithoutCancel(ctx), time.Now(), byPeer(p), o.Reason, o.Keep))
	})
	control.Handle(m, "GET /v1/switches", control.Read, func(context.Context, *http.Request, control.Peer, nothing) ([]policy.Switch, error) {
		return s.switches.All(time.Now()), nil
	})
	control.Handle(m, "POST /v1/switches/set", control.Admin, func(ctx context.Context, _ *http.Request, p control.Peer, o policy.Switch) ([]given, error) {
		if o.Kind != policy.Deny && o.Kind != policy.Allow {
			return nil, control.Errorf(http.StatusBadRequest, "only deny and allow are set so, found %q", o.Kind)
		}
		if o.Rule != "" && !slices.Contains(policy.Rules(), o.Rule) && !slices.Contains(s.rules.Load().limitNames, o.Rule) {
			return nil, control.Errorf(http.StatusBadRequest, "there is no rule %q; the limits are %s", o.Rule, strings.Join(s.rules.Load().limitNames, ", "))
		}
		sw, err := asked(s.desk.Set(time.Now(), byPeer(p), o))
		return s.given(ctx, err, sw)
	})
	control.Handle(m, "POST /v1/switches/remove", control.Admin, func(ctx context.Context, _ *http.Request, p control.Peer, o liftOrder) ([]given, error) {
		gone, err := asked(s.desk.Lift(time.Now(), byPeer(p), o.Kind, o.Which, o.Reason))
		return s.given(ctx, err, gone...)
	})
	d.queueOperations(m)
	s.limitOperations(m)
	s.forwardOperations(m)
	s.rblOperations(m)
	d.reportOperations(m)
	d.metricsOperation(m)
	d.originOperations(m)
	d.siteOperations(m)
	control.Handle(m, "GET /v1/incidents", control.Read, func(ctx context.Context, r *http.Request, _ control.Peer, _ nothing) ([]incident.Incident, error) {
		return s.book.All(), nil
	})
	control.Handle(m, "GET /v1/actions", control.Read, func(ctx context.Context, r *http.Request, _ control.Peer, _ nothing) ([]action, error) {
		return asked(s.actions(ctx, r.URL.Query().Get("limit")))
	})
	control.Handle(m, "POST /v1/journal/purge", control.Admin, func(ctx context.Context, _ *http.Request, p control.Peer, o purgeOrder) (nothing, error) {
		by, now := byPeer(p), time.Now()
		if o.Account == "" {
			return nothing{}, control.Errorf(http.StatusBadRequest, "purge: name an account")
		}
		err := s.journal.Append(journal.AdminAction{Time: now, By: by.Name, UID: by.UID, LoginUID: by.LoginUID, Verb: "journal purge", Target: o.Account, Reason: o.Reason})
		if err == nil {
			err = s.journal.PurgeAccount(ctx, o.Account)
			if bucket, _ := s.desk.Bucket(o.Account); bucket != "" { // whom it wrote to is forgotten, not that it is over a limit
				err = errors.Join(err, s.budgets.Put(ctx, limit.Entry{Known: &limit.KnownState{Account: bucket}}))
			}
		}
		return asked(nothing{}, err)
	})
	return m
}

type stopOrder struct {
	Reason string `json:"reason"`
	Keep   bool   `json:"keep"`
}

type liftOrder struct {
	Kind   policy.SwitchKind `json:"kind"`
	Which  string            `json:"which"`
	Reason string            `json:"reason"`
}

type purgeOrder struct {
	Account string `json:"account"`
	Reason  string `json:"reason"`
}

// action is what an admin did, as it is shown.
type action struct {
	Time     time.Time `json:"time"`
	By       string    `json:"by"`
	UID      int       `json:"uid"`
	LoginUID int       `json:"login_uid"`
	Verb     string    `json:"verb"`
	Target   string    `json:"target"`
	Reason   string    `json:"reason"`
	Outcome  string    `json:"outcome,omitempty"`
}

func (s *state) actions(ctx context.Context, most string) ([]action, error) {
	n, _ := strconv.Atoi(cmp.Or(most, "0"))
	all, err := s.journal.AdminActions(ctx, n)
	out := make([]action, len(all))
	for i, a := range all {
		out[i] = action{a.Time, a.By, a.UID, a.LoginUID, a.Verb, a.Target, a.Reason, a.Outcome}
	}
	return out, err
}

// decisionQuery reads a search from the query of a URL; values writes it.
func decisionQuery(v url.Values) (journal.Query, error) {
	q := journal.Query{Account: v.Get("account"), Login: v.Get("login"), LocalUser: v.Get("local_user"), Address: v.Get("address"), Rule: v.Get("rule"),
		QueueID: v.Get("queue_id"), MessageID: v.Get("message_id"), ClientIP: v.Get("client"), Stage: v.Get("stage"), Before: v.Get("before"),
		Site: v.Get("site"), Plugin: v.Get("plugin"), Template: v.Get("template"), Node: v.Get("node")}
	for _, name := range v["verdict"] {
		verdict, err := policy.ParseVerdict(name)
		if err != nil {
			return q, fmt.Errorf("verdict: %w", err)
		}
		q.Verdicts = append(q.Verdicts, verdict)
	}
	if err := spanOf(v, &q.Since, &q.Until, &q.Limit); err != nil {
		return q, err
	}
	return q, nil
}

// spanOf reads since, until and limit, which searches have in common; what is not
// there stays as it is.
func spanOf(v url.Values, since, until *time.Time, limit *int) error {
	for name, at := range map[string]*time.Time{"since": since, "until": until} {
		if text := v.Get(name); text != "" {
			t, err := time.Parse(time.RFC3339, text)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			*at = t
		}
	}
	if text := v.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fmt.Errorf("limit: found %q, want a number from 1", text)
		}
		*limit = n
	}
	return nil
}

// status is what is happening now.
type status struct {
	Version    string              `json:"version"`
	Now        time.Time           `json:"now"`
	Since      time.Time           `json:"since"`
	Phase      string              `json:"phase"`
	Incidents  []incident.Incident `json:"incidents"` // open, the newest first
	Stopped    *policy.Switch      `json:"stopped,omitempty"`
	Suspended  []policy.Switch     `json:"suspended"`
	Denied     int                 `json:"denied"`
	Held       holds.Total         `json:"held"`
	Foreign    int                 `json:"foreign"` // held by others
	Messages   map[string]int64    `json:"messages"`
	Refused    int64               `json:"refused_recipients"`
	Open       int64               `json:"connections"`
	Journal    journalStatus       `json:"journal"`
	Log        logStatus           `json:"mta_log"`
	Alerts     []alertStatus       `json:"alerts"` // by channel
	Queue      string              `json:"queue_error,omitempty"`
	MTAStop    string              `json:"mta_stop,omitempty"`          // where the MTA's red switch does not go with ours
	Forbidden  []string            `json:"forbidden_unasked,omitempty"` // accounts that sendmail(1) refuses without a suspension
	NoRoom     string              `json:"no_room,omitempty"`           // why nothing more is held
	Store      storeStatus         `json:"store"`
	Relays     string              `json:"relays,omitempty"` // why other relays may not have this one's orders, or it theirs
	Waiting    int                 `json:"waiting"`          // held messages that wait for budget
	Nodes      *nodeStatus         `json:"web_nodes,omitempty"`
	Origins    originStatus        `json:"origins"`
	Forwards   *forwards.Status    `json:"forwards,omitempty"`         // absent: forwarding rules are not watched
	Blocklists *blocklistStatus    `json:"blocklists,omitempty"`       // absent: own addresses are not checked
	NoForwards string              `json:"forwards_problem,omitempty"` // why they are not, and forwarded mail is not held, although the configuration wants that

	NoBlocklists string `json:"blocklists_problem,omitempty"` // why they are not checked although the configuration wants that
}

type journalStatus struct {
	OK              bool   `json:"ok"`
	Text            string `json:"text"`
	Backlog         int    `json:"backlog"`
	Lag             int64  `json:"lag_bytes"`
	DroppedAccepted int64  `json:"dropped_accepted"`
	Lost            int64  `json:"lost"`
}

// alertStatus is how a channel of alerts does.
type alertStatus struct {
	Channel   string `json:"channel"`
	Delivered int64  `json:"delivered"`
	Waiting   int    `json:"waiting"`
	Kept      int64  `json:"kept_back"`
	Failed    int64  `json:"failed_attempts"`
	Problem   string `json:"problem,omitempty"` // of the last attempt
}

type logStatus struct {
	Source     string `json:"source"`
	Problem    string `json:"problem,omitempty"` // why it cannot be read
	Events     int64  `json:"events"`
	Gaps       int64  `json:"gaps"`
	Unreadable int64  `json:"unreadable"`
	Delivered  int64  `json:"delivered"`
	Deferred   int64  `json:"deferred"`
	Bounced    int64  `json:"bounced"`
	Expanded   int64  `json:"expanded"`
	Beyond     int64  `json:"expanded_uncharged"` // recipients of one message beyond what is charged afterwards
	AuthFailed int64  `json:"auth_failed"`
}

func (d *daemon) status(ctx context.Context, now time.Time) status {
	s, c := d.state, d.state.config.Load()
	out := status{Version: version, Now: now, Since: d.since, Phase: c.Phase.String(), Incidents: s.book.Open(), Suspended: []policy.Switch{}, Held: s.room.Totals(),
		Refused: d.guard.Counts.Refused.Load(), Open: d.server.Stats.Open.Load(), Store: s.budgets.statusNow(), Waiting: s.lines.Len()}
	for _, sw := range s.switches.All(now) {
		switch sw.Kind {
		case policy.Stop:
			out.Stopped = &sw
		case policy.Suspend:
			out.Suspended = append(out.Suspended, sw)
		case policy.Deny:
			out.Denied++
		}
	}
	out.Messages = map[string]int64{}
	for v := policy.Accept; v <= policy.Reject; v++ {
		out.Messages[v.String()] = d.guard.Counts.Messages[v].Load()
	}
	h, js := s.journal.Health(), s.journal.Stats()
	out.Journal = journalStatus{h.OK(), h.String(), js.Backlog, js.Lag, js.DroppedAccepted, js.Lost}
	t := s.trail.Counts()
	out.Log = logStatus{Source: c.MTA.Log, Delivered: t.Delivered, Deferred: t.Deferred, Bounced: t.Bounced, Expanded: t.Expanded, Beyond: t.Beyond, AuthFailed: t.AuthFailed}
	if c.MTA.Log != config.LogNone && c.MTA.Log != config.LogJournal {
		out.Log.Problem = unreadable(c.MTA.Log)
	}
	if s.follower != nil {
		fc := s.follower.Counts()
		out.Log.Events, out.Log.Gaps, out.Log.Unreadable = fc.Events, fc.Gaps, fc.Unreadable
	}
	out.Alerts = []alertStatus{}
	for _, n := range s.channels.Counts() {
		out.Alerts = append(out.Alerts, alertStatus{n.Name, n.Delivered, n.Waiting, n.Kept, n.Failed, n.LastError})
	}
	if s.forwarding != nil {
		for _, n := range s.forwarding.channels.Counts() {
			out.Alerts = append(out.Alerts, alertStatus{n.Name + " (forwards)", n.Delivered, n.Waiting, n.Kept, n.Failed, n.LastError})
		}
	}
	out.Foreign, out.Queue = s.desk.Looked()
	standing := s.desk.MTAStopped(ctx, now)
	out.MTAStop, out.Forbidden = standing.Stop, standing.Forbidden
	out.Nodes = s.nodeStatus(now, c)
	out.Origins = s.learnt.status()
	if s.share != nil && c.Sign.Node == "" {
		out.Relays = sharing(s.share.Health())
	}
	if why := s.noRoom.Load(); why != nil {
		out.NoRoom = *why
	}
	if s.forwarding != nil {
		f := s.forwarding.guard.Status()
		out.Forwards = &f
	}
	if s.blocklists != nil {
		out.Blocklists = s.blocklists.status(ctx)
	}
	out.NoForwards = s.stopOff(c)
	out.NoBlocklists = s.blocklistsProblem(c)
	return out
}
