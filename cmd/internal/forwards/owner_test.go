package forwards_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"relayguard/cmd/internal/forwards"
	"relayguard/forward"
	"relayguard/forward/ledger"
)

// bodyOf is the text of a message.
func bodyOf(t *testing.T, m forwards.Mail) string {
	t.Helper()
	_, body, _ := strings.Cut(string(m.Text), "\r\n\r\n")
	text, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(body, "\r\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestOneMailAnOwner(t *testing.T) {
	ours := func(domain string) bool { return domain == "corp.test" }
	var events []ledger.Event
	for n := range 25 {
		events = append(events, event(ledger.Appeared, "alice", fmt.Sprintf("a%02d@evil.test", n), ledger.Digest))
	}
	twin := event(ledger.Appeared, "Alice@corp.test", "a00@evil.test", ledger.Digest)
	twin.Entry.Mechanism = forward.SQL
	copies := event(ledger.Appeared, "bob", "b@evil.test", ledger.Digest)
	copies.Entry.Mode = forward.Copy
	loud := event(ledger.Appeared, "carol", "c@evil.test", ledger.Alert)
	all := forwards.ByOwner(append(events, twin, copies, loud), "corp.test", ours)
	if len(all) != 2 || all[0].To != "alice@corp.test" || len(all[0].Events) != 25 || all[1].To != "bob@corp.test" {
		t.Fatalf("%+v", all)
	}
	text := bodyOf(t, forwards.OwnerMail(at, all[0].Events, all[0].To, "postmaster@corp.test", "mx.corp.test"))
	if strings.Count(text, "@evil.test") != 20 || !strings.Contains(text, "a19@evil.test") || !strings.Contains(text, "and 5 more") || !strings.Contains(text, "ほか 5 件") {
		t.Errorf("%s", text)
	}
	// Another rule may leave it there: of that, this one knows nothing.
	if strings.Contains(text, "INSTEAD") || !strings.Contains(text, "this rule leaves nothing in your mailbox") {
		t.Errorf("%s", text)
	}
	text = bodyOf(t, forwards.OwnerMail(at, all[1].Events, all[1].To, "postmaster@corp.test", "mx.corp.test"))
	if !strings.Contains(text, "your mailbox gets it, too") || strings.Contains(text, "more") {
		t.Errorf("%s", text)
	}
}
