package systemtest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/smtptest"
	"relayguard/systemtest/relay"
)

// unitsConfig has a limit of each unit; each login has one of its own, so that
// none is in another's way.
const unitsConfig = `
[[limit]]
name = "bytes"
per = "login"
counts = "bytes"
windows = ["50KB/1h"]
[limit.when]
origins = ["login:bytes@*"]

[[limit]]
name = "distinct"
per = "login"
counts = "distinct"
windows = ["3/1h"]
[limit.when]
origins = ["login:distinct@*"]

[[limit]]
name = "first-time"
per = "login"
counts = "first_time"
kind = "abuse"
windows = ["4/1h"]
[limit.when]
origins = ["login:first@*"]

[[limit]]
name = "bounces"
per = "login"
counts = "bounces"
windows = ["2/1h"]
[limit.when]
origins = ["login:bounces@*"]

[[limit]]
name = "messages"
per = "login"
counts = "messages"
windows = ["3/1h"]
[limit.when]
origins = ["login:messages@*"]

[[limit]]
name = "per-domain"
per = ["login", "recipient_domain"]
windows = ["2/1h"]
[limit.when]
origins = ["login:domains@*"]
`

// unitLogin is a login with one limit.
type unitLogin struct {
	t           *testing.T
	r           *relay.Relay
	login, rule string
	client      *smtptest.Client
	sent        int
}

// sends sends a message, and checks what becomes of it.
func (u *unitLogin) sends(verdict, message string, to ...string) {
	u.t.Helper()
	name, _, _ := strings.Cut(u.login, "@")
	id := fmt.Sprintf("%s-%d", name, u.sent)
	u.sent++
	sendAccepted(u.t, u.client, u.login, to, letter(id, "From: "+u.login)+message)
	rule := u.rule
	if verdict == "accept" {
		rule = ""
	}
	wantVerdict(u.t, u.r, id, verdict, rule, "login:"+u.login)
}

// wantUsed is how much of its limit it has used.
func (u *unitLogin) wantUsed(want int64) {
	u.t.Helper()
	wantUsed(u.t, u.r, u.login, u.rule, want)
}

// Every unit that a limit counts, over the real MTA.
func TestLimitsOfEachUnit(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		test func(*testing.T, *unitLogin)
	}{{"bytes", unitBytes}, {"distinct", unitDistinct}, {"first", unitFirstTime}, {"bounces", unitBounces}, {"messages", unitMessages}, {"domains", unitDomains}}
	users := map[string]string{}
	for _, one := range tests {
		users[one.name+"@example.jp"] = "secret"
	}
	r := startRelay(t, relay.Options{Config: unitsConfig, Postfix: postfixtest.Options{Users: users}})
	rules := map[string]string{"first": "first-time", "domains": "per-domain"}
	for _, one := range tests {
		t.Run(one.name, func(t *testing.T) {
			u := &unitLogin{t: t, r: r, login: one.name + "@example.jp", rule: one.name}
			if rule, ok := rules[one.name]; ok {
				u.rule = rule
			}
			u.client = loggedIn(t, r.Postfix, relay.Submission, u.login)
			one.test(t, u)
		})
	}
}

func unitBytes(t *testing.T, u *unitLogin) {
	large := strings.Repeat(strings.Repeat("x", 79)+"\n", 375) // 30,000 octets; CR LF make it 30,375
	u.sends("accept", large, rcpts("b0", 20)...)               // counted once, whoever gets it
	if n := used(t, u.r, u.login, u.rule); n < 30_000 || n > 31_000 {
		t.Errorf("%d bytes are counted of a message of 30 KB", n)
	}
	u.sends("hold", large, rcpts("b1", 1)...)
	if stdout, _ := order(t, u.r, 0, "limits", "show", u.login); !strings.Contains(stdout, "bytes") {
		t.Errorf("limits show:\n%s", stdout)
	}
}

func unitDistinct(t *testing.T, u *unitLogin) {
	for range 4 {
		u.sends("accept", "", "d0@example.net", "d1@example.net")
	}
	u.sends("accept", "", "D0@EXAMPLE.net", "d1@example.net", "d1@example.net") // one mailbox, written in another way
	u.wantUsed(2)
	u.sends("accept", "", "d2@example.net", "d0@example.net")
	u.wantUsed(3)
	u.sends("hold", "", "d3@example.net", "d0@example.net")
	u.wantUsed(3)
	restartHard(t, u.r)
	u.wantUsed(3)
	u.client = loggedIn(t, u.r.Postfix, relay.Submission, u.login)
}

