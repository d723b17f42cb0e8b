package systemtest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/systemtest/relay"
)

func TestEnvelopeOfSomebodyElse(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{})

	t.Run("is held by default", func(t *testing.T) {
		client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
		sendAccepted(t, client, "boss@example.org", []string{"held@example.net"}, fromTaro("held"))
		held := wantHeld(t, r.Postfix, "held@example.net")
		wantVerdict(t, r, "held", "hold", "envelope-address", "login:taro@example.jp")
		if v := verdictOn(t, r, "held"); v.QueueID != held.QueueID {
			t.Errorf("the log names queue id %s, the hold queue %s", v.QueueID, held.QueueID)
		}
		release(t, r.Postfix, held.QueueID)
		wantArrived(t, r.Postfix, "held@example.net")
	})

	t.Run("does not hold the next message of the session", func(t *testing.T) {
		client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
		sendAccepted(t, client, "hanako@example.jp", []string{"first@example.net"}, fromTaro("first"))
		sendAccepted(t, client, "taro@example.jp", []string{"second@example.net"}, fromTaro("second"))
		wantArrived(t, r.Postfix, "second@example.net")
		wantHeld(t, r.Postfix, "first@example.net")
	})

	t.Run("holds all recipients but to postmaster alone", func(t *testing.T) {
		client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
		sendAccepted(t, client, "boss@example.org", []string{"postmaster@example.jp"}, fromTaro("to-postmaster"))
		sendAccepted(t, client, "boss@example.org", []string{"abuse@example.jp", "also@example.net"}, fromTaro("to-abuse-too"))
		wantArrived(t, r.Postfix, "postmaster@example.jp")
		wantHeld(t, r.Postfix, "also@example.net")
		wantVerdict(t, r, "to-postmaster", "accept", "", "login:taro@example.jp")
		wantVerdict(t, r, "to-abuse-too", "hold", "envelope-address", "login:taro@example.jp")
	})

	t.Run("the null sender is nobody's", func(t *testing.T) {
		client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
		sendAccepted(t, client, "", []string{"receipt@example.net"}, fromTaro("receipt"))
		wantArrived(t, r.Postfix, "receipt@example.net")
		wantVerdict(t, r, "receipt", "accept", "", "login:taro@example.jp")
	})

	reload(t, r, "enforce", "[address]\nenvelope = \"reject\"\n")

	t.Run("is refused at RCPT where so configured", func(t *testing.T) {
		client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
		wantCode(t, "MAIL", 250)(client.Mail("boss@example.org"))
		reply, err := client.Rcpt("refused@example.net")
		if err != nil {
			t.Fatal(err)
		}
		wantReply(t, "RCPT", reply, 550, "5.7.1")
		wantCode(t, "RSET", 250)(client.Rset())
		sendAccepted(t, client, "taro@example.jp", []string{"own@example.net"}, fromTaro("own"))
		wantArrived(t, r.Postfix, "own@example.net")
	})

	t.Run("is refused to inside at the end of the message", func(t *testing.T) {
		client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
		sent := send(t, client, "boss@example.org", []string{"refused@example.jp"}, fromTaro("refused-inside"))
		wantReply(t, "end of message", sent.Data, 550, "5.7.1")
		wantNothing(t, r.Postfix, "refused@example.jp", "refused@example.net")
	})
}

func TestFromOfSomebodyElse(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{})
	other := []struct {
		id     string
		fields []string
	}{
		{"plain", []string{"From: boss@example.org"}},
		{"named-like-me", []string{`From: "taro@example.jp" <boss@example.org>`}},
		{"me-and-other", []string{"From: taro@example.jp, boss@example.org"}},
		{"second-from", []string{"From: taro@example.jp", "From: boss@example.org"}},
		{"folded", []string{"From: Boss\n <boss@example.org>"}},
		{"space-before-colon", []string{"Subject: x", "From : boss@example.org"}},
		{"other-case", []string{"fRoM: boss@example.org"}},
		{"cr-before", []string{"X-A: b\rFrom: taro@example.jp", "From: boss@example.org"}},
		{"encoded-name", []string{"From: =?utf-8?q?taro=40example.jp?= <boss@example.org>"}},
		{"group", []string{"From: taro@example.jp: boss@example.org;"}},
		{"second-sender", []string{"From: boss@example.org", "Sender: taro@example.jp", "Sender: boss@example.org"}},
		{"list-of-other", []string{"From: boss@example.org", "X-List-Id: <news.example.jp>"}},
	}
	sendAll := func(t *testing.T, prefix string) {
		client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
		for _, m := range other {
			id := prefix + m.id
			sent := send(t, client, "taro@example.jp", []string{id + "@example.net"}, letter(id, m.fields...))
			if prefix == "reject-" {
				wantReply(t, id, sent.Data, 550, "5.7.1")
			} else if !sent.Accepted() {
				t.Errorf("%s: %v", id, sent.Refusal())
			}
		}
	}

	t.Run("is told by default", func(t *testing.T) {
		sendAll(t, "tell-")
		for _, m := range other {
			wantArrived(t, r.Postfix, "tell-"+m.id+"@example.net")
			wantVerdict(t, r, "tell-"+m.id, "tell", "from-address", "login:taro@example.jp")
		}
	})

	t.Run("is held where so configured", func(t *testing.T) {
		reload(t, r, "enforce", "[address]\nheader_from = \"hold\"\n")
		sendAll(t, "hold-")
		for _, m := range other {
			wantHeld(t, r.Postfix, "hold-"+m.id+"@example.net")
			wantVerdict(t, r, "hold-"+m.id, "hold", "from-address", "login:taro@example.jp")
		}
	})

	t.Run("is refused where so configured", func(t *testing.T) {
		reload(t, r, "enforce", "[address]\nheader_from = \"reject\"\n")
		sendAll(t, "reject-")
		for _, m := range other {
			wantVerdict(t, r, "reject-"+m.id, "reject", "from-address", "login:taro@example.jp")
			wantNothing(t, r.Postfix, "reject-"+m.id+"@example.net")
		}
	})
}

