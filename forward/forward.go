// Package forward has the words for forwarding rules: what a place states
// (Rule), where it was read (Unit, Plan), what reading needs (Host, Files), and
// what is thought of it (Finding). The rooms below find rules, judge, compare,
// watch and prove them; this one has no sources and no opinions.
//
// The trap: a rule is what the mail server does, not what a file says. A text
// that differs from its compiled form, a script that is not active, a file that
// the server ignores: whoever reads a place says which of them is in force.
package forward

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"
)

// Mechanism is how mail comes to go elsewhere.
type Mechanism string

// The mechanisms, as lists and JSON name them.
const (
	Aliases    Mechanism = "aliases"     // aliases(5), of Postfix or Sendmail
	DotForward Mechanism = "forward"     // .forward
	Virtual    Mechanism = "virtual"     // virtual_alias_maps, virtusertable
	Canonical  Mechanism = "canonical"   // canonical_maps, recipient_canonical_maps
	BCC        Mechanism = "bcc"         // sender_bcc_maps, recipient_bcc_maps
	Generic    Mechanism = "generic"     // smtp_generic_maps, lmtp_generic_maps
	Transport  Mechanism = "transport"   // another next hop, the address unchanged
	Access     Mechanism = "access"      // REDIRECT, BCC, FILTER of smtpd restrictions
	Checks     Mechanism = "checks"      // the same of header and body checks
	LuserRelay Mechanism = "luser_relay" // unknown local recipients
	AlwaysBCC  Mechanism = "always_bcc"
	Command    Mechanism = "command" // a program that gets the mail: pipe, mailbox_command
	Sieve      Mechanism = "sieve"
	Procmail   Mechanism = "procmail"
	Maildrop   Mechanism = "maildrop"
	Qmail      Mechanism = "qmail"
	Courier    Mechanism = "courier"
	SQL        Mechanism = "sql"
	LDAP       Mechanism = "ldap"
	Setting    Mechanism = "setting" // another setting of the mail server
	Traffic    Mechanism = "traffic" // no rule is known, and mail went all the same
)

// Mechanisms are all of them.
func Mechanisms() []Mechanism {
	return []Mechanism{Aliases, DotForward, Virtual, Canonical, BCC, Generic, Transport, Access, Checks, LuserRelay,
		AlwaysBCC, Command, Sieve, Procmail, Maildrop, Qmail, Courier, SQL, LDAP, Setting, Traffic}
}

// Mode says whether the owner still gets the mail.
type Mode string

const (
	Copy     Mode = "copy"     // the owner gets it, too
	Redirect Mode = "redirect" // the target instead of the owner
)

// Verdict is what is thought of a rule.
type Verdict string

const (
	Inside         Verdict = "inside"          // ends at exactly our own domains and hosts
	Outside        Verdict = "outside"         // mail leaves to Target
	Dynamic        Verdict = "dynamic"         // where to, only a message decides
	DynamicOutside Verdict = "dynamic-outside" // the mailbox is not known, its domain is, and is outside
	Opaque         Verdict = "opaque"          // a program or server decides; known by hash or endpoint
	Broken         Verdict = "broken"          // it cannot work: a loop, an include that is not there
	Dormant        Verdict = "dormant"         // stated, and not in force
)

// Kind says what a rule's Target is.
type Kind uint8

const (
	Address Kind = iota // a mail address, as written; Judge normalises it
	NextHop             // a host or transport that gets the mail, the address unchanged: "smtp:[mx.example.net]:25"
	Program             // a command line that gets the mail, without the "|"
	File                // a file or directory: delivery, no forwarding
	Asked               // a server or table that cannot be listed: "tcp:127.0.0.1:1234", "check_policy_service unix:private/p"
)

// Everybody is the owner of rules that concern all mail.
const Everybody = "*"