// A bucket that was shut stops mail to new people; who was known before still gets
// his.
func unitFirstTime(t *testing.T, u *unitLogin) {
	u.sends("accept", "", rcpts("old", 3)...)
	u.wantUsed(3)
	u.sends("accept", "", rcpts("old", 3)...) // known by now
	u.wantUsed(3)
	u.sends("hold", "", rcpts("new", 3)...) // 3 + 3 of 4
	u.sends("hold", "", rcpts("one", 1)...) // shut
	u.sends("accept", "", rcpts("old", 2)...)
	u.sends("hold", "", "old-0@example.net", "two@example.net") // the whole message
	restartHard(t, u.r)
	u.client = loggedIn(t, u.r.Postfix, relay.Submission, u.login)
	u.sends("accept", "", rcpts("old", 1)...)
	u.sends("hold", "", rcpts("one", 1)...)
	s := ask[stands](t, u.r, 0, "limits", "show", u.login)
	if len(s.Limits) != 1 || !s.Limits[0].Latched || s.Verdict != "hold" {
		t.Errorf("limits show: %+v, want that it is shut", s)
	}
	if l := waits(t, u.r, u.rule, "login:"+u.login); l.Waiting != 0 {
		t.Errorf("what abuse held waits for budget: %+v", l)
	}
	if done := ask[struct{ Opened []string }](t, u.r, 0, "resume", u.login, "--cause", "a new customer list"); !slices.Equal(done.Opened, []string{"first-time"}) {
		t.Errorf("resume: %+v", done)
	}
	u.sends("accept", "", rcpts("fresh", 2)...) // half of four, from nothing again
	u.sends("hold", "", rcpts("more", 1)...)
}

// Bounces come from the MTA's log.
func unitBounces(t *testing.T, u *unitLogin) {
	for i := range 2 {
		to := fmt.Sprintf("gone-%d@example.net", i)
		u.r.Sink.Refuse(to, smtptest.Reply{Code: 550, Lines: []string{"5.1.1 no such user"}})
		u.sends("accept", "", to, fmt.Sprintf("there-%d@example.net", i))
		u.wantUsed(int64(i + 1))
	}
	u.sends("hold", "", "there-2@example.net")
	if s := ask[stands](t, u.r, 0, "limits", "show", u.login); s.Verdict != "hold" || s.Rule != "bounces" {
		t.Errorf("limits show: %+v", s)
	}
	u.wantUsed(2)
}

func unitMessages(_ *testing.T, u *unitLogin) {
	for i := range 3 {
		u.sends("accept", "", rcpts(fmt.Sprint("m", i), 30)...)
	}
	u.wantUsed(3)
	u.sends("hold", "", rcpts("m3", 1)...)
}

// Of each pair of a login and a domain so many.
func unitDomains(t *testing.T, u *unitLogin) {
	u.sends("accept", "", "a@example.net", "b@example.net", "a@example.org")
	u.sends("accept", "", "b@example.org")
	u.sends("accept", "", "a@other.example.org", "b@other.example.org") // a domain of its own
	u.sends("hold", "", "c@example.org", "c@third.example.org")         // one is too many
	u.sends("accept", "", "d@third.example.org", "e@third.example.org") // that took nothing of the other
	u.wantUsed(2)                                                       // of each
	if l := waits(t, u.r, u.rule, "login:domains@example.jp recipient_domain:example.org"); l.Waiting != 1 {
		t.Errorf("it waits for the domain that has no room: %+v", ask[[]line](t, u.r, 0, "held", "pace", "list"))
	}
}

