package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/desk"
	"relayguard/mta/postfix/postfixtest"
	"relayguard/rbl/dnstest"
	"relayguard/rbl/history"
)

// listedDaemon serves what a daemon with that configuration says of blocklists; its
// watch runs.
func listedDaemon(t *testing.T, path string) (*fakeDaemon, *state) {
	t.Helper()
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	c.MTA.Log, c.MTA.QueueHelper, c.Alert.Syslog = config.LogNone, path+".no-helper", false
	s := aState(t, c)
	t.Cleanup(func() { s.close(aGuard(s)) })
	if s.blocklists != nil {
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.blocklists.watch.Run(ctx)
		}()
		t.Cleanup(func() { stop(); <-ended })
	}
	d := newFakeDaemon(t)
	s.rblOperations(d.mux)
	return d, s
}

// actionsOf are the verbs and targets of what admins did, oldest first.
func actionsOf(t *testing.T, s *state) (all []string) {
	t.Helper()
	if err := s.journal.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	done, err := s.actions(t.Context(), "100")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range slices.Backward(done) {
		all = append(all, strings.TrimSpace(a.Verb+" "+a.Target+" "+a.Reason)+": "+a.Outcome)
	}
	return all
}

func TestRBLOfADaemonAsksNowAndRemembers(t *testing.T) {
	path, _ := listsOf(t, twoLists, "from_mta = false\nneighbours = false\naddresses = [\"203.0.113.5\"]\n", zonesOfTest("nokey"))
	d, s := listedDaemon(t, path)
	code, stdout, stderr := d.run("rbl", "status", "--now", "--json")
	var shown rblStatus
	if err := json.Unmarshal([]byte(stdout), &shown); err != nil {
		t.Fatalf("exit %d, %v in stdout %q, stderr %q", code, err, stdout, stderr)
	}
	if code != exitFine || len(shown.Listings) != 1 || shown.Listings[0].Phase != history.Suspected || shown.Round.IsZero() || shown.Watch == nil || len(shown.Own.Addresses) != 1 {
		t.Errorf("exit %d, %+v", code, shown)
	}
	if code, stdout, stderr = d.run("rbl", "history"); code != exitFine || !strings.Contains(stdout, "suspected") {
		t.Errorf("history: exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if code, stdout, stderr = d.run("rbl", "history", "--subject", "203.0.113.9"); code != exitFine || stdout != "" {
		t.Errorf("history of another: exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if got, want := actionsOf(t, s), []string{"rbl check: done"}; !slices.Equal(got, want) {
		t.Errorf("the journal has %q, want %q", got, want)
	}
}

func TestRBLOfADaemonLearnsAddressesThatTheInternetCanSee(t *testing.T) {
	path, _ := listsOf(t, twoLists, "from_mta = false\nneighbours = false\naddresses = [\"203.0.113.5\"]\n", dnstest.Records())
	d, s := listedDaemon(t, path)
	learn := func(addr, where string) error {
		var all []history.Learnt
		return control.NewClient(d.socket).Post(t.Context(), "/v1/rbl/learn", map[string]string{"addr": addr, "where": where}, &all)
	}
	if err := learn("203.0.113.7", "Received by mx.example.org"); err != nil {
		t.Fatal(err)
	}
	for addr, where := range map[string]string{"10.0.0.1": "w", "100.64.1.1": "w", "224.0.0.1": "w", "fd00::1": "w", "127.0.0.1": "w", "fe80::1": "w", "fe80::1%eth0": "w", "": "w", "203.0.113.8": " ", "203.0.113.9": strings.Repeat("w", maxWhere+1)} {
		if err := learn(addr, where); err == nil {
			t.Errorf("%q, known by %.10q, was learnt", addr, where)
		}
	}
	code, stdout, stderr := d.run("rbl", "addresses", "--forget", "203.0.113.8")
	if code != exitFinding || !strings.Contains(stderr, "no address 203.0.113.8 was learnt") {
		t.Errorf("one that is not there: exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if code, stdout, stderr = d.run("rbl", "addresses", "--forget", "203.0.113.7"); code != exitFine || stdout != "" || !strings.Contains(stderr, "no address is learnt") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if got, want := actionsOf(t, s), []string{"rbl learn 203.0.113.7 Received by mx.example.org: done", "rbl forget 203.0.113.7: done"}; !slices.Equal(got, want) {
		t.Errorf("the journal has %q, want %q", got, want)
	}
}

func TestRBLLearnsFromAMessageAsItWasReceivedOutside(t *testing.T) {
	postfixtest.Need(t) // for postconf(1): the message is known by the name of this server
	path, server := listsOf(t, twoLists, "from_mta = true\nneighbours = false\naddresses = [\"203.0.113.5\"]\n", dnstest.Records())
	mta := filepath.Join(t.TempDir(), "postfix")
	if err := errors.Join(os.Mkdir(mta, 0o755), os.WriteFile(filepath.Join(mta, "main.cf"), []byte("compatibility_level = 3.6\nmyhostname = mail.example.jp\nmydestination =\n"), 0o644),
		os.WriteFile(filepath.Join(mta, "master.cf"), []byte("smtp inet n - y - - smtpd\nsmtp unix - - y - - smtp\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	d, _ := listedDaemon(t, path)
	text, err := os.ReadFile(d.config)
	if err != nil {
		t.Fatal(err)
	}
	mail := filepath.Join(t.TempDir(), "mail.eml")
	if err := errors.Join(os.WriteFile(d.config, append(text, "[rbl]\nresolvers = [\""+server.Addr+"\"]\n[mta]\nconfig_directory = \""+mta+"\"\n"...), 0o600), os.WriteFile(mail, []byte(strings.Join([]string{
		"Received: from mail.example.jp (nat.example.jp [203.0.113.77])", "\tby mx.example.net (Postfix) with ESMTPS id 4XyZ1a2b3d", "\tfor <x@example.net>; Mon, 2 Mar 2026 00:00:01 +0000 (UTC)",
		"Received: from taro.example (client.example [192.0.2.77])", "\tby mail.example.jp (Postfix) with ESMTPSA id 4XyZ1a2b3c", "\tfor <x@example.net>; Mon, 2 Mar 2026 09:00:00 +0900 (JST)",
		"Message-ID: <1@example.jp>", "Subject: x", "", "body", ""}, "\n")), 0o600)); err != nil {
		t.Fatal(err)
	}
	known := []desk.Explanation{}
	d.on("GET /v1/explain/{id}", func(json.RawMessage) (any, error) { return known, nil })
	code, stdout, stderr := d.run("rbl", "addresses", "--learn", mail)
	if code != exitCannotTell || stdout != "" || !strings.Contains(stderr, "--trust") || !strings.HasPrefix(d.lastAsked("GET /v1/explain"), "GET /v1/explain/4XyZ1a2b3c ") {
		t.Errorf("of mail that nobody knows: exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if code, stdout, stderr = d.run("rbl", "addresses", "--learn", mail, "--trust"); code != exitFine || !strings.Contains(stdout, "203.0.113.77") || !strings.Contains(stderr, "DNS does not have 203.0.113.77 for mail.example.jp") {
		t.Errorf("--trust: exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	known = []desk.Explanation{{Delivered: map[string]int64{"sent": 1}}}
	code, stdout, stderr = d.run("rbl", "addresses", "--learn", mail)
	if code != exitFine || !strings.Contains(stdout, "203.0.113.77") || !strings.Contains(stderr, "found 203.0.113.77: Received by mx.example.net") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if code, stdout, _ = d.run("rbl", "addresses", "--forget", "203.0.113.77", "--json"); code != exitFine || strings.Contains(stdout, "203.0.113.77") {
		t.Errorf("exit %d, stdout %q", code, stdout)
	}
}

func TestRBLOfADaemonThatDoesNotCheckSaysWhy(t *testing.T) {
	path, _ := listsOf(t, twoLists, "watch = false\n", dnstest.Records())
	d, _ := listedDaemon(t, path)
	for _, line := range []string{"rbl status", "rbl status --now", "rbl history", "rbl addresses --forget 203.0.113.7"} {
		if code, stdout, stderr := d.run(strings.Fields(line)...); code != exitCannotTell || stdout != "" || !strings.Contains(stderr, "rbl.watch is false") {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", line, code, stdout, stderr)
		}
	}
}

func TestProgressIsOneLineOfATerminalThatGoesAway(t *testing.T) {
	term := newTerminal(t, 80)
	synctest.Test(t, func(t *testing.T) {
		stop, progress := progressLine(term.screen, "asking: %d of %d answers")
		time.Sleep(time.Second) // nothing is known yet: nothing is shown
		progress(3, 10)
		time.Sleep(300 * time.Millisecond)
		stop()
		stop()
	})
	const end = "\x04"
	io.WriteString(term.screen, end)
	var text []byte
	for !bytes.HasSuffix(text, []byte(end)) {
		part := make([]byte, 4096)
		n, err := term.master.Read(part)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, part[:n]...)
	}
	shown := strings.TrimSuffix(string(text), end)
	if !strings.HasPrefix(shown, "\rasking: 3 of 10 answers\x1b[K") || !strings.HasSuffix(shown, "\r\x1b[K") || strings.Contains(shown, "\n") {
		t.Errorf("%q", shown)
	}
}

func TestProgressIsNotShownToProgramsAndInAMoment(t *testing.T) {
	var out strings.Builder
	stop, progress := progressLine(&out, "asking: %d of %d answers")
	stop()
	if progress != nil || out.Len() > 0 {
		t.Errorf("%q", out.String())
	}
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if stop, progress = progressLine(file, "%d of %d"); progress != nil {
		t.Error("a file is shown progress")
	}
	stop()
}
