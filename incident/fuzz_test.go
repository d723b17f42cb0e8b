package incident_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"relayguard/incident"
	"relayguard/policy"
)

// Whatever a sender is called, what the admin gets is one bounded line of
// visible text, and JSON that reads back.
func FuzzAlert(f *testing.F) {
	f.Fuzz(func(t *testing.T, origin, cause, id string) {
		var alerts []incident.Alert
		var saved []incident.Incident
		b := incident.NewBook(incident.Options{
			Rules: map[string]incident.Rule{},
			Save:  func(i incident.Incident) { saved = append(saved, i) },
			Alert: func(a incident.Alert) { alerts = append(alerts, a) },
		})
		s := incident.Stop{Origin: origin, Cause: cause, Verdict: policy.Reject, Recipients: 1, ID: id, QueueID: id}
		b.Observe(start, s)
		b.Observe(start, s)
		b.Tick(start)
		if len(alerts) != 1 || len(saved) != 1 {
			t.Fatalf("%d alerts, %d saved", len(alerts), len(saved))
		}
		hidden := func(c rune) bool { return unicode.IsControl(c) || unicode.In(c, unicode.Cf, unicode.Zl, unicode.Zp) }
		if text := alerts[0].Text; len(text) > 700 || !utf8.ValidString(text) || strings.ContainsFunc(text, hidden) {
			t.Fatalf("text %q", text)
		}
		j, err := json.Marshal(alerts[0])
		if err != nil || strings.ContainsFunc(string(j), hidden) || !utf8.Valid(j) {
			t.Fatalf("JSON %q: %v", j, err)
		}
		stored, err := json.Marshal(saved[0])
		var back incident.Incident
		if err != nil || len(stored) > 20_000 || json.Unmarshal(stored, &back) != nil {
			t.Fatalf("stored in %d octets as %.300q: %v", len(stored), stored, err)
		}
		again := incident.NewBook(incident.Options{Alert: func(a incident.Alert) { t.Fatalf("told again: %q", a.Text) }})
		again.Load([]incident.Incident{back})
		again.Observe(start, s)
		again.Tick(start)
	})
}
