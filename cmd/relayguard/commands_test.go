package main

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/holds"
	"relayguard/incident"
	"relayguard/policy"
	"relayguard/policy/limit"
)

var (
	noon = time.Now().Add(-3 * time.Hour).Truncate(time.Second)
	uid  = 33
)

func someStatus() status {
	return status{Version: "1", Now: noon.Add(time.Hour), Since: noon, Phase: "learning", Suspended: []policy.Switch{},
		Held: holds.Total{Messages: 12, Bytes: 1_500_000}, Foreign: 3, Store: storeStatus{Kind: "sqlite", OK: true, Buckets: 40}, Messages: map[string]int64{"accept": 1234, "hold": 12}, Refused: 5,
		Journal: journalStatus{OK: true, Text: "fine"}, Log: logStatus{Source: "/var/log/mail.log", Events: 10, Delivered: 9}}
}

func someIncident(origin string) incident.Incident {
	return incident.Incident{ID: "i-0d5kqw3m8x", Origin: origin, Cause: "login-volume", Noticed: "verdict hold", Opened: noon, Updated: noon.Add(time.Minute), Stops: 17, Recipients: 230,
		First: "0d5kqw3m8x7y0", Last: "0d5kqw3m8x7ya", Notes: []incident.Note{{Time: noon, Text: "opened: " + origin}}}
}

func someHeld(id, who string) desk.Held {
	return desk.Held{QueueID: id, ID: "0d5kqw3m8x7ya", Account: "login:" + who, Rule: "login-volume", Reason: "over 300/1h: " + who, MailFrom: who, Arrival: noon, HeldAt: noon,
		Size: 2310, Recipients: 37, Domains: map[string]int{"example.net": 30, "example.org": 7}, State: "held", HeldBy: "relayguard"}
}

func someDecision(who string) desk.Decision {
	return desk.Decision{ID: "0d5kqw3m8x7ya", Time: noon, Stage: "message", Verdict: "hold", Rule: "login-volume", Reason: "over: " + who, Phase: "learning", Listener: "submission", Role: "submission",
		Account: "login:" + who, Confidence: "kernel", Login: who, LoginBy: "PLAIN", LocalUser: who, UID: &uid, Network: who, ClientIP: "203.0.113.7", ClientName: who, Helo: who, MailFrom: who, HeaderFrom: who,
		MessageID: who, QueueID: "4ZJ1k82Vz1y", Size: 2310, Recipients: 37, Domains: map[string]int{who: 30, "example.org": 7}, Late: true, Repeats: 4, LastRepeat: noon.Add(time.Minute),
		Findings: []desk.Finding{{Rule: "from-address", Verdict: "tell", Reason: who}, {Rule: "login-volume", Verdict: "hold", Reason: "over: " + who}},
		Limits: []desk.Counter{{Limit: "login-volume", Key: "login:" + who, Unit: "recipients", Kind: "volume", Window: 3600, Count: 300, Used: 290, Amount: 37, Over: true, FreeAt: time.Now().Add(2 * time.Hour)},
			{Limit: "login-volume", Key: "login:" + who, Unit: "recipients", Kind: "volume", Window: 86400, Count: 1500, Used: 290, Amount: 37},
			{Limit: "burst", Key: "login:" + who, Unit: "messages", Kind: "abuse", Window: 600, Count: 15, Used: 15, Amount: 1, Over: true, Latched: true}}}
}

