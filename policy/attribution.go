package policy

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"relayguard/policy/address"
	"relayguard/policy/origin"
	"relayguard/policy/origin/fingerprint"
	"relayguard/policy/origin/stamp"
	"relayguard/policy/template"
)

// Attribution finds out which site, plugin or form a message came from. Of its
// parts each may be nil, and then finds nothing. It is not changed once in use;
// what it is made of is safe for concurrent use, and does not wait.
type Attribution struct {
	Stamps       *stamp.Book
	Nodes        *stamp.Nodes
	Fingerprints *fingerprint.Set
	Templates    *template.Memory
	Calls        Calls
	Sites        *Sites

	// SiteStamps and NodeStamps count what became of the stamps of mail.
	SiteStamps, NodeStamps *stamp.Tally

	// RootOf is the site of a Unix account whose root holds a directory: of others'
	// an account may say what it likes.
	RootOf func(uid int, dir string) (site string, ok bool)

	// SiteOf is the only site that a Unix account runs; not of accounts that are
	// shared.
	SiteOf func(uid int) (site string, ok bool)

	// UserID is the uid of a Unix account by its name.
	UserID func(name string) (uid int, ok bool)

	// Signer: this is a web node, and the relay decides by the limits.
	Signer *Signer

	// SubmitUID is the account as which Sendmail's submission program hands on
	// what waited in its queue; origin.NoUID: there is none. Its own first line says
	// whose mail it is.
	SubmitUID int
}

// Calls remembers calls of the sendmail wrapper.
type Calls interface {
	// Call is that of a token, for the message of a digest alone.
	Call(token string, digest [16]byte) (Call, bool)
}

// Call is what the kernel told of a program that handed in mail by the sendmail
// wrapper.
type Call struct {
	UID    int
	Pool   string // of php-fpm
	Dir    string // working directory
	Script string
	Time   time.Time
}

// Signer makes a web node's word about where its mail is from.
type Signer struct {
	Node string
	Key  stamp.Key
}

// mostTokens is how many tokens of calls in one message are looked at.
const mostTokens = 8

// strip lists the fields that must not leave.
func (p *Policy) strip(h *Header) (all []string) {
	for _, name := range [...]string{p.UIDHeader, stamp.Header, stamp.NodeHeader, stamp.CallHeader, TokenHeader} {
		if name != "" && h.Count(name) > 0 {
			all = append(all, name)
		}
	}
	return all
}

// signer is that of a web node, nil if this is none.
func (p *Policy) signer() *Signer {
	if p.Attribution == nil {
		return nil
	}
	return p.Attribution.Signer
}

// findNode says from which node a message comes: that is known by its address.
func (p *Policy) findNode(m *Message) {
	if a := p.Attribution; a != nil && a.Nodes != nil && !m.Submitted && m.ClientIP.IsValid() {
		m.Node = a.Nodes.Find(m.ClientIP)
	}
}

// attribute fills in what the message's header tells of its origin, as far as it
// can be believed.
func (p *Policy) attribute(now time.Time, m *Message) {
	a := p.Attribution
	if a == nil || m.Role == Egress { // it was attributed when it came in
		return
	}
	p.findNode(m)
	a.submitLine(m)
	a.call(m)
	text, look := "", a.Fingerprints != nil && m.Login == ""
	if look || m.Header.Count(stamp.Header) > 0 {
		text = subject(&m.Header)
	}
	signed := stamp.Mail{UID: m.UID, Login: m.Login, RcptTo: m.RcptTo, Subject: text, Digest: m.Digest}
	if m.Node != "" {
		a.nodeStamp(now, m, &signed)
	}
	if a.Stamps != nil && m.Node == "" && m.Header.Count(stamp.Header) > 0 {
		s, err := a.Stamps.Verify(now, m.Header.Values(stamp.Header), &signed)
		a.SiteStamps.Note(err)
		if err == nil {
			a.stamped(m, &s)
		}
	}
	p.owned(m)
	if look && m.Call.Software == "" {
		m.Call.Software = a.Fingerprints.Find(&m.Header, text, m.Body)
	}
}

// owned says of which site a message is whose account runs no other.
func (p *Policy) owned(m *Message) {
	a := p.Attribution
	if a.SiteOf == nil || m.Site != "" || m.UID == origin.NoUID || p.Limits.sharedUID(m.UID) {
		return
	}
	if site, ok := a.SiteOf(m.UID); ok {
		m.Site, m.SiteConfidence = site, cmp.Or(m.LocalConfidence, origin.Kernel)
	}
}

