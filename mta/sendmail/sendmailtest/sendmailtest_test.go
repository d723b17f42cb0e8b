package sendmailtest

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	gomilter "github.com/emersion/go-milter"

	"relayguard/mta/smtptest"
)

const text = "Subject: t\r\nFrom: taro@example.jp\r\n\r\nbody\r\n"

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func dial(t *testing.T, s *Sendmail, service string) *smtptest.Client {
	t.Helper()
	client, err := s.Dial(within(t), service)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if _, err := client.Ehlo("client.example.jp"); err != nil {
		t.Fatal(err)
	}
	return client
}

// send sends one message and wants it accepted.
func send(t *testing.T, s *Sendmail, service, to string) {
	t.Helper()
	sent, err := dial(t, s, service).Send("taro@example.jp", []string{to}, text)
	if err != nil || !sent.Accepted() {
		t.Fatalf("mail to %s: %+v, %v", to, sent, err)
	}
}

func TestAuthTakesTheRightPasswordOnly(t *testing.T) {
	s := StartTest(t, Options{
		Users:    map[string]string{"taro@example.jp": "right", "web": "right too"},
		Services: []Service{{Name: "submission", Auth: true, TLS: true, Modifiers: "a"}},
	})
	for _, c := range []struct {
		login, password string
		code            int
	}{{"taro@example.jp", "right", 235}, {"web", "right too", 235}, {"taro@example.jp", "wrong", 535}, {"nobody", "right", 535}} {
		client := dial(t, s, "submission")
		reply, err := client.Auth(c.login, c.password)
		if err != nil || reply.Code != c.code {
			t.Errorf("AUTH as %s with %q: %v, %v; want %d", c.login, c.password, reply, err, c.code)
		}
	}
	client := dial(t, s, "submission")
	if reply, err := client.Mail("taro@example.jp"); err != nil || reply.Code != 530 {
		t.Errorf("MAIL without AUTH where M=a: %v, %v", reply, err)
	}
}

func TestServicesDifferInAuthAndTLS(t *testing.T) {
	s := StartTest(t, Options{
		Users:    map[string]string{"taro@example.jp": "right"},
		Services: []Service{{Name: "submission", Auth: true, TLS: true}, {Name: "inbound"}},
	})
	for service, want := range map[string]bool{"submission": true, "inbound": false} {
		client, err := s.Dial(within(t), service)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		greeting, err := client.Ehlo("client.example.jp")
		if err != nil {
			t.Fatal(err)
		}
		for _, keyword := range []string{"STARTTLS", "AUTH "} {
			if strings.Contains(greeting.Text(), keyword) != want {
				t.Errorf("%s offers %s: %v, want %v:\n%s", service, keyword, !want, want, greeting.Text())
			}
		}
	}
	config, err := s.CA.ClientConfig("")
	if err != nil {
		t.Fatal(err)
	}
	if reply, err := dial(t, s, "submission").StartTLS(config); err != nil || reply.Code != 220 {
		t.Errorf("STARTTLS: %v, %v", reply, err)
	}
}

func TestRelayedMailReachesTheSink(t *testing.T) {
	s := StartTest(t, Options{Services: []Service{{Name: "relay"}}})
	for _, to := range []string{"hanako@example.net", "anybody@example.jp"} {
		send(t, s, "relay", to)
		mail, err := s.Sink.WaitFor(within(t), to)
		if err != nil {
			t.Fatal(err)
		}
		if mail.MailFrom != "taro@example.jp" || !strings.Contains(string(mail.Data), "\r\n\r\nbody\r\n") {
			t.Errorf("mail to %s arrived as %+v:\n%s", to, mail, mail.Data)
		}
	}
	if err := s.WaitEmpty(within(t)); err != nil {
		t.Error(err)
	}
	if _, err := s.WaitLog(within(t), `(?m)^[A-Z][a-z]{2} [ \d]\d [\d:]{8} relay sm-mta\[\d+\]: `); err != nil {
		t.Error(err)
	}
	if _, err := s.WaitLog(within(t), `: to=<hanako@example.net>, .* stat=Sent `); err != nil {
		t.Error(err)
	}
}

func TestMailboxOfAnInsideDomain(t *testing.T) {
	const address = "hanako@example.jp"
	s := StartTest(t, Options{Services: []Service{{Name: "inbound"}}, Mailboxes: []string{address}})
	send(t, s, "inbound", address)
	send(t, s, "inbound", address)
	messages, err := s.WaitMailbox(within(t), address, 2)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(messages[1], "\nSubject: t\n") || !strings.Contains(messages[1], "\n\nbody\n") {
		t.Errorf("delivered: %q", messages[1])
	}
	if all := s.Sink.All(); len(all) > 0 {
		t.Errorf("mail for a mailbox left: %v", all)
	}
}

