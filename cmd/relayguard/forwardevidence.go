package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/control"
	"relayguard/forward"
	"relayguard/forward/evidence"
	"relayguard/forward/ledger"
	"relayguard/mta/maillog"
	"relayguard/policy"
	"relayguard/policy/origin"
)

// proof is what the daemon keeps of mail that went by forwarding rules.
type proof struct {
	store    *evidence.Store
	tracker  *evidence.Tracker
	follower *maillog.Follower // nil: the MTA's log is not read
	passages chan evidence.Passage
	since    func() (time.Time, bool) // of the baseline

	unexplained []forward.Finding // as last known; only the guard's loop asks
}

const (
	// proofLookBack is how far a first start reads the log: mail that went by a
	// rule before anybody watched.
	proofLookBack = 7 * 24 * time.Hour
	// maxPassages is how many messages may wait to be matched with the log; more
	// are left out: the log alone says nearly as much.
	maxPassages = 10_000
	// unexplainedFor is how long mail with no rule behind it stays a finding.
	unexplainedFor = 7 * 24 * time.Hour
)

// openProof opens the evidence. Without it forwarding rules are watched all the same.
func (f *forwarding) openProof(ctx context.Context, c *config.Config, log maillog.Options) error {
	store, err := evidence.Open(ctx, filepath.Join(c.ForwardDirectory(), "evidence.db"), evidence.Options{Log: f.log, KeepMails: c.Journal.KeepAddresses, KeepTotals: c.Journal.KeepTotals})
	if err != nil {
		return err
	}
	p := &proof{store: store, passages: make(chan evidence.Passage, maxPassages), since: f.ledger.Based}
	p.tracker, err = evidence.NewTracker(store, func() evidence.Rules { return knownRules{f} }, evidence.TrackerOptions{Log: f.log, UID: f.uid, Trusted: f.trusted})
	if err != nil {
		return errors.Join(err, store.Close())
	}
	if c.MTA.Log != config.LogNone {
		log.Checkpoint, log.Gap, log.From = store.Checkpoint(), p.tracker.Gap, time.Time{}
		if log.Checkpoint == "" {
			log.From = time.Now().Add(-proofLookBack)
		}
		if p.follower, err = maillog.New(log); err != nil { // a checkpoint of an older version, say
			f.log.Warn("how far the MTA's log was read for forwarding rules cannot be understood; it is read from its end", "error", err)
			log.Checkpoint, log.From = "", time.Time{}
			if p.follower, err = maillog.New(log); err != nil {
				return errors.Join(err, store.Close())
			}
		}
	}
	f.proof = p
	return nil
}

// run follows the log when the rules are known.
func (p *proof) run(ctx context.Context, ready <-chan struct{}, work *sync.WaitGroup, failed func(error)) {
	ended := func(err error) {
		if err != nil && ctx.Err() == nil {
			failed(err)
		}
	}
	work.Go(func() { ended(p.tracker.Run(ctx)) })
	work.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case passage := <-p.passages:
				p.tracker.Seen(passage)
			}
		}
	})
	if p.follower == nil {
		return
	}
	work.Go(func() {
		select {
		case <-ctx.Done():
			return
		case <-ready:
		}
		for ctx.Err() == nil { // a full disk passes
			err := p.follower.Run(ctx, p.tracker.Event)
			ended(err)
			select {
			case <-ctx.Done():
			case <-time.After(firstAgain):
			}
		}
	})
}

// seen learns of a message on the mail path; it never waits.
func (f *forwarding) seen(now time.Time, m *policy.Message) {
	if f == nil || f.proof == nil || m.QueueID == "" || m.Role == policy.Submission && m.Login != "" {
		return
	}
	passage := evidence.Passage{Time: now, QueueID: m.QueueID, Egress: m.Role == policy.Egress}
	if m.RcptMore == 0 {
		passage.RcptTo = make([]evidence.Recipient, len(m.RcptTo))
		for i, to := range m.RcptTo {
			passage.RcptTo[i].Address = strings.Clone(to)
			if i < len(m.RcptOrig) {
				passage.RcptTo[i].ORCPT = strings.Clone(m.RcptOrig[i].Address)
			}
		}
	}
	passage.QueueID = strings.Clone(m.QueueID)
	select {
	case f.proof.passages <- passage:
	default:
	}
}