// everything answers every operation that reads with what a hostile sender chose.
func everything(t *testing.T, who string) *fakeDaemon {
	d := newFakeDaemon(t)
	s := someStatus()
	s.Incidents = []incident.Incident{someIncident("login:" + who)}
	s.Suspended = []policy.Switch{{ID: "s1", Kind: policy.Suspend, Subject: policy.SubjectLogin, Value: who, Reason: who, By: who, Since: noon, Until: noon.Add(time.Hour * 100)}}
	s.Stopped = &policy.Switch{Kind: policy.Stop, Reason: who, By: who, Since: noon}
	s.Queue, s.Journal.Text, s.MTAStop, s.Forbidden = who, who, who, []string{who}
	d.always("GET /v1/status", s)
	d.always("GET /v1/decisions", []desk.Decision{someDecision(who)})
	d.always("GET /v1/explain/{id}", []desk.Explanation{{Decision: ptr(someDecision(who)), Delivered: map[string]int64{"sent": 3, "deferred": 1}, Held: []desk.Held{someHeld("4ZJ1k82Vz1y", who)}, Suspended: &s.Suspended[0]}})
	foreign := desk.Held{QueueID: "4ZJ1k82Vz2z", MailFrom: who, HeldAt: noon, State: "held", HeldBy: "other"}
	d.always("POST /v1/held/list", desk.List{Held: []desk.Held{someHeld("4ZJ1k82Vz1y", who), foreign}, Foreign: 1, Looked: noon, Stale: who})
	d.lines("POST /v1/held/list/stream", desk.HeldLine{Message: ptr(someHeld("4ZJ1k82Vz1y", who))}, desk.HeldLine{Message: &foreign}, desk.HeldLine{End: &desk.HeldEnd{Messages: 1, Bytes: 2310, Foreign: 1, Looked: noon, Stale: who}})
	failed := desk.Done{Held: someHeld("4ZJ1k82Vz1y", who), Outcome: "failed", Error: who}
	for _, path := range []string{"held/act/stream", "queue/act"} {
		d.lines("POST /v1/"+path, desk.Step{Total: 1, Done: 1, Counts: map[string]int{"failed": 1}, Messages: []desk.Done{failed}, Unknown: []string{who}, Cut: who})
	}
	queued := someQueued("4ZJ1k82Vz1y", who)
	d.lines("POST /v1/queue/list", desk.QueueLine{Message: &queued}, desk.QueueLine{End: &desk.QueueEnd{Messages: 1, Bytes: 2310, Seen: 2, Skipped: 1, Problem: who, NoJournal: who}})
	d.always("POST /v1/queue/show", []desk.QueueShown{{Queued: queued, Decision: ptr(someDecision(who)), Held: []desk.Held{someHeld("4ZJ1k82Vz1y", who)}}})
	d.always("POST /v1/queue/summary", someSummary(who))
	d.always("POST /v1/held/inspect", desk.Inspected{Held: someHeld("4ZJ1k82Vz1y", who), Text: []byte("Subject: " + who + "\n\tfolded\n")})
	d.always("POST /v1/suspend", desk.Suspended{Account: "login:" + who, Switch: s.Suspended[0], Held: 3, Local: who, Remarks: []string{who}})
	d.always("POST /v1/resume", desk.Resumed{Account: "login:" + who, Was: true, Opened: []string{who}, Probation: "half of each limit until x", Held: 3, Remarks: []string{who}})
	d.always("POST /v1/stop", desk.Stopped{Held: 4, Caveats: []string{who}})
	d.always("POST /v1/start", desk.Started{Was: true, Released: map[string]int{"done": 4}, Remarks: []string{who}})
	d.always("GET /v1/switches", []policy.Switch{{ID: "s2", Kind: policy.Deny, Subject: policy.SubjectHelo, Value: who, Reason: who, By: who}, {ID: "s3", Kind: policy.Allow, Subject: policy.SubjectLogin, Value: who, Rule: who, Reason: who, By: who}})
	d.always("GET /v1/limits", limitList{Limits: []limitShown{{Name: "login-volume", Per: "login", Counts: "recipients", Kind: "volume", Then: "hold", Windows: []string{"300/1h"}, Burst: "150/10m", Tells: []string{"300/1h"}}}, Buckets: []bucketShown{{Limit: "login-volume", Key: "login:" + who, Window: 3600, Used: 290, Count: 300, FreeAt: time.Now().Add(time.Hour)}}})
	d.always("GET /v1/limits/of", limitsOf{Who: who, Recipients: 10, Verdict: "hold", Rule: "login-volume", Reason: "over: " + who,
		Limits: []standing{{Limit: "login-volume", Key: "login:" + who, Per: "login", Counts: "recipients", Kind: "volume", Then: "hold", Scope: "outside", When: who, Source: "set for login:" + who, Waiting: 3,
			Windows: []windowShown{{Seconds: 600, Used: 33, Count: 1000, Tells: true}, {Seconds: 3600, Used: 995, Count: 1000, Over: true, FreeAt: time.Now().Add(time.Hour)}}},
			{Limit: "burst", Key: "login:" + who, Counts: "messages", Scope: "all", Source: "default", Latched: true, Windows: []windowShown{{Seconds: 600, Used: 1, Count: 1}}}}})
	d.always("GET /v1/held/lines", []desk.Line{{Limit: "login-volume", Key: "login:" + who, Account: "login:" + who, Waiting: 7, Oldest: noon, QueueID: "4ZJ1k82Vz1y", NextFree: time.Now().Add(time.Hour)}, {Limit: "login-volume", Account: "login:" + who, Waiting: 1, Oldest: noon, Stopped: who}})
	set := policy.Switch{ID: "s7", Kind: policy.Set, Subject: policy.SubjectLogin, Value: who, Rule: "login-volume", Windows: []limit.Window{{Count: 600, Length: time.Hour}, {Count: 3000, Length: 24 * time.Hour}}, By: who, Reason: who}
	bulk := policy.Switch{ID: "s8", Kind: policy.Bulk, Subject: policy.SubjectLogin, Value: who, Count: 8000, Until: noon.Add(1000 * time.Hour), By: who, Reason: who}
	d.always("POST /v1/limits/set", []given{{Switch: set, Remarks: []string{who}}})
	d.always("POST /v1/limits/unset", []given{{Switch: set}})
	d.always("POST /v1/limits/reset", forgotten{Reset: []bucketShown{{Limit: "login-volume", Key: "login:" + who, Window: 3600, Used: 290, Count: 300}}})
	d.always("POST /v1/bulk", []given{{Switch: bulk, Remarks: []string{who}}})
	d.always("POST /v1/held/pace", []given{{Switch: policy.Switch{ID: "s9", Kind: policy.Pause, Subject: policy.SubjectLogin, Value: who, By: who, Reason: who}}})
	d.always("GET /v1/incidents", []incident.Incident{someIncident("login:" + who)})
	d.always("GET /v1/actions", []action{{Time: noon, By: who, Verb: "held release", Target: who, Reason: who, Outcome: who}})
	return d
}

