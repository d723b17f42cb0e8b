package incident_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"relayguard/incident"
	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

// Users of other systems complain that the alarm closes while the limit is still
// exceeded: a bucket that nothing is sent to any more stays full for its window,
// and one that is shut until it is resumed, whosever it is.
func TestComplaintAlarmClosesWhileStillOver(t *testing.T) {
	mail := func(be func(*policy.Message)) *policy.Message {
		m := &policy.Message{Role: policy.Submission, Evidence: origin.NewEvidence(), RcptTo: []string{"a@example.net", "b@example.net", "c@example.net"}, Size: 1000}
		m.MailFrom, m.QueueID = "x@example.jp", "4q1"
		be(m)
		return m
	}
	login := func(m *policy.Message) { m.Login = "taro@example.jp" }
	local := func(m *policy.Message) { m.Role, m.UID = policy.Local, 33 }
	shop := func(m *policy.Message) {
		local(m)
		m.Site, m.Plugin, m.SiteConfidence, m.PluginConfidence = "shop.example.jp", "share", origin.Signed, origin.Signed
	}
	for _, c := range []struct {
		per     []limit.Per
		be      func(*policy.Message)
		account string
		bucket  string
	}{
		{[]limit.Per{limit.Login}, login, "login:taro@example.jp", "login:taro@example.jp"},
		{[]limit.Per{limit.Login, limit.RecipientDomain}, login, "login:taro@example.jp", "login:taro@example.jp recipient_domain:example.net"},
		{[]limit.Per{limit.Domain}, login, "login:taro@example.jp", "domain:example.jp"},
		{[]limit.Per{limit.Server}, login, "login:taro@example.jp", "server"},
		{[]limit.Per{limit.LocalUser}, local, "local_user:www-data", "local_user:33"},
		{[]limit.Per{limit.Site}, shop, "local_user:www-data", "site:shop.example.jp"},
		{[]limit.Per{limit.Plugin}, shop, "local_user:www-data", "plugin:share@shop.example.jp"},
	} {
		for _, kind := range []limit.Kind{limit.Volume, limit.Abuse} {
			t.Run(fmt.Sprint(c.bucket, " ", kind), func(t *testing.T) {
				store, key := limit.NewMemory(), limit.Key{Limit: "day", Value: c.bucket}
				rule := policy.LimitRule{Then: policy.Hold, Limit: limit.Limit{Name: "day", Per: c.per, Counts: limit.Recipients, Kind: kind, Windows: []limit.Window{{Count: 3, Length: 24 * time.Hour}}}}
				limits := policy.NewLimits(policy.LimitsOptions{Phase: policy.Enforce, Rules: []policy.LimitRule{rule}, Store: store, Retries: limit.NewRetries(10)})
				p := &policy.Policy{Phase: policy.Enforce, Inside: policy.Inside{"example.jp": true}, OwnUID: 4711, Switches: new(policy.Board), Limits: limits,
					Finder: origin.Finder{UserName: func(int) string { return "www-data" }}}
				still := func(_, cause, bucket string, now time.Time) bool {
					return limits.Over(t.Context(), now, p.Switches.Load(), cause, bucket)
				}
				options := incident.Options{StillOver: still, Abuses: func() []string { return []string{"day"} }}
				b, d := newBook(options)
				if kind == limit.Volume { // full, and then one too many
					m := mail(c.be)
					if d := p.Message(t.Context(), start, m); d.Verdict != policy.Accept {
						t.Fatalf("%v: %s", d.Verdict, d.Reason)
					}
				}
				m := mail(c.be)
				if m.RcptTo = append(m.RcptTo, "d@example.net"); kind == limit.Volume {
					m.RcptTo = m.RcptTo[:1]
				}
				decision := p.Message(t.Context(), start, m)
				if !decision.Verdict.Stops() || decision.Origin.Name() != c.account {
					t.Fatalf("%v of %s", decision.Verdict, decision.Origin.Name())
				}
				b.Observe(start, incident.StopOf(m, &decision, nil)) // the one stop; then it is quiet
				for at := time.Duration(0); at < 30*time.Hour; at += 20 * time.Second {
					now := start.Add(at)
					b.Tick(now)
					if still("", "day", c.bucket, now) && (len(b.Open()) == 0 || !b.Abused(c.account)) {
						t.Fatalf("closed after %v, while the limit was still exceeded", at)
					}
					if at == 2*time.Hour { // a restart
						text, err := json.Marshal(d.all())
						var saved []incident.Incident
						if err != nil || json.Unmarshal(text, &saved) != nil {
							t.Fatal(err)
						}
						b, d = newBook(options)
						b.Load(saved)
					}
				}
				if open := len(b.Open()) == 1; open != (kind == limit.Abuse) {
					t.Fatalf("open: %t", open)
				}
				now := start.Add(100 * time.Hour)
				b.Tick(now)
				if kind == limit.Abuse {
					if !b.Abused(c.account) {
						t.Fatal("closed before it was resumed")
					}
					if err := store.Resume(t.Context(), now, key); err != nil {
						t.Fatal(err)
					}
					now = now.Add(time.Minute)
					b.Tick(now)
				}
				if closed := d.all()[0].Closed; closed.Sub(start) < 24*time.Hour || b.Abused(c.account) {
					t.Errorf("closed after %v", closed.Sub(start))
				}
				wantEvents(t, d, incident.Closed)
			})
		}
	}
}
