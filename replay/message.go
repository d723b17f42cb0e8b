package replay

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"relayguard/policy"
	"relayguard/policy/origin"
)

// WordPress is the plugin of mail that WordPress sends by itself.
const WordPress = "wordpress"

// Accounts gives Unix accounts of a trace numbers where it names none. Names and
// numbers of this machine mean nothing there. The zero value is ready; not safe
// for concurrent use.
type Accounts struct {
	uids  map[string]int
	names map[int]string
}

// firstUID is beyond the uids that machines give.
const firstUID = 1 << 30

// UID is the number of an account, always the same.
func (a *Accounts) UID(name string, uid *int) int {
	if a.uids == nil {
		a.uids, a.names = map[string]int{}, map[int]string{}
	}
	if known, ok := a.uids[name]; ok {
		return known
	}
	n := firstUID + len(a.uids)
	if uid != nil && *uid >= 0 && a.names[*uid] == "" {
		n = *uid
	}
	a.uids[name], a.names[n] = n, name
	return n
}

// Name is an account's name, for origin.Finder.
func (a *Accounts) Name(uid int) string { return a.names[uid] }

// message makes of an event what the MTA would have told. The queue id is the
// number of the message.
func (r *run) message(e *Event) *policy.Message {
	m := &policy.Message{Listener: "replay", Role: policy.Relay, Time: e.Time, RcptTo: slices.Clone(e.RcptTo), Evidence: origin.NewEvidence()}
	m.QueueID = "R" + strconv.Itoa(r.messages)
	m.MailFrom, m.MessageID = e.MailFrom, e.MessageID
	if ip, err := netip.ParseAddr(e.ClientIP); err == nil {
		m.ClientIP = ip
	}
	switch {
	case e.Login != "":
		m.Role, m.Login, m.AuthType = policy.Submission, e.Login, "PLAIN"
	case e.LocalUser != "":
		m.Role, m.Submitted, m.UID = policy.Local, true, r.Accounts.UID(e.LocalUser, e.UID)
	}
	m.Site = e.Site
	if e.Plugin != nil && e.Site != "" {
		m.Plugin = *e.Plugin
		if m.Plugin == "" {
			m.Plugin = WordPress
		}
	}
	r.header(m, e)
	m.Size = max(e.Size, int64(m.Header.Bytes()+len(e.Body)))
	m.Digest = digest(e)
	return m
}

// header are the fields that a trace tells, in one order.
func (r *run) header(m *policy.Message, e *Event) {
	add := func(name, value string) {
		if value != "" {
			m.Header.Add([]byte(name), []byte(" "+value))
		}
	}
	add("From", e.HeaderFrom)
	add("Subject", e.Subject)
	add("Message-ID", e.MessageID)
	names := make([]string, 0, len(e.Headers))
	for name := range e.Headers {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if m.Header.Count(name) == 0 {
			add(name, e.Headers[name])
		}
	}
}

// digest stands for the content: a message that comes again with the same one
// is a retry.
func digest(e *Event) (d [16]byte) {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %d", e.HeaderFrom, e.Subject, e.Body, e.MailFrom, e.Size))
	copy(d[:], sum[:])
	return d
}
