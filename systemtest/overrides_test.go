package systemtest

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/systemtest/relay"
)

// stands is how an account stands, as limits show WHO tells of it.
type stands struct {
	Verdict string `json:"verdict"`
	Rule    string `json:"rule"`
	Reason  string `json:"reason"`
	Limits  []struct {
		Limit   string       `json:"limit"`
		Key     string       `json:"key"`
		Source  string       `json:"source"`
		Windows []windowSays `json:"windows"`
		Latched bool         `json:"latched"`
		Waiting int          `json:"waiting"`
	} `json:"limits"`
}

// windowSays is one window of it.
type windowSays struct {
	Seconds float64   `json:"seconds"`
	Used    int64     `json:"used"`
	Count   int64     `json:"count"`
	Over    bool      `json:"over"`
	FreeAt  time.Time `json:"free_at"`
}

// standing is how an account stands under a limit: used and count of its first
// window, and where that comes from.
func standing(t *testing.T, r *relay.Relay, who, limit string) (used, count int64, source string) {
	t.Helper()
	for _, l := range ask[stands](t, r, 0, "limits", "show", who).Limits {
		if l.Limit == limit && len(l.Windows) > 0 {
			return l.Windows[0].Used, l.Windows[0].Count, l.Source
		}
	}
	t.Errorf("limits show %s: nothing of %s", who, limit)
	return 0, 0, ""
}

// wantStanding checks it; source is a part of where the windows come from.
func wantStanding(t *testing.T, r *relay.Relay, who, limit string, used, count int64, source string) {
	t.Helper()
	if u, c, s := standing(t, r, who, limit); u != used || c != count || !strings.Contains(s, source) {
		t.Errorf("%s under %s: %d of %d from %q, want %d of %d from %q", who, limit, u, c, s, used, count, source)
	}
}

// restartHard kills the guard and starts it again, once what it has counted is
// in its file.
func restartHard(t *testing.T, r *relay.Relay) {
	t.Helper()
	time.Sleep(500 * time.Millisecond) // what it does within 100 ms, on a machine with other things to do
	if err := r.StopGuard(os.Kill); err != nil {
		t.Fatal(err)
	}
	if err := r.StartGuard(soon(t)); err != nil {
		t.Fatal(err)
	}
}

// What an account has used of what it may, and who gave it that: the question of
// every call to the help desk.
func TestLimitsShow33Of1000Used(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{Config: perLogin("login-volume", "burst = \"50/10m\"", "1000/1h") + `
[[limit]]
name = "server-volume"
per = "server"
windows = ["5000/1d"]
`})
	taro := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	begin := time.Now()
	sendAccepted(t, taro, "taro@example.jp", rcpts("many", 33), fromTaro("many"))
	shows := func() {
		t.Helper()
		s := ask[stands](t, r, 0, "limits", "show", "taro@example.jp")
		if s.Verdict != "accept" || s.Rule != "" || len(s.Limits) != 2 {
			t.Fatalf("limits show: %+v, want that a message to 10 people passes", s)
		}
		for _, l := range s.Limits {
			if l.Limit == "login-volume" && (l.Key != "login:taro@example.jp" || len(l.Windows) != 2) || l.Source != "file" {
				t.Errorf("%+v", l)
			}
			for _, w := range l.Windows {
				want := map[float64]int64{600: 50, 3600: 1000, 86400: 5000}[w.Seconds]
				if w.Used != 33 || w.Count != want || w.Over || !w.FreeAt.IsZero() && w.FreeAt.After(time.Now()) {
					t.Errorf("%s: %+v, want 33 of %d", l.Limit, w, want)
				}
			}
		}
		stdout, _ := order(t, r, 0, "limits", "show", "taro@example.jp")
		for _, want := range []string{"login-volume", "recipients", "10m", "50", "1h", "1000", "1d", "5000", "33", "file", "a message to 10 recipients: accept"} {
			if !strings.Contains(stdout, want) {
				t.Errorf("limits show does not say %q:\n%s", want, stdout)
			}
		}
	}
	shows()
	restartHard(t, r)
	shows()

	s := ask[stands](t, r, 0, "limits", "show", "login:taro@example.jp", "--recipients", "18")
	i := slices.IndexFunc(s.Limits[0].Windows, func(w windowSays) bool { return w.Over })
	if s.Verdict != "hold" || s.Rule != "login-volume" || !strings.Contains(s.Reason, "33 of 50 recipients in 10m used") || i < 0 {
		t.Fatalf("of a message to 18 people: %+v", s)
	}
	if free := s.Limits[0].Windows[i].FreeAt; free.Before(begin.Add(10*time.Minute)) || free.After(time.Now().Add(10*time.Minute*17/16)) {
		t.Errorf("free again at %v, the 33 went at %v", free, begin)
	}
	// It was right, and to ask was free.
	taro = loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp") // the session before knew the daemon before
	sendAccepted(t, taro, "taro@example.jp", rcpts("ten", 10), fromTaro("ten"))
	wantVerdict(t, r, "ten", "accept", "", "login:taro@example.jp")
	wantUsed(t, r, "taro@example.jp", "login-volume", 43)
	sendAccepted(t, taro, "taro@example.jp", rcpts("eight", 8), fromTaro("eight"))
	wantVerdict(t, r, "eight", "hold", "login-volume", "login:taro@example.jp")
	order(t, r, 2, "limits", "show", "")
	wantStanding(t, r, "nobody@example.org", "login-volume", 0, 50, "file")
	wantStanding(t, r, "nobody@example.org", "server-volume", 43, 5000, "file")
	top := ask[budgets](t, r, 0, "limits", "list", "--top", "2").Buckets
	if len(top) != 2 || top[0].Limit != "login-volume" || top[0].Used != 43 || top[0].Count != 50 {
		t.Errorf("limits list --top 2: %+v, want the fullest first", top)
	}
}