// submitLine believes the first line of mail that Sendmail's submission program
// hands on: it is that program's own, and says who ran it. What it cannot be read
// in is the submission program's own account's, and nobody's word for it: who ran
// the program may have seen to that (-bs with a socket for its input names the
// socket's peer), and its own bounce of somebody's mail has no such line.
func (a *Attribution) submitLine(m *Message) {
	if m.Submitted && !m.BySMTP || a.SubmitUID == origin.NoUID || m.UID != a.SubmitUID || !m.here() {
		return
	}
	name, ok := "", false
	if m.Header.Len() > 0 {
		name, ok = submitter(&m.Header)
	}
	if m.unsaid = !ok; m.unsaid {
		return
	}
	if digits, ok := strings.CutPrefix(name, noAccount); ok {
		if uid, ok := parseUID(digits); ok {
			m.UID = uid
		} else {
			m.unsaid = true
		}
		return
	}
	if !isAccount(name) {
		m.unsaid = true
		return
	}
	if a.UserID != nil {
		if uid, ok := a.UserID(name); ok {
			m.UID = uid
			return
		}
	}
	m.UID, m.LocalUser, m.LocalConfidence = origin.NoUID, name, origin.Kernel
}

// noAccount stands before the uid of an account that has no name.
const noAccount = "Unknown UID "

// submitter reads who ran the submission program in the first field, a Received
// (seen on 8.17):
//
//	(from USER@localhost) by HOST (8.17.1.9/8.17.1.9/Submit) id ID for ADDRESS; DATE
//	from NAME (USER@localhost) by HOST (8.17.1.9/8.17.1.9/Submit) with PROTOCOL id ID; DATE
//
// The user chooses NAME and PROTOCOL (-oMs, -oMr, -p, -bs); Sendmail lets neither
// have blanks or brackets.
func submitter(h *Header) (name string, ok bool) {
	if !h.is(h.fields[0], "Received") {
		return "", false
	}
	who, rest, ok := strings.Cut(strings.Join(strings.Fields(h.value(h.fields[0])), " "), " by ")
	if !ok {
		return "", false
	}
	parts := strings.SplitN(rest, " ", 6)
	if len(parts) < 4 || !strings.HasPrefix(parts[1], "(") || !strings.HasSuffix(parts[1], "/Submit)") || parts[2] != "id" && (len(parts) < 6 || parts[2] != "with" || parts[4] != "id") {
		return "", false
	}
	who, from := strings.CutPrefix(who, "(from ")
	if !from {
		claimed, ok := "", false
		if who, ok = strings.CutPrefix(who, "from "); ok {
			claimed, who, ok = strings.Cut(who, " (")
		}
		if !ok || strings.ContainsAny(claimed, " ()") {
			return "", false
		}
	}
	name, ok = strings.CutSuffix(who, "@localhost)")
	return name, ok && !strings.ContainsAny(name, "()@")
}

// isAccount reports whether a Unix account may have the name.
func isAccount(name string) bool {
	return name != "" && len(name) <= 64 && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-$", r)
	})
}

// call believes the wrapper's token: if the kernel told whose the message is, only
// one that the same account was given.
func (a *Attribution) call(m *Message) {
	if a.Calls == nil || m.Node != "" || m.Header.Count(stamp.CallHeader) == 0 {
		return
	}
	tokens := m.Header.Values(stamp.CallHeader)
	for _, token := range tokens[:min(len(tokens), mostTokens)] {
		c, ok := a.Calls.Call(token, m.Digest)
		if !ok || c.UID == origin.NoUID || m.UID != origin.NoUID && m.UID != c.UID || m.UID == origin.NoUID && m.LocalUser != "" {
			continue
		}
		if m.UID == origin.NoUID {
			m.UID, m.LocalConfidence = c.UID, origin.Wrapper
		}
		m.Call.Pool, m.Call.Dir, m.Call.Script = c.Pool, c.Dir, c.Script
		a.placed(m)
		return
	}
}

// placed believes that a message is of the site in whose root the wrapper was
// called.
func (a *Attribution) placed(m *Message) {
	if a.RootOf == nil || m.Call.Dir == "" || m.UID == origin.NoUID {
		return
	}
	if site, ok := a.RootOf(m.UID, m.Call.Dir); ok {
		m.Site, m.SiteConfidence = site, origin.Wrapper
	}
}

// nodeStamp believes what the node that the message comes from has signed.
func (a *Attribution) nodeStamp(now time.Time, m *Message, signed *stamp.Mail) {
	m.NodeUID, m.LocalUser, m.LocalConfidence = origin.NoUID, "", origin.Unknown
	if m.Header.Count(stamp.NodeHeader) == 0 {
		return
	}
	s, err := a.Nodes.Verify(now, m.ClientIP, m.Header.Values(stamp.NodeHeader), signed)
	a.NodeStamps.Note(err)
	if err != nil {
		return
	}
	m.NodeUID, m.LocalUser, m.LocalConfidence = s.UID, s.LocalUser, origin.Signed
	m.Call = origin.Call{Entry: s.Call.Entry, Script: s.Call.Script, WebClient: s.Call.WebClient, Pool: s.Call.Pool, Software: s.Call.Software, Blog: s.Call.Blog}
	if s.Site != "" {
		m.Site, m.SiteConfidence = s.Site, origin.Signed
		if s.Labelled {
			m.Plugin, m.PluginConfidence = s.Plugin, origin.Signed
		}
	}
}

