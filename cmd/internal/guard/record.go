package guard

import (
	"encoding/json"
	"strings"
	"time"

	"relayguard/journal"
	"relayguard/policy"
	"relayguard/policy/address"
	"relayguard/policy/origin"
)

// record is the decision as the journal keeps it: without recipients, subject
// and body. What it has of the message is copied.
func record(now time.Time, phase policy.Phase, m *policy.Message, d *policy.Decision, stage string, late bool) journal.Decision {
	_, key := d.Origin.Account()
	r := journal.Decision{
		ID:         d.ID,
		Time:       now,
		Stage:      stage,
		Verdict:    d.Verdict,
		Rule:       d.Rule,
		Reason:     d.Reason,
		Phase:      phase,
		Listener:   m.Listener,
		Role:       m.Role,
		Account:    d.Origin.Name(),
		Confidence: key.Confidence.String(),
		Login:      d.Origin.Login.Value,
		LoginBy:    d.Origin.LoginBy,
		LocalUser:  d.Origin.LocalUser.Value,
		Network:    d.Origin.Network.Value,
		ClientIP:   d.Origin.ClientIP.Value,
		ClientName: m.ClientName,
		Helo:       m.Helo,
		UID:        d.Origin.UID,
		MailFrom:   m.MailFrom,
		HeaderFrom: m.HeaderFrom,
		MessageID:  m.MessageID,
		QueueID:    m.QueueID,
		Size:       m.Size,
		Recipients: len(m.RcptTo) + m.RcptMore,
		Domains:    domains(m.RcptTo),
		Findings:   d.Findings,
		Counters:   d.Counters,
		Late:       late,
		Node:       d.Origin.Node.Value,
		Template:   d.Origin.Template.Value,
		Entry:      d.Origin.Call.Entry,
		Script:     d.Origin.Call.Script,
		WebClient:  d.Origin.Call.WebClient,
		Pool:       d.Origin.Call.Pool,
		Software:   d.Origin.Call.Software,
	}
	r.Site, r.SiteBy = known(d.Origin.Site)
	r.Plugin, r.PluginBy = known(d.Origin.Plugin)
	if d.Waits != nil {
		r.Waits, _ = json.Marshal(d.Waits) // strings and numbers
	}
	if d.Reply.Code != 0 {
		r.Reply = d.Reply.String()
	}
	return r
}

// known is a key with the name of its confidence.
func known(k origin.Key) (value, by string) {
	if !k.Known() {
		return "", ""
	}
	return k.Value, k.Confidence.String()
}

// maxDomains bounds the domains that one message has in the journal.
const maxDomains = 50

// domains counts recipients by domain; "" has those beyond maxDomains, and those
// without one.
func domains(rcpts []string) map[string]int {
	if len(rcpts) == 0 {
		return nil
	}
	all := make(map[string]int, 1)
	for _, to := range rcpts {
		d := ""
		if i := strings.LastIndexByte(to, '@'); i >= 0 {
			d = address.Domain(to[i+1:])
		}
		if _, known := all[d]; !known && len(all) >= maxDomains {
			d = ""
		}
		all[d]++
	}
	return all
}
