package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/forwards"
	"relayguard/forward"
	"relayguard/forward/evidence"
	"relayguard/forward/ledger"
)

// someForward is a rule by which mail of owner goes to target.
func someForward(owner, target string, status ledger.Status, action ledger.Action) ledger.Entry {
	f := forward.Finding{Owner: owner, Mechanism: forward.Aliases, Source: "/etc/aliases", Line: 12, Target: target, Verdict: forward.Outside, Mode: forward.Redirect,
		Chain: []string{owner}, UID: 0, Approved: status == ledger.Approved}
	f.ID = forward.FindingID(owner, f.Mechanism, target, f.Mode)
	e := ledger.Entry{Finding: f, Status: status, Classes: []ledger.Class{ledger.Customer}, Action: action, First: noon, Since: noon, Writer: forward.UnknownWriter}
	if f.Approved {
		e.Approval = &ledger.Approval{By: "root", Reason: "contract 12", At: noon}
	}
	return e
}

// someProof is what is known of the mail that went by a rule; who is what others
// chose.
func someProof(who string) forwardShown {
	gap := evidence.Gap{From: noon.Add(-time.Hour), To: noon, Why: who}
	return forwardShown{
		Evidence: &evidence.Summary{First: noon, Last: noon.Add(time.Hour), Mails: 2, Sure: evidence.Certain, Gaps: []evidence.Gap{gap}},
		Mails: []evidence.Mail{{QueueID: "4ZJ1k82Vz1y", RootID: "4ZJ1k82Vz1x", MessageID: who, Time: noon, SenderDomain: who, RcptTo: who, Status: "sent", Sure: evidence.Certain},
			{RootID: "4ZJ1k82Vz2x", Time: noon, RcptTo: who, Status: who, Sure: evidence.Possible}},
		Report: &evidence.Report{From: noon, To: noon.Add(time.Hour), Mails: 2, Certain: 1, Possible: 1, DistinctSenders: 1, Delivered: 2, Targets: []string{who}, Known: []string{who}, NotKnown: []string{who}, Gaps: []evidence.Gap{gap}},
	}
}

// forwardDaemon answers all about forwarding rules with those entries.
func forwardDaemon(t *testing.T, entries ...ledger.Entry) *fakeDaemon {
	d := newFakeDaemon(t)
	d.always("GET /v1/forwards", forwardsListed{Findings: entries, Watch: &forwards.Status{Method: "fanotify", Scanned: noon}})
	if len(entries) > 0 {
		shown := someProof("sales@partner.example")
		shown.Entry = entries[0]
		d.always("GET /v1/forwards/{id}", shown)
	}
	d.always("POST /v1/forwards/approve", entries)
	d.always("POST /v1/forwards/revoke", entries)
	return d
}

func TestForwardsWrongCommandLinesExit2(t *testing.T) {
	d := forwardDaemon(t)
	for line, says := range map[string]string{
		"forwards lst":                                           `relayguard forwards has no command "lst"`,
		"forwards list surplus":                                  `takes no argument "surplus"`,
		"forwards list --status old":                             `--status: got "old", want one of existing, new, approved`,
		"forwards list --nope":                                   "unknown flag: --nope",
		"forwards show":                                          "ID",
		"forwards show F1 F2":                                    "F2",
		"forwards show F1 --limit 0":                             "--limit: got 0, want 1 to 100000",
		"forwards show F1 --limit 100001":                        "--limit: got 100001",
		"forwards show F1 --since yesteryear":                    "yesteryear",
		"forwards approve":                                       "ID is missing; relayguard forwards list shows them",
		"forwards approve F1":                                    "--reason",
		"forwards approve F1 --reason r --until 2001-01-01":      `--until: got "2001-01-01", want a time to come`,
		"forwards approve F1 --reason r --until soon":            `--until: got "soon"`,
		"forwards revoke":                                        "ID is missing",
		"forwards watch F1":                                      `takes no argument "F1"`,
		"forwards scan /mnt/image":                               `takes no argument "/mnt/image"`,
		"forwards approve F1 --reason r --until 2027-02-30T00:0": "--until: got",
	} {
		code, stdout, stderr := d.run(strings.Fields(line)...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, says) {
			t.Errorf("%s: exit %d, stdout %q, stderr %q; want 2 and %q", line, code, stdout, stderr, says)
		}
	}
	if asked := d.lastAsked(""); asked != "" {
		t.Errorf("a wrong command line was sent to the daemon: %s", asked)
	}
}