// Parents sum: what two logins of a domain send is the domain's, the customer's
// and the server's.
func TestParentsCountTheirChildren(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{
		Postfix: postfixtest.Options{Users: map[string]string{"taro@example.jp": "secret", "hanako@example.jp": "secret", "jiro@shop.example.jp": "secret"}},
		Config: perLogin("login-volume", "", "10/1h") + `
[[limit]]
name = "domain-volume"
per = "domain"
windows = ["12/1h"]

[[limit]]
name = "customer-volume"
per = "customer"
windows = ["16/1h"]

[[limit]]
name = "server-volume"
per = "server"
windows = ["20/1h"]
warn = 80

[[customer]]
name = "acme"
domains = ["example.jp", "shop.example.jp"]
`})
	sends := func(login, id string, n int, verdict, rule string) {
		t.Helper()
		client := loggedIn(t, r.Postfix, relay.Submission, login)
		sendAccepted(t, client, login, rcpts(id, n), letter(id, "From: "+login))
		wantVerdict(t, r, id, verdict, rule, "login:"+login)
	}
	sends("taro@example.jp", "p0", 7, "accept", "")
	sends("hanako@example.jp", "p1", 5, "accept", "")
	sends("hanako@example.jp", "p2", 1, "hold", "domain-volume") // 12 of 12
	sends("jiro@shop.example.jp", "p3", 5, "hold", "customer-volume")
	wantStanding(t, r, "jiro@shop.example.jp", "login-volume", 0, 10, "file")
	wantStanding(t, r, "jiro@shop.example.jp", "domain-volume", 0, 12, "file")
	wantStanding(t, r, "jiro@shop.example.jp", "customer-volume", 12, 16, "file") // what was held is nobody's
	wantStanding(t, r, "jiro@shop.example.jp", "server-volume", 12, 20, "file")
	order(t, r, 0, "held", "delete", "--all", "--yes", "--reason", "the next mail is not to queue")
	sends("jiro@shop.example.jp", "p4", 4, "accept", "")
	wantStanding(t, r, "taro@example.jp", "server-volume", 16, 20, "file")
	sendmail(t, r.Postfix, games, letter("p5", "From: g@example.jp"), append([]string{"-f", "g@example.jp"}, rcpts("p5", 4)...)...)
	wantVerdict(t, r, "p5", "accept", "", "local_user:games")
	sendmail(t, r.Postfix, games, letter("p6", "From: g@example.jp"), append([]string{"-f", "g@example.jp"}, rcpts("p6", 1)...)...)
	wantVerdict(t, r, "p6", "hold", "server-volume", "local_user:games")

	// Near the limit is told once, before anything is stopped.
	eventually(t, "the log says that the server is near its limit", func() bool { return len(nearLines(r, "server-volume")) > 0 })
	if all := nearLines(r, "server-volume"); len(all) != 1 || !strings.Contains(all[0], `"used":16`) && !strings.Contains(all[0], `"used":20`) {
		t.Errorf("told %d times:\n%s", len(all), strings.Join(all, "\n"))
	}
}

// nearLines are the lines of the guard's log that warn of a limit.
func nearLines(r *relay.Relay, limit string) (found []string) {
	for _, l := range r.LogLines("an account comes near a limit") {
		if strings.Contains(l.Raw, `"limit":"`+limit+`"`) {
			found = append(found, l.Raw)
		}
	}
	return found
}

// An account is warned of once, at four fifths, and not again for each message.
func TestWarnedOnceAtFourFifths(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{Config: perLogin("login-volume", "", "10/1h")})
	client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	for i := range 7 {
		id := fmt.Sprint("w", i)
		sendAccepted(t, client, "taro@example.jp", rcpts(id, 1), fromTaro(id))
	}
	verdictOn(t, r, "w6")
	if all := nearLines(r, "login-volume"); len(all) != 0 {
		t.Errorf("told at 7 of 10: %q", all)
	}
	for i := 7; i < 10; i++ {
		id := fmt.Sprint("w", i)
		sendAccepted(t, client, "taro@example.jp", rcpts(id, 1), fromTaro(id))
	}
	eventually(t, "it is told", func() bool { return len(nearLines(r, "login-volume")) > 0 })
	sendAccepted(t, client, "taro@example.jp", rcpts("over", 1), fromTaro("over"))
	wantVerdict(t, r, "over", "hold", "login-volume", "login:taro@example.jp")
	if all := nearLines(r, "login-volume"); len(all) != 1 || !strings.Contains(all[0], `"account":"login:taro@example.jp"`) {
		t.Errorf("told %d times: %q", len(all), all)
	}
}

