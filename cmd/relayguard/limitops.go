package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/desk"
	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

// limitOperations are what commands may ask for about limits.
func (s *state) limitOperations(m *control.Mux) {
	control.Handle(m, "GET /v1/limits", control.Read, func(ctx context.Context, r *http.Request, _ control.Peer, _ nothing) (limitList, error) {
		q := r.URL.Query()
		top, err := strconv.Atoi(cmp.Or(q.Get("top"), strconv.Itoa(maxShown)))
		if err != nil || top < 1 || top > maxShown {
			return limitList{}, control.Errorf(http.StatusBadRequest, "top: found %q, want 1 to %d", q.Get("top"), maxShown)
		}
		return s.listLimits(ctx, time.Now(), q.Get("account"), q.Get("limit"), top)
	})
	control.Handle(m, "GET /v1/limits/of", control.Read, func(ctx context.Context, r *http.Request, _ control.Peer, _ nothing) (limitsOf, error) {
		q := r.URL.Query()
		n, err := strconv.Atoi(cmp.Or(q.Get("recipients"), "1"))
		if err != nil || n < 1 || n > 100_000 {
			return limitsOf{}, control.Errorf(http.StatusBadRequest, "recipients: found %q, want 1 to 100000", q.Get("recipients"))
		}
		return s.limitsOf(ctx, time.Now(), q.Get("who"), n)
	})
	control.Handle(m, "POST /v1/limits/set", control.Admin, func(ctx context.Context, _ *http.Request, p control.Peer, o limitOrder) ([]given, error) {
		sw, err := s.setLimit(time.Now(), byPeer(p), o)
		return s.given(ctx, err, sw)
	})
	control.Handle(m, "POST /v1/limits/unset", control.Admin, func(ctx context.Context, _ *http.Request, p control.Peer, o limitOrder) ([]given, error) {
		gone, err := s.unsetLimit(time.Now(), byPeer(p), o)
		return s.given(ctx, err, gone...)
	})
	control.Handle(m, "POST /v1/limits/reset", control.Admin, func(ctx context.Context, _ *http.Request, p control.Peer, o limitOrder) (forgotten, error) {
		return s.resetLimits(context.WithoutCancel(ctx), time.Now(), byPeer(p), o)
	})
	control.Handle(m, "POST /v1/bulk", control.Admin, func(ctx context.Context, _ *http.Request, p control.Peer, o bulkOrder) ([]given, error) {
		sw, err := s.allowBulk(time.Now(), byPeer(p), o)
		return s.given(ctx, err, sw)
	})
	control.Handle(m, "GET /v1/held/lines", control.Read, func(context.Context, *http.Request, control.Peer, nothing) ([]desk.Line, error) {
		return append([]desk.Line{}, s.desk.Lines(time.Now())...), nil
	})
	control.Handle(m, "POST /v1/held/pace", control.Admin, func(ctx context.Context, _ *http.Request, p control.Peer, o paceOrder) ([]given, error) {
		all, err := s.pace(time.Now(), byPeer(p), o)
		return s.given(ctx, err, all...)
	})
	control.Stream(m, "GET /v1/limits/entries", control.Admin, func(ctx context.Context, _ *http.Request, send func(limit.Entry) error) error {
		return s.budgets.whole.Each(ctx, send)
	})
	control.Handle(m, "POST /v1/limits/entries", control.Admin, func(ctx context.Context, _ *http.Request, p control.Peer, all []limit.Entry) (imported, error) {
		return s.importEntries(context.WithoutCancel(ctx), time.Now(), byPeer(p), all)
	})
}

// given is an order that was given or taken back, and what its admin has to know.
type given struct {
	policy.Switch
	Remarks []string `json:"remarks,omitempty"` // of all orders that were given together, with the first
}

// given tells of orders, and whether the other relays have them.
func (s *state) given(ctx context.Context, err error, orders ...policy.Switch) ([]given, error) {
	if err != nil {
		return nil, err
	}
	all := make([]given, len(orders))
	for i, sw := range orders {
		all[i].Switch = sw
	}
	if len(all) > 0 {
		all[0].Remarks = s.unshared(ctx)
	}
	return all, nil
}