func TestForwardsListExitsByWhatShouldAlert(t *testing.T) {
	gone := someForward("alice", "a@out.example", ledger.New, ledger.Alert)
	gone.Gone = noon
	for name, c := range map[string]struct {
		entries []ledger.Entry
		code    int
		status  string
	}{
		"none":     {nil, exitFine, ""},
		"existing": {[]ledger.Entry{someForward("alice", "a@out.example", ledger.Existing, ledger.Alert)}, exitFine, "existing"},
		"digest":   {[]ledger.Entry{someForward("alice", "a@out.example", ledger.New, ledger.Digest)}, exitFine, "new"},
		"alert":    {[]ledger.Entry{someForward("alice", "a@out.example", ledger.New, ledger.Alert)}, exitFinding, "ALERT"},
		"approved": {[]ledger.Entry{someForward("alice", "a@out.example", ledger.Approved, ledger.Alert)}, exitFine, "approved"},
		"gone":     {[]ledger.Entry{gone}, exitFine, "gone"},
	} {
		d := forwardDaemon(t, c.entries...)
		code, stdout, stderr := d.run("forwards", "list")
		if code != c.code || !strings.Contains(stdout, c.status) {
			t.Errorf("%s: exit %d, stdout %q, stderr %q; want %d and %q", name, code, stdout, stderr, c.code, c.status)
		}
		if code, stdout, _ := d.run("forwards", "list", "--json"); code != c.code || !json.Valid([]byte(stdout)) {
			t.Errorf("%s: --json exits %d: %s", name, code, stdout)
		}
	}
}

func TestForwardsListSaysWhatItDoesNotShow(t *testing.T) {
	d := newFakeDaemon(t)
	d.always("GET /v1/forwards", forwardsListed{Broken: "record 7: cannot be read", Watch: &forwards.Status{Method: "none", Error: "scan forwarding rules: disk on fire", Gaps: []forward.Gap{{Source: "/home/a", Why: "hostile\x1b[2J"}, {Source: "/home/b", Why: "x"}}}})
	code, stdout, stderr := d.run("forwards", "list")
	if code != exitFinding { // a ledger that somebody changed
		t.Errorf("exit %d", code)
	}
	for _, says := range []string{"no such rule is known", "the first scan is not over yet", "disk on fire", "2 places could not be read, such as /home/a", "the ledger was changed by somebody else: record 7"} {
		if !strings.Contains(stderr, says) {
			t.Errorf("no %q in\n%s%s", says, stdout, stderr)
		}
	}
	noTricks(t, "forwards list", stderr)
}

