package desk

import (
	"time"

	"relayguard/journal"
	"relayguard/policy"
)

// Held is a held message as it is shown: without recipients and content.
type Held struct {
	Instance   string         `json:"instance,omitempty"` // of several of the MTA, where that is known
	Queue      string         `json:"queue,omitempty"`    // that it was in; "": hold
	QueueID    string         `json:"queue_id"`
	ID         string         `json:"id,omitempty"` // of the decision
	Account    string         `json:"account,omitempty"`
	Site       string         `json:"site,omitempty"`
	Plugin     string         `json:"plugin,omitempty"`
	Template   string         `json:"template,omitempty"`
	Rule       string         `json:"rule,omitempty"`
	Reason     string         `json:"reason,omitempty"`
	MailFrom   string         `json:"mail_from"`
	Arrival    time.Time      `json:"arrival,omitzero"`
	HeldAt     time.Time      `json:"held_at"`
	Size       int64          `json:"size"`
	Recipients int            `json:"recipients"`
	Domains    map[string]int `json:"domains,omitempty"` // of the recipients
	State      string         `json:"state"`
	Changed    time.Time      `json:"changed,omitzero"`
	By         string         `json:"by,omitempty"` // who changed it
	Why        string         `json:"why,omitempty"`
	NewQueueID string         `json:"new_queue_id,omitempty"`
	HeldBy     string         `json:"held_by"`         // "relayguard", "admin" (queue hold) or "other"; of mail that is not on hold ""
	Paced      bool           `json:"paced,omitempty"` // in a list: it is released by itself when its limits have room
}

// Who holds a message.
const (
	byUs    = "relayguard"
	byAdmin = "admin"
	byOther = "other"
)

// ruleAdmin is the rule of mail that an admin put on hold by a command. It is not
// the guard's doing, so it takes none of the room that holds have.
const ruleAdmin = policy.RuleAdmin

func heldOf(h *journal.Hold) Held {
	by := byUs
	if h.Rule == ruleAdmin {
		by = byAdmin
	}
	return Held{
		QueueID: h.QueueID, ID: h.DecisionID, Account: h.Account, Site: h.Site, Plugin: h.Plugin, Template: h.Template, Rule: h.Rule, Reason: h.Reason, MailFrom: h.MailFrom, Arrival: h.Arrival, HeldAt: h.HeldAt,
		Size: h.Size, Recipients: h.Recipients, Domains: h.Domains, State: string(h.State), Changed: h.Changed, By: h.ChangedBy, Why: h.ChangeReason,
		NewQueueID: h.NewQueueID, HeldBy: by,
	}
}

// Decision is a decision as it is shown.
type Decision struct {
	ID         string         `json:"id"`
	Time       time.Time      `json:"time"`
	Stage      string         `json:"stage"` // "rcpt", "message" or "call"
	Verdict    string         `json:"verdict"`
	Rule       string         `json:"rule,omitempty"`
	Reason     string         `json:"reason,omitempty"`
	Reply      string         `json:"reply,omitempty"`
	Phase      string         `json:"phase"`
	Listener   string         `json:"listener"`
	Role       string         `json:"role"`
	Account    string         `json:"account"`
	Confidence string         `json:"confidence"`
	Login      string         `json:"login,omitempty"`
	LoginBy    string         `json:"login_by,omitempty"`
	LocalUser  string         `json:"local_user,omitempty"`
	UID        *int           `json:"uid,omitempty"`
	Network    string         `json:"network,omitempty"`
	ClientIP   string         `json:"client_ip,omitempty"`
	ClientName string         `json:"client_name,omitempty"`
	Helo       string         `json:"helo,omitempty"`
	Site       string         `json:"site,omitempty"`
	SiteBy     string         `json:"site_by,omitempty"` // how surely it is known, as Confidence
	Plugin     string         `json:"plugin,omitempty"`
	PluginBy   string         `json:"plugin_by,omitempty"`
	Node       string         `json:"node,omitempty"`
	Template   string         `json:"template,omitempty"`
	Entry      string         `json:"entry,omitempty"`
	Script     string         `json:"script,omitempty"`     // file:line
	WebClient  string         `json:"web_client,omitempty"` // client of the web request
	Pool       string         `json:"pool,omitempty"`
	Software   string         `json:"software,omitempty"`
	MailFrom   string         `json:"mail_from"`
	HeaderFrom string         `json:"header_from,omitempty"`
	MessageID  string         `json:"message_id,omitempty"`
	QueueID    string         `json:"queue_id,omitempty"`
	Size       int64          `json:"size"`
	Recipients int            `json:"recipients"`
	Domains    map[string]int `json:"domains,omitempty"`
	Late       bool           `json:"late,omitempty"`    // the MTA was told milter.on_timeout instead
	Repeats    int64          `json:"repeats,omitempty"` // further refusals that were answered with this id
	LastRepeat time.Time      `json:"last_repeat,omitzero"`
	Findings   []Finding      `json:"findings,omitempty"`
	Limits     []Counter      `json:"limits,omitempty"`
}