// limitList is the limits in force and how their fullest buckets stand.
type limitList struct {
	Limits  []limitShown  `json:"limits"`
	Buckets []bucketShown `json:"buckets"`
	Away    bool          `json:"away,omitempty"` // Redis is: these are this relay's own budgets
}

type limitShown struct {
	Name    string   `json:"name"`
	Per     string   `json:"per"` // several keys with + between them
	Counts  string   `json:"counts"`
	Kind    string   `json:"kind"`
	Then    string   `json:"then"`
	Observe bool     `json:"observe,omitempty"`
	Windows []string `json:"windows"`         // "300/1h"
	Tells   []string `json:"tells,omitempty"` // those of the windows and the burst over which nothing is stopped in this phase
	Burst   string   `json:"burst,omitempty"`
}

type bucketShown struct {
	Limit   string    `json:"limit"`
	Key     string    `json:"key"`
	Window  float64   `json:"window_seconds"`
	Used    int64     `json:"used"`
	Count   int64     `json:"count"`
	FreeAt  time.Time `json:"free_at,omitzero"`
	Latched bool      `json:"latched,omitempty"`
}

// maxShown bounds the buckets of one answer.
const maxShown = 200

// listLimits tells how buckets stand: those of one account, of one limit, else
// the fullest.
func (s *state) listLimits(ctx context.Context, now time.Time, account, name string, top int) (limitList, error) {
	c, r := s.config.Load(), s.rules.Load()
	out := limitList{Limits: []limitShown{}, Buckets: []bucketShown{}}
	for _, l := range c.Limits {
		out.Limits = append(out.Limits, inForce(&l, r.policy.Limits.Find(l.Name)))
	}
	value := ""
	if account != "" {
		var err error
		if value, err = s.desk.Bucket(account); err != nil {
			return out, control.Errorf(http.StatusBadRequest, "%v", err)
		}
	}
	if name != "" && !slices.Contains(limitNames(c), name) {
		return out, control.Errorf(http.StatusBadRequest, "there is no limit %q; there are %s", name, strings.Join(limitNames(c), ", "))
	}
	s.listing.Lock()
	defer s.listing.Unlock()
	stand := r.standings(now, s.board.Load())
	err := s.budgets.Each(ctx, func(e limit.Entry) error {
		if e.State == nil || value != "" && !policy.HasPart(e.State.Key.Value, value) || name != "" && e.State.Key.Limit != name {
			return nil
		}
		out.Buckets = append(out.Buckets, stand(e)...)
		if len(out.Buckets) > 50*maxShown { // enough to find full ones among
			out.Buckets = fullest(out.Buckets, maxShown)
		}
		return nil
	})
	out.Buckets, out.Away = fullest(out.Buckets, top), s.budgets.status().Away
	return asked(out, err)
}

// fullest are the fullest windows, the fullest first.
func fullest(all []bucketShown, top int) []bucketShown {
	slices.SortFunc(all, func(a, b bucketShown) int {
		return cmp.Or(cmp.Compare(float64(b.Used)/float64(b.Count), float64(a.Used)/float64(a.Count)), strings.Compare(a.Key+a.Limit, b.Key+b.Limit), cmp.Compare(a.Window, b.Window))
	})
	return all[:min(len(all), top)]
}