func TestSubmissionProgramTellsWhoSent(t *testing.T) {
	s := StartTest(t, Options{})
	sent, err := s.Sendmail(within(t), 33, []string{"-t", "-i"}, strings.NewReader("To: hanako@example.net\nSubject: s\n\nbody\n"))
	if err != nil || sent.ExitCode != 0 {
		t.Fatalf("sendmail(1): %+v, %v", sent, err)
	}
	mail, err := s.Sink.WaitFor(within(t), "hanako@example.net")
	if err != nil {
		t.Fatal(err)
	}
	var first string
	for line := range strings.SplitSeq(string(mail.Data), "\r\nReceived: ") {
		first = line // the last in the text is the first that was written
	}
	if !strings.Contains(first, "(from www-data@localhost)") || !strings.Contains(first, "/Submit) id ") {
		t.Errorf("the first Received line is %q", first)
	}
	if queue, err := s.ClientQueue(within(t)); err != nil || len(queue) > 0 {
		t.Errorf("the client queue holds %v, %v", queue, err)
	}
}

func TestClientQueueWaitsForTheMTA(t *testing.T) {
	s := StartTest(t, Options{})
	if err := s.Kill(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	sent, err := s.Sendmail(within(t), 33, []string{"hanako@example.net"}, strings.NewReader("Subject: s\n\nbody\n"))
	if err != nil || sent.ExitCode != 0 {
		t.Fatalf("sendmail(1) without an MTA: %+v, %v", sent, err)
	}
	queue, err := s.ClientQueue(within(t))
	if err != nil || len(queue) != 1 || !queue[0].To("hanako@example.net") {
		t.Fatalf("the client queue holds %+v, %v", queue, err)
	}
	if err := s.StartAgain(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := s.RunClientQueue(within(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sink.WaitFor(within(t), "hanako@example.net"); err != nil {
		t.Error(err)
	}
}

// quarantine is a milter that quarantines each message at its end.
type quarantine struct{ gomilter.NoOpMilter }

func (quarantine) Body(m *gomilter.Modifier) (gomilter.Response, error) {
	return gomilter.RespAccept, m.Quarantine("relayguard: login-hour")
}

func serveMilter(t *testing.T, socket string) {
	t.Helper()
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := gomilter.Server{
		NewMilter: func() gomilter.Milter { return quarantine{} },
		Actions:   gomilter.OptQuarantine,
	}
	go server.Serve(listener) // ends with its listener
	t.Cleanup(func() { server.Close() })
}

func TestMilterOfOneServiceQuarantines(t *testing.T) {
	s := StartTest(t, Options{Services: []Service{{Name: "relay", Milters: []string{"guard"}}, {Name: "free"}}})
	serveMilter(t, s.MilterSocket("guard"))
	send(t, s, "relay", "hanako@example.net")
	held, err := s.WaitHeld(within(t), "hanako@example.net")
	if err != nil {
		t.Fatal(err)
	}
	if held.Reason != "relayguard: login-hour" || held.MailFrom != "taro@example.jp" || filepath.Base(held.Path) != "hf"+held.QueueID {
		t.Errorf("held: %+v", held)
	}
	list, err := s.Command(within(t), "mailq", "-Am", "-qQ")
	if err != nil || !strings.Contains(list, held.QueueID) || !strings.Contains(list, "QUARANTINE: relayguard: login-hour") {
		t.Errorf("mailq -qQ: %v\n%s", err, list)
	}
	send(t, s, "free", "jiro@example.net")
	if _, err := s.Sink.WaitFor(within(t), "jiro@example.net"); err != nil {
		t.Error(err)
	}
	if got := s.Sink.To("hanako@example.net"); len(got) > 0 {
		t.Error("quarantined mail was delivered")
	}
	for _, args := range [][]string{{"-Am", "-qQ", "-Q", "-qI" + held.QueueID}, {"-Am", "-qI" + held.QueueID}} {
		if _, err := s.Command(within(t), "sendmail", args...); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Sink.WaitFor(within(t), "hanako@example.net"); err != nil {
		t.Error(err)
	}
}

func TestWithoutItsMilterAServiceDefers(t *testing.T) {
	s := StartTest(t, Options{Services: []Service{{Name: "relay", Milters: []string{"guard"}}}})
	client, err := s.Dial(within(t), "relay")
	if err == nil {
		defer client.Close()
		_, err = client.Ehlo("client.example.jp")
	}
	if err != nil {
		t.Fatal(err)
	}
	sent, err := client.Send("taro@example.jp", []string{"hanako@example.net"}, text)
	if err != nil || sent.Refusal().Code/100 != 4 {
		t.Errorf("sent: %+v, %v", sent, err)
	}
}

func TestRestartsAndReloadsOnTheSamePorts(t *testing.T) {
	s := StartTest(t, Options{Services: []Service{{Name: "relay"}}})
	addr, pid := s.Addr("relay"), s.PID()
	if err := s.Reload(within(t)); err != nil {
		t.Fatal(err)
	}
	if s.PID() != pid {
		t.Errorf("pid %d after a reload, was %d", s.PID(), pid)
	}
	send(t, s, "relay", "a@example.net")
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := s.Kill(signal); err != nil {
			t.Fatal(err)
		}
		if pids := s.ChildPIDs(); len(pids) > 0 || s.PID() != 0 {
			t.Errorf("after %v there are still %v, %d", signal, pids, s.PID())
		}
		if err := s.StartAgain(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	if s.Addr("relay") != addr {
		t.Errorf("listens on %s, was %s", s.Addr("relay"), addr)
	}
	send(t, s, "relay", "b@example.net")
	if _, err := s.Sink.WaitFor(within(t), "b@example.net"); err != nil {
		t.Error(err)
	}
}

func TestSetMCTakesEffect(t *testing.T) {
	s := StartTest(t, Options{Services: []Service{{Name: "relay"}}})
	if err := s.SetMC(within(t), "define(`confMAX_MESSAGE_SIZE', `12345')dnl"); err != nil {
		t.Fatal(err)
	}
	greeting, err := dial(t, s, "relay").Ehlo("client.example.jp")
	if err != nil || !strings.Contains(greeting.Text(), "SIZE 12345") {
		t.Errorf("greeting: %v, %v", greeting, err)
	}
}

func TestSeveralQueues(t *testing.T) {
	for name, split := range map[string]bool{"plain": false, "split": true} {
		t.Run(name, func(t *testing.T) {
			s := StartTest(t, Options{
				Services: []Service{{Name: "relay"}}, DeliveryMode: "queueonly",
				QueueDirs: 2, SplitQueue: split,
				QueueGroups: []QueueGroup{{Name: "slow", Dirs: 2}},
			})
			var dirs []string
			for i := range 20 {
				send(t, s, "relay", "hanako@example.net")
				queue, err := s.Queue(within(t))
				if err != nil || len(queue) != i+1 {
					t.Fatalf("queue after %d messages: %d, %v", i+1, len(queue), err)
				}
				dirs = nil
				for _, q := range queue {
					dirs = append(dirs, filepath.Dir(q.Path))
				}
			}
			slices.Sort(dirs)
			dirs = slices.Compact(dirs)
			want := []string{s.QueueDir + "/q1", s.QueueDir + "/q2"}
			if split {
				want = []string{s.QueueDir + "/q1/qf", s.QueueDir + "/q2/qf"}
			}
			if !slices.Equal(dirs, want) {
				t.Errorf("control files are in %v, want %v", dirs, want)
			}
			holdAndRelease(t, s)
			if err := s.RunQueue(within(t)); err != nil {
				t.Fatal(err)
			}
			if queue, err := s.Queue(within(t)); err != nil || len(queue) > 0 {
				t.Errorf("after a queue run: %v, %v", queue, err)
			}
			if n := len(s.Sink.To("hanako@example.net")); n != 20 {
				t.Errorf("%d messages arrived, want 20", n)
			}
		})
	}
}

// holdAndRelease wants Sendmail's own tools to find a message by its id in any
// directory.
func holdAndRelease(t *testing.T, s *Sendmail) {
	t.Helper()
	queue, err := s.Queue(within(t))
	if err != nil {
		t.Fatal(err)
	}
	last := queue[len(queue)-1]
	steps := []struct {
		args []string
		held int
	}{
		{[]string{"-Am", "-Qtest reason", "-qI" + last.QueueID}, 1},
		{[]string{"-Am", "-qQ", "-Q", "-qI" + last.QueueID}, 0},
	}
	for _, step := range steps {
		if _, err := s.Command(within(t), "sendmail", step.args...); err != nil {
			t.Fatal(err)
		}
		held, err := s.Held(within(t))
		if err != nil || len(held) != step.held {
			t.Errorf("after sendmail %q held: %v, %v", step.args, held, err)
		}
		if step.held == 1 && len(held) == 1 && (held[0].QueueID != last.QueueID || held[0].Reason != "test reason" || filepath.Dir(held[0].Path) != filepath.Dir(last.Path)) {
			t.Errorf("held: %+v, want %s", held[0], last.Path)
		}
	}
}

func TestStopLeavesNothing(t *testing.T) {
	Need(t)
	s, err := Start(within(t), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.Dir); !os.IsNotExist(err) && os.Getenv("RELAYGUARD_KEEP") == "" {
		t.Errorf("%s is still there: %v", s.Dir, err)
	}
	if pids := s.ChildPIDs(); len(pids) > 0 {
		t.Errorf("processes %v are still there", pids)
	}
}

func TestStartSaysWhatIsWrong(t *testing.T) {
	Need(t)
	for name, c := range map[string]struct {
		options Options
		want    string
	}{
		"service twice": {Options{Services: []Service{{Name: "a"}, {Name: "a"}}}, `"a" is given twice`},
		"service name":  {Options{Services: []Service{{Name: "A b"}}}, `name "A b"`},
		"no such way":   {Options{SubmitTo: "gone"}, `service "gone", which is not there`},
		"m4 breaks out": {Options{Hostname: "a')b"}, "do not go through m4"},
		"bad mc":        {Options{MC: []string{"FEATURE(`no-such-feature')"}}, "sendmail.mc"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Start(within(t), c.options)
			if err == nil {
				s.Stop()
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q, want %q in it", err, c.want)
			}
		})
	}
}