// Rule is one target of one forwarding rule, as its place states it. An alias
// with three targets is three rules with the same Owner, Source and Line.
type Rule struct {
	// Owner is whose mail it is: "alice@corp.test" a mailbox, "alice" a local
	// name (an account or a key of aliases(5)), "@corp.test" a whole domain,
	// Everybody. As the place has it; Judge folds case and domains.
	Owner     string
	Mechanism Mechanism
	Kind      Kind
	Target    string // as written, quotes and all: at most MaxTarget octets
	Mode      Mode
	// Source is the file, or "SETTING in FILE", "TABLE of DATABASE"; Line is
	// counted from 1, 0 where there are no lines.
	Source string
	Line   int

	// Sender: Owner is whose outgoing mail it is, not incoming (sender_bcc_maps).
	Sender bool
	// Server: an admin of the server set it, for more than one person.
	Server bool
	// Dynamic: Target has parts that only a message decides. They stand as
	// Unknown in it.
	Dynamic bool
	// Dormant says why the rule is not in force; empty: it is.
	Dormant string
	// Broken says why the rule cannot work; empty: it can.
	Broken string
	// Differs says how the source differs from what runs ("compiled form has
	// it, the text has not"); empty: it does not, or there is one form only.
	Differs string
	// Digest is of the program behind a Program, or of the script that could
	// not be read: hex, changes when it does. Empty: not known.
	Digest string
	// UID is who owns the file that states it; NoUID where that means nothing.
	UID int
	// Note is for people: how the target came about.
	Note string
}

// Unknown stands in a dynamic Target for what is not known before a message.
const Unknown = "\uFFFC"

// MaxTarget bounds a target, in octets; a longer one is cut and Broken.
const MaxTarget = 4096

// NoUID is no Unix account.
const NoUID = -1

// Gap is what could not be read, so that nothing can be said of it.
type Gap struct {
	Source string `json:"source"`
	Why    string `json:"why"`
}

// Finding is a rule and what is thought of it; the JSON is that of
// "forwards scan --json".
type Finding struct {
	ID        string    `json:"id"`
	Owner     string    `json:"owner"` // canonical: lower case; local names without a domain
	Mechanism Mechanism `json:"mechanism"`
	Source    string    `json:"source"`
	Line      int       `json:"line"`
	Target    string    `json:"target"` // as the MTA will use it: normalised, lower-case domain
	Verdict   Verdict   `json:"verdict"`
	Mode      Mode      `json:"mode"`
	// Chain are the owners on the way, this one first: one element if the rule
	// itself names the target.
	Chain    []string `json:"chain"`
	Approved bool     `json:"approved"`
	Note     string   `json:"note"`

	Server  bool   `json:"server,omitempty"`
	Sender  bool   `json:"sender,omitempty"`
	Differs string `json:"differs,omitempty"`
	Digest  string `json:"digest,omitempty"`
	UID     int    `json:"uid"`            // NoUID: not known
	Also    int    `json:"also,omitempty"` // further places that state the same
	Unit    string `json:"-"`              // of the place
}

// Direct reports whether the rule itself names the target.
func (f *Finding) Direct() bool { return len(f.Chain) <= 1 }

// Leaves reports whether mail may go outside by it, as far as is known.
func (f *Finding) Leaves() bool {
	switch f.Verdict {
	case Outside, Dynamic, DynamicOutside, Opaque:
		return true
	}
	return false
}

// FindingID names what an approval is for: owner, mechanism, target and mode,
// all in canonical form. It is the same on every machine, and long enough that
// nobody finds another rule with the same one. People see and type ShortID.
func FindingID(owner string, m Mechanism, target string, mode Mode) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{owner, string(m), target, string(mode)}, "\x00")))
	return "F" + hex.EncodeToString(sum[:16])
}

// ShortID is the beginning of an ID that is enough for people: commands take it
// where no other rule's begins so.
func ShortID(id string) string { return id[:min(len(id), 13)] }

// Writer is who changed a place, where the kernel could tell. The zero value is
// not known: use UnknownWriter.
type Writer struct {
	UID      int    `json:"uid"`       // NoUID: unknown
	LoginUID int    `json:"login_uid"` // who logged in at first (audit); NoUID: unknown
	PID      int    `json:"pid,omitempty"`
	Process  string `json:"process,omitempty"` // its program: /usr/bin/vim
}

// UnknownWriter is who is not known.
var UnknownWriter = Writer{UID: NoUID, LoginUID: NoUID}

// Known reports whether the kernel told who it was.
func (w Writer) Known() bool { return w.UID != NoUID }

// Change is what a watch saw of one path.
type Change struct {
	Path   string
	Writer Writer
	Time   time.Time
	// Lost: changes were missed; everything is to be read again. Path is empty.
	Lost bool
}
