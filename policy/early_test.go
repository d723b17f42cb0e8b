package policy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
	"relayguard/policy/origin/stamp"
)

// called is mail as the wrapper tells of it before it is handed in.
func (h *house) called(uid int, dir string, to ...string) *policy.Message {
	m := h.local(uid, "Hi", to...)
	m.QueueID, m.Digest, m.LocalConfidence = "", [16]byte{}, origin.Wrapper
	m.Call.Dir = dir
	return m
}

// arrived is the same mail as the MTA shows it.
func (h *house) arrived(m *policy.Message) *policy.Message {
	h.n++
	same := *m
	same.Evidence = origin.NewEvidence()
	same.Submitted, same.MailFrom, same.UID = true, m.MailFrom, m.UID
	same.QueueID, same.Digest[0], same.Digest[1] = fmt.Sprintf("4q%d", h.n), 9, byte(h.n)
	for token, c := range h.Attribution.Calls.(calls) {
		if c.UID == m.UID && c.Dir == m.Call.Dir {
			field(&same, stamp.CallHeader, token)
		}
	}
	return &same
}

func suspension(subject policy.Subject, value string) policy.Switch {
	return policy.Switch{ID: "s1", Kind: policy.Suspend, Subject: subject, Value: value, Reason: "abused"}
}

