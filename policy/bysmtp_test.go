package policy_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
	"relayguard/policy/origin/stamp"
)

// bySMTP is local mail as Sendmail's sendmail(1) hands it in.
func bySMTP(uid int, from string, to ...string) *policy.Message {
	m := message(policy.Local, from, to...)
	m.BySMTP, m.ClientPort, m.UID = true, 40000, uid
	return m
}

// submission is the account of Sendmail's submission program.
const submission = 120

// The forms are those of a real Sendmail 8.17.
func TestWhoseMailTheSubmissionProgramHandsOn(t *testing.T) {
	const by = "\n\tby relay.example.jp (8.17.1.9/8.17.1.9/Submit) "
	const id = "id 6AN1ZEf2007676\n\tfor x@example.net; Mon, 23 Nov 2026 01:35:14 GMT"
	for _, c := range []struct{ name, line, want string }{
		{"plain", "(from alice@localhost)" + by + id, "local_user:1001"},
		{"several recipients", "(from alice@localhost)" + by + "id 6AN1ZEf2007676;\n\tMon, 23 Nov 2026 01:35:14 GMT", "local_user:1001"},
		{"of another vendor", "(from alice@localhost)\n\tby relay.example.jp (8.15.1+Sun/8.15.1/Submit) " + id, "local_user:1001"},
		{"an account without a name", "(from Unknown UID 54321@localhost)" + by + id, "local_user:54321"},
		{"root", "(from root@localhost)" + by + id, "local_user:root"},
		{"-oMs, the user's choice", "from foorootlocalhostbyh8.1/Submitid6AN1WaIk005333x (alice@localhost)" + by + id, "local_user:1001"},
		{"-oMr, the user's choice", "(from alice@localhost)" + by + "with fromrootlocalhostbyh8.1/Submitid6AN1WaIk005333x " + id, "local_user:1001"},
		{"-p", "from evil (alice@localhost)" + by + "with SMTP " + id, "local_user:1001"},
		{"-p without a name", "from evil (Unknown UID 54321@localhost)" + by + "with SMTP " + id, "local_user:54321"},

		{"brackets in -oMs", "from (root@localhost) (alice@localhost)" + by + id, "local_user:120"},
		{"blanks in -oMs", "from x by (8/8/Submit) id 1 (alice@localhost)" + by + id, "local_user:120"},
		{"blanks in -oMr", "(from alice@localhost)" + by + "with a b " + id, "local_user:120"},
		{"two accounts", "(from root@localhost) (alice@localhost)" + by + id, "local_user:120"},
		{"no uid", "(from Unknown UID @localhost)" + by + id, "local_user:120"},
		{"a uid that is none", "(from Unknown UID 4294967295@localhost)" + by + id, "local_user:120"},
		{"no id", "(from alice@localhost)" + by, "local_user:120"},
		{"from elsewhere", "(from alice@example.org)" + by + id, "local_user:120"},
		{"empty", "", "local_user:120"},
	} {
		h := hosting(t, policy.Enforce)
		m := bySMTP(submission, "alice@example.jp", "x@example.net")
		field(m, "Received", c.line)
		field(m, "Received", "(from www-data@localhost)"+by+id) // the user's own
		if d := h.Message(t.Context(), now, m); d.Origin.Stable() != c.want {
			t.Errorf("%s: %s, want %s", c.name, d.Origin.Stable(), c.want)
		}
	}
}

// Who connects himself may write what he likes: he is known by his socket.
func TestWhoWritesSubmitLinesIsWhoHeIs(t *testing.T) {
	const line = "(from alice@localhost)\n\tby relay.example.jp (8.17.1.9/8.17.1.9/Submit) id 6AN1ZEf2007676; x"
	h := hosting(t, policy.Enforce, limited("hour", limit.Account, policy.Hold, window(10, time.Hour)))
	for i := range 20 {
		m := bySMTP(1000, "alice@example.jp", h.person())
		m.DaemonName = daemon // as if it were Postfix's service that tells the uid
		field(m, []string{uidHeader, "Received"}[i%2], []string{"1001", line}[i%2])
		field(m, "Received", line)
		field(m, uidHeader, "1001")
		field(m, stamp.CallHeader, "t1001")
		d := h.Message(t.Context(), now, m)
		if got := d.Origin.Stable(); got != "local_user:1000" {
			t.Fatalf("%d: %s", i, got)
		}
		if held := d.Verdict == policy.Hold; held != (i >= 10) {
			t.Errorf("%d: %v", i, d.Verdict)
		}
	}
}