// Overrides of the file and the command line, the most specific first, and what
// outlives what.
func TestLimitsSetUnsetReset(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{
		Postfix: postfixtest.Options{Users: map[string]string{"taro@example.jp": "secret", "hanako@example.jp": "secret", "jiro@shop.example.jp": "secret"}},
		Config: perLogin("login-volume", "", "20/1h") + `
[[override]]
limit = "login-volume"
for = "customer:acme"
windows = ["12/1h"]
reason = "a small contract"

[[customer]]
name = "acme"
domains = ["shop.example.jp"]
logins = ["hanako@example.jp"]
`})
	const taro, hanako, jiro = "taro@example.jp", "hanako@example.jp", "jiro@shop.example.jp"
	wantStanding(t, r, taro, "login-volume", 0, 20, "file")
	wantStanding(t, r, hanako, "login-volume", 0, 12, "customer:acme")
	wantStanding(t, r, jiro, "login-volume", 0, 12, "customer:acme")

	order(t, r, 2, "limits", "set", "login-volume", "domain:example.jp", "--windows", "8/1h") // without a reason
	order(t, r, 2, "limits", "set", "login-volume", "domain:example.jp", "--reason", "no windows")
	order(t, r, 0, "limits", "set", "login-volume", "domain:example.jp", "--windows", "8/1h", "--reason", "new customer")
	order(t, r, 0, "limits", "set", "login-volume", taro, "--windows", "6/1h,9/1d", "--burst", "4/10m", "--until", "2099-12-31", "--reason", "look at him")
	all := func() {
		t.Helper()
		wantStanding(t, r, taro, "login-volume", 0, 4, "set for login:taro@example.jp by ")
		wantStanding(t, r, hanako, "login-volume", 0, 8, "set for domain:example.jp by ")
		wantStanding(t, r, jiro, "login-volume", 0, 12, "customer:acme")
	}
	all()
	restartHard(t, r)
	all()
	if _, _, source := standing(t, r, taro, "login-volume"); !strings.Contains(source, "until 2100-01-01T00:00:00Z") {
		t.Errorf("it does not say until when: %q", source)
	}
	order(t, r, 2, "limits", "set", "no-such-limit", taro, "--windows", "6/1h", "--reason", "a mistake")

	// They act, each at its own count.
	for _, c := range []struct {
		login string
		room  int
	}{{taro, 4}, {hanako, 8}, {jiro, 12}} {
		client := loggedIn(t, r.Postfix, relay.Submission, c.login)
		name, _, _ := strings.Cut(c.login, "@")
		sendAccepted(t, client, c.login, rcpts(name+"-fits", c.room), letter(name+"-fits", "From: "+c.login))
		wantVerdict(t, r, name+"-fits", "accept", "", "login:"+c.login)
		sendAccepted(t, client, c.login, rcpts(name+"-over", 1), letter(name+"-over", "From: "+c.login))
		wantVerdict(t, r, name+"-over", "hold", "login-volume", "login:"+c.login)
	}

	// What was used stays used; what there is room for now goes at once.
	order(t, r, 0, "limits", "unset", "login-volume", taro, "--reason", "he is well")
	wantArrived(t, r.Postfix, "taro-over-0@example.net") // the domain's eight
	wantStanding(t, r, taro, "login-volume", 5, 8, "set for domain:example.jp")
	order(t, r, 0, "limits", "unset", "login-volume", "domain:example.jp")
	wantStanding(t, r, taro, "login-volume", 5, 20, "file")
	wantArrived(t, r.Postfix, "hanako-over-0@example.net") // the customer's twelve
	wantStanding(t, r, hanako, "login-volume", 9, 12, "customer:acme")
	order(t, r, 1, "limits", "unset", "login-volume", "domain:example.jp")

	order(t, r, 0, "limits", "reset", jiro, "--limit", "login-volume", "--reason", "his bill is paid")
	wantArrived(t, r.Postfix, "jiro-over-0@example.net")
	wantStanding(t, r, jiro, "login-volume", 1, 12, "customer:acme")
	order(t, r, 1, "limits", "reset", "nobody@example.jp", "--reason", "who?")
	wantActions(t, r, [3]string{"set add", "login:" + taro, "login-volume 4/10m0s 6/1h0m0s 9/24h0m0s until 2100-01-01T00:00:00Z"},
		[3]string{"set add", "domain:example.jp", "login-volume 8/1h0m0s"}, [3]string{"set remove", "login:" + taro, "login-volume"}, [3]string{"limits reset", jiro, "login-volume"})
	wantOnce(t, r.Postfix, slices.Concat(rcpts("taro-fits", 4), rcpts("hanako-over", 1), rcpts("jiro-over", 1), rcpts("taro-over", 1))...)
}

