package systemtest

import (
	"fmt"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-milter"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/systemtest/relay"
)

// fussy is a milter behind the guard that puts mail off: a message with a header
// field X-Refuse: N as many times.
type fussy struct {
	mu   sync.Mutex
	seen map[string]int // by Message-ID
}

// fussyMessage is its view of one message.
type fussyMessage struct {
	milter.NoOpMilter
	all *fussy
}

func (m *fussyMessage) Headers(h textproto.MIMEHeader, _ *milter.Modifier) (milter.Response, error) {
	times := 0
	fmt.Sscan(h.Get("X-Refuse"), &times)
	id := h.Get("Message-Id")
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	if m.all.seen[id] < times {
		m.all.seen[id]++
		return milter.RespTempFail, nil
	}
	return milter.RespContinue, nil
}

// refused is how often a message was put off.
func (f *fussy) refused(id string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen["<"+id+">"]
}

// startFussy serves it where Postfix finds it as fussyName.
func startFussy(t *testing.T, p *postfixtest.Postfix) *fussy {
	t.Helper()
	path := filepath.Join(p.MilterDir(), "fussy.sock")
	l, err := net.Listen("unix", path)
	if err == nil {
		err = os.Chmod(path, 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
	f := &fussy{seen: map[string]int{}}
	server := &milter.Server{NewMilter: func() milter.Milter { return &fussyMessage{all: f} }}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return f
}

// dated is what makes a message the same at its next try: where it is missing,
// Postfix writes the time into it.
const dated = "Date: Mon, 02 Mar 2026 09:00:00 +0900"

const fussyName = "unix:relayguard/fussy.sock"

// startWithFussy starts a relay whose submission service and whose sendmail(1)
// ask the guard first and a fussy milter then.
func startWithFussy(t *testing.T, o relay.Options) (*relay.Relay, *fussy) {
	t.Helper()
	services := relay.Services()
	services[0].Milters = append(services[0].Milters, fussyName)
	o.Postfix.Services = services
	o.Postfix.Local = postfixtest.Local{
		Milters: []string{postfixtest.MilterName("local.sock"), fussyName}, ShowUID: true, DaemonName: "LOCAL-PICKUP",
	}
	r := startRelay(t, o)
	return r, startFussy(t, r.Postfix)
}

func TestRetriesAreNotChargedTwice(t *testing.T) {
	t.Parallel()
	r, fussy := startWithFussy(t, relay.Options{
		Config: perLogin("login-volume", "", "20/10m") + perUser("user-volume", "20/10m"),
		Postfix: postfixtest.Options{
			Main:  map[string]string{"smtpd_recipient_restrictions": "check_recipient_access texthash:$config_directory/recipients"},
			Files: map[string]string{"recipients": ""},
		},
	})
	taro := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	// try sends a message once more, and returns the reply to its final dot.
	try := func(to []string, message string) int {
		t.Helper()
		return send(t, taro, "taro@example.jp", to, message).Data.Code
	}
	const login = "taro@example.jp"

	t.Run("a message that was put off after the guard took it", func(t *testing.T) {
		message := fromTaro("again", dated, "X-Refuse: 2")
		for i, want := range []int{451, 451, 250} {
			if got := try(rcpts("again", 3), message); got != want {
				t.Fatalf("try %d got %d, want %d", i+1, got, want)
			}
		}
		if fussy.refused("again") != 2 {
			t.Fatalf("put off %d times, want 2", fussy.refused("again"))
		}
		wantOnce(t, r.Postfix, rcpts("again", 3)...)
		wantUsed(t, r, login, "login-volume", 3)
	})

	t.Run("three tries are free, the next is charged", func(t *testing.T) {
		message := fromTaro("stubborn", dated, "X-Refuse: 4")
		for i := range 5 {
			if got := try(rcpts("stubborn", 1), message); (got == 250) != (i == 4) {
				t.Fatalf("try %d got %d", i+1, got)
			}
		}
		wantUsed(t, r, login, "login-volume", 3+2)
	})

	t.Run("with other content it is another message", func(t *testing.T) {
		try(rcpts("other", 1), fromTaro("other", dated, "X-Refuse: 1"))
		if got := try(rcpts("other", 1), fromTaro("other", dated, "X-Refuse: 1")+"and more\n"); got != 250 {
			t.Fatalf("got %d", got)
		}
		wantUsed(t, r, login, "login-volume", 5+2)
	})

	t.Run("one recipient that was put off, later", func(t *testing.T) {
		taro.Close()
		if err := r.SetFile(soon(t), "recipients", "later-1@example.net DEFER_IF_PERMIT try later\n"); err != nil {
			t.Fatal(err)
		}
		taro = loggedIn(t, r.Postfix, relay.Submission, login)
		message := fromTaro("later", dated)
		if sent := send(t, taro, login, rcpts("later", 3), message); !slices.Equal(codes(sent.Rcpts), []int{250, 450, 250}) || !sent.Accepted() {
			t.Fatalf("RCPTs %v, end %v", sent.Rcpts, sent.Data)
		}
		taro.Close()
		if err := r.SetFile(soon(t), "recipients", ""); err != nil {
			t.Fatal(err)
		}
		taro = loggedIn(t, r.Postfix, relay.Submission, login)
		if got := try(rcpts("later", 2)[1:], message); got != 250 {
			t.Fatalf("got %d", got)
		}
		wantOnce(t, r.Postfix, rcpts("later", 3)...)
		wantUsed(t, r, login, "login-volume", 7+3)
	})

	t.Run("sendmail's mail under its next queue id", func(t *testing.T) {
		sendmail(t, r.Postfix, games, letter("local", "From: g@example.jp", dated, "X-Refuse: 2"), append([]string{"-f", "g@example.jp"}, rcpts("local", 3)...)...)
		for n := 1; n <= 2; n++ {
			eventually(t, "it is put off", func() bool { return fussy.refused("local") == n })
			eventually(t, "it is back in maildrop", func() bool {
				queue, err := r.QueueList(soon(t))
				return err == nil && len(queue) == 1 && queue[0].QueueName == "maildrop"
			})
			pickUp(t, r)
		}
		wantArrived(t, r.Postfix, rcpts("local", 3)[2])
		wantOnce(t, r.Postfix, rcpts("local", 3)...)
		eventually(t, "the journal has three decisions under three queue ids", func() bool {
			ids := map[string]bool{}
			for _, d := range ask[[]decided](t, r, 0, "decisions", "--message-id", "<local>") {
				ids[d.QueueID] = true
			}
			return len(ids) == 3
		})
		wantUsed(t, r, "local_user:games", "user-volume", 3)
	})

	t.Run("sendmail's mail that came while the guard was away", func(t *testing.T) {
		if err := r.StopGuard(os.Kill); err != nil {
			t.Fatal(err)
		}
		sendmail(t, r.Postfix, games, letter("away", "From: g@example.jp", dated), append([]string{"-f", "g@example.jp"}, rcpts("away", 2)...)...)
		if _, err := r.WaitLog(soon(t), `pickup\[\d+\]: \w+: uid=5 from=<g@example\.jp>`); err != nil {
			t.Fatal(err)
		}
		if err := r.StartGuard(soon(t)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is back in maildrop", func() bool {
			queue, err := r.QueueList(soon(t))
			return err == nil && len(queue) == 1 && queue[0].QueueName == "maildrop"
		})
		pickUp(t, r)
		wantArrived(t, r.Postfix, rcpts("away", 2)[0])
		wantOnce(t, r.Postfix, rcpts("away", 2)...)
		wantUsed(t, r, "local_user:games", "user-volume", 3+2) // the three outlived kill -9
	})
}

// perUser is a limit on Unix accounts.
func perUser(name string, windows ...string) string {
	return strings.Replace(perLogin(name, "", windows...), `per = "login"`, `per = "local_user"`, 1)
}

func TestAFixedMessageIDIsCharged(t *testing.T) {
	t.Parallel()
	const limit, messages, sessions = 40, 1000, 4
	r := startRelay(t, relay.Options{Config: perLogin("login-volume", "", fmt.Sprintf("%d/10m", limit)) + "[hold]\norigin_messages = 30\n"})
	counts := map[int]int{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for range sessions {
		client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
		all.Go(func() {
			for range messages / sessions {
				sent, err := client.Send("taro@example.jp", []string{"victim@example.net"}, fromTaro("always-the-same", dated))
				if err != nil {
					t.Error(err)
					return
				}
				code := sent.Data.Code
				if code == 0 {
					code = sent.Refusal().Code
				}
				mu.Lock()
				counts[code]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if err := r.WaitEmpty(soon(t)); err != nil {
		t.Fatal(err)
	}
	got := len(r.Sink.To("victim@example.net"))
	// While the log has not said yet that a try was queued, up to three are free.
	if got < limit || got > limit+3 {
		t.Errorf("%d of %d went out, want %d, and at most 3 more", got, messages, limit)
	}
	if held := len(inHold(t, r.Postfix)); held != 30 || counts[250] != got+held || counts[452] != messages-counts[250] {
		t.Errorf("%d held, replies %v; want 30 held, the rest refused with 452", held, counts)
	}

	// Once the log has said so, none is.
	hanako := loggedIn(t, r.Postfix, relay.Submission, "hanako@example.jp")
	for n := range 6 {
		sendAccepted(t, hanako, "hanako@example.jp", []string{"victim@example.org"}, letter("hers-always", "From: hanako@example.jp", dated))
		eventually(t, "the log told of its delivery", func() bool {
			last := ask[[]decided](t, r, 0, "decisions", "--login", "hanako@example.jp")
			if len(last) != n+1 {
				return false
			}
			e := ask[[]explained](t, r, 0, "explain", last[0].ID)
			return len(e) == 1 && e[0].Delivered["sent"] == 1
		})
	}
	wantUsed(t, r, "hanako@example.jp", "login-volume", 6)
}

// A stolen login that floods in nobody's name is stopped like any flood, and
// never rejected; bounces to inside go on.
func TestNullSenderFlood(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{Config: perLogin("login-volume", "", "10/10m")})
	client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	flood := func(first, last int) {
		for i := first; i < last; i++ {
			id := fmt.Sprintf("null-%d", i)
			sendAccepted(t, client, "", rcpts(id, 1), fromTaro(id))
		}
	}
	flood(0, 40)
	for i := range 40 {
		id := fmt.Sprintf("null-%d", i)
		if i < 10 {
			wantVerdict(t, r, id, "accept", "", "login:taro@example.jp")
		} else {
			wantVerdict(t, r, id, "hold", "login-volume", "login:taro@example.jp")
		}
	}
	sendAccepted(t, client, "", []string{"hanako@example.jp"}, fromTaro("bounce"))
	wantVerdict(t, r, "bounce", "accept", "", "login:taro@example.jp")
	wantArrived(t, r.Postfix, "hanako@example.jp")
	if held := heldOf(t, r, "--login", "taro@example.jp"); len(held) != 30 || held[0].MailFrom != "" {
		t.Errorf("%d held, the first of <%s>", len(held), held[0].MailFrom)
	}
	if n := len(r.Sink.All()); n != 11 {
		t.Errorf("%d mails went out, want 10 and the bounce", n)
	}

	reload(t, r, "enforce", strings.Replace(perLogin("login-volume", "", "10/10m"), "windows", "then = \"reject\"\nwindows", 1))
	flood(40, 42)
	for i := 40; i < 42; i++ {
		wantVerdict(t, r, fmt.Sprintf("null-%d", i), "hold", "login-volume", "login:taro@example.jp")
	}
	if reply := send(t, client, "taro@example.jp", rcpts("named", 1), fromTaro("named")).Refusal(); reply.Code != 550 {
		t.Errorf("a named sender got %v, want 550", reply)
	}
}

func TestExpansionIsChargedFromTheLog(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{
		Config: perLogin("login-volume", "", "40/10m") + perUser("user-volume", "40/10m"),
		Postfix: postfixtest.Options{
			Main: map[string]string{
				"virtual_alias_maps": "texthash:$config_directory/lists",
				"mydestination":      "lists.example.jp",
				"alias_maps":         "texthash:$config_directory/aliases",

				"local_recipient_maps": "",
			},
			Files: map[string]string{
				"lists":   "ten@example.jp " + strings.Join(rcpts("ten", 10), ", ") + "\n",
				"aliases": "team " + strings.Join(rcpts("team", 6), ", ") + "\n",
			},
		},
	})
	client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	sendAccepted(t, client, "taro@example.jp", append(rcpts("direct", 1), "ten@example.jp"), fromTaro("virtual"))
	wantArrived(t, r.Postfix, "ten-9@example.net")
	wantUsed(t, r, "taro@example.jp", "login-volume", 11)
	sendAccepted(t, client, "taro@example.jp", []string{"team@lists.example.jp"}, fromTaro("team"))
	wantArrived(t, r.Postfix, "team-5@example.net")
	wantUsed(t, r, "taro@example.jp", "login-volume", 11+6)
	sendmail(t, r.Postfix, games, letter("script", "From: g@example.jp"), "-f", "g@example.jp", "ten@example.jp", "team@lists.example.jp")
	wantUsed(t, r, "local_user:games", "user-volume", 10+6)

	// What was charged afterwards counts before the next message.
	sendAccepted(t, client, "taro@example.jp", rcpts("fits", 23), fromTaro("fits"))
	wantVerdict(t, r, "fits", "accept", "", "login:taro@example.jp")
	sendAccepted(t, client, "taro@example.jp", rcpts("more", 1), fromTaro("more"))
	wantVerdict(t, r, "more", "hold", "login-volume", "login:taro@example.jp")
	eventually(t, "both have ten and six", func() bool {
		got := recipientsAtSink(r.Postfix)
		return got["ten-9@example.net"] == 2 && got["team-5@example.net"] == 2
	})
	time.Sleep(300 * time.Millisecond) // the log is followed to its end
	wantUsed(t, r, "taro@example.jp", "login-volume", 40)
	wantUsed(t, r, "local_user:games", "user-volume", 16)
}
