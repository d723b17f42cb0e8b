package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/guard"
	"relayguard/cmd/internal/report"
	"relayguard/journal"
	"relayguard/mta/local"
	"relayguard/policy"
	"relayguard/rbl"
)

// written is a log, or what else comes in, of which a test reads while it is written.
type written struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (w *written) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *written) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// alertsTo is a webhook that remembers what it was told.
func alertsTo(t *testing.T) (url string, got *written) {
	t.Helper()
	got = &written{}
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(got, r.Body)
	}))
	t.Cleanup(s.Close)
	return s.URL, got
}

// mailSink takes a message, or refuses each recipient.
func mailSink(t *testing.T, refuse bool) (address string, got <-chan string) {
	data := false
	return smtpServer(t, func(line string) string {
		switch {
		case line == "" && !data:
			return "220 mx\r\n"
		case line == "DATA":
			data = true
			return "354 go on\r\n"
		case line == ".":
			data = false
			return "250 ok\r\n"
		case data:
			return ""
		case strings.HasPrefix(line, "RCPT") && refuse:
			return "550 nobody here\r\n"
		}
		return "250 ok\r\n"
	})
}

// quietState is a daemon's state that watches neither lists nor rules.
func quietState(t *testing.T, change func(c *config.Config)) (*daemon, *state) {
	t.Helper()
	c := stateConfig(t)
	c.Forward.Watch, c.RBL.Watch, c.Alert.Syslog = false, false, false
	c.Report.At = "06:30"
	if change != nil {
		change(c)
	}
	s := aState(t, c)
	t.Cleanup(func() { s.close(nil) })
	return daemonOf(s), s
}

// daemonOf is another process's daemon with the same state.
func daemonOf(s *state) *daemon { return &daemon{state: s, log: s.log, config: s.config.Load()} }

func morning(day int) time.Time { return time.Date(2026, 3, day, 6, 30, 0, 0, time.Local) }

func TestDailyReportIsKeptAndMailedOnceForItsDay(t *testing.T) {
	address, got := mailSink(t, false)
	d, s := quietState(t, func(c *config.Config) {
		c.MTA.SMTP, c.Report.To, c.Report.Language, c.Report.From = address, []string{"admin@example.jp"}, "ja", "guard@example.jp"
	})
	c, now := s.config.Load(), morning(2).Add(time.Second)
	if d.reportDone(t.Context(), morning(2)) {
		t.Fatal("it is done before it is made")
	}
	d.dailyReport(t.Context(), c, now, morning(2))
	said := <-got
	for _, part := range []string{"MAIL FROM:<>", "RCPT TO:<admin@example.jp>", "\n" + policy.TokenHeader + ": ", "Auto-Submitted: auto-generated", "From: ", "guard@example.jp", "multipart/alternative"} {
		if !strings.Contains(said, part) {
			t.Errorf("no %q in the mail", part)
		}
	}
	for _, form := range []string{"txt", "html", "json"} {
		info, err := os.Stat(filepath.Join(c.ReportDirectory(), "report-2026-03-02."+form))
		if err != nil || info.Mode().Perm() != 0o600 || info.Size() == 0 {
			t.Errorf("%s: %v, %v", form, info, err)
		}
	}
	must(t, s.journal.Sync(t.Context()))
	if !d.reportDone(t.Context(), morning(2)) || !daemonOf(s).reportDone(t.Context(), morning(2)) {
		t.Error("it is made again after a restart")
	}
	if daemonOf(s).reportDone(t.Context(), morning(3)) {
		t.Error("none is made on the next day")
	}
}

// The token is of one try to hand in: the letter itself, which anybody may see, has none.
func TestReportsLetterHasNoToken(t *testing.T) {
	text, err := report.Letter(emptyReport(time.Now()), "en", "guard@example.jp", []string{"admin@example.jp"}, "1@example.jp")
	if err != nil || strings.Contains(string(text), policy.TokenHeader) {
		t.Errorf("%v in %s", err, text)
	}
}

