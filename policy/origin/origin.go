// Package origin says who sent a message, and how surely.
//
// Evidence is what the MTA and the kernel told; Find turns it into an Origin:
// the keys a message is known by, each with a confidence. A label that the
// sender can choose (HELO, envelope sender, From, Message-ID) is recorded but
// never makes an account. It decides nothing.
package origin

import (
	"net/netip"
	"strconv"
	"strings"
)

// Confidence says how surely a key is known. Higher is surer.
type Confidence uint8

const (
	Unknown     Confidence = iota
	Claimed                // the sender's own word: envelope, From, HELO
	Fingerprint            // recognised by its form
	Address                // an address in a trusted network
	Signed                 // a header signed with a site's key
	Wrapper                // peer credentials of the sendmail wrapper
	Kernel                 // the kernel's or the MTA's proof: uid, AUTH, verified certificate
)

var confidenceNames = [...]string{"unknown", "claimed", "fingerprint", "address", "signed", "wrapper", "kernel"}

func (c Confidence) String() string {
	if int(c) < len(confidenceNames) {
		return confidenceNames[c]
	}
	return "unknown"
}

// NoUID is the UID of a sender whose Unix account is not known.
const NoUID = -1

// Evidence is what was told of a sender. Make it with NewEvidence: uid 0 is
// root, not "unknown".
type Evidence struct {
	ClientIP   netip.Addr // invalid when the MTA gave none
	ClientPort uint16     // 0 if not known
	ClientName string     // reverse name, "unknown" without one
	Helo       string
	DaemonName string // {daemon_name}: the MTA's name for the service
	Submitted  bool   // by sendmail(1): there is no SMTP client, ClientIP says nothing

	Login    string // {auth_authen}; empty without AUTH
	AuthType string // {auth_type}: PLAIN, XCLIENT, ...

	CertSubject  string // {cert_subject} of a client certificate
	CertIssuer   string // {cert_issuer}
	CertVerified bool   // the MTA verified its chain

	UID int // Unix account by the kernel's word, NoUID if unknown

	MailFrom   string // envelope sender, without brackets; empty is the null reverse-path
	HeaderFrom string // first address of From
	MessageID  string // with its angle brackets, as in the header
	QueueID    string // the MTA's, empty until it told one

	// What attribution found, and how surely. Unknown counts as Claimed. An empty
	// Plugin with a confidence is the site's own software.
	Site     string
	Plugin   string
	Template string

	SiteConfidence     Confidence
	PluginConfidence   Confidence
	TemplateConfidence Confidence

	// LocalUser is the name of the Unix account where something else than UID tells
	// it, on Node if that is set, LocalConfidence how surely. With a UID it is the
	// confidence of that, unless Unknown, which is Kernel.
	LocalUser       string
	LocalConfidence Confidence

	// Node is the web node that the message comes from, by its address; NodeUID the
	// Unix account there, by the node's signature, NoUID without one.
	Node    string
	NodeUID int

	Call Call
}

// Call is what is known of the call of mail() that a message came from. None of
// it is a key: it is for people to read.
type Call struct {
	Entry     string // "ajax", "cron", "rest", "page", ...
	Script    string // file:line
	WebClient string // address of the client of the web request
	Pool      string // of php-fpm
	Dir       string // in which the mail was handed in
	Software  string // what its form looks like
	Blog      int    // of a multisite network
}

// NewEvidence returns evidence of nobody.
func NewEvidence() Evidence { return Evidence{UID: NoUID, NodeUID: NoUID} }

// Key is one thing a message is known by. The zero value is "not known".
type Key struct {
	Value      string
	Confidence Confidence
}

// Known reports whether there is anything to know.
func (k Key) Known() bool { return k.Value != "" }

// Proven reports whether the key is known by more than its form or the sender's
// own word, who could choose another.
func (k Key) Proven() bool { return k.Known() && k.Confidence >= Address }

// Origin is all that is known of who sent a message.
type Origin struct {
	Login      Key // SASL login, lower case; or the one a certificate stands for
	LocalUser  Key // Unix account, by name where it has one, else "uid:N"; on a web node with "@NODE"
	Network    Key // name of the trusted network
	Node       Key // web node that sent it
	Site       Key // web site, lower case: "shop.example.jp"
	Plugin     Key // extension of the site, lower case; OwnSoftware for the site's own
	Template   Key // what the text looks like
	Customer   Key // whose account or site it is
	ClientIP   Key // without zone, IPv4 unmapped; never an account by itself
	MailFrom   Key // claimed
	HeaderFrom Key // claimed
	MessageID  string
	QueueID    string
	LoginBy    string // how the login was proven: the SASL mechanism, "XCLIENT", "certificate"
	UID        int    // NoUID if unknown
	NodeUID    int    // the same on Node
	Call       Call
}

// Kind names what kind of account a message belongs to.
type Kind string

const (
	KindUnknown   Kind = "unknown" // nobody answers for it; a state, never a shared key
	KindLogin     Kind = "login"
	KindLocalUser Kind = "local_user"
	KindNetwork   Kind = "network"
	KindNode      Kind = "node" // a web node that does not say whose it is: like unknown, judged by template
)

// Account is the one key that answers for the message, the surest kind first;
// KindUnknown with an empty key if nobody does.
func (o *Origin) Account() (Kind, Key) {
	switch {
	case o.Login.Known():
		return KindLogin, o.Login
	case o.LocalUser.Known():
		return KindLocalUser, o.LocalUser
	case o.Node.Known():
		return KindNode, o.Node
	case o.Network.Known():
		return KindNetwork, o.Network
	}
	return KindUnknown, Key{}
}

