package config

import (
	"fmt"
	"slices"
	"strings"
)

// pers are what limit.per takes, as policy/limit names them.
var pers = []word{"login", "local_user", "shared_user", "account", "network", "machine", "client", "mail_from", "sender_domain", "from_domain",
	"recipient_domain", "domain", "customer", "site", "plugin", "template", "server"}

// chosen are the parts of limit.per that whoever sends can make up anew for each
// message.
var chosen = []string{"mail_from", "sender_domain", "from_domain", "recipient_domain", "template"}

// accountable are the parts of limit.per that only mail has of which is known who
// sends it: whom it is to can be held against whom that sender wrote to before.
// A template is one sender's.
var accountable = []string{"login", "local_user", "shared_user", "account", "network", "machine", "domain", "customer", "site", "plugin", "template"}

// apart are parts of limit.per that no message has together: mail comes by
// AUTH, by sendmail(1) or from a trusted machine.
var apart = map[string][]string{
	"login":       {"local_user", "shared_user", "network", "machine"},
	"local_user":  {"login", "shared_user", "network", "machine", "client"},
	"shared_user": {"login", "local_user", "network", "machine", "client"},
	"network":     {"login", "local_user", "shared_user"},
	"machine":     {"login", "local_user", "shared_user"},
	"client":      {"local_user", "shared_user"},
}

const perDoc = `Whose mail is counted together. Each "login"; each "local_user", that is Unix account, outside local.shared_users; each "shared_user" in it; each "account", whichever of these or which trusted network it is; each trusted "network" as a whole; each "machine" of these (an IPv6 address by its /64); each "client", that is address of an SMTP client, with or without AUTH; each "mail_from", that is envelope sender; each "sender_domain" of these; each "from_domain" of From; each "recipient_domain", by itself; each "domain" of a login, or of a web site; each "customer"; each web "site"; each "plugin" of a site; each "template", that is form of text of one sender: what differs from copy to copy, such as a name, makes no other; it is looked for where no plugin is known; or all mail of the "server". ` +
	`A list counts each combination by itself: ["login", "recipient_domain"]. A message of which a part is not known is not concerned. Mail that a login vouches for counts for the login, not for its network or machine.`

// per is one key, or several together.
func per() kind[[]string] {
	k, several := words(pers...), list(words(pers...), false)
	return kind[[]string]{
		name:   k.name + ", or a list of several",
		wanted: k.wanted + ", or a list of several",
		read: func(v *value) ([]string, []fault) {
			if v.kind == anArray {
				return several.read(v)
			}
			s, faults := k.read(v)
			return []string{s}, faults
		},
		show: func(parts []string) string {
			if len(parts) == 1 {
				return k.show(parts[0])
			}
			return several.show(parts)
		},
	}
}

func showPer(parts []string) string { return "per = " + per().show(parts) }

// checkPer: all parts can be known of one message, and each of them narrows.
func (r *report) checkPer(l *Limit, t *table) {
	for i, p := range l.Per {
		for _, other := range l.Per[:i] {
			if slices.Contains(apart[p], other) {
				r.add(t.elem("per", i), "limit.per", fmt.Sprintf("%q beside %q", p, other), "parts that one message can have together",
					"no mail has both: make a limit of each")
				return
			}
		}
	}
	if i := slices.Index(l.Per, "server"); i >= 0 && len(l.Per) > 1 {
		r.add(t.elem("per", i), "limit.per", `"server" beside others`, "parts that narrow", `all mail is the server's: delete it here, or make it a limit of its own`)
	}
}

// checkChosen: somewhere mail is counted by what the sender cannot make up.
func (r *report) checkChosen(all []Limit, tables []*table) {
	for i, t := range tables {
		if !t.sure("per") || !slices.ContainsFunc(all[i].Per, func(p string) bool { return slices.Contains(chosen, p) }) {
			return
		}
	}
	if len(tables) > 0 {
		r.add(tables[0].place("per"), "limit.per", "in each limit a part that the sender can change at will ("+strings.Join(chosen, ", ")+")", "a limit without such a part, too",
			`else whoever takes another address starts afresh: add a limit per "account" or "server"`)
	}
}