func ptr[T any](v T) *T { return &v }

// lookers are command lines that show what others chose.
var lookers = []string{
	"status", "decisions", "explain 0d5kqw3m8x7ya", "held list", "held show 4ZJ1k82Vz1y", "held show 4ZJ1k82Vz1y --headers --reason r", "held release 4ZJ1k82Vz1y", "held release --dry-run --all",
	"queue list", "queue list --sort age", "queue summary", "queue show 4ZJ1k82Vz1y", "queue hold 4ZJ1k82Vz1y", "queue release 4ZJ1k82Vz1y", "queue delete --dry-run --all", "queue requeue 4ZJ1k82Vz1y",
	"suspend taro --reason r", "resume taro --cause c", "stop --reason r", "start", "deny list", "allow list", "limits list", "limits show", "limits show x", "limits set l x --windows 1/1h --reason r", "limits unset l x", "limits reset x --reason r", "allow bulk x --count 8000 --for 2d --reason r",
	"held pace list", "held pace stop x --reason r", "held pace start x", "incident list", "incident show i-0d5kqw3m8x", "journal actions",
}

func TestWhatSendersChooseDoesNothingToATerminal(t *testing.T) {
	d := everything(t, hostile)
	for _, line := range lookers {
		term := newTerminal(t, 80)
		code, shown, stderr := term.run(t, "", append(strings.Fields(line), "--config", d.config)...)
		gaps := line == "held list" || strings.HasPrefix(line, "queue list") || line == "queue summary" // what is told of them says that it is not all
		if code == exitUsage || code == exitCannotTell && !gaps || shown == "" {
			t.Errorf("%s: exit %d, shown %q, stderr %q", line, code, shown, stderr)
		}
		noTricks(t, line, shown)
		noTricks(t, line+" (stderr)", stderr)
	}
}

func TestTablesFit80Columns(t *testing.T) {
	d := everything(t, "taro.with.a.rather.long.name@a-long-domain-name.example.jp")
	for _, line := range lookers {
		term := newTerminal(t, 80)
		_, shown, _ := term.run(t, "", append(strings.Fields(line), "--config", d.config)...)
		if !strings.HasPrefix(line, "held show 4ZJ1k82Vz1y --headers") && line != "explain 0d5kqw3m8x7ya" && !strings.HasPrefix(line, "incident show") && line != "status" && line != "queue summary" { // these have sentences or commands, in which a long word stays whole
			fits(t, line, shown, 80)
		}
	}
}

func TestTablesOfAverageNamesFit80Columns(t *testing.T) {
	d := everything(t, "taro@example.jp")
	for _, line := range lookers {
		term := newTerminal(t, 80)
		_, shown, _ := term.run(t, "", append(strings.Fields(line), "--config", d.config)...)
		fits(t, line, shown, 80)
	}
}