// standings tells how the windows of a bucket stand under the limit in force for
// it. It reckons in a store of its own: a list does not ask the real one for each.
func (r *rules) standings(now time.Time, s *policy.Switches) func(limit.Entry) []bucketShown {
	scratch := limit.NewMemoryOf(limit.MemoryOptions{})
	var out limit.Outcome
	return func(e limit.Entry) (all []bucketShown) {
		l := r.policy.Limits.InForce(now, s, e.State.Key.Limit, e.State.Key.Value)
		if l == nil {
			return nil // of an earlier configuration
		}
		ctx := context.Background()
		defer scratch.Put(ctx, limit.Entry{State: &limit.State{Key: e.State.Key}}) // forgets it
		if scratch.Put(ctx, e) != nil {
			return nil
		}
		one := l.Charge(e.State.Key.Value, 1, []limit.Item{0})
		step := limit.Step{Charges: []limit.Charge{one}, Known: limit.Known{Account: "nobody"}}
		if scratch.Peek(ctx, now, &step, &out) != nil {
			return nil
		}
		shut := !e.State.Latched.IsZero() // a full one is shut by the next message
		for _, u := range out.Uses {
			if u.Used > 0 || shut {
				all = append(all, bucketShown{e.State.Key.Limit, e.State.Key.Value, u.Window.Length.Seconds(), u.Used, u.Window.Count, u.FreeAt, shut})
			}
		}
		return all
	}
}

func shownLimit(l *config.Limit) limitShown {
	s := limitShown{Name: l.Name, Per: strings.Join(l.Per, "+"), Counts: l.Counts, Kind: l.Kind, Then: l.Then.String(), Observe: l.Observe}
	for _, w := range l.Windows {
		s.Windows = append(s.Windows, w.String())
	}
	if l.Burst != (config.Window{}) {
		s.Burst = l.Burst.String()
	}
	return s
}

// inForce is a limit of the configuration with what the phase makes of it.
func inForce(l *config.Limit, in *limit.Limit) limitShown {
	s := shownLimit(l)
	if in == nil { // nor is it in force
		return s
	}
	for _, w := range in.Windows {
		if w.Soft {
			s.Tells = append(s.Tells, config.Window{Count: w.Count, Length: w.Length}.String())
		}
	}
	return s
}

// wantWho says whose limits can be shown.
const wantWho = "want an account, or what else has budgets: login:NAME, local_user:NAME, network:NAME, site:NAME, plugin:NAME@SITE, template:NAME"

// originOf is the origin that WHO stands for.
func (s *state) originOf(who string) (origin.Origin, error) {
	o := origin.Origin{UID: origin.NoUID, NodeUID: origin.NoUID}
	if text, ok := strings.CutPrefix(who, "template:"); ok {
		if text == "" {
			return o, fmt.Errorf("found %q, %s", who, wantWho)
		}
		o.Template = origin.Key{Value: text, Confidence: origin.Fingerprint}
		return o, nil
	}
	subject, value, err := subjectFor(who, s.desk.LocalID)
	if err != nil {
		return o, err
	}
	key := origin.Key{Value: value, Confidence: origin.Kernel}
	switch subject {
	case policy.SubjectLogin:
		o.Login = origin.Key{Value: strings.ToLower(value), Confidence: origin.Kernel}
	case policy.SubjectTrusted:
		o.Network = key
	case policy.SubjectSite:
		o.Site = origin.Key{Value: strings.ToLower(value), Confidence: origin.Kernel}
	case policy.SubjectPlugin:
		value = strings.ToLower(value)
		at := strings.LastIndexByte(value, '@')
		if at < 1 || at == len(value)-1 {
			return o, fmt.Errorf("found %q: each site's plugin has budgets of its own, say plugin:NAME@SITE", who)
		}
		o.Plugin = origin.Key{Value: value[:at], Confidence: origin.Kernel}
		o.Site = origin.Key{Value: value[at+1:], Confidence: origin.Kernel}
	case policy.SubjectLocalUser:
		uid, node, on := strings.Cut(value, "@")
		if on {
			o.NodeUID, _ = strconv.Atoi(uid)
			o.Node = origin.Key{Value: node, Confidence: origin.Address}
			o.LocalUser = origin.Key{Value: cmp.Or(s.desk.Nodes.Name(value), "uid:"+value), Confidence: origin.Signed}
			break
		}
		o.UID, _ = strconv.Atoi(value)
		o.LocalUser = origin.Key{Value: cmp.Or(s.desk.UserName(o.UID), "uid:"+value), Confidence: origin.Kernel}
	default:
		return o, fmt.Errorf("found %q, %s", who, wantWho)
	}
	o.Customer = s.rules.Load().policy.Finder.Customers.Find(&o)
	return o, nil
}