// Finding is one rule's objection.
type Finding struct {
	Rule    string `json:"rule"`
	Verdict string `json:"verdict"` // what the rule asks for, before the phase softens it
	Reason  string `json:"reason"`
}

// Counter is one window of one limit as the decision met it.
type Counter struct {
	Limit   string    `json:"limit"`
	Key     string    `json:"key"`
	Unit    string    `json:"unit"`
	Kind    string    `json:"kind"`
	Window  float64   `json:"window_seconds"`
	Count   int64     `json:"count"` // allowed
	Used    int64     `json:"used"`  // before this message
	Amount  int64     `json:"amount"`
	Over    bool      `json:"over"`
	Soft    bool      `json:"soft,omitempty"`
	Latched bool      `json:"latched,omitempty"`
	FreeAt  time.Time `json:"free_at,omitzero"`
}

func decisionOf(d *journal.Decision) Decision {
	v := Decision{
		ID: d.ID, Time: d.Time, Stage: d.Stage, Verdict: d.Verdict.String(), Rule: d.Rule, Reason: d.Reason, Reply: d.Reply, Phase: d.Phase.String(),
		Listener: d.Listener, Role: d.Role.String(), Account: d.Account, Confidence: d.Confidence, Login: d.Login, LoginBy: d.LoginBy, LocalUser: d.LocalUser,
		Network: d.Network, ClientIP: d.ClientIP, ClientName: d.ClientName, Helo: d.Helo, MailFrom: d.MailFrom, HeaderFrom: d.HeaderFrom, MessageID: d.MessageID,
		QueueID: d.QueueID, Size: d.Size, Recipients: d.Recipients, Domains: d.Domains, Late: d.Late, Repeats: d.Repeats, LastRepeat: d.LastRepeat,
		Site: d.Site, SiteBy: d.SiteBy, Plugin: d.Plugin, PluginBy: d.PluginBy, Node: d.Node, Template: d.Template, Entry: d.Entry, Script: d.Script,
		WebClient: d.WebClient, Pool: d.Pool, Software: d.Software,
	}
	if d.UID >= 0 {
		v.UID = &d.UID
	}
	for _, f := range d.Findings {
		v.Findings = append(v.Findings, Finding{f.Rule, f.Verdict.String(), f.Reason})
	}
	for _, c := range d.Counters {
		v.Limits = append(v.Limits, Counter{c.Limit, c.Key, c.Unit, c.Kind, c.Window.Seconds(), c.Count, c.Used, c.Amount, c.Over, c.Soft, c.Latched, c.FreeAt})
	}
	return v
}

// Explanation is all that is known under one id.
type Explanation struct {
	Decision  *Decision        `json:"decision,omitempty"`
	Delivered map[string]int64 `json:"delivered,omitempty"` // recipients by sent, deferred, bounced, expired, as the MTA's log has them
	Held      []Held           `json:"held,omitempty"`      // newest first
	Suspended *policy.Switch   `json:"suspended,omitempty"` // the account's suspension, if it is in force now
}

func explanationOf(e *journal.Explanation) Explanation {
	var v Explanation
	if e.Decision.ID != "" {
		d := decisionOf(&e.Decision)
		v.Decision = &d
	}
	v.Delivered = map[string]int64{}
	for name, n := range map[string]int64{"sent": e.Delivered.Sent, "deferred": e.Delivered.Deferred, "bounced": e.Delivered.Bounced, "expired": e.Delivered.Expired} {
		if n > 0 {
			v.Delivered[name] = n
		}
	}
	for i := range e.Holds {
		v.Held = append(v.Held, heldOf(&e.Holds[i]))
	}
	return v
}

// ViewDecision is a decision of the journal as it is shown.
func ViewDecision(d *journal.Decision) Decision { return decisionOf(d) }
