package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/report"
	"relayguard/journal"
	"relayguard/rbl"
)

// postOffice is a mail server that takes letters but for whom it refuses.
type postOffice struct {
	address string

	mu      sync.Mutex
	refuses map[string]string // reply by address
	tried   map[string]int
	mute    map[string]bool // hang up instead of saying that a letter was taken
	got     []string        // who got a letter
}

func newPostOffice(t *testing.T) *postOffice {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	p := &postOffice{address: l.Addr().String(), refuses: map[string]string{}, tried: map[string]int{}}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(conn)
		}
	}()
	return p
}

func (p *postOffice) serve(conn net.Conn) {
	defer conn.Close()
	io.WriteString(conn, "220 mx\r\n")
	to, data := "", false
	for r := bufio.NewScanner(conn); r.Scan(); {
		switch line := r.Text(); {
		case data && line == ".":
			data = false
			p.mu.Lock()
			p.got = append(p.got, to)
			mute := p.mute[to]
			p.mu.Unlock()
			if mute {
				return
			}
			io.WriteString(conn, "250 ok\r\n")
		case data:
		case strings.HasPrefix(line, "RCPT TO:"):
			to = strings.Trim(strings.TrimPrefix(line, "RCPT TO:"), "<>")
			p.mu.Lock()
			p.tried[to]++
			reply := p.refuses[to]
			p.mu.Unlock()
			if reply == "" {
				reply = "250 ok"
			}
			io.WriteString(conn, reply+"\r\n")
		case line == "DATA":
			data = true
			io.WriteString(conn, "354 go on\r\n")
		default:
			io.WriteString(conn, "250 ok\r\n")
		}
	}
}

func (p *postOffice) refuse(to, reply string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuses[to] = reply
}

func (p *postOffice) silence(to string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mute = map[string]bool{to: true}
}

// letters are who got one, in order of names, since it was asked last.
func (p *postOffice) letters() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	got := p.got
	p.got = nil
	slices.Sort(got)
	return got
}

func mailedState(t *testing.T, p *postOffice, change func(*config.Config)) (*daemon, *state) {
	return quietState(t, func(c *config.Config) {
		c.MTA.SMTP, c.Report.To = p.address, []string{"inside@example.jp", "outside@example.net"}
		if change != nil {
			change(c)
		}
	})
}

