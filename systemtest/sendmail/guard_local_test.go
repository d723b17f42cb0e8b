package sendmail

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"relayguard/systemtest/relay"
)

const forgedSubmit = "Received: (from root@localhost)\n\tby relay.example.jp (8.17.1.9/8.17.1.9/Submit) id 6AN1ZEf2007676; Mon, 23 Nov 2026 01:35:14 GMT"

// Whoever runs sendmail(1) is known by his socket, whatever he writes.
func TestLocalMailIsItsAccounts(t *testing.T) {
	r := start(t, relay.Options{})
	for _, c := range []struct {
		id      string
		uid     int
		args    []string
		fields  []string
		account string
	}{
		{"plain@x", wwwData, nil, nil, "local_user:www-data"},
		{"root@x", 0, nil, nil, "local_user:root"},
		{"f@x", wwwData, []string{"-f", "boss@example.jp"}, nil, "local_user:www-data"},
		{"null@x", wwwData, []string{"-f", "<>"}, nil, "local_user:www-data"},
		{"oMs@x", wwwData, []string{"-oMsx (root@localhost) by h (8/8/Submit) id 6AN1ZEf2007676; x"}, nil, "local_user:www-data"},
		{"oMr@x", wwwData, []string{"-oMr(from root@localhost) by h (8/8/Submit) id 6AN1ZEf2007676; x"}, nil, "local_user:www-data"},
		{"p@x", wwwData, []string{"-pSMTP:root@localhost"}, nil, "local_user:www-data"},
		{"forged@x", news, nil, []string{forgedSubmit, "X-Relayguard-Uid: 0", "X-Relayguard-Origin: x", "X-Relayguard-Call: x"}, "local_user:news"},
	} {
		to := strings.ReplaceAll(c.id, "@x", "@example.net")
		handAll(t, r, c.uid, letter(c.id, c.fields...), append(c.args, to)...)
		if v := wantVerdict(t, r, c.id, "accept", "", c.account); v.Role != "local" || v.Confidence != "kernel" || v.QueueID == "" || v.Client != "" {
			t.Errorf("%s: role %s, confidence %s, queue id %q, client %q", c.id, v.Role, v.Confidence, v.QueueID, v.Client)
		}
		if mail := wantArrived(t, r, to); strings.Contains(strings.ToLower(string(mail.Data)), "x-relayguard") {
			t.Errorf("%s leaves with fields of ours:\n%s", c.id, mail.Data)
		}
	}
	t.Run("-t", func(t *testing.T) {
		handAll(t, r, wwwData, letter("t@x", "To: t@example.net", "Bcc: b@example.net"), "-t")
		if v := wantVerdict(t, r, "t@x", "accept", "", "local_user:www-data"); v.Recipients != 2 {
			t.Errorf("%d recipients", v.Recipients)
		}
	})
}

