package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"relayguard/policy/origin/stamp"
	"relayguard/systemtest/relay"
	"relayguard/wordpress"
)

// The share button: so many posts to strangers, of which the shipped limit on a
// plugin's first-time recipients lets so many leave.
const (
	shopName    = "shop.example.jp"
	shopUID     = 2012 // of an account of its own, without a name
	shares      = 60
	sharesPass  = 25
	shareNumber = 1000 // of the first
	resetNumber = 2000
	reader      = "reader@example.net"
	button      = "plugin:share-by-mail@" + shopName
	shareLimit  = "plugin-first-time"
)

// site is a web site on this machine, as far as mail can tell: the files that
// relayguard finds and makes, and a mail program that signs as its must-use
// plugin does. There is no PHP in the demo.
type site struct {
	stamp.Site
}

// abuse plays a web site whose share button is abused, and its other mail
// meanwhile.
func abuse(ctx context.Context, a *admin) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	a.out.title("A web site has a share button, and somebody drives it")
	a.out.say("%s is a WordPress that runs as the Unix account %d", shopName, shopUID)
	root := filepath.Join(a.relay.Dir, shopName)
	if err := makeWordPress(root, shopUID); err != nil {
		return err
	}
	if err := a.command(ctx, order{why: "once for each site: let it sign what its mail is from", args: []string{"wordpress", "install", root}, says: []string{shopName, "yes, key "}}); err != nil {
		return err
	}
	s, err := readSite(root)
	if err != nil {
		return err
	}
	a.out.say("")
	last, err := s.share(ctx, a)
	if err != nil {
		return err
	}
	if err := s.reset(ctx, a); err != nil {
		return err
	}
	return hunt(ctx, a, last)
}

// makeWordPress makes what a WordPress is known by.
func makeWordPress(root string, uid int) error {
	content := filepath.Join(root, "wp-content")
	config := filepath.Join(root, "wp-config.php")
	err := errors.Join(os.Mkdir(root, 0o755), os.Mkdir(content, 0o755), os.WriteFile(config, []byte("<?php // of the demo\n"), 0o640))
	for _, path := range []string{root, content, config} {
		err = errors.Join(err, os.Chown(path, uid, uid))
	}
	return err
}

// readSite reads the key that was put into a site, as its PHP does.
func readSite(root string) (*site, error) {
	path := filepath.Join(root, "wp-content", wordpress.KeyPath)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, ok := wordpress.ParseKey(text)
	if !ok {
		return nil, fmt.Errorf("read %s: no key in it", path)
	}
	return &site{stamp.Site{Name: shopName, UID: shopUID, KeyID: key.ID, Key: key.Secret}}, nil
}

// send hands in the n-th message by sendmail(1), as the site's account.
func (s *site) send(ctx context.Context, r *relay.Relay, n int, by stamp.Stamp, to, subject, body string) error {
	field := stamp.Make(time.Now(), &s.Site, &by, []string{to}, subject, fmt.Sprintf("%016d", n))
	text := fmt.Sprintf("%s: %s\nFrom: Shop <wordpress@%s>\nTo: %s\nSubject: %s\nMessage-ID: %s\n\n%s", stamp.Header, field, shopName, to, subject, messageID(n), body)
	sent, err := r.Sendmail(ctx, s.UID, []string{"-f", "wordpress@" + shopName, to}, strings.NewReader(text))
	if err == nil && sent.ExitCode != 0 {
		err = fmt.Errorf("sendmail(1) exits %d: %s", sent.ExitCode, sent.Stderr)
	}
	return err
}

