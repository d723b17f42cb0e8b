// Package stamp reads what web sites and web nodes sign into their mail: which
// plugin, theme or script a message came from, and who asked for it.
//
// A stamp is a header field of one line. The guard believes it only with the key
// of a site that is registered, from the account that the site runs as, for
// exactly the recipients and the subject that were signed, within its time, and
// once. What it proves: that whoever wrote it could read the site's key. It stops
// other tenants and outsiders, never the compromised site itself, whose names are
// therefore bounded and cleaned, and no more than names.
//
// What has been seen is kept in memory only. After a restart a stamp of the last
// 24 hours is believed once more: who replays it charges once more the plugin
// that it names, and nobody else.
//
// The package opens no files and knows no MTA.
package stamp

import (
	"net/netip"
	"time"
)

// Header fields that carry origins. All of them are taken off every message
// before it leaves, believed or not.
const (
	Header     = "X-Relayguard-Origin" // by the must-use plugin and the PHP prepend
	NodeHeader = "X-Relayguard-Node"   // by the guard of a web node
	CallHeader = "X-Relayguard-Call"   // by the sendmail wrapper: a token of the daemon's
)

// KeySize is the octets of a key, of a site's and of a node's.
const KeySize = 32

// Key is a secret of KeySize octets. It prints as ***; as JSON it is base64.
type Key []byte

func (Key) String() string   { return "***" }
func (Key) GoString() string { return "***" }

// Site is a web site whose stamps are believed.
type Site struct {
	Name  string // "shop.example.jp"
	UID   int    // of the Unix account that it runs as; -1: it runs elsewhere and logs in
	Login string // with which it logs in; needed where UID is -1
	KeyID string // 8 hexadecimal digits, lower case
	Key   Key
	Root  string // its directory, for mail of which only the directory is known; may be empty

	Content string // its directory wp-content, where Root and wp-config.php do not tell; nothing here reads it
}

// Stamp is what a site says of one message.
type Stamp struct {
	Site      string
	Plugin    string     // "share-by-mail", "theme:NAME", "mu:NAME", "script:PATH"; empty: the site's own software
	Blog      int        // of a multisite network; 0 if there is none
	Entry     string     // one of Entries
	Script    string     // file:line that called, below the site's root; may be empty
	WebClient netip.Addr // invalid if there was none
	Time      time.Time
}

// Entries are the ways into a site that a stamp tells: a form that is posted to a
// page is "post". What is none of them is "other".
func Entries() []string {
	return []string{"ajax", "admin", "cron", "rest", "xmlrpc", "cli", "page", "post", "other"}
}

// Mail is what a stamp is checked against.
type Mail struct {
	UID     int      // by the kernel's word, -1 if unknown
	Login   string   // by which the client authenticated itself, empty if it did not
	RcptTo  []string // of the envelope, without brackets
	Subject string   // decoded
	Digest  [16]byte // of the whole message: the same one again is a retry, not a replay; zero: not known, like no other
}
