package forwardtest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/systemtest/relay"
)

// Rule is a finding as alerts and commands have it.
type Rule struct {
	ID        string   `json:"id"`
	Owner     string   `json:"owner"`
	Mechanism string   `json:"mechanism"`
	Source    string   `json:"source"`
	Line      int      `json:"line"`
	Target    string   `json:"target"`
	Verdict   string   `json:"verdict"`
	Mode      string   `json:"mode"`
	Chain     []string `json:"chain"`
	Differs   string   `json:"differs"`
	Status    string   `json:"status"`
}

// String is "owner mechanism target verdict mode".
func (r Rule) String() string {
	return fmt.Sprintf("%s %s %s %s %s", r.Owner, r.Mechanism, r.Target, r.Verdict, r.Mode)
}

// Listed is what scan and list print.
type Listed struct {
	Findings []Rule `json:"findings"`
	Watch    *struct {
		Method string `json:"method"`
		Error  string `json:"error"`
		Gaps   []struct {
			Source, Why string
		} `json:"gaps"`
	} `json:"watch"`
	Gaps []struct {
		Source, Why string
	} `json:"gaps"`
}

// In are the rules that stand in files below dir.
func (l Listed) In(dir string) []Rule {
	return slices.DeleteFunc(slices.Clone(l.Findings), func(r Rule) bool { return !strings.Contains(r.Source, dir) })
}

// Shown is what show prints.
type Shown struct {
	Rule
	Evidence struct {
		Mails int `json:"mails"`
		Gaps  []struct {
			Why string `json:"why"`
		} `json:"gaps"`
	} `json:"evidence"`
	Mails  []Mail `json:"mails"`
	Report struct {
		Mails     int      `json:"mails"`
		Delivered int      `json:"delivered"`
		Handed    int      `json:"handed"`
		Known     []string `json:"known"`
		NotKnown  []string `json:"not_known"`
	} `json:"report"`
}

// Mail is one that went by a rule.
type Mail struct {
	QueueID   string    `json:"queue_id"`
	RootID    string    `json:"root_queue_id"`
	MessageID string    `json:"message_id"`
	RcptTo    string    `json:"rcpt_to"`
	Status    string    `json:"status"`
	How       string    `json:"how"`
	Sure      string    `json:"sure"`
	Time      time.Time `json:"time"`
}

// Ask runs a command of relayguard with --json. It must end with 0 or 1.
func Ask[T any](t testing.TB, r *relay.Relay, args ...string) T {
	t.Helper()
	var answer T
	result, err := r.Relayguard(t.Context(), append(args, "--json")...)
	if err != nil {
		t.Fatal(err)
	}
	if result.ExitCode > 1 {
		t.Fatalf("relayguard %s: status %d\n%s%s", strings.Join(args, " "), result.ExitCode, result.Stdout, result.Stderr)
	}
	if err := json.Unmarshal([]byte(result.Stdout), &answer); err != nil {
		t.Fatalf("relayguard %s: %v\n%s%s", strings.Join(args, " "), err, result.Stdout, result.Stderr)
	}
	return answer
}

// Scan is what a fresh process finds.
func Scan(t testing.TB, r *relay.Relay) Listed {
	t.Helper()
	return Ask[Listed](t, r, "forwards", "scan")
}

// Proven waits until the evidence of one of some rules that state the same names a
// message whose fate is known.
func Proven(t testing.TB, r *relay.Relay, m Sent, ids ...string) Shown {
	t.Helper()
	var s Shown
	Until(t, fmt.Sprintf("evidence of %s for %v", m.ID, ids), func() bool {
		return slices.ContainsFunc(ids, func(id string) bool {
			s = Ask[Shown](t, r, "forwards", "show", id, "--mail", "--report")
			return slices.ContainsFunc(s.Mails, func(f Mail) bool { return strings.Trim(f.MessageID, "<>") == m.ID && f.Status != "" })
		})
	})
	return s
}
