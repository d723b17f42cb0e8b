package stamp_test

import (
	"net/netip"
	"strings"
	"testing"
	"unicode"

	"relayguard/policy/origin/stamp"
)

// checkNames holds what is true of every name that was believed.
func checkNames(t *testing.T, names ...string) {
	t.Helper()
	for _, s := range names {
		if len(s) > 512 || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Fatalf("believed the name %q", s)
		}
	}
}

// FuzzVerify signs what it is given with the site's key: nothing that a site may
// say can do more than be believed or refused.
func FuzzVerify(f *testing.F) {
	f.Fuzz(func(t *testing.T, field, plugin, script, subject, rcpt string) {
		m := &stamp.Mail{UID: 6001, RcptTo: strings.Split(rcpt, ","), Subject: subject, Digest: [16]byte{1}}
		s, err := book(t).Verify(now, []string{field}, m)
		if (err == nil) != (stamp.Reason(err) == "") {
			t.Fatalf("the error %v has no reason", err)
		}
		checkNames(t, s.Site, s.Plugin, s.Entry, s.Script)
		own := stamp.Make(now, &shop, &stamp.Stamp{Plugin: plugin, Script: script}, m.RcptTo, subject, nonce(1))
		s, err = book(t).Verify(now, []string{field, own, "\r\n " + strings.ReplaceAll(own, " ", "\r\n ")}, m)
		if err != nil {
			t.Fatalf("%q: %v", own, err)
		}
		checkNames(t, s.Site, s.Plugin, s.Entry, s.Script)
	})
}

func FuzzNodeVerify(f *testing.F) {
	f.Fuzz(func(t *testing.T, field, queue, user, site, client, rcpt string) {
		m := to(strings.Split(rcpt, ",")...)
		_, err := nodes(t).Verify(now, at3, []string{field}, m)
		if (err == nil) != (stamp.Reason(err) == "") {
			t.Fatalf("the error %v has no reason", err)
		}
		own := stamp.Sign(now, web3.Key, &stamp.NodeStamp{Node: "web3", Queue: "Q" + queue, LocalUser: user, Site: site, Call: stamp.NodeCall{WebClient: client}}, m)
		s, err := nodes(t).Verify(now, at3, []string{field, own}, m)
		if err != nil {
			t.Fatalf("%q: %v", own, err)
		}
		checkNames(t, s.Queue, s.LocalUser, s.Site, s.Call.WebClient)
		if a, err := netip.ParseAddr(s.Call.WebClient); s.Call.WebClient != "" && (err != nil || a.String() != s.Call.WebClient) {
			t.Fatalf("client %q", s.Call.WebClient)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Fuzz(func(t *testing.T, field string) {
		s, ok := stamp.Decode(field)
		if !ok {
			return
		}
		if len(s) > 1024 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) || strings.Contains(s, "  ") || strings.TrimSpace(s) != s {
			t.Fatalf("%q gave %q", field, s)
		}
	})
}
