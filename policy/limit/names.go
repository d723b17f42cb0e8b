package limit

import "fmt"

// Unit is what a limit counts. The zero value is no unit.
type Unit uint8

const (
	Messages   Unit = iota + 1
	Recipients      // of a message, each as often as it is named
	Bytes           // octets of header and body
	Distinct        // different recipients within the window
	FirstTime       // recipients that the account has never written to
	Bounces         // of what was sent, as the MTA's log tells
)

var unitNames = [...]string{Messages: "messages", Recipients: "recipients", Bytes: "bytes", Distinct: "distinct", FirstTime: "first_time", Bounces: "bounces"}

// Units are the names that ParseUnit takes.
func Units() []string { return unitNames[1:] }

func (u Unit) String() string { return nameOf(unitNames[:], int(u), "unit") }

// ParseUnit reads a unit by its name in the configuration.
func ParseUnit(s string) (Unit, error) {
	i, err := parseName(unitNames[:], s)
	return Unit(i), err
}

// Kind is what becomes of a bucket that was full. The zero value is no kind.
type Kind uint8

const (
	Volume Kind = iota + 1 // heals with time
	Abuse                  // latches: shut until resumed
)

var kindNames = [...]string{Volume: "volume", Abuse: "abuse"}

// Kinds are the names that ParseKind takes.
func Kinds() []string { return kindNames[1:] }

func (k Kind) String() string { return nameOf(kindNames[:], int(k), "kind") }

// ParseKind reads a kind by its name in the configuration.
func ParseKind(s string) (Kind, error) {
	i, err := parseName(kindNames[:], s)
	return Kind(i), err
}

// Per is one part of the key that a limit has one bucket for. The zero value
// is none. Of these, MailFrom, SenderDomain, FromDomain, RecipientDomain and
// Template are the sender's to choose: alone, such a key opens fresh budgets.
type Per uint8

const (
	Login           Per = iota + 1 // SASL login
	LocalUser                      // Unix account that is not listed as shared
	SharedUser                     // Unix account that is: many sites send as it
	Account                        // login, local user or network, whichever it is
	Network                        // entry of the trusted networks
	Machine                        // client address in a trusted network, without AUTH
	Client                         // client address, or the network around it
	MailFrom                       // envelope sender
	SenderDomain                   // domain of the envelope sender
	FromDomain                     // domain of the header's From
	RecipientDomain                // domain of a recipient; one bucket for each
	Domain                         // domain of the login, or of the site
	Customer                       // who owns logins, domains, sites
	Site                           // web site
	Plugin                         // extension of a site
	Template                       // shape of the message
	Server                         // everything
)

var perNames = [...]string{Login: "login", LocalUser: "local_user", SharedUser: "shared_user", Account: "account", Network: "network", Machine: "machine",
	Client: "client", MailFrom: "mail_from", SenderDomain: "sender_domain", FromDomain: "from_domain", RecipientDomain: "recipient_domain",
	Domain: "domain", Customer: "customer", Site: "site", Plugin: "plugin", Template: "template", Server: "server"}

// Pers are the names that ParsePer takes.
func Pers() []string { return perNames[1:] }

func (p Per) String() string { return nameOf(perNames[:], int(p), "per") }

// ParsePer reads a key by its name in the configuration.
func ParsePer(s string) (Per, error) {
	i, err := parseName(perNames[:], s)
	return Per(i), err
}

func nameOf(names []string, i int, kind string) string {
	if i <= 0 || i >= len(names) {
		return fmt.Sprintf("%s(%d)", kind, i)
	}
	return names[i]
}

func parseName(names []string, s string) (int, error) {
	for i, name := range names[1:] {
		if s == name {
			return i + 1, nil
		}
	}
	return 0, fmt.Errorf("got %q, want one of %q", s, names[1:])
}