// limitsOf tells how one account stands under every limit that is for it.
func (s *state) limitsOf(ctx context.Context, now time.Time, who string, recipients int) (limitsOf, error) {
	o, err := s.originOf(who)
	if err != nil {
		return limitsOf{}, control.Errorf(http.StatusBadRequest, "%v", err)
	}
	board := s.board.Load()
	asked, err := s.rules.Load().policy.Limits.Ask(ctx, now, board, &o, recipients)
	if err != nil {
		return limitsOf{}, control.Errorf(http.StatusServiceUnavailable, "%v", err)
	}
	out := limitsOf{Who: who, Recipients: recipients, Verdict: asked.Verdict.String(), Rule: asked.Rule, Reason: asked.Reason, Limits: []standing{}}
	for _, a := range asked.Standings {
		one := standing{Limit: a.Rule, Key: a.Key, Per: a.Per, Counts: a.Counts, Kind: a.Kind, Then: a.Then, Scope: a.Scope, When: a.When, Source: a.Source, Latched: a.Latched, Waiting: a.Waiting}
		for _, w := range a.Windows {
			one.Windows = append(one.Windows, windowShown{w.Window.Seconds(), w.Used, w.Count, w.Over, w.Soft, w.FreeAt})
		}
		out.Limits = append(out.Limits, one)
	}
	return out, nil
}

// setLimit gives somebody other windows.
func (s *state) setLimit(now time.Time, by desk.By, o limitOrder) (policy.Switch, error) {
	sw := policy.Switch{Kind: policy.Set, Rule: o.Limit, Reason: o.Reason, Until: o.Until}
	if names := s.rules.Load().limitNames; !slices.Contains(names, o.Limit) {
		return sw, control.Errorf(http.StatusBadRequest, "there is no limit %q; there are %s", o.Limit, strings.Join(names, ", "))
	}
	windows, burst, err := config.ParseWindows(o.Windows, o.Burst)
	if err == nil {
		err = inUnit(s.config.Load(), &o)
	}
	if err == nil {
		sw.Windows = windowsOf(windows, burst)
		sw.Subject, sw.Value, err = subjectFor(o.For, s.desk.LocalID)
	}
	if err != nil {
		return sw, control.Errorf(http.StatusBadRequest, "%v", err)
	}
	return asked(s.desk.Set(now, by, sw))
}

// maxCount bounds what is not octets, as in the configuration.
const maxCount = 1_000_000_000

// inUnit refuses windows that are of octets for a limit that counts something
// else.
func inUnit(c *config.Config, o *limitOrder) error {
	i := slices.IndexFunc(c.Limits, func(l config.Limit) bool { return l.Name == o.Limit })
	if i < 0 || c.Limits[i].Counts == limit.Bytes.String() {
		return nil
	}
	for _, w := range append(slices.Clone(o.Windows), o.Burst) {
		count, _, _ := strings.Cut(w, "/")
		if n, err := strconv.ParseInt(count, 10, 64); w != "" && (err != nil || n > maxCount) {
			return fmt.Errorf("found %q, but %s counts %s: want 1 to %d in a time, such as 300/1h", w, o.Limit, c.Limits[i].Counts, maxCount)
		}
	}
	return nil
}

// unsetLimit takes other windows back.
func (s *state) unsetLimit(now time.Time, by desk.By, o limitOrder) ([]policy.Switch, error) {
	id, err := s.orderAbout(now, policy.Set, o.For, o.Limit)
	if err != nil || id == "" {
		return nil, cmp.Or(err, control.Errorf(http.StatusNotFound, "nothing is set of %s for %s; see: relayguard limits show", o.Limit, o.For))
	}
	return asked(s.desk.Lift(now, by, policy.Set, id, o.Reason))
}