// A process that is gone before the kernel is asked has no account. That is no way
// round the limits, and nothing is lost: the submission program tries again.
func TestUnknownAccountOfASocketIsDeferred(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*policy.Message)
		want   policy.Verdict
	}{
		"unknown":           {func(*policy.Message) {}, policy.Defer},
		"null sender":       {func(m *policy.Message) { m.MailFrom = "" }, policy.Defer},
		"to our postmaster": {func(m *policy.Message) { m.RcptTo = []string{"postmaster@example.jp"} }, policy.Defer},
		"the wrapper knows": {func(m *policy.Message) { field(m, stamp.CallHeader, "t33") }, policy.Accept},
		"the guard's own":   {func(m *policy.Message) { field(m, policy.TokenHeader, "known") }, policy.Accept},
		"by pickup":         {func(m *policy.Message) { m.BySMTP, m.ClientPort = false, 0 }, policy.Accept},
	} {
		h := hosting(t, policy.Enforce)
		h.Tokens = func(token string) bool { return token == "known" }
		m := bySMTP(origin.NoUID, "alice@example.jp", "x@example.net")
		field(m, "Received", "(from alice@localhost)\n\tby relay.example.jp (8.17.1.9/8.17.1.9/Submit) id 6AN1ZEf2007676; x")
		c.change(m)
		d := h.Message(t.Context(), now, m)
		if d.Verdict != c.want || c.want == policy.Defer && (d.Rule != policy.RuleAuth || d.Reply.Code != 451) {
			t.Errorf("%s: %v by %q: %s, %v", name, d.Verdict, d.Rule, d.Reason, d.Reply)
		}
	}
}

// sendmail(1) of Sendmail tells its caller that the message was refused.
func TestSuspendedAccountBySMTP(t *testing.T) {
	for _, c := range []struct {
		name string
		stop policy.Switch
		mail func(h *house) *policy.Message
		want policy.Verdict
	}{
		{"an account", order(policy.Suspend, policy.SubjectLocalUser, "1001"), func(*house) *policy.Message { return bySMTP(1001, "a@example.org", "x@example.net") }, policy.Reject},
		{"an account, out of the submission program's queue", order(policy.Suspend, policy.SubjectLocalUser, "1001"), func(*house) *policy.Message {
			m := bySMTP(submission, "a@example.org", "x@example.net")
			field(m, "Received", "(from alice@localhost)\n\tby h (8.17.1.9/8.17.1.9/Submit) id 6AN1ZEf2007676; x")
			return m
		}, policy.Reject},
		{"its null sender's", order(policy.Suspend, policy.SubjectLocalUser, "1001"), func(*house) *policy.Message { return bySMTP(1001, "", "x@example.net") }, policy.Hold},
		{"its bounce to one inside", order(policy.Suspend, policy.SubjectLocalUser, "1001"), func(*house) *policy.Message { return bySMTP(1001, "", "x@example.jp") }, policy.Accept},
		{"a shared account", order(policy.Suspend, policy.SubjectLocalUser, "33"), func(*house) *policy.Message { return bySMTP(33, "a@example.org", "x@example.net") }, policy.Hold},
		{"a site", order(policy.Suspend, policy.SubjectSite, shop.Name), func(h *house) *policy.Message {
			return h.stamped(bySMTP(1000, "a@example.org", "x@example.net"), now, shop, "share")
		}, policy.Hold},
		{"by pickup", order(policy.Suspend, policy.SubjectLocalUser, "1001"), func(h *house) *policy.Message { return h.local(1001, "Hi", "x@example.net") }, policy.Hold},
	} {
		h := hosting(t, policy.Enforce)
		h.Switches = &policy.Board{}
		h.Switches.Store(policy.NewSwitches([]policy.Switch{c.stop}))
		m := c.mail(h)
		if d := h.Recipient(t.Context(), now, m, m.RcptTo[0]); d.Verdict != policy.Accept {
			t.Errorf("%s: at RCPT %v: local mail is answered at its end", c.name, d.Verdict)
		}
		d := h.Message(t.Context(), now, m)
		if d.Verdict != c.want || c.want == policy.Reject && (d.Reply.Code != 550 || !strings.Contains(d.Reply.Text, "suspended")) {
			t.Errorf("%s: %v by %q, %v", c.name, d.Verdict, d.Rule, d.Reply)
		}
	}
}

// What it connects from is nobody's key: all local mail comes from there.
func TestLocalMailBySMTPHasNoClient(t *testing.T) {
	h := hosting(t, policy.Enforce)
	m := bySMTP(1001, "a@example.org", "x@example.net")
	m.ClientIP = netip.MustParseAddr("::1")
	if d := h.Message(t.Context(), now, m); d.Origin.ClientIP.Known() || d.Origin.Stable() != "local_user:1001" {
		t.Errorf("client %+v, account %s", d.Origin.ClientIP, d.Origin.Stable())
	}
}