// Review of part L: of a report that could not be mailed only the log knew.
func TestDailyReportThatCannotBeMailedIsTold(t *testing.T) {
	address, _ := mailSink(t, true)
	webhook, alerts := alertsTo(t)
	d, s := quietState(t, func(c *config.Config) {
		c.MTA.SMTP, c.Report.To, c.Alert.Webhook = address, []string{"admin@example.jp"}, webhook
	})
	c := s.config.Load()
	d.dailyReport(t.Context(), c, morning(2), morning(2))
	until(t, "somebody is told", 10*time.Second, func() bool { return alerts.String() != "" })
	for _, part := range []string{"the daily report cannot be mailed", "nobody here", c.ReportDirectory(), "relayguard report --mail --day 2026-03-02"} {
		if !strings.Contains(alerts.String(), part) {
			t.Errorf("no %q in %s", part, alerts.String())
		}
	}
	must(t, s.journal.Sync(t.Context()))
	if !d.reportDone(t.Context(), morning(2)) {
		t.Error("this process tries without end")
	}
	if l := daemonOf(s).lastReport(t.Context()); !slices.Equal(l.waits(c), []string{"admin@example.jp"}) {
		t.Errorf("a restart does not try again: %+v", l)
	}
	if _, err := keptReport(c, morning(2)); err != nil {
		t.Error(err)
	}
}

func TestFirstReportIsNotMadeAtTheInstallButAtItsTime(t *testing.T) {
	for name, c := range map[string]struct {
		at    string
		now   time.Time
		known string
		done  bool
	}{
		"installed after its time":   {"06:30", morning(2).Add(time.Hour), "", true},
		"installed before its time":  {"06:30", morning(2).Add(-time.Hour), "", false},
		"started again after it":     {"06:30", morning(2).Add(time.Hour), "2026-03-01", false}, // it was missed
		"started again, it was made": {"06:30", morning(2).Add(time.Hour), "2026-03-02", true},
		"none is wanted":             {"", morning(2).Add(time.Hour), "", true},
		"its clock was years ahead":  {"06:30", morning(2).Add(time.Hour), "2036-03-01", false},
	} {
		d, s := quietState(t, func(conf *config.Config) { conf.Report.At = c.at })
		if c.known != "" {
			s.journal.Note(journal.Value{Name: reportMade, Value: c.known})
			must(t, s.journal.Sync(t.Context()))
		}
		d.firstReport(t.Context(), c.now)
		if got := d.reportDone(t.Context(), morning(2)); got != c.done {
			t.Errorf("%s: done at once %v, want %v", name, got, c.done)
		}
		must(t, s.journal.Sync(t.Context()))
		if got := daemonOf(s).reportDone(t.Context(), morning(2)); got != c.done {
			t.Errorf("%s: done %v, want %v", name, got, c.done)
		}
	}
}

func TestReportThatWasMissedIsMadeAtTheStart(t *testing.T) {
	d, s := quietState(t, func(c *config.Config) { c.Report.At = "00:00" })
	s.journal.Note(journal.Value{Name: reportMade, Value: "2026-01-01"})
	must(t, s.journal.Sync(t.Context()))
	s.run(aGuard(s), s.config.Load(), d.runReports)
	until(t, "it is made", 20*time.Second, func() bool {
		all, _ := filepath.Glob(filepath.Join(s.config.Load().ReportDirectory(), "report-*.json"))
		return len(all) == 1
	})
	until(t, "and remembered", 20*time.Second, func() bool {
		value, _, err := s.journal.Value(t.Context(), reportMade)
		return err == nil && value > "2026-01-01"
	})
}

// A time that the clock leaps over, or has twice, is one time.
func TestReportHasATimeOnDaysWhenClocksChange(t *testing.T) {
	c := config.Default()
	loc := zoneOf(t, "Europe/Berlin")
	for _, day := range []time.Time{time.Date(2026, 3, 29, 12, 0, 0, 0, loc), time.Date(2026, 10, 25, 12, 0, 0, 0, loc), time.Date(2026, 5, 5, 23, 59, 0, 0, loc), time.Date(2026, 5, 5, 0, 0, 0, 0, loc)} {
		for _, at := range []string{"00:00", "02:30", "06:30", "23:59"} {
			c.Report.At = at
			if got, ok := reportTime(c, day); !ok || got.Format(reportDay) != day.Format(reportDay) {
				t.Errorf("%s on %s: %s", at, day.Format(reportDay), got)
			}
		}
	}
	c.Report.At = ""
	if _, ok := reportTime(c, time.Now()); ok {
		t.Error("one is made though none is wanted")
	}
}

