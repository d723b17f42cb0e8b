package forwards

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"mime"
	"slices"
	"strings"
	"time"

	"relayguard/forward"
	"relayguard/forward/ledger"
	"relayguard/policy/address"
)

// Mail is one message to the owner of a mailbox.
type Mail struct {
	To   string // the envelope's recipient, at one of our domains
	Text []byte // header and body, CRLF
}

// Told says which events a mailbox's owner is told of by mail: a new rule of his
// own that sends his mail outside, and that woke nobody. Domain is what a bare
// local name is at.
func Told(e *ledger.Event, domain string, inside func(string) bool) (to string, ok bool) {
	f := &e.Entry
	if e.Kind != ledger.Appeared || e.Action != ledger.Digest || f.Server || f.Sender || !f.Direct() || f.Owner == forward.Everybody || strings.HasPrefix(f.Owner, "@") {
		return "", false
	}
	switch f.Verdict {
	case forward.Outside, forward.DynamicOutside, forward.Dynamic:
	default:
		return "", false
	}
	to = f.Owner
	if !strings.Contains(to, "@") {
		to += "@" + domain
	}
	a, ok := address.Parse(to)
	if !ok || !inside(a.Domain) || strings.ContainsAny(to, " \r\n<>,;") || strings.ContainsFunc(to, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", false
	}
	return to, true
}

// Batch are events that one owner is told of.
type Batch struct {
	To     string
	Events []*ledger.Event
}

// ByOwner are the messages to owners that some events ask for, one an owner. The
// events are not copied. See Told for the rest.
func ByOwner(events []ledger.Event, domain string, inside func(string) bool) []Batch {
	var all []Batch
	at := map[string]int{}
	for i := range events {
		to, ok := Told(&events[i], domain, inside)
		if !ok {
			continue
		}
		n, there := at[strings.ToLower(to)]
		if !there {
			n = len(all)
			at[strings.ToLower(to)] = n
			all = append(all, Batch{To: to})
		}
		// A row of a panel is seen in its table and in the mail server's map: one rule.
		if f := &events[i].Entry; !slices.ContainsFunc(all[n].Events, func(e *ledger.Event) bool { return e.Entry.Target == f.Target && e.Entry.Mode == f.Mode }) {
			all[n].Events = append(all[n].Events, &events[i])
		}
	}
	return all
}

// maxTargets is how many targets one message names; the others are counted.
const maxTargets = 20

// OwnerMail writes it, in English and Japanese, about events that Told has for to.
// Host is this machine's name, sender the address in From. It goes the way of all
// mail of that mailbox: by the very rules that it is about, too.
func OwnerMail(now time.Time, events []*ledger.Event, to, sender, host string) Mail {
	var targets, more strings.Builder
	for _, e := range events[:min(len(events), maxTargets)] {
		f := &e.Entry
		copies := "this rule leaves nothing in your mailbox / この設定は受信箱に残しません"
		if f.Mode == forward.Copy {
			copies = "a copy; your mailbox gets it, too / 写し（受信箱にも届きます）"
		}
		fmt.Fprintf(&targets, "    %s\n      %s\n      %s, %s, rule %s\n", cleanLine(f.Target), copies, f.Since.Format("2006-01-02 15:04 -0700"), f.Mechanism, forward.ShortID(f.ID))
	}
	if n := len(events) - maxTargets; n > 0 {
		fmt.Fprintf(&more, "    ... and %d more / ほか %d 件\n", n, n)
	}
	var body strings.Builder
	fmt.Fprintf(&body, "New forwarding was found for mail of %s.\nAll or some of it goes to:\n\n%s%s\n", to, targets.String(), more.String())
	body.WriteString("If you made this yourself, there is nothing to do.\n" +
		"If you did not, somebody else may have your password: change it, remove the\nforwarding, and tell your provider at once.\n\n")
	fmt.Fprintf(&body, "----\n\n%s 宛のメールの全部または一部を、上記の宛先へ転送する新しい設定が見つかりました。\n\n", to)
	body.WriteString("ご自身で設定された場合は、何もする必要はありません。\n" +
		"心当たりがない場合は、パスワードが第三者に知られているおそれがあります。\nただちにパスワードを変更し、転送設定を削除して、管理者にご連絡ください。\n")

	var b bytes.Buffer
	head := func(name, value string) { fmt.Fprintf(&b, "%s: %s\r\n", name, value) }
	var id [12]byte
	rand.Read(id[:]) // never an error
	head("From", sender)
	head("To", to)
	head("Subject", mime.BEncoding.Encode("utf-8", "New forwarding of your mail / メール転送設定のお知らせ"))
	head("Date", now.Format("Mon, 02 Jan 2006 15:04:05 -0700"))
	head("Message-ID", fmt.Sprintf("<%x@%s>", id, host))
	head("Auto-Submitted", "auto-generated") // RFC 3834 §5: no answers
	head("MIME-Version", "1.0")
	head("Content-Type", "text/plain; charset=utf-8")
	head("Content-Transfer-Encoding", "base64")
	b.WriteString("\r\n")
	encoded := base64.StdEncoding.EncodeToString([]byte(strings.ReplaceAll(body.String(), "\n", "\r\n")))
	for len(encoded) > 76 {
		b.WriteString(encoded[:76] + "\r\n")
		encoded = encoded[76:]
	}
	b.WriteString(encoded + "\r\n")
	return Mail{To: to, Text: b.Bytes()}
}

// cleanLine is a value on one line of text.
func cleanLine(s string) string { return short(strings.ReplaceAll(s, forward.Unknown, "...")) }