// stamped takes over what a site has signed.
func (a *Attribution) stamped(m *Message, s *stamp.Stamp) {
	m.Site, m.SiteConfidence = s.Site, origin.Signed
	m.Plugin, m.PluginConfidence = s.Plugin, origin.Signed
	m.Call.Entry, m.Call.Blog = s.Entry, s.Blog
	m.Call.Script = cmp.Or(s.Script, m.Call.Script)
	if s.WebClient.IsValid() {
		m.Call.WebClient = s.WebClient.String()
	}
}

// admit makes a plugin's name a claim that is one more than its site may have.
func (p *Policy) admit(now time.Time, o *origin.Origin) {
	if a := p.Attribution; a != nil && a.Sites != nil && o.Site.Proven() && o.Plugin.Proven() && !a.Sites.Admit(now, o.Site.Value, o.Plugin.Value) {
		o.Plugin.Confidence = origin.Claimed
	}
}

// sign gives a message that leaves this web node the node's word about its origin.
func (p *Policy) sign(now time.Time, m *Message, d *Decision) {
	s := p.signer()
	if s == nil || m.Role == Inbound || m.Role == Egress || d.Verdict == Defer || d.Verdict == Reject {
		return
	}
	o := &d.Origin
	said := stamp.NodeStamp{Node: s.Node, Queue: m.QueueID, Time: now, UID: o.UID, LocalUser: o.LocalUser.Value}
	if o.UID != origin.NoUID && o.LocalUser.Value == "uid:"+strconv.Itoa(o.UID) {
		said.LocalUser = ""
	}
	if o.Site.Proven() {
		said.Site, said.Labelled = o.Site.Value, o.Plugin.Proven()
		if said.Labelled && o.Plugin.Value != origin.OwnSoftware {
			said.Plugin = o.Plugin.Value
		}
	}
	said.Call = stamp.NodeCall{Entry: o.Call.Entry, Script: o.Call.Script, WebClient: o.Call.WebClient, Pool: o.Call.Pool, Software: o.Call.Software, Blog: o.Call.Blog}
	d.Add = append(d.Add, Field{stamp.NodeHeader, stamp.Sign(now, s.Key, &said, &stamp.Mail{RcptTo: m.RcptTo, Digest: m.Digest})})
}

// judgedByText reports whether some limit is about what the message looks like,
// and about some of its recipients: those are appended to room.
func (p *Policy) judgedByText(m *Message, o *origin.Origin, room []uint64) (rcpts []uint64, ok bool) {
	l := p.Limits
	if l == nil || !l.templates || l.opt.Item == nil || o.Site.Proven() && (o.Plugin.Proven() || l.plugins) { // mail of a site without a label has a bucket of its own
		return nil, false
	}
	kind, _ := o.Account()
	if kind == origin.KindUnknown && !m.Local() {
		return nil, false
	}
	whose := *o
	if kind == origin.KindLogin { // a webmail's own account is not who writes
		whose.LocalUser, whose.UID = origin.Key{}, origin.NoUID
	}
	var scopes [3]bool
	for i := range l.rules {
		if r := &l.rules[i]; r.template && r.when.maybe(&whose) {
			scopes[r.Scope], ok = true, true
		}
	}
	if !ok {
		return nil, false
	}
	for _, to := range m.RcptTo {
		inside := p.Inside.Has(to)
		if (scopes[Everyone] || scopes[InsideOnly] && inside || scopes[OutsideOnly] && !inside) && !(inside && exemptInside(m, to)) {
			rcpts = append(room, uint64(l.opt.Item(to)))
			room = rcpts
		}
	}
	return rcpts, len(rcpts) > 0
}

// recognise names the form that a message is made from, where a limit asks. It
// returns what is told when the message has gone.
func (p *Policy) recognise(now time.Time, m *Message, o *origin.Origin) (sent func()) {
	a := p.Attribution
	if a == nil || a.Templates == nil || a.Signer != nil || m.Role == Egress || p.own(m) {
		return nil
	}
	var room [16]uint64
	rcpts, ok := p.judgedByText(m, o, room[:0])
	if !ok {
		return nil
	}
	text := m.Text
	if text == nil {
		read := a.Templates.Read(&m.Header, m.Body)
		text = &read
	}
	sender := o.Stable()
	if o.Site.Proven() {
		sender += " site:" + o.Site.Value
	}
	slices.Sort(rcpts)
	rcpts = slices.Compact(rcpts)
	if kind, _ := o.Account(); !o.Site.Proven() && (kind == origin.KindNode || kind == origin.KindUnknown || kind == origin.KindLocalUser && p.Limits.isShared(o)) {
		sender = a.Templates.Shared(now, sender, author(m), text, rcpts)
	}
	match := a.Templates.Find(now, sender, text, rcpts)
	m.Template, m.TemplateConfidence = match.Name, origin.Fingerprint
	if match.Name == "" {
		m.TemplateConfidence = origin.Unknown
	}
	o.Template = origin.Key{Value: m.Template, Confidence: m.TemplateConfidence}
	return func() { a.Templates.Sent(now, sender, text) }
}

// author is the domain of From. Without one the MTA writes the
// envelope sender there.
func author(m *Message) string {
	a, ok := address.Parse(m.HeaderFrom)
	if !ok {
		a = sender(m)
	}
	return a.Domain
}