func TestOldReportsAreRemovedAndNothingElse(t *testing.T) {
	c := stateConfig(t)
	c.Report.Keep = 48 * time.Hour
	dir := c.ReportDirectory()
	must(t, os.MkdirAll(dir, 0o750))
	files := map[string]bool{ // whether they stay
		"report-2026-02-20.txt": false, "report-2026-02-20.html": false, "report-2026-02-20.json": false, "report-2026-03-01.txt": true, "report-2026-03-02.json": true,
		"report-2026-02-20.txt.new": true, "notes-2026-02-20.txt": true, "report-20260220.txt": true, "report-2026-02-20.pdf": true, "report-.txt": true,
	}
	for name := range files {
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	must(t, sweepReports(c, morning(2)))
	for name, stays := range files {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != stays {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// reportingDaemon serves the reports of a daemon whose lists are of the test.
func reportingDaemon(t *testing.T, path string) (*fakeDaemon, *state) {
	t.Helper()
	d, s := listedDaemon(t, path)
	daemonOf(s).reportOperations(d.mux)
	return d, s
}

func TestReportOfTheDaemonNeverShowsAKey(t *testing.T) {
	const key = "s3cretkeys3cretkey"
	path, server := listsOf(t, twoLists, "from_mta = false\nneighbours = false\naddresses = [\"203.0.113.5\"]\n[[zone_key]]\noperator = \"keyed\"\nfile = \""+writeKey(t, key)+"\"\n", zonesOfTest(key))
	d, s := reportingDaemon(t, path)
	if code, _, stderr := d.run("rbl", "status", "--now"); code != exitFine {
		t.Fatalf("exit %d, %s", code, stderr)
	}
	if !strings.Contains(fmt.Sprint(server.Asked()), key) {
		t.Fatal("it was not asked with the key")
	}
	for _, flags := range []string{"", "--format html", "--json", "--lang ja"} {
		code, stdout, stderr := d.run(append([]string{"report"}, strings.Fields(flags)...)...)
		if code == exitUsage || !strings.Contains(stdout, "bl.keyed.example") || strings.Contains(stdout+stderr, key) {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", flags, code, stdout, stderr)
		}
	}
	status, err := json.Marshal(s.blocklists.status(t.Context()))
	if err != nil || strings.Contains(string(status), key) {
		t.Errorf("%v in %s", err, status)
	}
	must(t, filepath.Walk(filepath.Dir(s.config.Load().RBLDirectory()), func(path string, info os.FileInfo, err error) error {
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte(key)) {
			t.Errorf("the key is in %s", path)
		}
		return err
	}))
}

func TestReportCommandShowsKeptReportsAndThoseOfNow(t *testing.T) {
	path, _ := listsOf(t, twoLists, "from_mta = false\nneighbours = false\naddresses = [\"203.0.113.5\"]\n", zonesOfTest("nokey"))
	d, s := reportingDaemon(t, path)
	old := emptyReport(morning(2))
	old.Host = "kept.example.jp"
	old.Listings = []report.Listing{{Subject: "203.0.113.5", Zone: "bl.example", Confirmed: true, Severity: rbl.High}}
	must(t, keepReport(s.config.Load(), morning(2), old))
	code, stdout, stderr := d.run("report", "--day", "2026-03-02")
	if code != exitFinding || !strings.Contains(stdout, "kept.example.jp") || stderr != "" {
		t.Errorf("kept: exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	for day, want := range map[string]int{"2026-03-03": exitCannotTell, "2026-3-2": exitUsage, "../../etc/passwd": exitUsage, "today": exitUsage} {
		for _, flags := range []string{"", "--mail --to boss@example.jp"} {
			if code, stdout, stderr := d.run(append([]string{"report", "--day", day}, strings.Fields(flags)...)...); code != want || stdout != "" || stderr == "" {
				t.Errorf("%s %s: exit %d, want %d; stdout %q, stderr %q", day, flags, code, want, stdout, stderr)
			}
		}
	}
	must(t, os.WriteFile(reportFile(s.config.Load(), morning(4), "json"), []byte("{"), 0o600))
	if code, stdout, stderr := d.run("report", "--day", "2026-03-04"); code != exitCannotTell || stdout != "" || !strings.Contains(stderr, "report-2026-03-04.json") {
		t.Errorf("a broken one: exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	out := filepath.Join(t.TempDir(), "report.html")
	if code, stdout, stderr = d.run("report", "--format", "html", "--out", out); code != exitCannotTell && code != exitFine || stdout != "" || stderr != "" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if text, err := os.ReadFile(out); err != nil || !bytes.HasPrefix(text, []byte("<!DOCTYPE html>")) && !bytes.HasPrefix(text, []byte("<!doctype html>")) {
		t.Errorf("%v, %.60q", err, text)
	}
	code, stdout, _ = d.run("report", "--json")
	var r report.Report
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || strings.Contains(stdout, ": null") || r.Version != version {
		t.Errorf("exit %d, %v in %s", code, err, stdout)
	}
	for _, line := range []string{"--format pdf", "--lang de", "--to a@example.jp", "--mail --out x", "--mail --json", "--mail --to nobody", "extra"} {
		if code, stdout, stderr := d.run(append([]string{"report"}, strings.Fields(line)...)...); code != exitUsage || stdout != "" || stderr == "" {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", line, code, stdout, stderr)
		}
	}
}

func TestReportIsMailedWhenAskedFor(t *testing.T) {
	path, _ := listsOf(t, twoLists, "watch = false\n", nil)
	d, s := reportingDaemon(t, path)
	if code, _, stderr := d.run("report", "--mail"); code == exitFine || !strings.Contains(stderr, "report.to is empty") {
		t.Errorf("to nobody: exit %d, %q", code, stderr)
	}
	address, got := mailSink(t, false)
	c := *s.config.Load()
	c.MTA.SMTP = address
	s.config.Store(&c)
	code, stdout, stderr := d.run("report", "--mail", "--to", "boss@example.jp", "--lang", "ja")
	if code != exitFine || stdout != "" || !strings.Contains(stderr, "mailed to boss@example.jp") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if said := <-got; !strings.Contains(said, "RCPT TO:<boss@example.jp>") || !strings.Contains(said, "MAIL FROM:<>") {
		t.Errorf("%q", said)
	}
	if got := actionsOf(t, s); !slices.Equal(got, []string{"report boss@example.jp: mailed"}) {
		t.Errorf("%q", got)
	}
	address, _ = mailSink(t, true)
	refused := c
	refused.MTA.SMTP = address
	s.config.Store(&refused)
	if code, _, stderr := d.run("report", "--mail", "--to", "boss@example.jp"); code != exitCannotTell || !strings.Contains(stderr, "nobody here") {
		t.Errorf("refused: exit %d, %q", code, stderr)
	}
}

func TestReportOfADeadDaemonIsOfWhatItLeft(t *testing.T) {
	if !isRoot() {
		t.Skip("only root reads it without the daemon")
	}
	path := deadRBLDaemon(t)
	code, stdout, stderr := runIn(t, "report", "--json", "--config", path)
	var r report.Report
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatalf("exit %d, %v in %q, stderr %q", code, err, stdout, stderr)
	}
	if code != exitFinding || len(r.Listings) != 1 || len(r.Steps) == 0 || r.Steps[0].Kind != report.StepDegraded || r.Steps[0].Command != "systemctl start relayguard" || !strings.Contains(stderr, "root reads what it left") {
		t.Errorf("exit %d, steps %+v, stderr %q", code, r.Steps, stderr)
	}
	if got := missingIn(&r); !slices.Contains(got, report.SectionMail) || !slices.Contains(got, report.SectionHeld) { // there is no journal
		t.Errorf("missing %q", got)
	}
	if code, _, stderr := runIn(t, "report", "--day", "2026-03-02", "--config", path); code != exitCannotTell || !strings.Contains(stderr, "no report of 2026-03-02 is kept") {
		t.Errorf("kept: exit %d, %q", code, stderr)
	}
}

// What is switched off on purpose is no gap that makes each report one of those that
// cannot tell.
func TestReportKnowsWhatIsOffOnPurpose(t *testing.T) {
	d, _ := quietState(t, nil)
	r := d.report(t.Context(), morning(2))
	if got, want := missingIn(r), []string{report.SectionBlocklists, report.SectionDeliveries}; !slices.Equal(got, want) || r.Forwards.Watched {
		t.Errorf("missing %q, want %q", got, want)
	}
	d.state.config.Store(func() *config.Config { c := *d.state.config.Load(); c.Forward.Watch = true; return &c }())
	d.state.forwardsOff = "open the ledger: no"
	if got := missingIn(d.report(t.Context(), morning(2))); !slices.Contains(got, report.SectionForwards) {
		t.Errorf("missing %q", got)
	}
}

func TestReloadWithListsThatCannotBeIsRefused(t *testing.T) {
	path, _ := listsOf(t, twoLists, "from_mta = false\naddresses = [\"203.0.113.5\"]\n", zonesOfTest("nokey"))
	text, err := os.ReadFile(path)
	must(t, err)
	good := string(text) + "[mta]\nlog = \"none\"\nqueue_helper = \"" + path + ".no-helper\"\n[inside]\nfrom_mta = false\ndomains = [\"example.jp\"]\n"
	must(t, os.WriteFile(path, []byte(good), 0o600))
	c, err := config.Load(path)
	must(t, err)
	log := &written{}
	s := aState(t, c)
	logger := slog.New(slog.NewTextHandler(log, nil))
	users, err := local.NewUsers(logger)
	must(t, err)
	t.Cleanup(users.Close)
	d := &daemon{path: path, config: c, state: s, users: users, log: logger, level: new(slog.LevelVar)}
	t.Cleanup(func() { s.close(nil) })
	d.rules, err = newRules(t.Context(), c, s, users, logger)
	must(t, err)
	s.rules.Store(d.rules)
	d.guard = guard.New(d.rules.policy, logger, logger)
	for name, change := range map[string][2]string{
		"a list that nobody knows":      {"[rbl]", "[rbl]\nenable = [\"nobody.knows.example\"]"},
		"a list that is closed":         {"[rbl]", "[rbl]\nenable = [\"bl.sorbs.net\"]"},
		"a file that is not there":      {"zones.toml", "no-zones.toml"},
		"a value that cannot be":        {"timeout = \"2s\"", "timeout = \"2h\""},
		"a public resolver as a name":   {"resolvers = [\"", "resolvers = [\"dns.google:"},
		"keys that are not that of any": {"[inside]", "[[zone_key]]\noperator = \"nobody knows\"\nfile = \"key\"\n[inside]"},
	} {
		before := len(log.String())
		must(t, os.WriteFile(path, []byte(strings.Replace(good, change[0], change[1], 1)), 0o600))
		d.reload(t.Context())
		if said := log.String()[before:]; s.config.Load() != c || !strings.Contains(said, "configuration not reloaded; the old one stays in force") {
			t.Errorf("%s: in force is another: %v; %s", name, s.config.Load() != c, said)
		}
	}
	must(t, os.WriteFile(path, []byte(strings.Replace(good, "[rbl]", "[rbl]\nalert = \"high\"", 1)), 0o600))
	d.reload(t.Context())
	if now := s.config.Load(); now == c || now.RBL.Alert != rbl.High {
		t.Errorf("a good one is not in force: %s", log.String())
	}
	select {
	case <-s.blocklists.hurry:
	default:
		t.Error("nothing is checked anew")
	}
}