// trusted reports whether a client may send to anywhere without AUTH.
func (f *forwarding) trusted(ip netip.Addr) bool {
	if ip.IsLoopback() {
		return true
	}
	c := f.config()
	return c != nil && slices.ContainsFunc(c.Networks, func(n origin.Network) bool {
		return slices.ContainsFunc(n.Prefixes, func(p netip.Prefix) bool { return p.Contains(ip) })
	})
}

func (f *forwarding) uid(local string) (int, bool) {
	if a := f.host.Load().Account(local); a != nil {
		return a.UID, true
	}
	return 0, false
}

// knownRules answers the evidence by what the last scan knows.
type knownRules struct{ *forwarding }

// Match implements evidence.Rules.
func (k knownRules) Match(origTo, rcpt string) (string, bool) {
	return k.scanner.Graph().Match(origTo, rcpt)
}

// Inside implements evidence.Rules.
func (k knownRules) Inside(addr string) bool { return k.scanner.Graph().Inside(addr) }

// ByTarget implements evidence.Rules.
func (k knownRules) ByTarget(rcpt string) []string { return k.scanner.Graph().Targets(rcpt) }

// Find implements evidence.Finder.
func (k knownRules) Find(id string) (forward.Finding, bool) { return k.scanner.Graph().Find(id) }

// OnWire implements evidence.Wire.
func (k knownRules) OnWire(rcpt, relay string) (id, target string, ok bool) {
	return k.wire.find(rcpt, relay)
}

// wireRules are the rules that the log shows by no address: generic tables, other
// next hops, and programs behind pipe(8). Safe for concurrent use.
type wireRules struct {
	mu      sync.RWMutex
	byOwner map[string][]forward.Finding
}

