package policy

import (
	"cmp"
	"strconv"
	"strings"

	"relayguard/policy/origin"
)

// Shares reports whether the account that answers for a message is not one
// sender's: a Unix account as which many sites send, a web node that does not say
// whose mail it is, or nobody's.
func (l *Limits) Shares(o *origin.Origin) bool {
	switch kind, _ := o.Account(); kind {
	case origin.KindUnknown, origin.KindNode:
		return true
	case origin.KindLocalUser:
		return l != nil && l.isShared(o)
	}
	return false
}

// SharedAccount is Shares of an account by its name, as origin.Name and the
// journal have it.
func (l *Limits) SharedAccount(name string) bool {
	switch kind, user, _ := strings.Cut(name, ":"); origin.Kind(kind) {
	case origin.KindUnknown, origin.KindNode:
		return true
	case origin.KindLocalUser:
		return l != nil && l.sharedName(user)
	}
	return false
}

// sharedName is isShared of the name of a Unix account, "uid:33" if it has none.
func (l *Limits) sharedName(user string) bool {
	name, _, on := strings.Cut(user, "@")
	if id, ok := strings.CutPrefix(name, "uid:"); ok && !on {
		uid, err := strconv.Atoi(id)
		return err == nil && l.shared[uid]
	}
	return l.sharedBy[name]
}

// RoomName names whose room a held message takes: its account's. Where that is
// shared, one site's mail must not take the room of another: then it is that of
// the site, or if no site is known, that of all mail of the same form. The site
// must be proven.
func RoomName(account string, shared bool, site, template string) string {
	if !shared {
		return account
	}
	return cmp.Or(named("site:", site), named(TextRoom, template), account)
}

// TextRoom is what names of rooms of mail of one form begin with. A sender can
// have as many as he writes texts.
const TextRoom = "template:"

// RoomOf is RoomName of a message that was read whole.
func (l *Limits) RoomOf(o *origin.Origin) string {
	site := ""
	if o.Site.Proven() {
		site = o.Site.Value
	}
	return RoomName(o.Name(), l.Shares(o), site, o.Template.Value)
}

// noMoreRoom reports at RCPT whether nothing of the message may be held, whatever
// follows. Of a shared account it is not known yet whose room it takes.
func (p *Policy) noMoreRoom(o *origin.Origin) bool {
	if p.Room == nil {
		return false
	}
	if p.Limits.Shares(o) {
		return p.Room.Full("")
	}
	return p.Room.Full(o.Name())
}
