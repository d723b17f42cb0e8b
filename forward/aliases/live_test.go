package aliases_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/forward/aliases"
	"relayguard/mta/postfix/postfixtest"
)

// names are the mailboxes at evil.test among addresses, without quotes and the
// like: what Postfix made of the address may be quoted otherwise.
func names(addresses []string) []string {
	var found []string
	for _, address := range addresses {
		address = strings.TrimSuffix(strings.ReplaceAll(strings.ToLower(address), "\"", ""), ".")
		if local, ok := strings.CutSuffix(address, "@evil.test"); ok {
			found = append(found, notName.ReplaceAllString(local, ""))
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

var notName = regexp.MustCompile(`[^a-z0-9.]+`)

// deliver sends one mail to all and returns the names at evil.test that it
// was delivered to in the end.
func deliver(t *testing.T, p *postfixtest.Postfix, to []string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sent, err := p.Sendmail(ctx, 0, append([]string{"-f", "sender@partner.test"}, to...), strings.NewReader("Subject: x\n\nx\n"))
	if err != nil || sent.ExitCode != 0 {
		t.Fatalf("sendmail: %v %+v", err, sent)
	}
	// The first line of the queue manager says that the mail was taken; then
	// everything is delivered, bounced or deferred at once.
	if _, err := p.WaitLog(ctx, `qmgr\[\d+\]: \w+: from=`); err != nil {
		t.Fatal(err)
	}
	for {
		queue, err := p.QueueList(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(queue, func(q postfixtest.Queued) bool { return q.QueueName != "deferred" }) {
			break
		}
		if ctx.Err() != nil {
			t.Fatal(ctx.Err())
		}
	}
	var got []string
	for _, mail := range p.Sink.All() {
		got = append(got, mail.RcptTo...)
	}
	return names(got)
}

func localPostfix(t *testing.T, main map[string]string, files map[string]string) *postfixtest.Postfix {
	t.Helper()
	settings := map[string]string{"mydestination": "corp.test", "myorigin": "corp.test", "alias_maps": "hash:$config_directory/aliases",
		"local_recipient_maps": "", "virtual_mailbox_maps": "", "virtual_mailbox_domains": "", "transport_maps": "",
		"mail_spool_directory": "/dev/null", "mailbox_transport": "discard:", "fallback_transport": "discard:"}
	for name, value := range main {
		settings[name] = value
	}
	p := postfixtest.StartTest(t, postfixtest.Options{Main: settings, Files: files})
	if _, err := p.Command(t.Context(), "postalias", "hash:"+filepath.Join(p.ConfigDir, "aliases")); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestRightSidesAreDelivered sends a mail to an alias for every right side,
// and finds exactly those targets at the sink that the parser finds.
func TestRightSidesAreDelivered(t *testing.T) {
	postfixtest.Need(t)
	var text strings.Builder
	var to, want []string
	for n, c := range rightCases(t) {
		fmt.Fprintf(&text, "case%d: %s\n", n, c.right)
		to = append(to, fmt.Sprintf("case%d@corp.test", n))
		for _, line := range c.want {
			if target, ok := strings.CutPrefix(line, "to: "); ok {
				want = append(want, target)
			}
		}
	}
	want = names(want)
	p := localPostfix(t, nil, map[string]string{"aliases": text.String()})
	got := deliver(t, p, to)
	if !slices.Equal(got, want) {
		t.Errorf("delivered, not found: %q; found, not delivered: %q", minus(got, want), minus(want, got))
	}
}

func minus(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}

// TestNoiseIsDelivered does the same with 150 right sides of names and
// operators: no name is delivered to that the parser does not find.
func TestNoiseIsDelivered(t *testing.T) {
	postfixtest.Need(t)
	random := rand.New(rand.NewPCG(3, 4))
	pieces := []string{" ", " ", ", ", ";", ":", "<", ">", "(", ")", "x ", "grp: "}
	var text strings.Builder
	var to, want []string
	for n := range 150 {
		right := ""
		for m := range 2 + random.IntN(4) {
			right += fmt.Sprintf("n%d.%d@evil.test", n, m)
			for range 1 + random.IntN(2) {
				right += pieces[random.IntN(len(pieces))]
			}
		}
		fmt.Fprintf(&text, "case%d: %s\n", n, right)
		to = append(to, fmt.Sprintf("case%d@corp.test", n))
		for _, entry := range aliases.ParseFile([]byte("k: "+right), false) {
			for _, target := range aliases.ParseTargets(entry.Value) {
				want = append(want, target.Text)
			}
		}
	}
	p := localPostfix(t, nil, map[string]string{"aliases": text.String()})
	got, found := deliver(t, p, to), names(want)
	if missed := minus(got, found); len(missed) > 0 || len(got) < 150 {
		t.Errorf("%d delivered, not found: %q", len(got), missed)
	}
	if more := minus(found, got); len(more) > 20 { // what the MTA bounces for its form
		t.Errorf("found, not delivered: %q", more)
	}
}