// Name is the account as logs and commands write it: "login:taro@example.jp".
func (o *Origin) Name() string {
	kind, key := o.Account()
	if kind == KindUnknown {
		return string(KindUnknown)
	}
	return string(kind) + ":" + key.Value
}

// Stable is the account in a form that does not change while its name becomes
// known: a Unix account is its uid, "local_user:33", on a web node
// "local_user:1001@web3".
func (o *Origin) Stable() string {
	if kind, _ := o.Account(); kind == KindLocalUser {
		if id := o.LocalID(); id != "" {
			return string(kind) + ":" + id
		}
	}
	return o.Name()
}

// LocalID is the uid of the Unix account, "33", or on a web node "1001@web3"; empty
// if it is not known.
func (o *Origin) LocalID() string {
	switch {
	case o.UID != NoUID:
		return strconv.Itoa(o.UID)
	case o.NodeUID != NoUID && o.Node.Known():
		return strconv.Itoa(o.NodeUID) + "@" + o.Node.Value
	}
	return ""
}

// Domain is the domain of the login, else of the proven site: "example.jp". Empty
// if there is none.
func (o *Origin) Domain() string {
	switch {
	case o.Login.Known():
		if _, domain, ok := cutLast(o.Login.Value, '@'); ok {
			return strings.TrimSuffix(domain, ".")
		}
		return ""
	case o.Site.Proven():
		host, _, _ := strings.Cut(o.Site.Value, "/")
		host, _, _ = strings.Cut(host, ":")
		return host
	}
	return ""
}

func cutLast(s string, sep byte) (before, after string, found bool) {
	if i := strings.LastIndexByte(s, sep); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

// Finder knows the site's own part of the answer. Safe for concurrent use once
// filled.
type Finder struct {
	Networks     Networks
	Certificates []Certificate
	Customers    Customers

	// LoginTags are the characters that begin a tag in a login, for servers where
	// taro+shop@example.jp logs in as taro@example.jp: usually "+" or none.
	LoginTags string

	// UserName gives the name of a Unix account, "" if it has none. It must
	// not wait: it is called on the mail path.
	UserName func(uid int) string
}

// Certificate lets a verified client certificate stand for a login.
type Certificate struct {
	Subject string // as the MTA reports it: Postfix gives the common name
	Issuer  string // empty: any issuer that the MTA verified
	Login   string
}

// Find says what the evidence amounts to.
func (f *Finder) Find(e *Evidence) Origin {
	o := Origin{
		MessageID: e.MessageID,
		QueueID:   e.QueueID,
		UID:       e.UID,
		NodeUID:   e.NodeUID,
		Call:      e.Call,
	}
	o.MailFrom = claimed(e.MailFrom)
	o.HeaderFrom = claimed(e.HeaderFrom)
	if ip := e.ClientIP.Unmap().WithZone(""); ip.IsValid() && !e.Submitted {
		o.ClientIP = Key{ip.String(), Address}
		if n, ok := f.Networks.Find(ip); ok {
			o.Network = Key{n.Name, Address}
		}
	}
	if e.Node != "" && !e.Submitted {
		o.Node = label(e.Node, Address)
	}
	if o.LocalUser = f.localUser(e); !o.LocalUser.Known() || o.UID != NoUID || !o.Node.Known() {
		o.NodeUID = NoUID
	}
	switch login := f.untagged(strings.ToLower(e.Login)); {
	case login != "":
		o.Login, o.LoginBy = Key{login, Kernel}, e.AuthType
	case e.CertVerified:
		if login, ok := f.certLogin(e); ok {
			o.Login, o.LoginBy = Key{login, Kernel}, "certificate"
		}
	}
	o.attribute(e)
	o.Customer = f.Customers.Find(&o)
	return o
}

// localUser is the Unix account: by the uid of the kernel or of the wrapper, by
// what the node that it is on has signed, or by what the MTA wrote.
func (f *Finder) localUser(e *Evidence) Key {
	switch {
	case e.UID != NoUID && e.LocalConfidence == Wrapper:
		return Key{f.userName(e.UID), Wrapper}
	case e.UID != NoUID:
		return Key{f.userName(e.UID), Kernel}
	case e.LocalConfidence < Address: // claimed
		return Key{}
	case e.Node == "":
		return label(e.LocalUser, e.LocalConfidence)
	case e.LocalUser != "":
		return label(strings.ReplaceAll(e.LocalUser, "@", "_")+"@"+e.Node, e.LocalConfidence)
	case e.NodeUID != NoUID:
		return label("uid:"+strconv.Itoa(e.NodeUID)+"@"+e.Node, e.LocalConfidence)
	}
	return Key{}
}

func (f *Finder) userName(uid int) string {
	if f.UserName != nil {
		if name := f.UserName(uid); name != "" {
			return name
		}
	}
	return "uid:" + strconv.Itoa(uid)
}

// untagged is the login without its tag: the account, which no tag makes another.
func (f *Finder) untagged(login string) string {
	local, domain, ok := cutLast(login, '@')
	if i := strings.IndexAny(local, f.LoginTags); i > 0 {
		local = local[:i]
		if ok {
			return local + "@" + domain
		}
		return local
	}
	return login
}

func (f *Finder) certLogin(e *Evidence) (string, bool) {
	for _, c := range f.Certificates {
		if e.CertSubject != "" && c.Subject == e.CertSubject && (c.Issuer == "" || c.Issuer == e.CertIssuer) {
			return strings.ToLower(c.Login), true
		}
	}
	return "", false
}

func claimed(s string) Key {
	if s == "" {
		return Key{}
	}
	return Key{s, Claimed}
}
