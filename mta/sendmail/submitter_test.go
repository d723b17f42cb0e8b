package sendmail_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"relayguard/mta/sendmail"
	"relayguard/mta/sendmail/sendmailtest"
)

func TestSubmitUser(t *testing.T) {
	dir := t.TempDir()
	if name, err := sendmail.SubmitUser(dir); name != "smmsp" || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without submit.cf: %q, %v", name, err)
	}
	for text, want := range map[string]string{
		"V10\n":                        "smmsp",
		"V10\nO RunAsUser=news\n":      "news",
		"V10\nO RunAsUser=news:mail":   "news",
		"V10\nO RunAsUser = 120:12\n":  "120",
		"V10\nO RunAsUser=news.mail\n": "news",
		"V10\nO RunAsUser=news/mail\n": "news",
		"V10\nO RunAsUser=120.12:1\n":  "120",
	} {
		writeText(t, filepath.Join(dir, "submit.cf"), text)
		if name, err := sendmail.SubmitUser(dir); name != want || err != nil {
			t.Errorf("%q: %q, %v", text, name, err)
		}
	}
}

// Sendmail's own m4 files say it.
func TestSubmitUserOfTheRealSendmail(t *testing.T) {
	s := sendmailtest.StartTest(t, sendmailtest.Options{SubmitMC: []string{"define(`confRUN_AS_USER', `news:mail')dnl"}})
	if name, err := sendmail.SubmitUser(s.ConfigDir); name != "news" || err != nil {
		t.Errorf("%q, %v", name, err)
	}
}

// Where the first line of what waited names nobody, for sendmail(1) had a socket for its
// input, the owner of its body does: so docs/sendmail.md says. The control file's is
// another after a run of the queue, and root's is the submission program's.
func TestOwnerOfWaitingMail(t *testing.T) {
	s := sendmailtest.StartTest(t, sendmailtest.Options{})
	if err := s.Kill(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	smmsp, err := user.Lookup("smmsp")
	if err != nil {
		t.Fatal(err)
	}
	const news = 9
	for _, uid := range []uint32{news, 0} {
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		theirs, ours := os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket")
		cmd := exec.CommandContext(t.Context(), s.Tool("sendmail"), "-oi", "a@example.net")
		cmd.Dir, cmd.Env, cmd.Stdin = "/", []string{"PATH=/usr/bin:/bin"}, theirs
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		err = s.StartCommand(cmd)
		theirs.Close()
		if err == nil {
			_, err = ours.WriteString("Subject: x\n\nhello\n")
		}
		if err = errors.Join(err, ours.Close()); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.RunClientQueue(t.Context()); err != nil {
		t.Fatal(err)
	}
	queue, err := s.ClientQueue(t.Context())
	if err != nil || len(queue) != 2 {
		t.Fatalf("%v, %v", queue, err)
	}
	owner := func(path string) string {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return strconv.Itoa(int(info.Sys().(*syscall.Stat_t).Uid))
	}
	for _, q := range queue {
		want := map[string]string{"news": strconv.Itoa(news), "root": smmsp.Uid}[q.MailFrom]
		body := owner(filepath.Join(s.ClientQueueDir, "df"+q.QueueID))
		if control := owner(q.Path); body != want || control != smmsp.Uid || strings.Contains(q.HeaderText, "(from ") || !strings.Contains(q.HeaderText, "UNIX: localhost") {
			t.Errorf("%s: body of %s, control file of %s:\n%s", q.MailFrom, body, control, q.HeaderText)
		}
	}
}