// orderAbout is the id of the order of a kind that is in force for WHO and a rule;
// empty if there is none.
func (s *state) orderAbout(now time.Time, kind policy.SwitchKind, who, rule string) (id string, err error) {
	want := policy.Switch{Kind: kind, Rule: rule}
	if want.Subject, want.Value, err = subjectFor(who, s.desk.LocalID); err == nil {
		err = want.CheckSubject()
	}
	if err != nil {
		return "", control.Errorf(http.StatusBadRequest, "%v", err)
	}
	for _, sw := range s.switches.All(now) {
		if sw.Kind == kind && sw.Rule == rule && sw.About() == want.About() {
			return sw.ID, nil
		}
	}
	return "", nil
}

// resetLimits empties somebody's budgets.
func (s *state) resetLimits(ctx context.Context, now time.Time, by desk.By, o limitOrder) (forgotten, error) {
	out := forgotten{Reset: []bucketShown{}}
	value, err := s.desk.Bucket(o.For)
	if err != nil {
		return out, control.Errorf(http.StatusBadRequest, "%v", err)
	}
	var keys []limit.Key
	stand := s.rules.Load().standings(now, s.board.Load())
	err = s.budgets.Each(ctx, func(e limit.Entry) error {
		if e.State != nil && e.State.Key.Limit != policy.BulkName && policy.HasPart(e.State.Key.Value, value) && (o.Limit == "" || o.Limit == e.State.Key.Limit) {
			keys, out.Reset = append(keys, e.State.Key), append(out.Reset, stand(e)...)
		}
		return nil
	})
	if err != nil || len(keys) == 0 {
		return asked(out, err)
	}
	what := cmp.Or(o.Limit, "all limits")
	s.desk.Action(now, by, "limits reset", o.For, o.Reason, what)
	for _, key := range keys {
		err = cmp.Or(err, s.budgets.Reset(ctx, now, key))
	}
	err = cmp.Or(err, s.desk.OpenForNodes(keys))
	s.desk.Hurry()
	return asked(out, err)
}

// allowBulk makes room for one mailing.
func (s *state) allowBulk(now time.Time, by desk.By, o bulkOrder) (policy.Switch, error) {
	sw := policy.Switch{Kind: policy.Bulk, Count: o.Count, Until: o.Until, Reason: o.Reason}
	var err error
	if sw.Subject, sw.Value, err = subjectFor(o.For, s.desk.LocalID); err != nil {
		return sw, control.Errorf(http.StatusBadRequest, "%v", err)
	}
	return asked(s.desk.Set(now, by, sw))
}

// pace stops paced release for an account, or has it go on.
func (s *state) pace(now time.Time, by desk.By, o paceOrder) ([]policy.Switch, error) {
	if o.Stop {
		sw := policy.Switch{Kind: policy.Pause, Reason: o.Reason}
		var err error
		if sw.Subject, sw.Value, err = subjectFor(o.Account, s.desk.LocalID); err != nil {
			return nil, control.Errorf(http.StatusBadRequest, "%v", err)
		}
		set, err := s.desk.Set(now, by, sw)
		return asked([]policy.Switch{set}, err)
	}
	id, err := s.orderAbout(now, policy.Pause, o.Account, "")
	if err != nil || id == "" {
		return nil, cmp.Or(err, control.Errorf(http.StatusNotFound, "paced release of %s was not stopped", o.Account))
	}
	return asked(s.desk.Lift(now, by, policy.Pause, id, o.Reason))
}

// importEntries puts budgets in place of what there is of them.
func (s *state) importEntries(ctx context.Context, now time.Time, by desk.By, all []limit.Entry) (imported, error) {
	var done imported
	s.desk.Action(now, by, "limits import", counted(len(all), "record"), "", "")
	for _, e := range all {
		if err := e.Check(); err != nil {
			return done, control.Errorf(http.StatusBadRequest, "%v", err)
		}
		if err := s.budgets.Put(ctx, e); err != nil { // Redis is away, say
			return done, control.Errorf(http.StatusServiceUnavailable, "%v", err)
		}
		done.Entries++
	}
	s.desk.Hurry()
	return done, nil
}
