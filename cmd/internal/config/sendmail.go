package config

import "slices"

// mailServerOf is the kind of mail server that the file names, before it is read as a
// whole: defaults follow it.
func mailServerOf(root *table) string {
	section := root.index["mta"]
	if section == nil || section.val.kind != aTable {
		return ""
	}
	if kind := section.val.table.index["kind"]; kind != nil && kind.val.kind == aString {
		return kind.val.text
	}
	return ""
}

// besideSendmail changes the defaults that are Postfix's. Sendmail connects as
// root, from no chroot.
func (c *Config) besideSendmail() {
	c.MTA.ConfigDirectory = "/etc/mail"
	for i := range c.Listeners {
		l := &c.Listeners[i]
		l.Endpoint.Path = "/run/relayguard/" + l.Name + ".sock"
		l.Group, l.Peers = "", slices.Clone(peersOfSendmail)
	}
}

// peersOfSendmail may play the MTA beside Sendmail.
var peersOfSendmail = []string{"root"}

// listenersOfSendmail gives listeners of the file the defaults that they leave out.
// tables are theirs; none for the default ones.
func listenersOfSendmail(all []Listener, tables []*table) {
	for i, t := range tables {
		if t.index["group"] == nil {
			all[i].Group = ""
		}
		if t.index["peers"] == nil {
			all[i].Peers = slices.Clone(peersOfSendmail)
		}
	}
}
