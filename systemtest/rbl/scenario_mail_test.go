package rbl_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-message/mail"

	"relayguard/journal"
	"relayguard/mta/smtptest"
	"relayguard/systemtest/relay"
)

var noSuchUser = smtptest.Reply{Code: 550, Lines: []string{"5.1.1 no such user"}}

// admin is somebody outside.
const admin = "admin@example.net"

// letter is a report as a mailbox got it.
type letter struct {
	raw, subject, text, html string
}

// letters waits for that many reports in hanako's mailbox.
func (s *scene) letters(n int) (all []letter) {
	s.t.Helper()
	raws, err := s.WaitMaildir(s.soon(), hanako, n)
	s.must(err)
	if len(raws) != n {
		s.t.Fatalf("%d letters, want %d", len(raws), n)
	}
	for _, raw := range raws {
		if !strings.HasPrefix(raw, "Return-Path: <>\n") {
			s.t.Errorf("the envelope sender is not empty:\n%.200s", raw)
		}
		all = append(all, s.read(raw))
	}
	return all
}

// read reads a report's letter, and checks what each must be.
func (s *scene) read(raw string) letter {
	s.t.Helper()
	s.wantNoneOfOurs(raw)
	l := letter{raw: raw}
	r, err := mail.CreateReader(strings.NewReader(raw))
	s.must(err)
	l.subject, err = r.Header.Subject()
	s.must(err)
	if auto := r.Header.Get("Auto-Submitted"); auto != "auto-generated" {
		s.t.Errorf("Auto-Submitted: %s", auto)
	}
	if from, err := r.Header.AddressList("From"); err != nil || len(from) != 1 || !strings.HasPrefix(from[0].Address, "postmaster@") {
		s.t.Errorf("From: %v, %v", from, err)
	}
	for {
		p, err := r.NextPart()
		if err == io.EOF {
			break
		}
		s.must(err)
		body, err := io.ReadAll(p.Body)
		s.must(err)
		if kind := p.Header.Get("Content-Type"); strings.HasPrefix(kind, "text/html") {
			l.html = string(body)
		} else {
			l.text = string(body)
		}
	}
	if l.text == "" || l.html == "" {
		s.t.Errorf("the letter has not both parts:\n%s", raw)
	}
	return l
}

// The report reaches an admin inside at the worst of times: all mail is stopped, and
// the account that the daemon has is over its limit. It is known by its token: other
// mail of the same account is held.
func isMailedWhateverIsStopped(t *testing.T, binary string) {
	s := startScene(t, binary, "enforce", fmt.Sprintf("[report]\nat = \"\"\nto = [%q, %q]\n\n[[limit]]\nname = \"tiny\"\nper = \"local_user\"\nwindows = [\"1/1h\"]\n", hanako, admin))
	client := s.client(relay.Relaying)
	send := func(to string) smtptest.Transaction {
		sent, err := client.Send("", []string{to}, "From: postmaster@example.jp\r\nSubject: not a report\r\nMessage-ID: <"+to+">\r\n\r\nx\r\n")
		s.must(err)
		return sent
	}
	if sent := send("first@example.net"); !sent.Accepted() {
		t.Fatalf("mail within the limit: %+v", sent)
	}
	if sent := send("over@example.net"); !sent.Accepted() {
		t.Fatalf("mail over the limit: %+v", sent)
	}
	if _, err := s.WaitHeld(s.soon(), "over@example.net"); err != nil {
		t.Fatal(err)
	}
	s.order(0, "report", "--mail")
	s.letters(1)
	s.eventually("the report has left, too", func() bool { return len(s.Sink.To(admin)) == 1 })

	s.order(0, "stop", "--reason", "spam, source unknown")
	if sent := send("stopped@example.net"); sent.Accepted() {
		t.Errorf("other mail while all is stopped: %+v", sent)
	}
	s.order(0, "report", "--mail", "--to", hanako)
	s.letters(2)
	s.order(0, "start")
	s.order(0, "report", "--mail", "--to", admin)
	s.eventually("the report leaves again", func() bool { return len(s.Sink.To(admin)) == 2 })
	for _, m := range s.Sink.To(admin) {
		if m.MailFrom != "" {
			t.Errorf("the envelope sender is %s", m.MailFrom)
		}
		s.read(string(m.Data))
	}
	if to := s.Sink.To("over@example.net"); len(to) != 0 {
		t.Errorf("what is over a limit left: %+v", to)
	}
}

// A day's report is made and mailed once, whatever is restarted. The first day has
// nothing to tell. While all is stopped, Postfix itself takes nothing for the outside:
// who is inside gets it all the same, and who is outside soon after the start.
func isMadeOnceADay(t *testing.T, binary string) {
	s := startScene(t, binary, "enforce", fmt.Sprintf("[report]\nat = \"00:00\"\nto = [%q, %q]\n", hanako, admin))
	kept := func() (names []string) {
		files, err := filepath.Glob(filepath.Join(s.StateDir(), "reports", "*"))
		s.must(err)
		for _, f := range files {
			names = append(names, filepath.Base(f))
		}
		return names
	}
	s.order(0, "report", "--mail", "--to", hanako) // one that is asked for is not the day's
	s.letters(1)
	if files := kept(); len(files) != 0 || len(s.LogLines("daily report")) != 0 {
		t.Fatalf("a report of the first day: %q", files)
	}

	// The daemon is away when the next one is due.
	s.order(0, "stop", "--reason", "spam, source unknown")
	s.away(func() {
		s.remember(journal.Value{Name: "report mailed", Value: time.Now().AddDate(0, 0, -1).Format("2006-01-02")})
	})
	s.letters(2)
	s.order(0, "start")
	if _, err := s.Sink.WaitFor(s.soon(), admin); err != nil {
		t.Fatal(err)
	}
	s.eventually("it is noted that the day's report was mailed", func() bool { return len(s.LogLines("daily report")) == 1 })
	day := time.Now().Format("2006-01-02")
	want := []string{"report-" + day + ".html", "report-" + day + ".json", "report-" + day + ".txt"}
	if files := kept(); !slices.Equal(files, want) {
		t.Fatalf("files %q, want %q", files, want)
	}
	if r := s.report("--day", day); r.Made.IsZero() || r.Phase != "enforce" {
		t.Errorf("what is kept: %+v", r)
	}
	made, err := os.Stat(filepath.Join(s.StateDir(), "reports", want[0]))
	s.must(err)
	for i, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		s.must(s.StopGuard(signal))
		s.must(s.StartGuard(s.soon()))
		s.order(0, "report", "--mail", "--to", hanako)
		s.letters(3 + i) // that one, and no other
	}
	again, err := os.Stat(filepath.Join(s.StateDir(), "reports", want[0]))
	s.must(err)
	if n, mails := len(s.LogLines("daily report")), len(s.Sink.To(admin)); n != 1 || mails != 1 || !again.ModTime().Equal(made.ModTime()) {
		t.Errorf("the day's report was made %d times, and mailed %d times", n, mails)
	}
}