// Review: while all mail is stopped, Postfix refuses who is outside, and who is inside
// waited for that, too.
func TestDailyReportIsTriedAgainForWhoDoesNotHaveItAlone(t *testing.T) {
	p := newPostOffice(t)
	d, s := mailedState(t, p, nil)
	p.refuse("outside@example.net", "450 4.7.1 stopped")
	c, now := s.config.Load(), morning(2)
	d.dailyReport(t.Context(), c, now, now)
	if got, want := p.letters(), []string{"inside@example.jp"}; !slices.Equal(got, want) {
		t.Fatalf("%q, want %q", got, want)
	}
	if !daemonOf(s).reportDone(t.Context(), now) {
		t.Error("a restart makes it anew")
	}
	next := d.mailAgain(t.Context(), now.Add(time.Second))
	if n := p.tried["outside@example.net"]; n != 1 || !next.After(now) || next.Sub(now) > time.Minute {
		t.Errorf("tried %d times; next %s", n, next)
	}
	for range 10 { // for hours
		next = d.mailAgain(t.Context(), next)
	}
	if after := d.mailAgain(t.Context(), next).Sub(next); after != reportAgain || len(p.letters()) != 0 {
		t.Errorf("tried again after %s", after)
	}
	d = daemonOf(s) // a restart in between
	p.refuse("outside@example.net", "")
	if next := d.mailAgain(t.Context(), now.Add(time.Hour)); !next.IsZero() {
		t.Errorf("it is tried again at %s", next)
	}
	if got, want := p.letters(), []string{"outside@example.net"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for _, d := range []*daemon{d, daemonOf(s)} {
		if next := d.mailAgain(t.Context(), now.Add(2*time.Hour)); !next.IsZero() || len(p.letters()) != 0 {
			t.Errorf("mailed again, next %s", next)
		}
	}
}

// Review: who takes a letter and whose answer is lost got a hundred copies a day.
func TestDailyReportThatMayHaveBeenTakenIsTriedTwiceAtMost(t *testing.T) {
	p := newPostOffice(t)
	d, s := mailedState(t, p, nil)
	p.silence("outside@example.net")
	now := morning(2)
	d.dailyReport(t.Context(), s.config.Load(), now, now)
	next := d.mailAgain(t.Context(), now.Add(time.Second))
	for range 20 {
		if next.IsZero() {
			break
		}
		d = daemonOf(s) // how often it was tried outlives a restart
		next = d.mailAgain(t.Context(), next)
	}
	if got := len(p.letters()); !next.IsZero() || got != 1+mostUnanswered {
		t.Errorf("%d letters, tried next at %s", got, next)
	}
}

// Review: a report that was cut off by the daemon's end was kept, and mailed to all.
func TestDailyReportThatIsCutOffIsNone(t *testing.T) {
	p := newPostOffice(t)
	d, s := mailedState(t, p, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	now := morning(2)
	d.dailyReport(ctx, s.config.Load(), now, now)
	if daemonOf(s).reportDone(t.Context(), now) || len(p.letters()) != 0 {
		t.Error("it counts as made")
	}
	if _, err := reportOfDay(s.config.Load(), now.Format(reportDay)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is kept: %v", err)
	}
}

func TestDailyReportIsNotTriedForEver(t *testing.T) {
	p := newPostOffice(t)
	d, s := mailedState(t, p, nil)
	p.refuse("outside@example.net", "550 5.1.1 nobody")
	now := morning(2)
	d.dailyReport(t.Context(), s.config.Load(), now, now)
	p.refuse("outside@example.net", "")
	p.letters()
	if next := d.mailAgain(t.Context(), now.Add(giveUpAfter+time.Hour)); !next.IsZero() || len(p.letters()) != 0 {
		t.Errorf("an old one is mailed, next %s", next)
	}
	c := *s.config.Load() // who is taken out is not written to
	c.Report.To = []string{"inside@example.jp"}
	s.config.Store(&c)
	if next := d.mailAgain(t.Context(), now.Add(time.Hour)); !next.IsZero() || len(p.letters()) != 0 {
		t.Errorf("mailed to who was taken out, next %s", next)
	}
}

// Review: an admin waited six minutes for each recipient that was refused.
func TestReportThatIsOrderedIsTriedOnceAndSaysWhoDidNotGetIt(t *testing.T) {
	path, _ := listsOf(t, twoLists, "watch = false\n", nil)
	d, s := reportingDaemon(t, path)
	p := newPostOffice(t)
	p.refuse("outside@example.net", "450 4.7.1 stopped")
	c := *s.config.Load()
	c.MTA.SMTP, c.Report.At = p.address, "06:30"
	s.config.Store(&c)
	code, _, stderr := d.run("report", "--mail", "--to", "outside@example.net,inside@example.jp")
	if code != exitCannotTell || !strings.Contains(stderr, "to outside@example.net: ") || !strings.Contains(stderr, "4.7.1 stopped") || !strings.Contains(stderr, "mailed to inside@example.jp") || strings.Contains(stderr, "to inside@example.jp: ") {
		t.Errorf("exit %d, %q", code, stderr)
	}
	if got := p.letters(); !slices.Equal(got, []string{"inside@example.jp"}) || p.tried["outside@example.net"] != 1 {
		t.Errorf("%q, tried %v", got, p.tried)
	}
	if files, _ := filepath.Glob(filepath.Join(c.ReportDirectory(), "*")); len(files) != 0 {
		t.Errorf("one that is asked for is kept as the day's: %q", files)
	}
}

// Review: with the timer that is shipped no report was kept.
func TestReportOfATimerIsTheDailyOne(t *testing.T) {
	path, _ := listsOf(t, twoLists, "watch = false\n", nil)
	d, s := listedDaemon(t, path)
	p := newPostOffice(t)
	p.refuse("outside@example.net", "450 4.7.1 stopped")
	c := *s.config.Load()
	c.MTA.SMTP, c.Report.At, c.Report.To = p.address, "", []string{"inside@example.jp", "outside@example.net"}
	s.config.Store(&c)
	one := daemonOf(s)
	one.reportOperations(d.mux)
	code, _, stderr := d.run("report", "--mail")
	today := time.Now()
	if code != exitCannotTell || !strings.Contains(stderr, "outside@example.net") || !strings.Contains(stderr, "tried again") {
		t.Errorf("exit %d, %q", code, stderr)
	}
	if r, err := keptReport(&c, today); err != nil || r.Made.Format(reportDay) != today.Format(reportDay) {
		t.Fatalf("%v, %+v", err, r)
	}
	if !daemonOf(s).reportDone(t.Context(), today) {
		t.Error("it is not noted that the day's report was made")
	}
	p.refuse("outside@example.net", "")
	p.letters()
	one.mailAgain(t.Context(), today.Add(time.Hour))
	if got := p.letters(); !slices.Equal(got, []string{"outside@example.net"}) {
		t.Errorf("tried again: %q", got)
	}
	// What is mailed by hand counts for who waits.
	p.refuse("outside@example.net", "450 4.7.1 stopped")
	d.run("report", "--mail")
	p.refuse("outside@example.net", "")
	if code, _, stderr := d.run("report", "--mail", "--day", today.Format(reportDay), "--to", "outside@example.net"); code != exitFine {
		t.Errorf("exit %d, %q", code, stderr)
	}
	p.letters()
	one.mailAgain(t.Context(), today.Add(2*time.Hour))
	if got := p.letters(); len(got) != 0 {
		t.Errorf("mailed twice: %q", got)
	}
}

func TestDailyReportBeginsWhereTheLastOneEnded(t *testing.T) {
	now := morning(20)
	for name, c := range map[string]struct{ last, want time.Time }{
		"the first":             {time.Time{}, now.AddDate(0, 0, -1)},
		"a moment late":         {now.Add(-24*time.Hour - time.Second), now.Add(-24*time.Hour - time.Second)},
		"a moment early":        {now.Add(-24*time.Hour + time.Second), now.Add(-24*time.Hour + time.Second)},
		"away for two days":     {now.Add(-70 * time.Hour), now.Add(-70 * time.Hour)},
		"away for long":         {now.AddDate(0, -1, 0), now.Add(-7 * 24 * time.Hour)},
		"again on the same day": {now.Add(-time.Hour), now.AddDate(0, 0, -1)},
		"the clock was ahead":   {now.Add(time.Hour), now.AddDate(0, 0, -1)},
	} {
		if got := reportSince(c.last, now); !got.Equal(c.want) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	d, s := quietState(t, nil)
	c := s.config.Load()
	d.dailyReport(t.Context(), c, morning(2).Add(time.Second), morning(2))
	must(t, s.journal.Append(journal.Incident{ID: "I1", Origin: "login:taro@example.jp", Cause: "volume", Opened: morning(2).Add(2 * time.Second), Closed: morning(2).Add(time.Hour), State: []byte("{}")}))
	d = daemonOf(s) // it was away for a day
	d.dailyReport(t.Context(), c, morning(4), morning(4))
	r, err := keptReport(c, morning(4))
	must(t, err)
	if len(r.Incidents) != 1 || !r.Since.Equal(morning(2).Add(time.Second)) {
		t.Errorf("since %s: %+v", r.Since, r.Incidents)
	}
	if r := d.report(t.Context(), morning(4)); !r.Since.Equal(morning(3)) {
		t.Errorf("one by hand begins at %s", r.Since)
	}
}

// Review: rows that were dropped weeks ago were told each day.
func TestReportCountsDroppedRowsSinceTheLastOne(t *testing.T) {
	start := morning(1)
	last := lastReport{Dropped: 40, Process: start}
	for name, c := range map[string]struct {
		last    lastReport
		process time.Time
		want    int64
	}{
		"the same process": {last, start, 60},
		"another one":      {last, start.Add(time.Hour), 100},
		"none before":      {lastReport{}, start, 100},
		"never fewer":      {lastReport{Dropped: 400, Process: start}, start, 0},
	} {
		if got := c.last.droppedSince(100, c.process); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// What is usual is of as long a time.
func TestReportOfSeveralDaysComparesWithAsMany(t *testing.T) {
	s := newReportScene(t)
	for day := range 20 {
		s.sent(s.now.AddDate(0, 0, -day).Add(-12*time.Hour), "login:taro@example.jp", 100, nil)
	}
	s.sources.since = s.now.Add(-72 * time.Hour)
	if m := s.report().Mail; m.Total.Accepted != 300 || m.Usual == nil || m.Usual.Accepted < 250 || m.Usual.Accepted > 330 {
		t.Errorf("%+v, usual %+v", m.Total, m.Usual)
	}
}

func TestKeptReportsAreBounded(t *testing.T) {
	c := stateConfig(t)
	dir := c.ReportDirectory()
	must(t, os.MkdirAll(dir, 0o750))
	for day := 1; day <= 5; day++ {
		for _, form := range []string{"json", "txt"} {
			f, err := os.Create(reportFile(c, morning(day), form))
			must(t, err)
			must(t, f.Truncate(maxReports/6+1))
			must(t, f.Close())
		}
	}
	must(t, sweepReports(c, morning(5)))
	left, err := keptDays(c)
	must(t, err)
	if len(left) != 2 || left[0].day != "2026-03-05" || left[1].day != "2026-03-04" {
		t.Errorf("%+v", left)
	}
	must(t, os.Truncate(reportFile(c, morning(5), "json"), maxReports+1))
	must(t, sweepReports(c, morning(5)))
	if left, err := keptDays(c); err != nil || len(left) != 1 || left[0].day != "2026-03-05" {
		t.Errorf("%+v, %v", left, err)
	}
}

// keptOf keeps a report of a day that names somebody.
func keptOf(t *testing.T, c *config.Config, day int, name string) {
	t.Helper()
	r := emptyReport(morning(day))
	r.Changes = append(r.Changes, report.Change{Kind: report.ChangeVolume, What: name})
	must(t, keepReport(c, morning(day), r))
}

func TestPurgeSaysWhichKeptReportsNameAnAccountAndRemovesThem(t *testing.T) {
	path, _ := listsOf(t, twoLists, "watch = false\n", nil)
	d, s := reportingDaemon(t, path)
	d.always("POST /v1/journal/purge", nothing{})
	c := s.config.Load()
	names := []string{"login:taro@example.jp", "taro@example.jp", "Mail of <TARO@example.jp>.", "kentaro@example.jp", "taro@example.jp.test", "local_user:taro"}
	for i, name := range names {
		keptOf(t, c, i+1, name)
	}
	code, _, stderr := d.run("journal", "purge", "--account", "taro@example.jp", "--reason", "asked for it", "--yes")
	if code != exitFine || !strings.Contains(stderr, "3 kept reports name it, the newest of 2026-03-03; --reports removes them") {
		t.Errorf("exit %d, %q", code, stderr)
	}
	code, _, stderr = d.run("journal", "purge", "--account", "taro@example.jp", "--reason", "asked for it", "--yes", "--reports")
	if code != exitFine || !strings.Contains(stderr, "3 kept reports that named it: removed") {
		t.Errorf("exit %d, %q", code, stderr)
	}
	left, err := keptDays(c)
	must(t, err)
	var days []string
	for _, d := range left {
		days = append(days, d.day)
	}
	if want := []string{"2026-03-06", "2026-03-05", "2026-03-04"}; !slices.Equal(days, want) {
		t.Errorf("%q stay, want %q", days, want)
	}
	if got := actionsOf(t, s); !slices.Equal(got, []string{"report forget login:taro@example.jp asked for it: 3 reports removed"}) {
		t.Errorf("%q", got)
	}
	must(t, os.WriteFile(reportFile(c, morning(5), "json"), []byte("{"), 0o600)) // what cannot be read may name it
	if all, err := reportsNaming(c, "login:taro@example.jp"); err != nil || len(all) != 1 || all[0].day != "2026-03-05" {
		t.Errorf("%+v, %v", all, err)
	}
	for account, want := range map[string]int{"local_user:taro": 1, "login:taro": 0, "unknown": 0} {
		all, err := reportsNaming(c, account)
		all = slices.DeleteFunc(all, func(d keptDay) bool { return d.day == "2026-03-05" })
		if err != nil || len(all) != want {
			t.Errorf("%s: %+v, %v", account, all, err)
		}
	}
	if all, err := reportsNaming(stateConfig(t), "unknown"); err != nil || len(all) != 0 {
		t.Errorf("none are kept: %+v, %v", all, err)
	}
}

// Review: an example of the help had a flag that there is not.
func TestExamplesOfReportAndBlocklistCommandsAreCommands(t *testing.T) {
	n := 0
	for _, name := range []string{"report", "rbl", "rbl check", "rbl status", "rbl history", "rbl zones", "rbl addresses", "journal purge"} {
		cmd, _, err := newRoot().Find(strings.Fields(name))
		must(t, err)
		for line := range strings.SplitSeq(cmd.Example, "\n") {
			if line = strings.TrimSpace(line); line == "" {
				continue
			}
			n++
			parsed(t, line)
		}
	}
	if n < 10 {
		t.Errorf("%d examples", n)
	}
}

// parsed checks that a line of a shell is a command of ours.
func parsed(t *testing.T, line string) {
	t.Helper()
	words := shellWords(line)
	if i := slices.Index(words, "|"); i >= 0 {
		words = words[:i]
	}
	if len(words) == 0 || words[0] != "relayguard" {
		t.Errorf("%q is no command of ours", line)
		return
	}
	cmd, args, err := newRoot().Find(words[1:])
	if err == nil {
		err = cmd.ParseFlags(args)
	}
	if err == nil && cmd.HasSubCommands() {
		err = fmt.Errorf("%s is no command", cmd.CommandPath())
	}
	if err == nil && cmd.Args != nil {
		err = cmd.Args(cmd, cmd.Flags().Args())
	}
	if err != nil {
		t.Errorf("%s: %v", line, err)
	}
}

// shellWords splits a line at blanks that are not in quotes.
func shellWords(line string) (words []string) {
	var word strings.Builder
	in, quote := false, rune(0)
	for _, r := range line + " " {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			in, quote = true, r
		case r == ' ' && (in || word.Len() > 0):
			words = append(words, word.String())
			word.Reset()
			in = false
		case r != ' ':
			word.WriteRune(r)
		}
	}
	return words
}

// The commands of steps are commands, and nothing else.
func TestStepsHaveCommandsThatThereAre(t *testing.T) {
	s := newReportScene(t)
	first := s.ago(5 * time.Hour)
	s.shareAbuse(first, 14)
	s.listed(first, isListed(ourAddr, "bl.example", hit(2, rbl.High, rbl.ScopeAddress)))
	s.sent(s.ago(time.Hour), "login:taro@example.jp", 1, held("volume"))
	must(t, s.journal.Append(journal.Incident{ID: "I1", Origin: "login:taro@example.jp", Cause: "volume", Opened: s.ago(time.Hour), State: []byte("{}")}, journal.Trouble{What: "queue", Why: "no helper", Since: s.ago(time.Hour)}))
	n := 0
	for _, step := range s.report().Steps {
		if step.Command != "" {
			n++
			parsed(t, step.Command)
		}
	}
	if n < 5 {
		t.Errorf("%d commands", n)
	}
	parsed(t, proveCommand)
}