func TestForwardsEmptyListsAreListsInJSON(t *testing.T) {
	d := forwardDaemon(t)
	code, stdout, stderr := d.run("forwards", "list", "--json")
	var listed map[string]json.RawMessage
	if err := json.Unmarshal([]byte(stdout), &listed); err != nil || code != exitFine || stderr != "" || string(listed["findings"]) != "[]" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestForwardsListAsksForWhatWasWanted(t *testing.T) {
	d := forwardDaemon(t, someForward("alice", "a@out.example", ledger.Existing, ledger.Digest))
	d.run("forwards", "list", "--owner", "alice@corp.test", "--target", "@out.example", "--status", "new", "--due", "--gone")
	if got, want := d.lastAsked("GET /v1/forwards?"), "due=true&gone=true&owner=alice%40corp.test&status=new&target=%40out.example"; !strings.Contains(got, want) {
		t.Errorf("asked %q, want %q", got, want)
	}
	d.run("forwards", "show", "F1234", "--mail", "--limit", "7")
	if got := d.lastAsked("GET /v1/forwards/F1234?"); !strings.Contains(got, "limit=7") || !strings.Contains(got, "mail=true") {
		t.Errorf("asked %q", got)
	}
	d.run("forwards", "approve", "F1234", "F5678", "--reason", "contract 12", "--until", "90d")
	if got := d.lastAsked("POST /v1/forwards/approve"); !strings.Contains(got, `"ids":["F1234","F5678"],"reason":"contract 12","until":"2`) {
		t.Errorf("asked %q", got)
	}
}

func TestForwardsAnswersOfTheDaemonHaveTheirExitStatus(t *testing.T) {
	for status, want := range map[int]int{http.StatusNotFound: exitFinding, http.StatusBadRequest: exitUsage, http.StatusForbidden: exitCannotTell, http.StatusServiceUnavailable: exitCannotTell, http.StatusInternalServerError: exitCannotTell} {
		d := newFakeDaemon(t)
		refuse := func(json.RawMessage) (any, error) { return nil, control.Errorf(status, "no, %s", hostile) }
		for _, pattern := range []string{"GET /v1/forwards", "GET /v1/forwards/{id}", "POST /v1/forwards/approve", "POST /v1/forwards/revoke"} {
			d.on(pattern, refuse)
		}
		for _, line := range []string{"forwards list", "forwards show F1", "forwards approve F1 --reason r", "forwards revoke F1"} {
			code, stdout, stderr := d.run(strings.Fields(line)...)
			if code != want || stdout != "" || !strings.Contains(stderr, "no, ") {
				t.Errorf("%s after %d: exit %d, stdout %q, stderr %q; want %d", line, status, code, stdout, stderr, want)
			}
			noTricks(t, line, stderr)
		}
	}
}

// hostileForward has what others choose wherever they can put something.
func hostileForward(who string) ledger.Entry {
	e := someForward(who, who, ledger.New, ledger.Alert)
	e.Source, e.Note, e.Differs, e.Digest, e.Chain, e.Also = who, who, who, who, []string{who, who}, 3
	e.Writer = forward.Writer{UID: 33, LoginUID: 1000, PID: 7, Process: who}
	e.Approval = &ledger.Approval{By: who, Reason: who, At: noon, Until: noon.Add(10_000 * time.Hour)}
	return e
}

// hostileForwards is a daemon whose every answer has it.
func hostileForwards(t *testing.T, who string) *fakeDaemon {
	d := newFakeDaemon(t)
	shown := someProof(who)
	shown.Entry = hostileForward(who)
	d.always("GET /v1/forwards", forwardsListed{Findings: []ledger.Entry{shown.Entry}, Broken: who, Watch: &forwards.Status{Error: who, Gaps: []forward.Gap{{Source: who, Why: who}}}})
	d.always("GET /v1/forwards/{id}", shown)
	d.always("POST /v1/forwards/approve", []ledger.Entry{shown.Entry})
	d.always("POST /v1/forwards/revoke", []ledger.Entry{shown.Entry})
	appeared := ledger.Event{Kind: ledger.Appeared, Entry: shown.Entry, Action: ledger.Alert, Time: noon}
	broken := ledger.Event{Kind: ledger.Broken, Action: ledger.Alert, Time: noon, Why: who}
	changes(d, []forwardChange{changeOf(&appeared), changeOf(&broken)}, false)
	return d
}

// changes streams those and then ends, or stays until nobody listens.
func changes(d *fakeDaemon, all []forwardChange, stay bool) {
	control.Follow(d.mux, "GET /v1/forwards/watch", control.Read, func(ctx context.Context, _ *http.Request, send func(forwardChange) error) error {
		for _, c := range all {
			if err := send(c); err != nil {
				return err
			}
		}
		if stay {
			<-ctx.Done()
		}
		return nil
	})
}

var forwardLookers = []string{"forwards list", "forwards show F1", "forwards show F1 --mail --report", "forwards approve F1 --reason r", "forwards revoke F1", "forwards watch"}

func TestForwardsWhatOthersChooseDoesNothingToATerminal(t *testing.T) {
	d := hostileForwards(t, hostile)
	for _, line := range forwardLookers {
		term := newTerminal(t, 80)
		code, shown, stderr := term.run(t, "", append(strings.Fields(line), "--config", d.config)...)
		if code == exitUsage || shown == "" {
			t.Errorf("%s: exit %d, shown %q, stderr %q", line, code, shown, stderr)
		}
		noTricks(t, line, shown)
		noTricks(t, line+" (stderr)", stderr)
	}
}

func TestForwardsJSONIsJSONAndHarmless(t *testing.T) {
	d := hostileForwards(t, hostile)
	for _, line := range forwardLookers {
		_, stdout, stderr := d.run(append(strings.Fields(line), "--json")...)
		for doc := range strings.SplitAfterSeq(strings.TrimSuffix(stdout, "\n"), "\n") {
			if line != "forwards watch" {
				doc = stdout
			}
			if !json.Valid([]byte(doc)) {
				t.Errorf("%s: %q (%s)", line, stdout, stderr)
			}
		}
		noTricks(t, line, stdout)
		noTricks(t, line+" (stderr)", stderr)
	}
}

func TestForwardsTablesFit80Columns(t *testing.T) {
	for _, who := range []string{"taro@example.jp", "taro.with.a.rather.long.name@a-long-domain-name.example.jp", strings.Repeat("x", 4096)} {
		d := hostileForwards(t, who)
		for _, line := range []string{"forwards list", "forwards approve F1 --reason r", "forwards revoke F1"} {
			term := newTerminal(t, 80)
			_, shown, _ := term.run(t, "", append(strings.Fields(line), "--config", d.config)...)
			fits(t, line, shown, 80)
		}
	}
}

func TestForwardsLongListsBeginWithWhatAlerts(t *testing.T) {
	const n = 20_000
	entries := make([]ledger.Entry, 0, n+3)
	gone := someForward("zoe", "gone@out.example", ledger.New, ledger.Alert)
	gone.Gone = noon
	entries = append(entries, gone, someForward("yuki", "ok@out.example", ledger.Approved, ledger.Alert))
	for i := range n {
		entries = append(entries, someForward(fmt.Sprintf("user%d", i), fmt.Sprintf("user%d@phone.example", i), ledger.Existing, ledger.Digest))
	}
	entries = append(entries, someForward("zack", "spy@out.example", ledger.New, ledger.Alert))
	code, stdout, _ := forwardDaemon(t, entries...).run("forwards", "list")
	lines := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
	if code != exitFinding || len(lines) != n+4 {
		t.Fatalf("exit %d, %d lines", code, len(lines))
	}
	for at, says := range map[int]string{1: "spy@out.example", n + 2: "ok@out.example", n + 3: "gone@out.example"} {
		if !strings.Contains(lines[at], says) {
			t.Errorf("line %d is %q, want %q in it", at, lines[at], says)
		}
	}
}

func TestForwardsWideTablesNameTheSource(t *testing.T) {
	d := forwardDaemon(t, someForward("alice", "a@out.example", ledger.New, ledger.Alert))
	for columns, wants := range map[uint16]bool{80: false, 140: true} {
		_, shown, _ := newTerminal(t, columns).run(t, "", "forwards", "list", "--config", d.config)
		if strings.Contains(shown, "/etc/aliases:12") != wants {
			t.Errorf("%d columns:\n%s", columns, shown)
		}
	}
}

func TestForwardsShowTellsTheWholeStory(t *testing.T) {
	e := someForward("ceo@corp.test", "spy@out.example", ledger.New, ledger.Alert)
	e.Classes, e.Chain, e.Differs = []ledger.Class{ledger.Role, ledger.Differs}, []string{"ceo@corp.test", "ceo"}, "the compiled form has it, the text has not"
	d := forwardDaemon(t, e)
	code, stdout, stderr := d.run("forwards", "show", e.ID, "--mail", "--report")
	if code != exitFine || stderr != "" {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}
	text := strings.Join(strings.Fields(stdout), " ")
	for _, says := range []string{"mail of: ceo@corp.test", "goes to: spy@out.example", "how: aliases, redirect", "stated in: /etc/aliases:12", "by way of: ceo@corp.test > ceo > spy@out.example",
		"differs: the compiled form", "status: new: should be looked at; relayguard forwards approve " + forward.ShortID(e.ID), "matters as: role, differs", "written by: unknown", "mails: 2, certain", "evidence incomplete from",
		"outside senders: 1 distinct", "not known:", "4ZJ1k82Vz1y", "4ZJ1k82Vz2x", "<>"} {
		if !strings.Contains(text, says) {
			t.Errorf("no %q in\n%s", says, stdout)
		}
	}
}

func TestForwardsShowJSONHasTheContract(t *testing.T) {
	e := someForward("alice", "a@out.example", ledger.Approved, ledger.Alert)
	_, stdout, _ := forwardDaemon(t, e).run("forwards", "show", e.ID, "--mail", "--report", "--json")
	keys(t, stdout, "", slices.Concat(findingKeys, []string{"status", "classes", "action", "first", "since", "writer", "approval", "evidence", "mails", "report"})...)
	keys(t, stdout, "report", "from", "to", "mails", "certain", "likely", "possible", "distinct_senders", "delivered", "bounced", "deferred", "targets", "known", "not_known", "gaps")
}

// findingKeys are those that forwards scan --json promises.
var findingKeys = []string{"id", "owner", "mechanism", "source", "line", "target", "verdict", "mode", "chain", "approved", "note"}

// keys fails unless an object, or the one under a key of it, has all of those.
func keys(t *testing.T, text, under string, want ...string) {
	t.Helper()
	var all map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	if under != "" {
		keys(t, string(all[under]), "", want...)
		return
	}
	for _, key := range want {
		if _, there := all[key]; !there {
			t.Errorf("no %q in %s", key, text)
		}
	}
}

func TestForwardsWatchShowsChangesAsTheyCome(t *testing.T) {
	d := newFakeDaemon(t)
	e := someForward("alice", "a@out.example", ledger.New, ledger.Alert)
	appeared := ledger.Event{Kind: ledger.Appeared, Entry: e, Action: ledger.Alert, Time: noon}
	changes(d, []forwardChange{{Time: noon, Kind: changeAlive}, changeOf(&appeared)}, false)
	code, stdout, stderr := d.run("forwards", "watch")
	if code != exitFine || strings.Count(stdout, "\n") != 1 || !strings.Contains(stdout, "alert  forwarding rule "+forward.ShortID(e.ID)+" new: mail of alice goes to a@out.example") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	_, stdout, _ = d.run("forwards", "watch", "--json")
	keys(t, stdout, "", "time", "kind", "action", "text", "detail")
	keys(t, stdout, "detail", "id", "owner", "target", "mechanism", "verdict", "mode", "source", "chain", "classes", "writer")
}

// A change is shown when it comes, not when a buffer is full.
func TestForwardsWatchDoesNotWaitForMore(t *testing.T) {
	d := newFakeDaemon(t)
	e := someForward("alice", "a@out.example", ledger.New, ledger.Alert)
	appeared := ledger.Event{Kind: ledger.Appeared, Entry: e, Action: ledger.Alert, Time: noon}
	changes(d, []forwardChange{changeOf(&appeared)}, true)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	shown := &untilWritten{cancel: cancel}
	root := newRoot()
	root.SetArgs([]string{"forwards", "watch", "--config", d.config})
	root.SetOut(shown)
	root.SetErr(shown)
	if err := root.ExecuteContext(ctx); err != nil || !strings.Contains(shown.String(), "a@out.example") {
		t.Errorf("within 20 s: %q, %v", shown.String(), err)
	}
}

// untilWritten cancels what runs as soon as it writes.
type untilWritten struct {
	strings.Builder
	cancel context.CancelFunc
}

func (u *untilWritten) Write(p []byte) (int, error) {
	defer u.cancel()
	return u.Builder.Write(p)
}

// ledgerOf is a configuration whose daemon is dead and has left a ledger of those.
func ledgerOf(t *testing.T, later ...forward.Finding) (config, dir string) {
	t.Helper()
	config, _ = commandDir(t)
	dir = filepath.Join(filepath.Dir(config), "forwards")
	f, err := os.OpenFile(config, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = fmt.Fprintf(f, "[forward]\ndirectory = %q\n", dir)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if later == nil {
		return config, dir
	}
	l, err := ledger.Open(dir, ledger.Rules{Policy: ledger.DefaultPolicy()})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	old := someForward("old", "old@out.example", "", 0).Finding
	if _, err := l.All(noon, []forward.Finding{old}, nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Some(noon.Add(time.Minute), later, nil, nil); err != nil {
		t.Fatal(err)
	}
	return config, dir
}

// asRoot skips a test that root alone can pass.
func asRoot(t *testing.T) {
	t.Helper()
	if !isRoot() {
		t.Skip("needs root, as the command does")
	}
}

func TestForwardsRootReadsTheLedgerOfADeadDaemon(t *testing.T) {
	asRoot(t)
	planted := someForward("*", hostile, "", 0).Finding
	planted.Server = true
	config, _ := ledgerOf(t, planted)
	code, stdout, stderr := runIn(t, "forwards", "list", "--config", config)
	if code != exitFinding || !strings.Contains(stdout, "old@out.example") || !strings.Contains(stdout, "ALERT") || !strings.Contains(stderr, "the daemon does not run: this is what it knew") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	noTricks(t, "forwards list", stdout)
	code, stdout, stderr = runIn(t, "forwards", "list", "--status", "existing", "--json", "--config", config)
	if code != exitFine || strings.Contains(stdout, planted.ID) || !strings.Contains(stdout, "old@out.example") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	code, stdout, stderr = runIn(t, "forwards", "show", planted.ID[:6], "--config", config)
	if code != exitFine || !strings.Contains(stdout, forward.ShortID(planted.ID)) || !strings.Contains(stdout, "matters as: server") || !strings.Contains(stderr, "--log FILE") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	code, _, stderr = runIn(t, "forwards", "show", "F000000000000", "--config", config)
	if code != exitFinding || !strings.Contains(stderr, "no such forwarding rule") {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}
}

func TestForwardsLedgerThatSomebodyChangedIsAFinding(t *testing.T) {
	asRoot(t)
	config, dir := ledgerOf(t, someForward("alice", "a@out.example", "", 0).Finding)
	file := filepath.Join(dir, "ledger")
	text, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, []byte(strings.Replace(string(text), "old@out.example", "new@out.example", 1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := runIn(t, "forwards", "list", "--config", config)
	if code != exitFinding || !strings.Contains(stderr, "the ledger was changed by somebody else: record 1") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestForwardsWithoutDaemonAndLedgerExit3(t *testing.T) {
	config, _ := ledgerOf(t)
	for _, line := range []string{"forwards list", "forwards list --json", "forwards show F1234", "forwards approve F1234 --reason r", "forwards revoke F1234"} {
		code, stdout, stderr := runIn(t, append(strings.Fields(line), "--config", config)...)
		if code != exitCannotTell || stdout != "" || stderr == "" {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", line, code, stdout, stderr)
		}
	}
}

// image is a copied disk with a mail server, and its aliases in postmap's form.
func image(t *testing.T, aliases string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{
		"etc/passwd":          "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000:Alice:/home/alice:/bin/sh\nbob:x:1001:1001:Bob:/home/bob:/bin/sh\n",
		"etc/group":           "root:x:0:\nalice:x:1000:\nbob:x:1001:\n",
		"etc/hostname":        "mail.corp.test\n",
		"etc/postfix/main.cf": "myhostname = mail.corp.test\nmydestination = corp.test\nmyorigin = corp.test\nalias_maps = texthash:/etc/aliases\nalias_database =\n",
		"etc/aliases":         aliases,
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestForwardsScanOfACopiedDisk(t *testing.T) {
	config, _ := ledgerOf(t)
	for name, c := range map[string]struct {
		aliases string
		code    int
		targets []string
	}{
		"customer": {"alice \\alice, me@phone.example\n", exitFine, []string{"me@phone.example"}},
		"role":     {"postmaster spy@out.example\n", exitFinding, []string{"spy@out.example"}},
		"inside":   {"postmaster alice\n", exitFine, nil},
		"fan-in":   {"alice x@out.example\nbob x@out.example\ncarol x@out.example\n", exitFinding, []string{"x@out.example", "x@out.example", "x@out.example"}},
	} {
		root := image(t, c.aliases)
		code, stdout, stderr := runIn(t, "forwards", "scan", "--root", root, "--json", "--config", config)
		var got struct {
			Findings []map[string]json.RawMessage `json:"findings"`
			Gaps     []forward.Gap                `json:"gaps"`
			Places   int                          `json:"places"`
		}
		if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != c.code || got.Places == 0 || got.Findings == nil || got.Gaps == nil {
			t.Errorf("%s: exit %d, stdout %s, stderr %q (%v)", name, code, stdout, stderr, err)
			continue
		}
		var targets []string
		for _, f := range got.Findings {
			if string(f["verdict"]) != `"outside"` {
				continue
			}
			for _, key := range findingKeys {
				if _, there := f[key]; !there {
					t.Errorf("%s: no %q in %v", name, key, f)
				}
			}
			var target string
			json.Unmarshal(f["target"], &target)
			targets = append(targets, target)
		}
		if !slices.Equal(targets, c.targets) {
			t.Errorf("%s: targets %q, want %q", name, targets, c.targets)
		}
		if code, stdout, stderr := runIn(t, "forwards", "scan", "--root", root, "--config", config); code != c.code || !strings.Contains(stderr, "places read;") || strings.HasPrefix(stdout, "ID ") != (len(c.targets) > 0) {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", name, code, stdout, stderr)
		}
	}
}

func TestForwardsScanAllListsWhatEndsInside(t *testing.T) {
	config, _ := ledgerOf(t)
	root := image(t, "postmaster alice\n")
	for args, wants := range map[string]bool{"": false, "--all": true} {
		_, stdout, _ := runIn(t, append([]string{"forwards", "scan", "--root", root, "--config", config}, strings.Fields(args)...)...)
		if strings.Contains(stdout, "inside") != wants {
			t.Errorf("%q:\n%s", args, stdout)
		}
		_, stdout, _ = runIn(t, append([]string{"forwards", "scan", "--json", "--root", root, "--config", config}, strings.Fields(args)...)...)
		if strings.Contains(stdout, `"classes": null`) || strings.Contains(stdout, `"chain": null`) {
			t.Errorf("%q:\n%s", args, stdout)
		}
	}
}

func TestForwardsScanOfNothingExits3(t *testing.T) {
	config, _ := ledgerOf(t)
	for name, root := range map[string]string{"not there": filepath.Join(t.TempDir(), "missing"), "a file": config, "an empty disk": t.TempDir()} {
		code, stdout, stderr := runIn(t, "forwards", "scan", "--root", root, "--config", config)
		if code != exitCannotTell || stdout != "" || stderr == "" {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", name, code, stdout, stderr)
		}
	}
}