// Whom a limit is about, and which of a message's recipients count.
func TestConditionsOfLimits(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{Config: `
[inside]
free = true

[[limit]]
name = "free-inside"
per = "login"
windows = ["6/1h"]
[limit.when]
origins = ["login:taro@example.jp"]
max_recipients = 9

[[limit]]
name = "all-inside"
per = "login"
recipients = "inside"
windows = ["3/1h"]
[limit.when]
origins = ["login:hanako@*"]

[[limit]]
name = "large"
per = "login"
counts = "messages"
windows = ["1/1h"]
[limit.when]
min_size = 20_000

[[limit]]
name = "lists"
per = "login"
counts = "messages"
windows = ["1/1h"]
[limit.when]
header = ["List-Id", "Precedence"]

[[limit]]
name = "night"
per = "login"
counts = "messages"
windows = ["1/1h"]
[limit.when]
min_recipients = 10
`})
	const taro, hanako = "taro@example.jp", "hanako@example.jp"
	clients := map[string]*smtptest.Client{taro: loggedIn(t, r.Postfix, relay.Submission, taro), hanako: loggedIn(t, r.Postfix, relay.Submission, hanako)}
	inside := func(n int) (to []string) {
		for i := range n {
			to = append(to, fmt.Sprintf("person%d@example.jp", i))
		}
		return to
	}
	large := strings.Repeat(strings.Repeat("x", 79)+"\n", 300)
	for i, c := range []struct {
		login, rule string // rule: that holds it
		to          []string
		field, body string
	}{
		{taro, "", slices.Concat(inside(5), rcpts("c0", 4)), "", ""}, // four count
		{taro, "", inside(9), "", ""},
		{taro, "", rcpts("c2", 2), "", ""},
		{taro, "", slices.Concat(rcpts("c3", 10)), "", ""}, // not about so many
		{taro, "night", rcpts("c4", 10), "", ""},           // but this one is
		{taro, "free-inside", rcpts("c5", 1), "", ""},
		{hanako, "", slices.Concat(inside(3), rcpts("c6", 5)), "", ""},
		{hanako, "all-inside", inside(1), "", ""},
		{hanako, "", rcpts("c8", 5), "", ""}, // none of them counts
		{hanako, "", rcpts("c9", 1), "", large},
		{hanako, "large", rcpts("c10", 1), "", large},
		{hanako, "", rcpts("c11", 1), "Precedence: bulk", ""},
		{hanako, "lists", rcpts("c12", 1), aList, ""},
		{hanako, "", rcpts("c13", 1), "", ""}, // waits behind none of these
	} {
		id := fmt.Sprint("c", i)
		fields := []string{"From: " + c.login}
		if c.field != "" {
			fields = append(fields, c.field)
		}
		sendAccepted(t, clients[c.login], c.login, c.to, letter(id, fields...)+c.body)
		verdict := "accept"
		if c.rule != "" {
			verdict = "hold"
		}
		wantVerdict(t, r, id, verdict, c.rule, "login:"+c.login)
	}
	wantOnce(t, r.Postfix, "c2-0@example.net", "c8-4@example.net", "c13-0@example.net")
}

// An address that stands for ten is charged as one, and nine afterwards, from the
// log. The second time it is known.
func TestAnAliasIsChargedInAdvanceOnceKnown(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{
		Config: perLogin("login-volume", "", "25/1h"),
		Postfix: postfixtest.Options{
			Main:  map[string]string{"virtual_alias_maps": "texthash:$config_directory/lists"},
			Files: map[string]string{"lists": "ten@example.jp " + strings.Join(rcpts("ten", 10), ", ") + "\n"},
		},
	})
	const taro = "taro@example.jp"
	client := loggedIn(t, r.Postfix, relay.Submission, taro)
	amount := func(id string) int64 {
		t.Helper()
		var found []decided
		eventually(t, "the journal has it", func() bool {
			found = ask[[]decided](t, r, 0, "decisions", "--message-id", "<"+id+">")
			return len(found) == 1
		})
		for _, c := range ask[[]explained](t, r, 0, "explain", found[0].ID)[0].Decision.Limits {
			if c.Limit == "login-volume" {
				return c.Amount
			}
		}
		return -1
	}
	sendAccepted(t, client, taro, []string{"ten@example.jp"}, fromTaro("first"))
	wantUsed(t, r, taro, "login-volume", 10)
	if n := amount("first"); n != 1 {
		t.Errorf("the first was charged %d in advance, of an address nobody wrote to", n)
	}
	for _, to := range rcpts("ten", 10) {
		wantArrived(t, r.Postfix, to)
		r.Sink.Refuse(to, tempfail) // the log tells of no more deliveries
	}
	if err := errors.Join(r.StopGuard(syscall.SIGTERM), r.StartGuard(soon(t))); err != nil {
		t.Fatal(err)
	}
	client = loggedIn(t, r.Postfix, relay.Submission, taro)
	sendAccepted(t, client, taro, []string{"ten@example.jp"}, fromTaro("second"))
	wantStanding(t, r, taro, "login-volume", 20, 25, "file")
	if n := amount("second"); n != 10 {
		t.Errorf("the second was charged %d in advance, want 10", n)
	}
	sendAccepted(t, client, taro, []string{"ten@example.jp"}, fromTaro("third"))
	if v := verdictOn(t, r, "third"); v.Verdict != "hold" || v.Rule != "login-volume" || !strings.Contains(v.Reason, "20 of 25 recipients in 1h used by login:taro@example.jp, this message has 10") {
		t.Errorf("the third, which would be too many: %s", v.Raw)
	}
	for _, to := range rcpts("ten", 10) {
		r.Sink.Refuse(to, nothing)
	}
	if _, err := r.Command(soon(t), "postqueue", "-f"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second arrives", func() bool { return recipientsAtSink(r.Postfix)["ten-9@example.net"] == 2 })
	wantUsed(t, r, taro, "login-volume", 20) // what was paid in advance is not paid again
}