// strictAddresses holds whatever is not one's own, so that what passes was
// recognised.
const strictAddresses = "[address]\nenvelope = \"hold\"\nheader_from = \"hold\"\n"

func TestAddressesThatAreOnesOwn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	book := filepath.Join(dir, "addresses")
	write(t, book, "# shared mailboxes\ntaro@example.jp info@example.jp, @shop.example.jp # the shop\nHanako@example.jp *\n")
	senders, patterns := filepath.Join(dir, "senders"), filepath.Join(dir, "senders.re")
	write(t, senders, "sales@example.jp taro@example.jp, hanako@example.jp\n@brand.example.jp taro@example.jp\n")
	write(t, patterns, "/^project-[0-9]+@example\\.jp$/ taro@example.jp\n")

	r := startRelay(t, relay.Options{})
	if _, err := r.Command(soon(t), "postmap", "hash:"+senders); err != nil {
		t.Fatal(err)
	}
	reload(t, r, "enforce", strictAddresses+"files = [\""+book+"\"]\npostfix_maps = [\"hash:"+senders+"\", \"regexp:"+patterns+"\"]\n")

	taro := "From: taro@example.jp"
	for _, own := range []struct {
		name, mailFrom string
		fields         []string
		inside         bool // sent to a recipient inside
	}{
		{name: "itself", mailFrom: "taro@example.jp", fields: []string{taro}},
		{name: "itself in capitals", mailFrom: "Taro@EXAMPLE.jp", fields: []string{"From: TARO <TARO@Example.JP>"}},
		{name: "quoted local part", mailFrom: `"taro"@example.jp`, fields: []string{`From: "Taro" <"taro"@example.jp>`}},
		{name: "tag", mailFrom: "taro+news@example.jp", fields: []string{"From: taro+news@example.jp"}},
		{name: "SRS0", mailFrom: "SRS0=HHHH=TT=example.org=x@example.jp", fields: []string{taro}},
		{name: "SRS1", mailFrom: "SRS1=HHHH=example.com==HHHH=TT=example.org=x@example.jp", fields: []string{taro}},
		{name: "BATV", mailFrom: "prvs=2326abcdef=taro@example.jp", fields: []string{taro}},
		{name: "BATV with a slash", mailFrom: "prvs=taro/2326abcdef@example.jp", fields: []string{taro}},
		{name: "VERP", mailFrom: "taro-hanako=example.net@example.jp", fields: []string{taro}},
		{name: "VERP with a tag", mailFrom: "taro+hanako=example.net@example.jp", fields: []string{taro}},
		{name: "list bounces", mailFrom: "taro-bounces@example.jp", fields: []string{"From: writer@example.org", "List-Id: <taro.example.jp>"}},
		{name: "list post", mailFrom: "taro-bounces+x=example.net@example.jp", fields: []string{"From: writer@example.org", "List-Post: <mailto:taro@example.jp>"}},
		{name: "resent", mailFrom: "taro@example.jp", fields: []string{"Resent-From: taro@example.jp", "Resent-To: x@example.net", "From: writer@example.org"}},
		{name: "sender", mailFrom: "taro@example.jp", fields: []string{"Sender: Taro <taro@example.jp>", "From: boss@example.org"}},
		{name: "shared mailbox of a file", mailFrom: "info@example.jp", fields: []string{"From: Info <info@example.jp>"}},
		{name: "domain of a file", mailFrom: "orders@shop.example.jp", fields: []string{"From: orders@shop.example.jp"}},
		{name: "address of a hash map", mailFrom: "sales@example.jp", fields: []string{"From: sales@example.jp"}},
		{name: "tag of an address of a hash map", mailFrom: "sales+q3@example.jp", fields: []string{"From: sales+q3@example.jp"}},
		{name: "domain of a hash map", mailFrom: "anything@brand.example.jp", fields: []string{"From: anything@brand.example.jp"}},
		{name: "address of a regexp map", mailFrom: "project-7@example.jp", fields: []string{"From: project-7@example.jp"}},
		{name: "auto-reply to inside", mailFrom: "info-desk@example.org", fields: []string{"From: info-desk@example.org", "Auto-Submitted: auto-replied (vacation)"}, inside: true},
		{name: "null sender", mailFrom: "", fields: []string{taro}},
		{name: "no From at all", mailFrom: "taro@example.jp"},
	} {
		t.Run("passes: "+own.name, func(t *testing.T) {
			id := "own-" + strings.NewReplacer(" ", "-").Replace(own.name)
			to := id + "@example.net"
			if own.inside {
				to = id + "@example.jp"
			}
			client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
			sendAccepted(t, client, own.mailFrom, []string{to}, letter(id, own.fields...))
			wantVerdict(t, r, id, "accept", "", "login:taro@example.jp")
			wantArrived(t, r.Postfix, to)
		})
	}

	for _, other := range []struct {
		name, mailFrom string
		fields         []string
	}{
		{"hanako's own", "hanako@example.jp", []string{taro}},
		{"hanako's with a tag", "hanako+x@example.jp", []string{taro}},
		{"hanako's BATV", "prvs=2326abcdef=hanako@example.jp", []string{taro}},
		{"SRS of a foreign domain", "SRS0=HHHH=TT=example.org=x@example.com", []string{taro}},
		{"a like domain", "taro@example.jp.example.org", []string{taro}},
		{"a subdomain", "taro@mail.example.jp", []string{taro}},
		{"a list's post in a foreign envelope", "news-bounces@example.org", []string{"From: writer@example.org", "List-Id: <news.example.org>"}},
		{"not of the regexp", "project-x@example.jp", []string{taro}},
	} {
		t.Run("held: "+other.name, func(t *testing.T) {
			id := "other-" + strings.NewReplacer(" ", "-", "'", "").Replace(other.name)
			client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
			sendAccepted(t, client, other.mailFrom, []string{id + "@example.net"}, letter(id, other.fields...))
			wantVerdict(t, r, id, "hold", "envelope-address", "login:taro@example.jp")
			wantHeld(t, r.Postfix, id+"@example.net")
		})
	}

	t.Run("held: auto-reply to outside", func(t *testing.T) {
		client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
		sendAccepted(t, client, "info-desk@example.org", []string{"vacation@example.net", "vacation@example.jp"},
			letter("vacation", "From: info-desk@example.org", "Auto-Submitted: auto-replied"))
		wantHeld(t, r.Postfix, "vacation@example.net")
	})

	t.Run("a login with * may use every address", func(t *testing.T) {
		client := loggedIn(t, r.Postfix, relay.Submission, "hanako@example.jp")
		sendAccepted(t, client, "boss@example.org", []string{"star@example.net"}, letter("star", "From: chief@example.com"))
		wantVerdict(t, r, "star", "accept", "", "login:hanako@example.jp")
		wantArrived(t, r.Postfix, "star@example.net")
	})

	t.Run("a map that changes is read again", func(t *testing.T) {
		write(t, senders, "sales@example.jp taro@example.jp\nnew@example.jp taro@example.jp\n")
		if _, err := r.Command(soon(t), "postmap", "hash:"+senders); err != nil {
			t.Fatal(err)
		}
		client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
		ctx := soon(t)
		for n := 0; ; n++ { // it is read again soon, not at once
			id := "map-" + strings.Repeat("i", n+1)
			sendAccepted(t, client, "new@example.jp", []string{"map@example.net"}, letter(id, "From: new@example.jp"))
			if verdictOn(t, r, id).Verdict == "accept" {
				return
			}
			if ctx.Err() != nil {
				t.Fatal("the changed map is not read")
			}
		}
	})

	t.Run("another login's rights are not everybody's", func(t *testing.T) {
		var loose []string
		for _, l := range r.Verdicts(0) {
			if l.Account != "login:hanako@example.jp" && l.Verdict == "accept" && slices.Contains([]string{"boss@example.org", "hanako@example.jp"}, l.MailFrom) {
				loose = append(loose, l.Raw)
			}
		}
		if len(loose) > 0 {
			t.Errorf("%s", strings.Join(loose, "\n"))
		}
	})
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// reload gives the guard another configuration.
func reload(t *testing.T, r *relay.Relay, phase, config string) {
	t.Helper()
	if err := r.Reload(soon(t), phase, config); err != nil {
		t.Fatal(err)
	}
}

// release lets a held message go, as an admin does.
func release(t *testing.T, p *postfixtest.Postfix, id string) {
	t.Helper()
	if _, err := p.Command(soon(t), "postsuper", "-H", id); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Command(soon(t), "postqueue", "-i", id); err != nil {
		t.Fatal(err)
	}
}
