package replay

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"relayguard/policy"
	"relayguard/policy/origin"
)

// Accounts gives Unix accounts of a trace numbers where it names none. Names and
// numbers of this machine mean nothing there. The zero value is ready; not safe
// for concurrent use.
type Accounts struct {
	uids  map[string]int
	names map[int]string
}

// firstUID is beyond the uids that machines give.
const firstUID = 1 << 30

// UID is the number of an account, always the same: the first one that the trace
// gives with its name, else one of our own. "uid:33" is the number itself.
func (a *Accounts) UID(name string, uid *int) int {
	if a.uids == nil {
		a.uids, a.names = map[string]int{}, map[int]string{}
	}
	if known, ok := a.uids[name]; ok {
		return known
	}
	if digits, numbered := strings.CutPrefix(name, "uid:"); numbered {
		if n, err := strconv.ParseUint(digits, 10, 32); err == nil {
			return int(n)
		}
	}
	n := firstUID + len(a.uids)
	if uid != nil && a.names[*uid] == "" {
		n = *uid
	}
	a.uids[name], a.names[n] = n, name
	return n
}

// Find is UID of an account that somebody names who may mean the number itself.
func (a *Accounts) Find(name string) int {
	if _, err := strconv.ParseUint(name, 10, 32); err == nil && a.uids[name] == 0 {
		name = "uid:" + name
	}
	return a.UID(name, nil)
}

// Name is an account's name, for origin.Finder.
func (a *Accounts) Name(uid int) string { return a.names[uid] }

// message makes of an event what the MTA would have told.
func (r *run) message(e *Event) *policy.Message {
	m := &policy.Message{Listener: "replay", Role: policy.Relay, Time: e.Time, Evidence: origin.NewEvidence()}
	m.QueueID = fmt.Sprintf("R%012d", r.messages) // in the order of age, also as text
	m.MailFrom = e.MailFrom
	if ip, err := netip.ParseAddr(e.ClientIP); err == nil {
		m.ClientIP = ip
	}
	switch {
	case e.Login != "":
		m.Role, m.Login, m.AuthType = policy.Submission, e.Login, "PLAIN"
	case e.LocalUser != "":
		m.Role, m.Submitted, m.UID = policy.Local, true, r.Accounts.UID(e.LocalUser, e.UID)
	case e.UID != nil:
		m.Role, m.Submitted, m.UID = policy.Local, true, *e.UID
	case r.inbound(m, e):
		m.Role = policy.Inbound
	}
	if e.Site != "" {
		m.Site, m.SiteConfidence = e.Site, origin.Signed
	}
	if e.Plugin != nil {
		m.Plugin, m.PluginConfidence = *e.Plugin, origin.Signed
	}
	m.Call.Script = e.Script
	if ip, err := netip.ParseAddr(e.WebClientIP); err == nil {
		m.Call.WebClient = ip.String()
	}
	m.Digest = digest(e)
	return m
}

// inbound reports whether the MTA takes the message of a stranger all the same:
// it is for us.
func (r *run) inbound(m *policy.Message, e *Event) bool {
	o := r.Enforce.Finder.Find(&m.Evidence)
	kind, _ := o.Account()
	return kind == origin.KindUnknown && !slices.ContainsFunc(e.RcptTo, func(to string) bool { return !r.Enforce.Inside.Has(to) })
}

// content gives the message header, body and size, which are known at its end.
func (r *run) content(m *policy.Message, e *Event) {
	m.Header.MaxBytes, m.Header.MaxFields = r.HeaderBytes, r.HeaderFields
	add := func(name, value string) {
		if value != "" {
			m.Header.Add([]byte(name), []byte(" "+value))
		}
	}
	add("From", e.HeaderFrom)
	add("Subject", e.Subject)
	add("Message-ID", e.MessageID)
	own := m.Header // what has a field of its own is not told twice
	for _, name := range slices.Sorted(maps.Keys(e.Headers)) {
		if own.Count(name) == 0 {
			for _, value := range e.Headers[name] {
				add(name, value)
			}
		}
	}
	m.Size = max(e.Size, int64(m.Header.Bytes()+len(e.Body)))
	m.Body = []byte(e.Body)
	if r.BodyBytes != nil {
		if most := r.BodyBytes(m.Role); len(m.Body) > most {
			m.Body = m.Body[:most]
		}
	}
	m.Text = textOf(e)
}

// digest stands for the content: a message that comes again with the same one
// is a retry.
func digest(e *Event) (d [16]byte) {
	content, _ := json.Marshal(&Event{HeaderFrom: e.HeaderFrom, Subject: e.Subject, Size: e.Size, Body: e.Body, Headers: e.Headers, Skeleton: e.Skeleton, LineHashes: e.LineHashes})
	sum := sha256.Sum256(content)
	copy(d[:], sum[:])
	return d
}