// learn takes them from the ledger.
func (w *wireRules) learn(entries []ledger.Entry) {
	by := map[string][]forward.Finding{}
	for i := range entries {
		e := &entries[i]
		switch e.Mechanism {
		case forward.Generic, forward.Transport, forward.Setting:
			if e.Verdict != forward.Outside {
				continue
			}
		case forward.Command:
			if e.Verdict != forward.Opaque {
				continue
			}
		default:
			continue
		}
		if e.Direct() {
			by[e.Owner] = append(by[e.Owner], e.Finding)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.byOwner = by
}

func (w *wireRules) find(rcpt, relay string) (id, target string, ok bool) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	rcpt = strings.ToLower(rcpt)
	local, domain, _ := strings.Cut(rcpt, "@")
	for _, owner := range []string{rcpt, local, "@" + domain, forward.Everybody} {
		for i := range w.byOwner[owner] {
			f := &w.byOwner[owner][i]
			switch {
			case f.Mechanism == forward.Generic && strings.Contains(f.Target, "@"):
				return f.ID, f.Target, true
			case f.Mechanism == forward.Command:
				if !strings.Contains(relay, "[") { // pipe(8) is a service's name; the log does not have the program
					return f.ID, "|" + f.Target, true
				}
			case f.Mechanism != forward.Generic && sameHop(f.Target, relay):
				return f.ID, rcpt, true
			}
		}
	}
	return "", "", false
}

// sameHop reports whether a next hop, "smtp:[mx.example.net]:25", is the relay of a
// log line, "mx.example.net[192.0.2.1]:25".
func sameHop(hop, relay string) bool {
	name, rest, _ := strings.Cut(relay, "[")
	ip, _, _ := strings.Cut(rest, "]")
	for _, part := range strings.FieldsFunc(strings.ToLower(hop), func(r rune) bool { return r == '[' || r == ']' || r == ',' || r == ' ' }) {
		part = strings.Trim(part, ":.")
		if part == "" {
			continue
		}
		if part == strings.ToLower(name) || part == ip {
			return true
		}
		if _, host, found := strings.Cut(part, ":"); found { // "smtp:mx.example.net", "smtp:192.0.2.1:25"
			host, _, _ = strings.Cut(host, ":")
			if host != "" && (host == strings.ToLower(name) || host == ip) {
				return true
			}
		}
	}
	return false
}

// unexplained are findings of mail that went with no rule behind it.
func (f *forwarding) unexplained() []forward.Finding {
	if f.proof == nil {
		return nil
	}
	based, ok := f.proof.since()
	if !ok {
		return nil
	}
	since := time.Now().Add(-unexplainedFor)
	if since.Before(based) {
		since = based.Truncate(time.Second) // the log has whole seconds; what went before anybody looked may have gone by rules that are no more
	}
	within := func(do func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		return do(ctx)
	}
	if err := within(func(ctx context.Context) error { _, err := f.proof.tracker.Reconsider(ctx); return err }); err != nil {
		f.log.Warn("mail without a forwarding rule is not compared with the rules", "error", err)
	}
	var flows []evidence.Flow
	err := within(func(ctx context.Context) (err error) {
		flows, err = f.proof.store.Unexplained(ctx, since)
		return err
	})
	if err != nil { // what is not known now is not gone
		f.log.Warn("mail without a forwarding rule is not known", "error", err)
		return f.proof.unexplained
	}
	var all []forward.Finding
	for _, flow := range flows {
		if flow.Sure < evidence.Likely {
			continue
		}
		all = append(all, trafficFinding(&flow))
	}
	f.proof.unexplained = all
	return all
}

func trafficFinding(flow *evidence.Flow) forward.Finding {
	owner := flow.OrigTo
	if owner == "" {
		owner = forward.Everybody
	}
	owner = strings.ToLower(owner)
	out := forward.Finding{Owner: owner, Mechanism: forward.Traffic, Source: "mail log", Target: flow.RcptTo, Verdict: forward.Outside, Mode: forward.Redirect,
		Chain: []string{owner}, UID: forward.NoUID, Note: fmt.Sprintf("no rule is known that says so; by %s, %s, such as queue id %s", flow.How, flow.Sure, flow.QueueID)}
	out.ID = forward.FindingID(owner, out.Mechanism, strings.ToLower(out.Target), out.Mode)
	return out
}

// forwardShown is a rule and the proof of it.
type forwardShown struct {
	ledger.Entry
	Evidence *evidence.Summary `json:"evidence,omitempty"` // absent: there is none
	Mails    []evidence.Mail   `json:"mails,omitempty"`
	Report   *evidence.Report  `json:"report,omitempty"`
}

// forwardLook says what of a rule is wanted beside the rule.
type forwardLook struct {
	Mail, Report bool
	Since, Until time.Time
	Limit        int
}

const maxMails = 100_000 // of one answer

func (l *forwardLook) values() url.Values {
	v := url.Values{"limit": {strconv.Itoa(l.Limit)}}
	for name, is := range map[string]bool{"mail": l.Mail, "report": l.Report} {
		if is {
			v.Set(name, "true")
		}
	}
	for name, t := range map[string]time.Time{"since": l.Since, "until": l.Until} {
		if !t.IsZero() {
			v.Set(name, t.Format(time.RFC3339Nano))
		}
	}
	return v
}

func forwardLookOf(v url.Values) (l forwardLook, err error) {
	l.Mail, l.Report = v.Get("mail") == "true", v.Get("report") == "true"
	if l.Limit, err = strconv.Atoi(v.Get("limit")); err != nil || l.Limit < 1 || l.Limit > maxMails {
		return l, control.Errorf(http.StatusBadRequest, "limit: got %q, want 1 to %d", v.Get("limit"), maxMails)
	}
	for name, t := range map[string]*time.Time{"since": &l.Since, "until": &l.Until} {
		if text := v.Get(name); text != "" {
			if *t, err = time.Parse(time.RFC3339Nano, text); err != nil {
				return l, control.Errorf(http.StatusBadRequest, "%s: %v", name, err)
			}
		}
	}
	return l, nil
}

// look shows a rule with what store has of it; nil: nothing.
func (l *forwardLook) look(ctx context.Context, store *evidence.Store, e ledger.Entry, now time.Time) (forwardShown, error) {
	out := forwardShown{Entry: e}
	if store == nil {
		return out, nil
	}
	s, err := store.Summary(ctx, e.ID)
	if err != nil {
		return out, err
	}
	out.Evidence = &s
	mails := func() ([]evidence.Mail, error) {
		if e.Mechanism == forward.Traffic {
			return store.UnexplainedMails(ctx, strings.TrimPrefix(e.Owner, forward.Everybody), e.Target, l.Since, l.Until, l.Limit)
		}
		return store.Mails(ctx, e.ID, l.Since, l.Until, l.Limit)
	}
	if l.Mail {
		if out.Mails, err = mails(); err != nil {
			return out, err
		}
		if out.Mails == nil {
			out.Mails = []evidence.Mail{}
		}
	}
	if l.Report {
		r, err := store.Report(ctx, e.ID, now)
		if err != nil {
			return out, err
		}
		out.Report = &r
	}
	return out, nil
}