// contents is all that may be remembered of a message.
func (h *house) contents(t *testing.T) (all []string) {
	t.Helper()
	note := func(v any) error {
		text, err := json.Marshal(v)
		all = append(all, string(text))
		return err
	}
	if err := h.buckets.Each(t.Context(), func(e limit.Entry) error { return note(e) }); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(note(h.Attribution.Sites.All()), note(h.retries.Len())); err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

const stranger = "stranger@example.net"

func TestEarlyRefusesWhatIsSuspendedOrDenied(t *testing.T) {
	until := policy.Switch{Kind: policy.Deny, Subject: policy.SubjectTarget, Value: "example.net", Reason: "abuse", Until: now.Add(time.Hour)}
	always := until
	always.Until = time.Time{}
	from := policy.Switch{Kind: policy.Deny, Subject: policy.SubjectMailFrom, Value: "www@example.jp", Reason: "abuse"}
	for _, c := range []struct {
		name   string
		orders []policy.Switch
		mail   func(h *house) *policy.Message
		want   policy.Verdict
		rule   string
	}{
		{"nothing is ordered", nil, func(h *house) *policy.Message { return h.called(1000, "", stranger) }, policy.Accept, ""},
		{"the account", []policy.Switch{suspension(policy.SubjectLocalUser, "1000")}, func(h *house) *policy.Message { return h.called(1000, "", stranger) }, policy.Defer, policy.RuleSuspended},
		{"another account", []policy.Switch{suspension(policy.SubjectLocalUser, "1001")}, func(h *house) *policy.Message { return h.called(1000, "", stranger) }, policy.Accept, ""},
		{"the site of its own account", []policy.Switch{suspension(policy.SubjectSite, shop.Name)}, func(h *house) *policy.Message { return h.called(1000, "", stranger) }, policy.Defer, policy.RuleSuspended},
		{"the site by its directory", []policy.Switch{suspension(policy.SubjectSite, blog.Name)}, func(h *house) *policy.Message { return h.called(33, "/srv/blog", stranger) }, policy.Defer, policy.RuleSuspended},
		{"its neighbour", []policy.Switch{suspension(policy.SubjectSite, blog.Name)}, func(h *house) *policy.Message { return h.called(33, "/srv/wiki", stranger) }, policy.Accept, ""},
		{"the site by its stamp", []policy.Switch{suspension(policy.SubjectSite, wiki.Name)}, func(h *house) *policy.Message { return h.stamped(h.called(33, "", stranger), now, wiki, "share") }, policy.Defer, policy.RuleSuspended},
		{"the plugin", []policy.Switch{suspension(policy.SubjectPlugin, "share@"+shop.Name)}, func(h *house) *policy.Message { return h.stamped(h.called(1000, "", stranger), now, shop, "share") }, policy.Defer, policy.RuleSuspended},
		{"the plugin on all sites", []policy.Switch{suspension(policy.SubjectPlugin, "share")}, func(h *house) *policy.Message { return h.stamped(h.called(1000, "", stranger), now, shop, "share") }, policy.Defer, policy.RuleSuspended},
		{"the plugin of another site", []policy.Switch{suspension(policy.SubjectPlugin, "share@"+wiki.Name)}, func(h *house) *policy.Message { return h.stamped(h.called(1000, "", stranger), now, shop, "share") }, policy.Accept, ""},
		{"the site's own software", []policy.Switch{suspension(policy.SubjectPlugin, "share@"+shop.Name)}, func(h *house) *policy.Message { return h.stamped(h.called(1000, "", stranger), now, shop, "") }, policy.Accept, ""},
		{"denied", []policy.Switch{always}, func(h *house) *policy.Message { return h.called(1000, "", stranger) }, policy.Reject, policy.RuleDenied},
		{"denied for a term", []policy.Switch{until}, func(h *house) *policy.Message { return h.called(1000, "", stranger) }, policy.Defer, policy.RuleDenied},
		{"its sender is denied", []policy.Switch{from}, func(h *house) *policy.Message { return h.called(1000, "", stranger) }, policy.Reject, policy.RuleDenied},
		{"denied and suspended", []policy.Switch{suspension(policy.SubjectLocalUser, "1000"), always}, func(h *house) *policy.Message { return h.called(1000, "", stranger) }, policy.Reject, policy.RuleDenied},
		{"a null sender that is denied", []policy.Switch{always}, func(h *house) *policy.Message {
			m := h.called(1000, "", stranger)
			m.MailFrom = ""
			return m
		}, policy.Defer, policy.RuleDenied},
		{"to our postmaster", []policy.Switch{suspension(policy.SubjectLocalUser, "1000")}, func(h *house) *policy.Message { return h.called(1000, "", "postmaster@example.jp") }, policy.Accept, ""},
		{"to our postmaster and others", []policy.Switch{suspension(policy.SubjectLocalUser, "1000")}, func(h *house) *policy.Message { return h.called(1000, "", "postmaster@example.jp", stranger) }, policy.Defer, policy.RuleSuspended},
		{"a null sender to ours", []policy.Switch{suspension(policy.SubjectLocalUser, "1000")}, func(h *house) *policy.Message {
			m := h.called(1000, "", "hanako@example.jp")
			m.MailFrom = ""
			return m
		}, policy.Accept, ""},
		{"no recipient", []policy.Switch{suspension(policy.SubjectLocalUser, "1000")}, func(h *house) *policy.Message { return h.called(1000, "") }, policy.Accept, ""},
		{"the guard's own", []policy.Switch{suspension(policy.SubjectLocalUser, "999")}, func(h *house) *policy.Message { return h.called(999, "", stranger) }, policy.Accept, ""},
		{"the red switch", []policy.Switch{{Kind: policy.Stop, Reason: "fire"}}, func(h *house) *policy.Message { return h.called(1000, "", stranger) }, policy.Accept, ""},
		{"a stamp for recipients that the MTA may know better, of an account with several sites", []policy.Switch{suspension(policy.SubjectSite, blog.Name)}, func(h *house) *policy.Message {
			m := h.stamped(h.called(33, "/srv/blog", stranger), now, wiki, "share")
			m.RcptTo = []string{"another@example.net"}
			return m
		}, policy.Accept, ""},
		{"a stamp that nobody made", []policy.Switch{suspension(policy.SubjectSite, blog.Name)}, func(h *house) *policy.Message {
			m := h.called(33, "/srv/blog", stranger)
			field(m, stamp.Header, "v1 nonsense")
			return m
		}, policy.Defer, policy.RuleSuspended},
	} {
		for _, phase := range []policy.Phase{policy.Enforce, policy.Learning, policy.Observe} {
			t.Run(c.name+" "+phase.String(), func(t *testing.T) {
				h := hosting(t, phase, defaults()...)
				h.OwnUID = 999
				h.Attribution.Calls.(calls)["blog"] = policy.Call{UID: 33, Dir: "/srv/blog"}
				h.order(c.orders...)
				m := c.mail(h)
				before := h.contents(t)
				for range 2 { // it uses nothing up
					d := h.Early(t.Context(), now, m)
					if d.Verdict != c.want || d.Rule != c.rule || (d.Reply.Text == "") != (d.Verdict == policy.Accept) || d.Reply.Code/100 != map[policy.Verdict]int{policy.Defer: 4, policy.Reject: 5}[d.Verdict] {
						t.Errorf("%v by %q, %v; want %v by %q", d.Verdict, d.Rule, d.Reply, c.want, c.rule)
					}
				}
				if after := h.contents(t); !slices.Equal(before, after) {
					t.Errorf("remembered:\n%s\nbefore:\n%s", after, before)
				}
				if d := h.Message(t.Context(), now, h.arrived(m)); c.want.Stops() && !d.Verdict.Stops() {
					t.Errorf("refused early, and at its end: %v", d.Verdict)
				}
			})
		}
	}
}

// shutPlugin sends a plugin's mail to strangers until it is stopped, and beyond.
func (h *house) shutPlugin(t *testing.T, plugin string) {
	t.Helper()
	for range 60 {
		m := h.local(1000, "Look", h.person())
		h.Message(t.Context(), now, h.stamped(m, now, shop, plugin))
	}
}

func TestEarlyRefusesWhatAShutBucketStops(t *testing.T) {
	h := hosting(t, policy.Enforce, defaults()...)
	before := now.Add(-time.Hour)
	h.Message(t.Context(), before, h.stamped(h.local(1000, "Hi", "customer@example.net"), before, shop, "share"))
	early := func(m *policy.Message) policy.Decision {
		t.Helper()
		before := h.contents(t)
		d := h.Early(t.Context(), now, m)
		if after := h.contents(t); !slices.Equal(before, after) {
			t.Errorf("remembered:\n%s\nbefore:\n%s", after, before)
		}
		return d
	}
	many := make([]string, 100) // more than the window has: its own end is to shut the bucket
	for i := range many {
		many[i] = h.person()
	}
	if d := early(h.stamped(h.called(1000, "", many...), now, shop, "share")); d.Verdict != policy.Accept {
		t.Errorf("what shuts the bucket: %v by %s", d.Verdict, d.Rule)
	}
	h.shutPlugin(t, "share")
	for _, c := range []struct {
		name string
		mail *policy.Message
		want policy.Verdict
	}{
		{"a stranger", h.stamped(h.called(1000, "", stranger), now, shop, "share"), policy.Defer},
		{"a stranger and a customer", h.stamped(h.called(1000, "", stranger, "customer@example.net"), now, shop, "share"), policy.Defer},
		{"a customer from before", h.stamped(h.called(1000, "", "customer@example.net"), now, shop, "share"), policy.Accept},
		{"another plugin", h.stamped(h.called(1000, "", stranger), now, shop, "cart"), policy.Accept},
		{"the site's own software", h.stamped(h.called(1000, "", stranger), now, shop, ""), policy.Accept},
		{"without a label", h.called(1000, "", stranger), policy.Defer},
		{"another site", h.stamped(h.called(33, "", stranger), now, blog, "share"), policy.Accept},
	} {
		d := early(c.mail)
		if d.Verdict != c.want || c.want.Stops() && (d.Rule != "plugin-first-time" || !slices.Equal(d.Buckets(), []string{"plugin:share@shop.example.jp"})) {
			t.Errorf("%s: %v by %q, buckets %q", c.name, d.Verdict, d.Rule, d.Buckets())
		}
		if end := h.Message(t.Context(), now, h.arrived(c.mail)); c.want.Stops() && !end.Verdict.Stops() {
			t.Errorf("%s: refused early, and at its end: %v", c.name, end.Verdict)
		}
	}
	unsure := h.stamped(h.called(1000, "", stranger), now, shop, "cart")
	unsure.RcptTo = []string{stranger, "more@example.net"}
	if d := early(unsure); d.Verdict != policy.Accept {
		t.Errorf("a label that the end may believe: %v", d.Verdict)
	}
	mail := h.stamped(h.called(1000, "", stranger), now, shop, "share")
	h.order(policy.Switch{Kind: policy.Allow, Subject: policy.SubjectLocalUser, Value: "1000", Rule: "plugin-first-time", Reason: "known"})
	if d := early(mail); d.Verdict != policy.Accept {
		t.Errorf("the limit is lifted: %v", d.Verdict)
	}
	h.order()
	if d := h.Early(t.Context(), now.Add(40*24*time.Hour), h.stamped(h.called(1000, "", stranger), now.Add(40*24*time.Hour), shop, "share")); d.Verdict != policy.Defer {
		t.Errorf("nobody has resumed it: %v", d.Verdict)
	}
	if err := h.buckets.Resume(t.Context(), now, limit.Key{Limit: "plugin-first-time", Value: "plugin:share@shop.example.jp"}); err != nil {
		t.Fatal(err)
	}
	if d := early(mail); d.Verdict != policy.Accept { // it is over its limit yet, and its end says so
		t.Errorf("resumed: %v", d.Verdict)
	}
}

func TestEarlyStopsNothingThatOnlyTells(t *testing.T) {
	h := hosting(t, policy.Enforce, defaults()...)
	h.shutPlugin(t, "share")
	mail := func() *policy.Message { return h.stamped(h.called(1000, "", h.person()), now, shop, "share") }
	observed := defaults()
	for i := range observed {
		observed[i].Observe = true
	}
	for name, c := range map[string]struct {
		phase policy.Phase
		rules []policy.LimitRule
		want  policy.Verdict
	}{
		"enforce": {policy.Enforce, defaults(), policy.Defer}, "learning": {policy.Learning, defaults(), policy.Defer}, // a latch acts in both
		"observe": {policy.Observe, defaults(), policy.Accept}, "an observed rule": {policy.Enforce, observed, policy.Accept}, "no rule": {policy.Enforce, nil, policy.Accept},
	} {
		h.limit(c.phase, nil, c.rules...)
		m := mail()
		if d := h.Early(t.Context(), now, m); d.Verdict != c.want {
			t.Errorf("%s: %v by %q, want %v", name, d.Verdict, d.Rule, c.want)
		}
		if d := h.Message(t.Context(), now, h.arrived(m)); c.want.Stops() && !d.Verdict.Stops() {
			t.Errorf("%s: refused early, and at its end: %v", name, d.Verdict)
		}
	}
}

// A limit on what the sender writes, which the MTA may rewrite, and on what only
// the whole message tells is for its end.
func TestEarlyAsksNothingThatTheEndAloneKnows(t *testing.T) {
	abuse := func(name string, per limit.Per, when policy.When) policy.LimitRule {
		r := limited(name, per, policy.Hold, window(1, time.Hour))
		r.Kind, r.When = limit.Abuse, when
		return r
	}
	for _, r := range []policy.LimitRule{
		abuse("sender", limit.MailFrom, policy.When{}), abuse("from", limit.FromDomain, policy.When{}),
		abuse("large", limit.LocalUser, policy.When{MaxSize: 1 << 20}), abuse("plain", limit.LocalUser, policy.When{NoHeader: []string{"Message-ID", "X-None"}}),
		abuse("account", limit.LocalUser, policy.When{}),
	} {
		h := hosting(t, policy.Enforce, r)
		for range 3 {
			h.Message(t.Context(), now, h.local(1000, "Hi", h.person()))
		}
		want := policy.Accept
		if r.Name == "account" {
			want = policy.Defer
		}
		if d := h.Early(t.Context(), now, h.called(1000, "", stranger)); d.Verdict != want {
			t.Errorf("%s: %v, want %v", r.Name, d.Verdict, want)
		}
	}
}

// On a web node the relay's orders are what is shut.
func TestEarlyOnAWebNode(t *testing.T) {
	h := hosting(t, policy.Enforce, defaults()...)
	h.shutPlugin(t, "share")
	h.Attribution.Signer = &policy.Signer{Node: "web3", Key: key32('3')}
	mail := func() *policy.Message { return h.stamped(h.called(1000, "", h.person()), now, shop, "share") }
	if d := h.Early(t.Context(), now, mail()); d.Verdict != policy.Accept {
		t.Errorf("no order: %v", d.Verdict)
	}
	for _, order := range []policy.Switch{
		{Kind: policy.Shut, Subject: policy.SubjectKey, Value: "plugin:share@shop.example.jp", Rule: "plugin-first-time", Reason: "abuse"},
		suspension(policy.SubjectLocalUser, "1000@web3"),
	} {
		h.order(order)
		m := mail()
		if d := h.Early(t.Context(), now, m); d.Verdict != policy.Defer || d.Reply.Code/100 != 4 {
			t.Errorf("%s: %v %v", order.Kind, d.Verdict, d.Reply)
		}
		if d := h.Message(t.Context(), now, h.arrived(m)); !d.Verdict.Stops() {
			t.Errorf("%s: refused early, and at its end: %v", order.Kind, d.Verdict)
		}
	}
}

// awayStore is one that cannot be asked.
type awayStore struct{ limit.Store }

func (awayStore) Peek(context.Context, time.Time, *limit.Step, *limit.Outcome) error {
	return errors.New("Redis is away")
}

func TestEarlyAcceptsWhereTheLimitsCannotBeAsked(t *testing.T) {
	h := hosting(t, policy.Enforce, defaults()...)
	h.shutPlugin(t, "share")
	h.Limits = policy.NewLimits(policy.LimitsOptions{Phase: policy.Enforce, Rules: defaults(), Store: awayStore{h.buckets}, Retries: h.retries, Item: item})
	for _, m := range []*policy.Message{h.called(1000, "", stranger), h.stamped(h.called(1000, "", stranger), now, shop, "share")} {
		if d := h.Early(t.Context(), now, m); d.Verdict != policy.Accept {
			t.Errorf("%v by %q", d.Verdict, d.Rule)
		}
	}
}