func TestJSONIsJSONAndHarmless(t *testing.T) {
	d := everything(t, hostile)
	for _, line := range lookers {
		_, stdout, stderr := d.run(append(strings.Fields(line), "--json")...)
		if !json.Valid([]byte(stdout)) {
			t.Errorf("%s: %q (%s)", line, stdout, stderr)
		}
		noTricks(t, line, stdout)
	}
}

func TestStatusNamesOpenIncidentsFirst(t *testing.T) {
	d := newFakeDaemon(t)
	s := someStatus()
	s.Incidents = []incident.Incident{someIncident("login:taro@example.jp")}
	d.always("GET /v1/status", s)
	term := newTerminal(t, 80)
	code, shown, stderr := term.run(t, "", "status", "--config", d.config)
	want := "ORIGIN                 CAUSE         SINCE  STOPS  EXPLAIN\n" +
		"login:taro@example.jp  login-volume  1h        17  0d5kqw3m8x7ya\n" +
		"why: relayguard explain 0d5kqw3m8x7ya\n\nphase:    learning: bursts and abuse limits act, what else is wrong is told\n"
	if code != exitFinding || !strings.HasPrefix(shown, want) || stderr != "" {
		t.Errorf("exit %d, stderr %q, shown:\n%s\nwant:\n%s", code, stderr, shown, want)
	}
	for _, part := range []string{"12 messages (1.5 MB) by relayguard, 3 by others", "1234 accept, 12 hold; 5 recipients refused before there was a message;\n          since 1h", "journal:  fine"} {
		if !strings.Contains(shown, part) {
			t.Errorf("no %q in\n%s", part, shown)
		}
	}
}

func TestStatusExits1ForWhatAnAdminShouldSee(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*status)
		code   int
		says   string
	}{
		"quiet":      {func(*status) {}, exitFine, "no open incident\n"},
		"incident":   {func(s *status) { s.Incidents = []incident.Incident{someIncident("login:a")} }, exitFinding, "login:a"},
		"red switch": {func(s *status) { s.Stopped = &policy.Switch{Reason: "spam run", By: "root", Since: noon} }, exitFinding, "by root: spam run"},
		"journal":    {func(s *status) { s.Journal = journalStatus{Text: "log: disk full", Backlog: 7} }, exitFinding, "log: disk full; 7 records in memory only"},
		"hold queue": {func(s *status) { s.Queue = "root helper not reachable" }, exitFinding, "root helper not reachable"},
		"suspension": {func(s *status) { s.Suspended = []policy.Switch{{Subject: "login", Value: "taro", By: "root"}} }, exitFine, "login:taro until it is resumed"},
		"gap":        {func(s *status) { s.Log.Gaps = 2 }, exitFine, "2 gaps; deliveries may be missing from explain"},
		"no log": {func(s *status) {
			s.Log = logStatus{Source: "/var/log/mail.log", Problem: "open /var/log/mail.log: no such file"}
		}, exitFine, "cannot be read, so what becomes of mail is not known: open /var/log/mail.log: no such file"},
		"log not read": {func(s *status) { s.Log = logStatus{Source: "none"} }, exitFine, "what becomes of mail is not known"},
	} {
		d := newFakeDaemon(t)
		s := someStatus()
		c.change(&s)
		d.always("GET /v1/status", s)
		code, stdout, stderr := d.run("status")
		if code != c.code || !strings.Contains(strings.Join(strings.Fields(stdout), " "), strings.TrimSpace(c.says)) || stderr != "" {
			t.Errorf("%s: exit %d, stderr %q, stdout:\n%s", name, code, stderr, stdout)
		}
	}
}