// What waits in the submission program's queue is handed on by its own account: its
// first line says whose it is.
func TestLocalMailOutOfTheClientQueue(t *testing.T) {
	r := start(t, relay.Options{})
	if err := r.Kill(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	handAll(t, r, wwwData, letter("www@x", forgedSubmit), "-f", "boss@example.jp", "www@example.net")
	handAll(t, r, news, letter("news@x"), "-oMsx", "-oMry", "news@example.net")
	hand(t, r, nameless, letter("nameless@x"), "nameless@example.net") // complains that nobody has that uid, and takes it
	handAll(t, r, 0, letter("root@x"), "-f", "<>", "root@example.net")
	queue, err := r.ClientQueue(soon(t))
	if err != nil || len(queue) != 4 {
		t.Fatalf("client queue: %v, %v", queue, err)
	}
	if err := r.StartAgain(soon(t)); err != nil {
		t.Fatal(err)
	}
	if err := r.RunClientQueue(soon(t)); err != nil {
		t.Fatal(err)
	}
	for id, account := range map[string]string{"www@x": "local_user:www-data", "news@x": "local_user:news", "nameless@x": fmt.Sprintf("local_user:uid:%d", nameless), "root@x": "local_user:root"} {
		if v := wantVerdict(t, r, id, "accept", "", account); v.Role != "local" || v.Confidence != "kernel" {
			t.Errorf("%s: role %s, confidence %s", id, v.Role, v.Confidence)
		}
		wantArrived(t, r, strings.ReplaceAll(id, "@x", "@example.net"))
	}
}

// Who connects himself and plays the submission program opens no fresh budget.
func TestWhoPlaysTheSubmissionProgram(t *testing.T) {
	r := start(t, relay.Options{Config: limit("users", "local_user", "3/1h", "") + limit("shared", "shared_user", "900000000/1h", "")})
	for i := range 5 {
		id := fmt.Sprintf("play%d@x", i)
		message := letter(id, fmt.Sprintf("Received: (from user%d@localhost)\n\tby relay.example.jp (8.17.1.9/8.17.1.9/Submit) id 6AN1ZEf200767%d; x", i, i), fmt.Sprintf("X-Relayguard-Uid: %d", i))
		replies := tcp(t, news, r.Addr(relay.Local), transaction(fmt.Sprintf("user%d@relay.example.jp", i), fmt.Sprintf("play%d@example.net", i), message)...)
		if len(replies) != 6 || !strings.HasPrefix(replies[4], "250") {
			t.Fatalf("%q", replies)
		}
		verdict, rule := "accept", ""
		if i >= 3 {
			verdict, rule = "hold", "users"
		}
		wantVerdict(t, r, id, verdict, rule, "local_user:news")
	}
	// The program itself has the same budget.
	handAll(t, r, news, letter("program@x"), "program@example.net")
	wantVerdict(t, r, "program@x", "hold", "users", "local_user:news")
	handAll(t, r, wwwData, letter("another@x"), "another@example.net")
	wantVerdict(t, r, "another@x", "accept", "", "local_user:www-data")
}

// Who is gone before he is asked for is nobody: what he left is deferred or known,
// never charged to nobody.
func TestWhoHurriesAwayIsKnownOrDeferred(t *testing.T) {
	r := start(t, relay.Options{Config: limit("users", "local_user", "5/1h", "")})
	host, port, _ := strings.Cut(r.Addr(relay.Local), ":")
	for i := range 20 {
		script := fmt.Sprintf(`trap "" PIPE; exec 3<>/dev/tcp/%s/%s; read -r -u 3 a; printf 'HELO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<hurry%d@example.net>\r\nDATA\r\nMessage-ID: <hurry%d@x>\r\n\r\nhi\r\n.\r\n' >&3 || :`, host, port, i, i)
		run(t, news, "/bin/bash", "-c", script)
	}
	handAll(t, r, news, letter("last@x"), "last@example.net")
	verdictOn(t, r, "last@x")
	charged := 0
	for _, v := range r.Verdicts(0) {
		if v.Account == "unknown" && (v.Verdict == "accept" || v.Verdict == "hold") || v.Account != "unknown" && v.Account != "local_user:news" {
			t.Errorf("%s", v.Raw)
		}
		if v.Verdict == "accept" {
			charged++
		}
	}
	if charged > 5 {
		t.Errorf("%d went, want 5 at most", charged)
	}
}

// What sendmail(1) tells its caller.
func TestWhatSendmailSays(t *testing.T) {
	for _, c := range []struct {
		then, verdict string
		exit          int
		what          func(t *testing.T, r *relay.SendmailRelay)
	}{
		{"hold", "hold", exFine, func(t *testing.T, r *relay.SendmailRelay) {
			if held := wantHeld(t, r, "two@example.net"); held.Reason != "users" {
				t.Errorf("held for %q", held.Reason)
			}
			listed, err := r.Command(soon(t), "mailq", "-qQ")
			if err != nil || !strings.Contains(listed, "QUARANTINE: users") {
				t.Errorf("mailq -qQ: %v\n%s", err, listed)
			}
			listed, err = r.Command(soon(t), "mailq")
			if err != nil || strings.Contains(listed, "two@example.net") {
				t.Errorf("mailq: %v\n%s", err, listed)
			}
		}},
		{"reject", "reject", exUnavailable, func(t *testing.T, r *relay.SendmailRelay) {
			wantNothing(t, r, "two@example.net")
			bounce := wantArrived(t, r, "news@relay.example.jp") // its own, by the same guard
			if !strings.Contains(string(bounce.Data), "Sending limit reached") {
				t.Errorf("bounce:\n%s", bounce.Data)
			}
		}},
	} {
		t.Run(c.then, func(t *testing.T) {
			r := start(t, relay.Options{Config: limit("users", "local_user", "1/1h", fmt.Sprintf("then = %q", c.then))})
			handAll(t, r, news, letter("one@x"), "one@example.net")
			wantArrived(t, r, "one@example.net")
			if code := hand(t, r, news, letter("two@x"), "two@example.net"); code != c.exit {
				t.Errorf("sendmail(1) ends with %d, want %d", code, c.exit)
			}
			wantVerdict(t, r, "two@x", c.verdict, "users", "local_user:news")
			c.what(t, r)
			// A null sender's is never refused: Sendmail would lose it.
			handAll(t, r, news, letter("null@x"), "-f", "<>", "null@example.net")
			wantVerdict(t, r, "null@x", "hold", "users", "local_user:news")
			wantHeld(t, r, "null@example.net")
			if lost, _ := os.ReadDir(r.ClientQueueDir); len(lost) > 0 {
				t.Errorf("left in the client queue: %v", lost)
			}
		})
	}
}

// A suspended account is refused to its face; one that many share is held.
func TestSuspendedAccounts(t *testing.T) {
	r := start(t, relay.Options{})
	for _, name := range []string{"news", "www-data"} {
		said, err := r.Relayguard(soon(t), "suspend", "local_user:"+name, "--reason", "spam, 100%")
		if err != nil || said.ExitCode != 0 {
			t.Fatalf("suspend %s: %+v, %v", name, said, err)
		}
	}
	if code := hand(t, r, news, letter("news@x"), "news@example.net"); code != exUnavailable {
		t.Errorf("suspended: sendmail(1) ends with %d, want %d", code, exUnavailable)
	}
	wantVerdict(t, r, "news@x", "reject", "suspended", "local_user:news")
	wantNothing(t, r, "news@example.net")
	bounce := wantArrived(t, r, "news@relay.example.jp")
	if !strings.Contains(string(bounce.Data), "suspended, ask the postmaster") {
		t.Errorf("bounce:\n%s", bounce.Data)
	}
	handAll(t, r, news, letter("null@x"), "-f", "<>", "null@example.net")
	wantVerdict(t, r, "null@x", "hold", "suspended", "local_user:news")
	wantHeld(t, r, "null@example.net")
	handAll(t, r, wwwData, letter("www@x"), "www@example.net")
	wantVerdict(t, r, "www@x", "hold", "suspended", "local_user:www-data")
	if held := wantHeld(t, r, "www@example.net"); held.Reason != "suspended" {
		t.Errorf("held for %q", held.Reason)
	}
	handAll(t, r, 0, letter("root@x"), "root@example.net")
	wantVerdict(t, r, "root@x", "accept", "", "local_user:root")
	said, err := r.Relayguard(soon(t), "resume", "local_user:news", "--cause", "mended")
	if err != nil || said.ExitCode != 0 {
		t.Fatalf("resume: %+v, %v", said, err)
	}
	handAll(t, r, news, letter("again@x"), "again@example.net")
	wantVerdict(t, r, "again@x", "accept", "", "local_user:news")
}
