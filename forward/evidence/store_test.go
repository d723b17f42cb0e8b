package evidence_test

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/forward"
	"relayguard/forward/evidence"
	"relayguard/mta/maillog"
)

var virtual = rules{{"v1@valias.test", "vout1@evil.test", forward.Virtual, false}}

const virtualID = "v1@valias.test>vout1@evil.test"

// mailFrom has n mails go by virtual, each from its own sender.
func mailFrom(x *trace, n int) {
	for i := range n {
		id := fmt.Sprintf("B1B3D9%05X", i)
		x.say("smtpd: "+id+": client=mail.partner.test[192.0.2.7]", "cleanup: "+id+fmt.Sprintf(": message-id=<%d@partner.test>", i),
			"qmgr: "+id+fmt.Sprintf(": from=<c%d@partner.test>, size=310, nrcpt=1 (queue active)", i))
		x.say(leaves(id, "vout1@evil.test", "v1@valias.test")...)
	}
}

func TestReportSaysWhatIsKnownAndWhatNot(t *testing.T) {
	x := newTrace(t, virtual, evidence.TrackerOptions{})
	mailFrom(x, 3)
	x.say("smtp: B1B3D900009: to=<vout1@evil.test>, orig_to=<v1@valias.test>, relay=x[192.0.2.1]:25, delay=1, delays=1/0/0/0, dsn=5.1.1, status=bounced (no)",
		"smtp: B1B3D900008: to=<vout1@evil.test>, orig_to=<v1@valias.test>, relay=none, delay=1, delays=1/0/0/0, dsn=4.1.1, status=deferred (no)",
		"qmgr: B1B3D900007: from=<"+strings.Repeat("x", 2100))
	from := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	x.Gap(maillog.Gap{From: from, To: from.Add(time.Hour), Why: "the log was emptied"})
	x.done()
	r, err := x.store.Report(t.Context(), virtualID, now)
	must(t, err)
	if r.Mails != 5 || r.Delivered != 3 || r.Bounced != 1 || r.Deferred != 1 || r.DistinctSenders != 3 || r.Certain != 5 || r.Possible != 0 ||
		!slices.Equal(r.Targets, []string{"vout1@evil.test"}) || len(r.Gaps) != 1 || !r.From.Before(r.To) {
		t.Errorf("report %+v", r)
	}
	not := strings.Join(r.NotKnown, "\n")
	for _, want := range []string{"evidence incomplete from 2026-11-22T03:00:00Z to 2026-11-22T04:00:00Z: the log was emptied", "begins there", "1 log lines"} {
		if !strings.Contains(not, want) {
			t.Errorf("%q is not among what is not known:\n%s", want, not)
		}
	}
	none, err := x.store.Report(t.Context(), "F0", now)
	if err != nil || none.Mails != 0 || len(none.Known) != 1 || !none.From.IsZero() {
		t.Errorf("report of no mail %+v, %v", none, err)
	}
	var back evidence.Mail
	mails, err := x.store.Mails(t.Context(), virtualID, time.Time{}, time.Time{}, 1)
	must(t, err)
	data, err := json.Marshal(mails[0])
	must(t, err)
	must(t, json.Unmarshal(data, &back))
	if back.Sure != evidence.Certain || back.SenderDomain != "partner.test" || strings.Contains(string(data), `"c0@`) {
		t.Errorf("mail %s", data)
	}
}

func TestOldMailsAreCountedOnly(t *testing.T) {
	x := newTrace(t, virtual, evidence.TrackerOptions{})
	mailFrom(x, 1200)
	x.done()
	before, err := x.store.Summary(t.Context(), virtualID)
	must(t, err)
	must(t, x.store.Purge(t.Context(), now.AddDate(0, 0, 31)))
	after, err := x.store.Summary(t.Context(), virtualID)
	must(t, err)
	if before.Mails != 1200 || after.Mails != 1200 || after.First != before.First || after.Last != before.Last || after.Sure != evidence.Certain {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if got := x.mails(virtualID); len(got) != 0 {
		t.Errorf("%d mails are still there", len(got))
	}
	r, err := x.store.Report(t.Context(), virtualID, now)
	if err != nil || r.Delivered != 1200 || r.DistinctSenders != 0 || !strings.Contains(strings.Join(r.NotKnown, "\n"), "1200 mails: they are older") {
		t.Errorf("report %+v, %v", r, err)
	}
	must(t, x.store.Purge(t.Context(), now.AddDate(2, 0, 0)))
	if gone, err := x.store.Summary(t.Context(), virtualID); err != nil || gone.Mails != 0 {
		t.Errorf("after two years: %+v, %v", gone, err)
	}
}

func TestFloodDropsTheOldestAndSaysSo(t *testing.T) {
	x := newTrace(t, virtual, evidence.TrackerOptions{MaxFlights: 10})
	for i := range 100 {
		x.say(fmt.Sprintf("smtpd: B1B3D9%05X: client=x[192.0.2.7]", i))
	}
	mailFrom(x, 1)
	x.done()
	x.want(virtualID, "B1B3D900000 B1B3D900000 v1@valias.test vout1@evil.test sent orig_to certain")
	sum, err := x.store.Summary(t.Context(), virtualID)
	must(t, err)
	if len(sum.Gaps) == 0 || !strings.Contains(sum.Gaps[0].Why, "more messages were in flight") || sum.Gaps[0].From.IsZero() {
		t.Errorf("gaps %+v", sum.Gaps)
	}
}

func TestOneMessageToVeryMany(t *testing.T) {
	x := newTrace(t, rules{}, evidence.TrackerOptions{})
	x.say(arrives(in, "<T1@partner.test>")...)
	for i := range 500 {
		x.say(leaves(in, fmt.Sprintf("o%d@evil.test", i), "list@corp.test")[0])
	}
	x.done()
	flows, err := x.store.Unexplained(t.Context(), time.Time{})
	if err != nil || len(flows) != 500 {
		t.Errorf("%d flows, %v", len(flows), err)
	}
}

func TestBrokenDatabaseIsPutAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "evidence.db")
	must(t, os.WriteFile(path, []byte(strings.Repeat("no database ", 1000)), 0o600))
	x := traceIn(t, path, virtual, evidence.TrackerOptions{})
	mailFrom(x, 1)
	x.done()
	sum, err := x.store.Summary(t.Context(), virtualID)
	if err != nil || sum.Mails != 1 || len(sum.Gaps) != 1 || !sum.Gaps[0].From.IsZero() {
		t.Errorf("summary %+v, %v", sum, err)
	}
	if aside, _ := filepath.Glob(path + ".corrupt-*"); len(aside) != 1 {
		t.Errorf("put aside: %q", aside)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestNoLinkIsFollowed(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Symlink(filepath.Join(dir, "elsewhere"), filepath.Join(dir, "evidence.db")))
	if _, err := evidence.Open(t.Context(), filepath.Join(dir, "evidence.db"), evidence.Options{}); err == nil {
		t.Error("a symbolic link was followed")
	}
}