// An announced mailing: so many pass beside the limits, and not one more.
func TestAllowBulk(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{Config: perLogin("login-volume", "", "5/1h") + perLogin("domain-volume", "[limit.when]\norigins = [\"domain:example.jp\"]", "500/1h")})
	const taro = "taro@example.jp"
	client := loggedIn(t, r.Postfix, relay.Submission, taro)
	sendAccepted(t, client, taro, rcpts("before", 5), fromTaro("before"))
	wantVerdict(t, r, "before", "accept", "", "login:"+taro)
	order(t, r, 2, "allow", "bulk", taro, "--count", "40", "--reason", "no end")
	order(t, r, 2, "allow", "bulk", taro, "--count", "0", "--until", tomorrow(), "--reason", "none")
	order(t, r, 0, "allow", "bulk", taro, "--count", "40", "--until", tomorrow(), "--reason", "the bills of November")
	if s := ask[stands](t, r, 0, "limits", "show", taro); s.Verdict != "accept" {
		t.Errorf("limits show: %+v", s)
	}
	for i := range 4 {
		if i == 2 {
			restartHard(t, r)
			client = loggedIn(t, r.Postfix, relay.Submission, taro)
		}
		id := fmt.Sprintf("bulk-%d", i)
		sendAccepted(t, client, taro, rcpts(id, 10), fromTaro(id)) // twice what its limit ever has room for
		wantVerdict(t, r, id, "accept", "", "login:"+taro)
	}
	sendAccepted(t, client, taro, rcpts("over", 1), fromTaro("over"))
	wantVerdict(t, r, "over", "hold", "login-volume", "login:"+taro)
	wantUsed(t, r, taro, "login-volume", 5) // the mailing took nothing of it
	wantOnce(t, r.Postfix, slices.Concat(rcpts("bulk-0", 10), rcpts("bulk-3", 10))...)
	wantActions(t, r, [3]string{"bulk add", "login:" + taro, "40 recipients until "})
}

func tomorrow() string { return time.Now().Add(24 * time.Hour).Format("2006-01-02T15:04:05Z07:00") }

// wantActions checks that the journal tells who ordered what: verb, for whom, and
// a part of what.
func wantActions(t *testing.T, r *relay.Relay, want ...[3]string) {
	t.Helper()
	type done struct {
		By, Verb, Target, Reason, Outcome string
	}
	all := ask[[]done](t, r, 0, "journal", "actions", "--limit", "100")
	for _, w := range want {
		if !slices.ContainsFunc(all, func(a done) bool {
			return a.By == "root" && a.Verb == w[0] && strings.HasSuffix(a.Target, w[1]) && strings.Contains(a.Outcome, w[2])
		}) {
			t.Errorf("the journal does not tell of %q: %+v", w, all)
		}
	}
}
