package systemtest

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/smtptest"
	"relayguard/systemtest/relay"
)

// The words in which these tests give orders and read answers, as an admin and
// the admin's scripts do: the answers are those of --json, by their documented
// names.

// order runs a command that must end with that status, and returns what it wrote.
func order(t *testing.T, r *relay.Relay, status int, args ...string) (stdout, stderr string) {
	t.Helper()
	code, stdout, stderr := command(t, r, args...)
	if code != status {
		t.Fatalf("relayguard %s: status %d, want %d\n%s%s", strings.Join(args, " "), code, status, stdout, stderr)
	}
	return stdout, stderr
}

// ask runs a command with --json that must end with that status, and reads its
// answer.
func ask[T any](t *testing.T, r *relay.Relay, status int, args ...string) (answer T) {
	t.Helper()
	stdout, _ := order(t, r, status, append(args, "--json")...)
	if err := json.Unmarshal([]byte(stdout), &answer); err != nil {
		t.Fatalf("relayguard %s --json: %v\n%s", strings.Join(args, " "), err, stdout)
	}
	return answer
}

// heldMail is one held message as --json tells of it.
type heldMail struct {
	QueueID    string         `json:"queue_id"`
	ID         string         `json:"id"`
	Account    string         `json:"account"`
	Rule       string         `json:"rule"`
	Reason     string         `json:"reason"`
	MailFrom   string         `json:"mail_from"`
	Size       int64          `json:"size"`
	Recipients int            `json:"recipients"`
	Domains    map[string]int `json:"domains"`
	State      string         `json:"state"`
	By         string         `json:"by"`
	Why        string         `json:"why"`
	HeldBy     string         `json:"held_by"`
	NewQueueID string         `json:"new_queue_id"`
}

type heldList struct {
	Held    []heldMail `json:"held"`
	Foreign int        `json:"foreign"`
}

// outcome is what held release and held delete report.
type outcome struct {
	Messages []struct {
		heldMail
		Outcome string `json:"outcome"`
		NewID   string `json:"new_id"`
	} `json:"messages"`
	Counts  map[string]int `json:"counts"`
	Unknown []string       `json:"unknown"`
}

// counter is one window of one limit as a decision met it.
type counter struct {
	Limit  string    `json:"limit"`
	Key    string    `json:"key"`
	Window float64   `json:"window_seconds"`
	Count  int64     `json:"count"`
	Used   int64     `json:"used"`
	Amount int64     `json:"amount"`
	Over   bool      `json:"over"`
	Soft   bool      `json:"soft"`
	FreeAt time.Time `json:"free_at"`
}

type decided struct {
	ID         string         `json:"id"`
	Time       time.Time      `json:"time"`
	Stage      string         `json:"stage"`
	Verdict    string         `json:"verdict"`
	Rule       string         `json:"rule"`
	Reply      string         `json:"reply"`
	Account    string         `json:"account"`
	Confidence string         `json:"confidence"`
	Login      string         `json:"login"`
	LoginBy    string         `json:"login_by"`
	MailFrom   string         `json:"mail_from"`
	MessageID  string         `json:"message_id"`
	QueueID    string         `json:"queue_id"`
	ClientIP   string         `json:"client_ip"`
	Recipients int            `json:"recipients"`
	Domains    map[string]int `json:"domains"`
	Limits     []counter      `json:"limits"`
}

type explained struct {
	Decision  *decided         `json:"decision"`
	Delivered map[string]int64 `json:"delivered"`
	Held      []heldMail       `json:"held"`
	Suspended *struct {
		Reason string `json:"reason"`
	} `json:"suspended"`
}

type budgets struct {
	Buckets []struct {
		Limit  string  `json:"limit"`
		Key    string  `json:"key"`
		Window float64 `json:"window_seconds"`
		Used   int64   `json:"used"`
		Count  int64   `json:"count"`
	} `json:"buckets"`
}

// used is how much an account has used of the longest window of a limit.
func used(t *testing.T, r *relay.Relay, account, limit string) int64 {
	t.Helper()
	longest, n := 0.0, int64(0)
	for _, b := range ask[budgets](t, r, 0, "limits", "list", "--account", account).Buckets {
		if b.Limit == limit && b.Window > longest {
			longest, n = b.Window, b.Used
		}
	}
	return n
}

// wantUsed waits until an account has used so much of a limit: what the MTA's log
// adds comes a moment later. It must not become more.
func wantUsed(t *testing.T, r *relay.Relay, account, limit string, want int64) {
	t.Helper()
	ctx := soon(t)
	for {
		got := used(t, r, account, limit)
		if got == want {
			return
		}
		if got > want || ctx.Err() != nil {
			t.Errorf("%s has used %d of %s, want %d", account, got, limit, want)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// heldOf are the messages that the guard holds, as some flags choose them.
func heldOf(t *testing.T, r *relay.Relay, flags ...string) []heldMail {
	t.Helper()
	all := ask[heldList](t, r, 0, append([]string{"held", "list"}, flags...)...).Held
	return slices.DeleteFunc(all, func(h heldMail) bool { return h.HeldBy != "relayguard" })
}

// inHold are the queue ids in the MTA's hold queue, in order.
func inHold(t *testing.T, p *postfixtest.Postfix) []string {
	t.Helper()
	queue, err := p.QueueList(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, q := range queue {
		if q.QueueName == "hold" {
			ids = append(ids, q.QueueID)
		}
	}
	slices.Sort(ids)
	return ids
}

// wantOnce checks, once the queue has run empty, that each of these got one mail.
func wantOnce(t *testing.T, p *postfixtest.Postfix, to ...string) {
	t.Helper()
	if err := p.WaitEmpty(soon(t)); err != nil {
		t.Fatal(err)
	}
	got := recipientsAtSink(p)
	for _, address := range to {
		if got[address] != 1 {
			t.Errorf("%s got %d mails, want 1", address, got[address])
		}
	}
}

// pickUp makes Postfix look into maildrop now, which it else does every minute.
func pickUp(t *testing.T, r *relay.Relay) {
	t.Helper()
	var err error
	for range 50 { // a third of all kicks die of SIGPIPE; a pickup process that ends at this moment hears nothing
		if _, err = r.Command(soon(t), "postkick", "public", "pickup", "W"); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// postsuper does to queued mail what relayguard has no part in.
func postsuper(t *testing.T, p *postfixtest.Postfix, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(soon(t), "/usr/sbin/postsuper", append([]string{"-c", p.ConfigDir}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("postsuper %q: %v: %s", args, err, out)
	}
}

// loggedInAs is loggedIn where the service takes XCLIENT, from an address.
func loggedInAs(t *testing.T, p *postfixtest.Postfix, login string, attributes ...string) *smtptest.Client {
	t.Helper()
	client := strangerAt(t, p, relay.Submission, attributes...)
	wantCode(t, "AUTH", 235)(client.Auth(login, "secret"))
	return client
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx := soon(t)
	for !is() {
		if ctx.Err() != nil {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// What the sink is told to say to a recipient: try later, and no longer that.
var (
	tempfail = smtptest.Reply{Code: 451, Lines: []string{"4.3.0 try later"}}
	nothing  smtptest.Reply
)