func TestCommandsWithoutADaemonExit3AndSayWhatHelps(t *testing.T) {
	config, socket := commandDir(t)
	for _, line := range []string{"status", "status --json", "suspend taro --reason r", "resume taro --cause c", "deny list", "deny add client 203.0.113.7 --reason r", "deny remove s1", "allow list", "limits list", "limits show", "limits show taro", "limits set l taro --windows 1/1h --reason r", "limits unset l taro", "limits reset taro --reason r", "limits export", "allow bulk taro --count 1 --for 1h --reason r", "held pace list", "held pace stop taro --reason r", "metrics", "incident list", "incident show i-1", "journal purge --account a --reason r --yes"} {
		code, stdout, stderr := runIn(t, append(strings.Fields(line), "--config", config)...)
		if code != exitCannotTell || !strings.Contains(stderr, "the daemon does not run: nobody answers on "+socket) || !strings.Contains(stderr, "systemctl start relayguard") {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", line, code, stdout, stderr)
		}
	}
	if _, _, stderr := runIn(t, "status", "--config", config); !strings.Contains(stderr, "its socket is not there") {
		t.Error(stderr)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false) // as one that was killed leaves it
	l.Close()
	if code, _, stderr := runIn(t, "status", "--config", config); code != exitCannotTell || !strings.Contains(stderr, "killed or crashed: it left its socket, started 20") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

func TestRefusalsOfTheDaemonHaveTheirExitCodes(t *testing.T) {
	for status, want := range map[int]int{http.StatusBadRequest: exitUsage, http.StatusNotFound: exitFinding, http.StatusForbidden: exitCannotTell, http.StatusInternalServerError: exitCannotTell} {
		d := newFakeDaemon(t)
		d.on("POST /v1/suspend", func(json.RawMessage) (any, error) { return nil, control.Errorf(status, "it says \x1b[2Jno") })
		code, stdout, stderr := d.run("suspend", "taro", "--reason", "r")
		if code != want || stdout != "" || stderr != "relayguard: it says \\x1b[2Jno\n" {
			t.Errorf("%d: exit %d, stdout %q, stderr %q; want %d", status, code, stdout, stderr, want)
		}
	}
}

func TestWrongValuesExit2(t *testing.T) {
	d := newFakeDaemon(t)
	for line, says := range map[string]string{
		"decisions --since yesterday":                    `want how long ago, such as "2h" or "3d", or when`,
		"decisions --verdict maybe":                      `--verdict: got "maybe", want one of accept, tell, hold, defer, reject`,
		"decisions --client host":                        `--client: got "host", want an IP address`,
		"decisions --stage data":                         "--stage: got \"data\", want rcpt, message or call",
		"decisions --limit 0":                            "--limit: got 0, want 1 to",
		"explain":                                        "relayguard explain: ID is missing; see: relayguard explain --help",
		"explain a b":                                    `"b" is one argument too many`,
		"held release":                                   "nothing chooses among the held mail",
		"held delete --all --rule x":                     "--all goes with nothing else that chooses",
		"held list --older-than 0":                       `want a length of time such as "90m", "2h" or "3d"`,
		"held list --older-than 3":                       `want a length of time`,
		"held list --older-than 2d --newer-than 1h":      "leaves nothing of",
		"held list --limit -1":                           "--limit: got -1",
		"held list --from=":                              "--from is empty; the null sender is --from '<>'",
		"held show":                                      "ID is missing",
		"held show a --headers":                          "--reason is missing: mail is private",
		"held show a --headers --content --reason r":     "do not go together",
		"held show a b --content --reason r":             "one message at a time",
		"held nope":                                      `has no command "nope"`,
		"suspend --reason r":                             "ACCOUNT is missing",
		"suspend taro":                                   "--reason is missing",
		"suspend taro --reason r --for -2h":              "want a length of time",
		"resume taro":                                    "--cause is missing",
		"stop":                                           "--reason is missing",
		"start now":                                      `takes no argument "now"`,
		"deny add client":                                "VALUE is missing",
		"deny add client host --reason r":                `found "host", want an IP address`,
		"deny add network 192.0.2.1 --reason r":          "want a network as ADDRESS/BITS",
		"deny add login taro --reason r":                 `SUBJECT: got "login", want one of client, network, helo, mail-from, target-domain`,
		"deny add client 192.0.2.1":                      "--reason is missing",
		"allow add login taro --reason r":                "--rule is missing",
		"allow add client 192.0.2.1 --rule x --reason r": "--rule goes with login, local-user and trusted-network",
		"journal actions --limit 0":                      "--limit: got 0",
		"journal purge --account a":                      "--reason is missing",
		"journal purge --reason r":                       "--account is missing",
		"limits list --top 0":                            "--top: got 0, want 1 to 200",
		"limits show a b":                                `"b" is one argument too many: only one WHO`,
		"limits show taro --recipients 0":                "--recipients: got 0",
		"limits set l":                                   "WHO is missing",
		"limits set l taro --reason r":                   "--windows is missing",
		"limits set l taro --windows 1/1h":               "--reason is missing",
		"limits set l taro --windows 1/1h --reason r --until 2020-01-01":          "2020-01-01 is over",
		"limits set l taro --windows 1/1h --reason r --until soon":                "want a date such as",
		"limits set l taro --windows 1/1h --reason r --for 2h --until 2999-01-01": "if any flags in the group",
		"limits unset l":    "WHO is missing",
		"limits reset taro": "--reason is missing",
		"limits import a b": "one argument too many",
		"allow bulk taro --until 2999-01-01 --reason r": "--count: got 0",
		"allow bulk taro --count 5 --reason r":          "--until is missing",
		"allow bulk taro --count 5 --for 2h":            "--reason is missing",
		"held pace stop taro":                           "--reason is missing",
		"held pace nope":                                `has no command "nope"`,
		"replay --learning 3":                           `--learning: got "3"`,
		"replay a b":                                    "one argument too many",
		"queue-helper --uid -5":                         "want the uid of the daemon's account",
	} {
		code, stdout, stderr := d.run(strings.Fields(line)...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, says) || !strings.Contains(stderr, "--help") {
			t.Errorf("%s: exit %d, stdout %q, stderr %q; want 2 and %q", line, code, stdout, stderr, says)
		}
	}
	if d.asked != nil {
		t.Errorf("the daemon was asked %q", d.asked)
	}
}

func TestDecisionsAsksForWhatIsGiven(t *testing.T) {
	d := newFakeDaemon(t)
	d.always("GET /v1/decisions", []desk.Decision{someDecision("taro@example.jp")})
	code, stdout, _ := d.run("decisions", "--login", "Taro@example.jp", "--verdict", "hold", "--verdict", "reject", "--since", "2026-03-02T09:00:00+09:00", "--client", "::ffff:203.0.113.7", "--account", "Hanako@example.jp", "--limit", "7")
	want := "GET /v1/decisions?account=login%3Ahanako%40example.jp&client=203.0.113.7&limit=7&login=taro%40example.jp&since=2026-03-02T00%3A00%3A00Z&verdict=hold&verdict=reject"
	if got := strings.TrimSpace(d.lastAsked("GET")); got != want {
		t.Errorf("asked %s\nwant  %s", got, want)
	}
	rows := strings.Split(stdout, "\n")
	if code != exitFine || len(rows) != 3 || len(strings.Fields(rows[1])) != 8 || !strings.Contains(rows[1], "0d5kqw3m8x7ya  hold     login:taro@example.jp  login-volume     37  taro@example.jp  4ZJ1k82Vz1y") {
		t.Errorf("exit %d, %q", code, rows)
	}
	d2 := newFakeDaemon(t)
	d2.always("GET /v1/decisions", []desk.Decision{})
	if code, stdout, stderr := d2.run("decisions"); code != exitFine || stdout != "" || stderr != "no decision is like that\n" {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
}

func TestExplainSaysItAll(t *testing.T) {
	d := everything(t, "taro@example.jp")
	code, stdout, stderr := d.run("explain", "0d5kqw3m8x7ya")
	if code != exitFine || stderr != "" {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}
	flat := strings.Join(strings.Fields(stdout), " ")
	for _, part := range []string{
		"verdict: hold when:", "rule: login-volume why: over: taro@example.jp", "also found: from-address (asks for tell): taro@example.jp",
		"decided too late", "4 further refusals answered with this id since", "login:taro@example.jp (known by: kernel)", "taro@example.jp, proven by PLAIN", "uid 33",
		"203.0.113.7, name taro@example.jp, said HELO taro@example.jp", "37 recipients: taro@example.jp 30, example.org 7", "deliveries: 3 sent, 1 deferred",
		"login-volume login:taro@example.jp 1h 290/300 +37 rcpt OVER 20", "burst login:taro@example.jp 10m 15/15 +1 msg SHUT when resumed",
		"suspended: the account is now, until 20", "relayguard held release 4ZJ1k82Vz1y",
	} {
		if !strings.Contains(flat, part) {
			t.Errorf("no %q in\n%s", part, stdout)
		}
	}
	if strings.Contains(flat, "also found: login-volume") {
		t.Errorf("the rule that decided is told twice:\n%s", stdout)
	}
}

func TestExplainOfNothingCannotTell(t *testing.T) {
	d := newFakeDaemon(t)
	d.always("GET /v1/explain/{id}", []desk.Explanation{})
	code, stdout, stderr := d.run("explain", "a/../b c")
	if code != exitCannotTell || stdout != "" || !strings.Contains(stderr, "nothing is known under a/../b c") || !strings.Contains(stderr, "left out under load") {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
	if got := d.lastAsked("GET"); !strings.HasPrefix(got, "GET /v1/explain/a%2F..%2Fb%20c") {
		t.Errorf("asked %s", got)
	}
	code, stdout, _ = d.run("explain", "x", "--json")
	if code != exitCannotTell || strings.TrimSpace(stdout) != "[]" {
		t.Errorf("exit %d, %q", code, stdout)
	}
}

func TestCommandsToCopyAreOneWordForAShell(t *testing.T) {
	for in, want := range map[string]string{
		"login:taro@example.jp": "login:taro@example.jp", "login:x; rm -rf /": "'login:x; rm -rf /'", "it's": `'it'\''s'`, "$(id)": "'$(id)'",
		"a\nb": "ID", "": "ID", "-x": "ID", "a\u202eb": "ID",
	} {
		if got := shellWord(in, "ID"); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

func TestDenyAndAllowSayWhatTheyMean(t *testing.T) {
	d := newFakeDaemon(t)
	d.on("POST /v1/switches/set", func(body json.RawMessage) (any, error) {
		var s policy.Switch
		err := json.Unmarshal(body, &s)
		s.ID, s.By = "s123", "root"
		return []given{{Switch: s}}, err
	})
	for line, want := range map[string]policy.Switch{
		"deny add client 203.0.113.7 --for 2h --reason r":                {Kind: "deny", Subject: "client", Value: "203.0.113.7"},
		"deny add mail-from @example.org --reason r":                     {Kind: "deny", Subject: "mail-from", Value: "@example.org"},
		"allow add local-user www-data --rule login-volume --reason r":   {Kind: "allow", Subject: "local_user", Value: "www-data", Rule: "login-volume"},
		"allow add trusted-network web --rule login-volume --reason r":   {Kind: "allow", Subject: "trusted", Value: "web", Rule: "login-volume"},
		"allow add network 192.0.2.0/24 --for 3d --reason r":             {Kind: "allow", Subject: "network", Value: "192.0.2.0/24"},
		"allow add login taro@example.jp --rule login-volume --reason r": {Kind: "allow", Subject: "login", Value: "taro@example.jp", Rule: "login-volume"},
	} {
		code, stdout, stderr := d.run(strings.Fields(line)...)
		var got policy.Switch
		_, body, _ := strings.Cut(d.lastAsked("POST /v1/switches/set"), "set ")
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatal(err)
		}
		if ends := !got.Until.IsZero(); ends != strings.Contains(line, "--for") {
			t.Errorf("%s: ends %v", line, got.Until)
		}
		got.Until, want.Reason = time.Time{}, "r"
		if code != exitFine || !reflect.DeepEqual(got, want) || !strings.Contains(stdout, "s123") || stderr != "" {
			t.Errorf("%s: exit %d, asked for %+v, stdout %q, stderr %q", line, code, got, stdout, stderr)
		}
	}
}

func TestDenialsAreRemovedByIDOrByWhatTheyAreAbout(t *testing.T) {
	d := newFakeDaemon(t)
	d.always("GET /v1/switches", []policy.Switch{
		{ID: "s1", Kind: policy.Deny, Subject: policy.SubjectClient, Value: "203.0.113.7"}, {ID: "s2", Kind: policy.Deny, Subject: policy.SubjectMailFrom, Value: "@example.org"},
		{ID: "s3", Kind: policy.Allow, Subject: policy.SubjectTrusted, Value: "web", Rule: "r"}, {ID: "s5", Kind: policy.Bulk, Subject: policy.SubjectLogin, Value: "billing@example.jp", Count: 8000}, {ID: "s4", Kind: policy.Suspend, Subject: policy.SubjectLogin, Value: "taro"}})
	d.on("POST /v1/switches/remove", func(json.RawMessage) (any, error) { return []given{{Switch: policy.Switch{ID: "gone"}}}, nil })
	for line, id := range map[string]string{
		"deny remove s1": "s1", "deny remove client:203.0.113.7": "s1", "deny remove client:::ffff:203.0.113.7": "s1", "deny remove mail-from:@EXAMPLE.org": "s2",
		"allow remove trusted-network:web": "s3", "allow remove s5": "s5", "allow remove login:billing@example.jp": "s5", "allow remove network:web": "s3",
		"deny remove s3": "", "allow remove s4": "", "deny remove login:taro": "", "deny remove client:192.0.2.1": "",
	} {
		d.asked = nil
		code, _, stderr := d.run(strings.Fields(line)...)
		asked := d.lastAsked("POST")
		if id == "" && (code != exitFinding || asked != "" || !strings.Contains(stderr, "there is no")) || id != "" && (code != exitFine || !strings.Contains(asked, `"which":"`+id+`"`)) {
			t.Errorf("%s: exit %d, asked %q, stderr %q", line, code, asked, stderr)
		}
	}
}

func TestDefaultLimitsAreAConfiguration(t *testing.T) {
	code, stdout, _ := runIn(t, "limits", "defaults")
	c, err := config.Parse("limits", []byte(stdout))
	if code != exitFine || err != nil || !reflect.DeepEqual(c.Limits, config.Default().Limits) {
		t.Errorf("exit %d, %v:\n%s", code, err, stdout)
	}
}

func TestIncidents(t *testing.T) {
	d := newFakeDaemon(t)
	old := someIncident("login:hanako")
	old.ID, old.Closed = "i-closed", noon.Add(time.Hour)
	d.always("GET /v1/incidents", []incident.Incident{old, someIncident("login:taro@example.jp")})
	code, stdout, _ := d.run("incident", "list")
	if code != exitFine || strings.Contains(stdout, "i-closed") || !strings.Contains(stdout, "i-0d5kqw3m8x") {
		t.Errorf("exit %d: %s", code, stdout)
	}
	_, stdout, _ = d.run("incident", "list", "--all")
	if rows := strings.Split(stdout, "\n"); len(rows) != 4 || !strings.HasPrefix(rows[1], "i-0d5kqw3m8x") || !strings.HasPrefix(rows[2], "i-closed") {
		t.Errorf("%q", rows)
	}
	if code, stdout, _ = d.run("incident", "show", "i-0d5kqw3m8x"); code != exitFine || !strings.Contains(stdout, "opened: login:taro@example.jp") || !strings.Contains(stdout, "relayguard suspend login:taro@example.jp") {
		t.Errorf("exit %d: %s", code, stdout)
	}
	if code, _, stderr := d.run("incident", "show", "i-none"); code != exitFinding || !strings.Contains(stderr, "no incident i-none is known") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

func TestPurgeIsAskedAbout(t *testing.T) {
	d := newFakeDaemon(t)
	d.always("POST /v1/journal/purge", nothing{})
	purge := []string{"journal", "purge", "--account", "Taro@example.jp", "--reason", "asked for it"}
	if code, _, stderr := d.run(purge...); code != exitUsage || !strings.Contains(stderr, "--yes") || d.asked != nil {
		t.Errorf("exit %d, asked %q: %s", code, d.asked, stderr)
	}
	term := newTerminal(t, 80)
	if code, _, stderr := term.run(t, "n\n", append(purge, "--config", d.config)...); code != exitFinding || !strings.Contains(stderr, "forget what login:taro@example.jp sent? [y/N]") || d.asked != nil {
		t.Errorf("exit %d, asked %q: %s", code, d.asked, stderr)
	}
	if code, _, stderr := term.run(t, "y\n", append(purge, "--config", d.config)...); code != exitFine || !strings.Contains(d.lastAsked("POST"), `{"account":"login:taro@example.jp","reason":"asked for it"}`) {
		t.Errorf("exit %d, asked %q: %s", code, d.asked, stderr)
	}
}

func TestAWrongConfigurationKeepsNobodyFromTheDaemon(t *testing.T) {
	cmd := newStatus()
	cmd.Flags().String("config", filepath.Join(t.TempDir(), "none"), "")
	c, err := commandConfig(cmd)
	if err != nil || c.Control.Socket != config.Default().Control.Socket {
		t.Error(err)
	}
	broken := filepath.Join(t.TempDir(), "relayguard.toml")
	if err := os.WriteFile(broken, []byte("nope = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := runIn(t, "status", "--config", broken); code != exitUsage || !strings.Contains(stderr, "nope") {
		t.Errorf("one that was asked for: exit %d: %s", code, stderr)
	}
	cmd = newStatus()
	var said strings.Builder
	cmd.SetErr(&said)
	cmd.Flags().String("config", broken, "")
	if c, err := commandConfig(cmd); err != nil || c.Control.Socket != config.Default().Control.Socket || !strings.Contains(said.String(), "has faults") {
		t.Errorf("%v, said %q", err, said.String())
	}
}