// share drives the button, and returns the last verdict that stopped it.
func (s *site) share(ctx context.Context, a *admin) (last relay.Line, err error) {
	mark := a.relay.Mark()
	by := stamp.Stamp{Plugin: "share-by-mail", Entry: "ajax", Script: "wp-content/plugins/share-by-mail/share-by-mail.php:87", WebClient: netip.MustParseAddr(thief)}
	for i := range shares {
		to := fmt.Sprintf("stranger%d@example.net", i)
		body := fmt.Sprintf("Visitor %d thinks that you may like this page:\n\nAutumn tea\nhttps://%s/2026/autumn-tea/\n", i, shopName)
		if err := s.send(ctx, a.relay, shareNumber+i, by, to, "[Shared Post] Autumn tea", body); err != nil {
			return last, err
		}
	}
	count := map[string]int{}
	for i := range shares {
		v, err := verdictOn(ctx, a.relay, mark, shareNumber+i)
		if err != nil {
			return last, err
		}
		if count[v.Verdict]++; v.Verdict == "hold" {
			last = v
		}
	}
	a.out.entry("accept", fmt.Sprintf("%d posts to strangers, from the share button of %s", count["accept"], shopName))
	a.out.entry("hold", fmt.Sprintf("%d more", count["hold"]))
	a.out.detail("%s: %s", last.Rule, last.Reason)
	if count["accept"] != sharesPass || count["hold"] != shares-sharesPass || last.Rule != shareLimit {
		a.wrong("EXPECTED %d accepted, and %d held under %s", sharesPass, shares-sharesPass, shareLimit)
	}
	return last, nil
}

// reset has somebody forget a password: that mail of the same site passes.
func (s *site) reset(ctx context.Context, a *admin) error {
	mark := a.relay.Mark()
	by := stamp.Stamp{Entry: "post", Script: "wp-login.php:915", WebClient: netip.MustParseAddr("192.0.2.80")}
	if err := s.send(ctx, a.relay, resetNumber, by, reader, "[Shop] Password Reset", "To reset your password, visit the following address:\n\nhttps://"+shopName+"/wp-login.php?action=rp\n"); err != nil {
		return err
	}
	v, err := verdictOn(ctx, a.relay, mark, resetNumber)
	if err != nil {
		return err
	}
	a.out.entry(v.Verdict, "a password reset of the same site, to somebody new, too")
	if v.Verdict != "accept" {
		a.wrong("EXPECTED accept")
		return nil
	}
	text, err := arrived(ctx, a.relay, reader, messageID(resetNumber))
	if err == nil && strings.Contains(text, stamp.Header) {
		err = fmt.Errorf("the password reset left with the header %s", stamp.Header)
	}
	return err
}

// hunt is what an admin does about it.
func hunt(ctx context.Context, a *admin, last relay.Line) error {
	stopped := fmt.Sprint(shares - sharesPass)
	for _, o := range []order{
		{why: "who is it?", args: []string{"status"}, exit: 1, says: []string{"plugin:share-by-mail@", shareLimit, "relayguard explain " + last.ID}},
		{why: "what does that site send, and by what?", args: []string{"origins", "show", "site:" + shopName}, says: []string{"share-by-mail@" + shopName, "wordpress@" + shopName, "SHUT"}, lines: 20},
	} {
		if err := a.command(ctx, o); err != nil {
			return err
		}
	}
	id, err := incidentOf(ctx, a.relay, button)
	if err != nil {
		return err
	}
	for _, o := range []order{
		{why: "how was it done, and from where?", args: []string{"incident", "show", id}, says: []string{"share-by-mail.php:87", "ajax", thief, stopped}},
		{why: "what does its owner have to know? (the first lines)", args: []string{"notice", shopName, "--lang", "ja"}, says: []string{shopName, "share-by-mail"}, lines: 13},
		{why: "it has taken the button out: what is held was the attacker's,", args: []string{"held", "delete", "--plugin", "share-by-mail@" + shopName, "--yes"}, says: []string{"deleted " + stopped + " messages"}},
		{why: "and the plugin may send again, half as much for a week", args: []string{"resume", button, "--cause", "button removed"}, says: []string{shareLimit, "half of each limit"}},
	} {
		if err := a.command(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// incidentOf is the id of the open incident of an origin.
func incidentOf(ctx context.Context, r *relay.Relay, who string) (string, error) {
	result, err := r.Relayguard(ctx, "incident", "list", "--json")
	if err != nil {
		return "", err
	}
	var all []struct{ ID, Origin string }
	if err := json.Unmarshal([]byte(result.Stdout), &all); err != nil {
		return "", fmt.Errorf("relayguard incident list: %w", err)
	}
	for _, i := range all {
		if i.Origin == who {
			return i.ID, nil
		}
	}
	return "", fmt.Errorf("relayguard incident list: none of %s", who)
}