// While the database cannot be written the events wait; when too many do, the log
// waits, and nothing is lost.
func TestLockedDatabaseLosesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "evidence.db")
	x := traceIn(t, path, virtual, evidence.TrackerOptions{Batch: 1_000_000})
	mailFrom(x, 1)
	db, err := sql.Open("sqlite3", "file:"+path+"?_txlock=exclusive&_busy_timeout=1")
	must(t, err)
	defer db.Close()
	lock, err := db.Begin()
	must(t, err)
	if err := x.Flush(t.Context()); err == nil {
		t.Fatal("a locked database was written")
	}
	if x.store.Checkpoint() != "" {
		t.Error("a checkpoint without its rows")
	}
	e := maillog.Event{Kind: maillog.AuthFailed, Time: now.Add(-time.Hour)}
	for i := range 30_000 {
		if err = x.Event(e, position(t, 100+i)); err != nil {
			break
		}
	}
	if !errors.Is(err, evidence.ErrWaits) {
		t.Errorf("events without end: %v", err)
	}
	must(t, lock.Rollback())
	must(t, x.Event(e, position(t, 50_000)))
	x.done()
	if got := x.mails(virtualID); len(got) != 1 || x.store.Checkpoint() != position(t, 50_000).String() {
		t.Errorf("mails %q, checkpoint %q", got, x.store.Checkpoint())
	}
}

func TestInMemory(t *testing.T) {
	x := traceIn(t, "", virtual, evidence.TrackerOptions{})
	mailFrom(x, 2)
	x.done()
	if got := x.mails(virtualID); len(got) != 2 {
		t.Errorf("mails %q", got)
	}
}

// A new next hop of mail for inside addresses is shown, by its name without the port.
func TestRelays(t *testing.T) {
	x := newTrace(t, rules{}, evidence.TrackerOptions{})
	for _, port := range []string{"25", "2525"} {
		x.say("smtp: " + in + ": to=<a@corp.test>, relay=mx.corp.test[192.0.2.3]:" + port + sent + "(250 ok)")
	}
	x.say("smtp: "+in+": to=<b@corp.test>, relay=evil[203.0.113.9]:25"+sent+"(250 ok)", "smtp: "+in+": to=<b@evil.test>, relay=far[203.0.113.8]:25"+sent+"(250 ok)")
	x.done()
	relays, err := x.store.Relays(t.Context())
	must(t, err)
	var got []string
	for _, r := range relays {
		got = append(got, fmt.Sprint(r.Program, " ", r.Relay, " ", r.Mails))
	}
	if !slices.Equal(got, []string{"postfix/smtp evil[203.0.113.9] 1", "postfix/smtp mx.corp.test[192.0.2.3] 2"}) {
		t.Errorf("relays %q", got)
	}
}

// FuzzTracker has lines in any order and form go through a tracker: it must stand
// them, stay within its bounds and come to the same after a restart.
func FuzzTracker(f *testing.F) {
	for _, name := range []string{"testdata/postfix-3.7.11.log", "testdata/dovecot-2.3.19.log"} {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data[:min(len(data), 8000)]))
		f.Add(string(data[max(0, len(data)-6000):]))
	}
	r := rules{{"v1@valias.test", "vout1@evil.test", forward.Virtual, false}, {"*", "hcbcc@evil.test", forward.Checks, false}, {"games@corp.test", "piped@evil.test", forward.Procmail, false}}
	f.Fuzz(func(t *testing.T, log string) {
		store, err := evidence.Open(t.Context(), "", options())
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		o := evidence.TrackerOptions{MaxFlights: 5, Batch: 4}
		x, err := evidence.NewTracker(store, func() evidence.Rules { return r }, o)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for line := range strings.Lines(log) {
			l, ok := maillog.ParseLine(strings.TrimSuffix(line, "\n"), now, time.UTC)
			if !ok {
				continue
			}
			if n++; n > 200 {
				break
			}
			if err := x.Event(maillog.Read(l), position(t, n)); err != nil {
				t.Fatal(err)
			}
		}
		if err := x.Finish(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := evidence.NewTracker(store, func() evidence.Rules { return r }, o); err != nil {
			t.Fatal(err)
		}
		flows, err := store.Unexplained(t.Context(), time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range flows {
			if r.Inside(f.RcptTo) {
				t.Fatalf("inside mail is unexplained: %+v", f)
			}
		}
	})
}
