package journal_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"relayguard/journal"
	"relayguard/policy"
)

// start is a time like that of a fresh journal: segments are numbered by it.
var start = time.Now().UTC().Truncate(time.Microsecond)

// newID gives ids that sort by time, as the guard's do.
func newID(n int) string { return fmt.Sprintf("%013d", n) }

// accepted is a plain accepted message.
func accepted(n int) journal.Decision {
	return journal.Decision{
		ID: newID(n), Time: start.Add(time.Duration(n) * time.Millisecond), Stage: journal.StageMessage,
		Verdict: policy.Accept, Phase: policy.Enforce, Listener: "submission", Role: policy.Submission,
		Account: "login:taro@example.jp", Login: "taro@example.jp", LoginBy: "PLAIN", Confidence: "kernel",
		ClientIP: "203.0.113.7", ClientName: "unknown", Helo: "pc.example.jp", UID: -1,
		MailFrom: "taro@example.jp", HeaderFrom: "taro@example.jp", MessageID: fmt.Sprintf("<%d@example.jp>", n),
		QueueID: fmt.Sprintf("A%07X", n), Size: 2310, Recipients: 2, Domains: map[string]int{"example.net": 2},
	}
}

// held is a message that a limit held.
func held(n int) journal.Decision {
	d := accepted(n)
	d.Verdict, d.Rule, d.Reason = policy.Hold, "login-hour", "301 recipients of 300 in 1h"
	d.Findings = []policy.Finding{{Rule: "login-hour", Verdict: policy.Hold, Reason: d.Reason}}
	d.Counters = []policy.Counter{{
		Limit: "login-hour", Key: d.Account, Unit: "recipients", Kind: "volume", Window: time.Hour,
		Count: 300, Used: 299, Amount: 2, Over: true, FreeAt: d.Time.Add(20 * time.Minute),
	}}
	return d
}

// refused is a recipient refused at RCPT.
func refused(n int) journal.Decision {
	d := accepted(n)
	d.Stage, d.Verdict, d.Rule, d.Reply, d.Recipients = journal.StageRecipient, policy.Reject, "auth", "530 5.7.0 Authentication required", 1
	d.Account, d.Login, d.LoginBy, d.QueueID = "unknown", "", "", ""
	return d
}

// logged collects what a journal says.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// patience is how long a search may wait for what was appended just before: on a
// busy machine the database takes it in late, and a search that went ahead would
// have an answer without it.
const patience = 30 * time.Second

// open opens a journal that is closed at the end of the test.
func open(t testing.TB, options journal.Options) *journal.Journal {
	t.Helper()
	j := openOnly(t, options)
	t.Cleanup(func() {
		if err := j.Close(); err != nil && !errors.Is(err, journal.ErrClosed) {
			t.Error(err)
		}
	})
	return j
}

func openOnly(t testing.TB, options journal.Options) *journal.Journal {
	t.Helper()
	if options.MinFree == 0 {
		options.MinFree = 1
	}
	if options.Log == nil {
		options.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	options.Settle = patience
	j, err := journal.Open(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually polls until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within 20s: %s", what)
		}
	}
}

func same[T any](t testing.TB, what string, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

func explain(t testing.TB, j *journal.Journal, id string) []journal.Explanation {
	t.Helper()
	found, err := j.Explain(t.Context(), id)
	must(t, err)
	return found
}

func TestDecisionComesBackAsItWas(t *testing.T) {
	j := open(t, journal.Options{Dir: t.TempDir()})
	want := held(1)
	want.LastRepeat, want.Repeats = start, 3
	must(t, j.Append(want))
	got := explain(t, j, want.ID)
	if len(got) != 1 {
		t.Fatalf("got %d explanations", len(got))
	}
	same(t, "decision", got[0].Decision, want)
	wantHold := journal.Hold{
		QueueID: want.QueueID, DecisionID: want.ID, Account: want.Account, Rule: want.Rule, Reason: want.Reason,
		MailFrom: want.MailFrom, HeldAt: want.Time, Size: want.Size, Recipients: want.Recipients,
		Domains: want.Domains, State: journal.StateHeld, Changed: want.Time,
	}
	same(t, "holds", got[0].Holds, []journal.Hold{wantHold})
}

func TestEveryRecordComesBack(t *testing.T) {
	dir := t.TempDir()
	j := open(t, journal.Options{Dir: dir})
	action := journal.AdminAction{Time: start, By: "root", UID: 0, LoginUID: 1000, Verb: "suspend", Target: "login:taro@example.jp", Reason: "phished", Outcome: "done"}
	incident := journal.Incident{
		ID: "i1", Origin: "login:taro@example.jp", Cause: "burst", Noticed: "login-hour", Opened: start, Updated: start.Add(time.Second),
		Stops: 3, Recipients: 90, State: json.RawMessage(`{"notes":["began"]}`),
	}
	closed := incident
	closed.ID, closed.Closed, closed.State = "i0", start.Add(time.Minute), nil
	must(t, j.Append(action, incident, closed))
	j.Note(journal.Value{Name: "maillog", Value: "old"})
	j.Note(journal.Value{Name: "maillog", Value: "offset 17"})

	actions, err := j.AdminActions(t.Context(), 10)
	must(t, err)
	same(t, "admin actions", actions, []journal.AdminAction{action})
	all, err := j.Incidents(t.Context(), false)
	must(t, err)
	same(t, "incidents", all, []journal.Incident{incident, closed})
	opened, err := j.Incidents(t.Context(), true)
	must(t, err)
	same(t, "open incidents", opened, []journal.Incident{incident})
	value, found, err := j.Value(t.Context(), "maillog")
	must(t, err)
	if value != "offset 17" || !found {
		t.Errorf("value: got %q, %v", value, found)
	}
	_, found, err = j.Value(t.Context(), "other")
	must(t, err)
	if found {
		t.Error("a value that nobody set was found")
	}

	must(t, j.Close())
	j = open(t, journal.Options{Dir: dir})
	actions, err = j.AdminActions(t.Context(), 10)
	must(t, err)
	same(t, "admin actions after reopening", actions, []journal.AdminAction{action})
}

func TestAppendNeverWritesAddressesOfRecipients(t *testing.T) {
	dir := t.TempDir()
	j := open(t, journal.Options{Dir: dir})
	d := held(1)
	d.Domains = map[string]int{"hanako@example.net": 1}
	must(t, j.Append(d))
	must(t, j.Close())
	for _, name := range files(t, dir) {
		text, err := os.ReadFile(name)
		must(t, err)
		if bytes.Contains(text, []byte("hanako")) {
			t.Errorf("%s names a recipient", name)
		}
	}
}

// files are all below dir.
func files(t testing.TB, dir string) []string {
	t.Helper()
	var names []string
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			names = append(names, path)
		}
		return err
	}))
	if len(names) == 0 {
		t.Fatalf("no files in %s", dir)
	}
	return names
}

func TestFilesAreOursAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	j := open(t, journal.Options{Dir: dir})
	must(t, j.Append(held(1)))
	must(t, j.Sync(t.Context()))
	for _, name := range files(t, dir) {
		info, err := os.Stat(name)
		must(t, err)
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
}

func TestRepeatsAndDeliveriesAdd(t *testing.T) {
	j := open(t, journal.Options{Dir: t.TempDir()})
	r, a := refused(1), accepted(2)
	must(t, j.Append(r, a))
	j.Note(journal.Repeat{ID: r.ID, N: 40, Last: r.Time.Add(time.Second)})
	j.Note(journal.Repeat{ID: r.ID, N: 2, Last: r.Time.Add(2 * time.Second)})
	for _, status := range []string{"sent", "sent", "deferred", "bounced", "expired", "unheard-of"} {
		j.Note(journal.Delivery{QueueID: a.QueueID, Time: a.Time.Add(time.Second), Status: status, N: 1})
	}
	got := explain(t, j, r.ID)[0].Decision
	if got.Repeats != 42 || !got.LastRepeat.Equal(r.Time.Add(2*time.Second)) {
		t.Errorf("repeats: got %d, last %v", got.Repeats, got.LastRepeat)
	}
	same(t, "delivered", explain(t, j, a.QueueID)[0].Delivered, journal.Delivered{Sent: 2, Deferred: 1, Bounced: 1, Expired: 1})
	totals, err := j.Totals(t.Context(), "", time.Time{}, time.Time{})
	must(t, err)
	day := start.Truncate(24 * time.Hour)
	same(t, "totals", totals, []journal.Total{
		{Day: day, Account: "login:taro@example.jp", Verdict: policy.Accept, Messages: 1, Recipients: 2},
		{Day: day, Account: "unknown", Verdict: policy.Reject, Messages: 0, Recipients: 43},
	})
}

func TestReusedQueueIDs(t *testing.T) {
	j := open(t, journal.Options{Dir: t.TempDir()})
	first, second := accepted(1), held(2)
	second.QueueID, second.Time = first.QueueID, first.Time.Add(time.Hour)
	second.Account, second.Login = "login:jiro@example.jp", "jiro@example.jp"
	must(t, j.Append(first, second))
	must(t, j.Append(
		journal.Delivery{QueueID: first.QueueID, Time: first.Time.Add(time.Minute), Status: "sent", N: 2},
		journal.Delivery{QueueID: first.QueueID, Time: second.Time.Add(time.Minute), Status: "bounced", N: 1}))
	got := explain(t, j, first.QueueID)
	if len(got) != 2 || got[0].Decision.ID != second.ID || got[1].Decision.ID != first.ID {
		t.Fatalf("got %+v", got)
	}
	same(t, "newer", got[0].Delivered, journal.Delivered{Bounced: 1})
	same(t, "older", got[1].Delivered, journal.Delivered{Sent: 2})
}

func TestHoldGoesItsWay(t *testing.T) {
	j := open(t, journal.Options{Dir: t.TempDir()})
	d := held(1)
	must(t, j.Append(d))
	arrival := d.Time.Add(-time.Second)
	must(t, j.Append(journal.HoldChange{QueueID: d.QueueID, DecisionID: d.ID, Time: d.Time.Add(time.Minute), State: journal.StateReleasing, By: "root", Arrival: arrival}))
	holds, err := j.Holds(t.Context(), journal.HoldQuery{})
	must(t, err)
	if len(holds) != 1 || holds[0].State != journal.StateReleasing || !holds[0].Arrival.Equal(arrival) {
		t.Fatalf("got %+v", holds)
	}
	must(t, j.Append(journal.HoldChange{QueueID: d.QueueID, DecisionID: d.ID, Time: d.Time.Add(time.Hour), State: journal.StateReleased, By: "root", Reason: "newsletter", NewQueueID: "NEW1"}))
	must(t, j.Append(journal.Delivery{QueueID: "NEW1", Time: d.Time.Add(2 * time.Hour), Status: "sent", N: 2}))
	holds, err = j.Holds(t.Context(), journal.HoldQuery{})
	must(t, err)
	if len(holds) != 0 {
		t.Fatalf("still open: %+v", holds)
	}
	got := explain(t, j, "NEW1")
	if len(got) != 1 || got[0].Decision.ID != d.ID || len(got[0].Holds) != 1 {
		t.Fatalf("by its new id: %+v", got)
	}
	same(t, "delivered under the new id", got[0].Delivered, journal.Delivered{Sent: 2})
	h := got[0].Holds[0]
	if h.State != journal.StateReleased || h.ChangedBy != "root" || h.ChangeReason != "newsletter" || h.NewQueueID != "NEW1" || !h.Arrival.Equal(arrival) {
		t.Errorf("got %+v", h)
	}
	// The next message under the old id is another hold.
	must(t, j.Append(journal.Held{QueueID: d.QueueID, Account: d.Account, Rule: "suspend", HeldAt: d.Time.Add(3 * time.Hour)}))
	must(t, j.Append(journal.HoldChange{QueueID: d.QueueID, Time: d.Time.Add(4 * time.Hour), State: journal.StateGone}))
	all, err := j.Holds(t.Context(), journal.HoldQuery{IDs: []string{d.QueueID}, States: []journal.State{journal.StateReleased, journal.StateGone}})
	must(t, err)
	if len(all) != 2 || all[0].State != journal.StateGone || all[1].State != journal.StateReleased {
		t.Errorf("got %+v", all)
	}
	if got := explain(t, j, d.QueueID); len(got) != 2 {
		t.Errorf("two holds under one queue id: got %+v", got)
	}
}

func TestHeldTwiceIsOneHold(t *testing.T) {
	j := open(t, journal.Options{Dir: t.TempDir()})
	h := journal.Held{QueueID: "AB12", Rule: "lost", Reason: "lost", HeldAt: start}
	must(t, j.Append(h))
	h.Account, h.Size = "login:taro@example.jp", 10
	must(t, j.Append(h))
	holds, err := j.Holds(t.Context(), journal.HoldQuery{})
	must(t, err)
	if len(holds) != 1 || holds[0].Account != h.Account || holds[0].Rule != "lost" || holds[0].Size != 10 {
		t.Errorf("got %+v", holds)
	}
}

func TestHoldWithoutQueueIDFindsIt(t *testing.T) {
	j := open(t, journal.Options{Dir: t.TempDir()})
	d := held(1)
	d.QueueID = ""
	must(t, j.Append(d))
	must(t, j.Append(journal.HoldChange{QueueID: "C0FFEE", DecisionID: d.ID, Time: d.Time, State: journal.StateHeld, Arrival: d.Time}))
	holds, err := j.Holds(t.Context(), journal.HoldQuery{IDs: []string{"C0FFEE"}})
	must(t, err)
	if len(holds) != 1 || holds[0].DecisionID != d.ID {
		t.Errorf("got %+v", holds)
	}
}

func TestHoldQueries(t *testing.T) {
	j := open(t, journal.Options{Dir: t.TempDir()})
	one, two, three := held(1), held(2), held(3)
	two.Account, two.Login, two.Rule = "login:jiro@example.jp", "jiro@example.jp", "login-day"
	three.Account, three.Login, three.LocalUser = "local_user:www-data", "", "www-data"
	must(t, j.Append(one, two, three))
	for name, c := range map[string]struct {
		query journal.HoldQuery
		want  []string
	}{
		"all, newest first": {journal.HoldQuery{}, []string{three.ID, two.ID, one.ID}},
		"account":           {journal.HoldQuery{Account: one.Account}, []string{one.ID}},
		"login":             {journal.HoldQuery{Login: "jiro@example.jp"}, []string{two.ID}},
		"local user":        {journal.HoldQuery{LocalUser: "www-data"}, []string{three.ID}},
		"rule":              {journal.HoldQuery{Rule: "login-day"}, []string{two.ID}},
		"older":             {journal.HoldQuery{HeldBefore: two.Time}, []string{one.ID}},
		"newer":             {journal.HoldQuery{HeldAfter: two.Time}, []string{three.ID, two.ID}},
		"ids":               {journal.HoldQuery{IDs: []string{one.ID, three.QueueID, "nothing", ""}}, []string{three.ID, one.ID}},
		"limit":             {journal.HoldQuery{Limit: 1}, []string{three.ID}},
		"closed":            {journal.HoldQuery{States: []journal.State{journal.StateGone}}, nil},
		"hostile":           {journal.HoldQuery{Account: "' OR 1=1 --"}, nil},
	} {
		holds, err := j.Holds(t.Context(), c.query)
		must(t, err)
		var got []string
		for _, h := range holds {
			got = append(got, h.DecisionID)
		}
		same(t, name, got, c.want)
	}
}

func TestDecisionQueries(t *testing.T) {
	j := open(t, journal.Options{Dir: t.TempDir()})
	one, two, three, four := accepted(1), held(2), refused(3), accepted(4)
	one.HeaderFrom = "Shop@Example.JP"
	four.MailFrom, four.LocalUser, four.Account, four.Login = "www@sub.example.jp", "www-data", "local_user:www-data", ""
	four.HeaderFrom = ""
	must(t, j.Append(one, two, three, four))
	for name, c := range map[string]struct {
		query journal.Query
		want  []string
	}{
		"all, newest first":  {journal.Query{}, []string{four.ID, three.ID, two.ID, one.ID}},
		"account":            {journal.Query{Account: "unknown"}, []string{three.ID}},
		"login":              {journal.Query{Login: "taro@example.jp"}, []string{two.ID, one.ID}},
		"local user":         {journal.Query{LocalUser: "www-data"}, []string{four.ID}},
		"envelope sender":    {journal.Query{Address: "WWW@sub.example.jp"}, []string{four.ID}},
		"from":               {journal.Query{Address: "shop@example.jp"}, []string{one.ID}},
		"domain":             {journal.Query{Address: "@EXAMPLE.jp"}, []string{three.ID, two.ID, one.ID}},
		"rule":               {journal.Query{Rule: "login-hour"}, []string{two.ID}},
		"verdicts":           {journal.Query{Verdicts: []policy.Verdict{policy.Hold, policy.Reject}}, []string{three.ID, two.ID}},
		"since":              {journal.Query{Since: three.Time}, []string{four.ID, three.ID}},
		"until":              {journal.Query{Until: two.Time}, []string{one.ID}},
		"queue id":           {journal.Query{QueueID: two.QueueID}, []string{two.ID}},
		"message id":         {journal.Query{MessageID: "<4@example.jp>"}, []string{four.ID}},
		"client":             {journal.Query{ClientIP: "203.0.113.7", Stage: journal.StageRecipient}, []string{three.ID}},
		"limit":              {journal.Query{Limit: 2}, []string{four.ID, three.ID}},
		"page":               {journal.Query{Limit: 2, Before: three.ID}, []string{two.ID, one.ID}},
		"page after deleted": {journal.Query{Before: "0000000000002x"}, []string{two.ID, one.ID}},
		"no such":            {journal.Query{Address: "%"}, nil},
		"hostile":            {journal.Query{Rule: "'; DROP TABLE decision; --"}, nil},
	} {
		decisions, err := j.Decisions(t.Context(), c.query)
		must(t, err)
		var got []string
		for _, d := range decisions {
			got = append(got, d.ID)
		}
		same(t, name, got, c.want)
	}
}

func TestHostileTexts(t *testing.T) {
	j := open(t, journal.Options{Dir: t.TempDir()})
	for i, text := range []string{
		"'; DROP TABLE decision; --", "\x00", "a\x00b", "line\nbreak\r\n", "\xff\xfe", "\x1b[2J", "\u2028", "\"\\", "{}", "%_", "日本語", "\x7f",
		strings.Repeat("x", 5000), strings.Repeat("語", 5000), strings.Repeat("\xff", 5000), "\xed\xa0\x80",
	} {
		d := held(i)
		d.MailFrom, d.Rule, d.Helo, d.Reason, d.Account, d.MessageID, d.QueueID = text, text, text, text, text, text, text
		d.Domains = map[string]int{text: 1}
		d.Findings[0].Reason = text
		must(t, j.Append(d))
		got := explain(t, j, d.ID)
		if len(got) != 1 {
			t.Fatalf("%q: got %d explanations", text, len(got))
		}
		wish := strings.ToValidUTF8(text, "\uFFFD")
		if len(text) <= 512 {
			if got[0].Decision.MailFrom != wish || got[0].Decision.Findings[0].Reason != wish {
				t.Errorf("%q: got %q", text, got[0].Decision.MailFrom)
			}
		} else if s := got[0].Decision.MailFrom; s == "" || len(s) > 512 || strings.Trim(s, "x語\uFFFD") != "" {
			t.Errorf("%.10q...: got %d octets, %q", text, len(s), s)
		}
		again, err := j.Decisions(t.Context(), journal.Query{MessageID: got[0].Decision.MessageID, Rule: got[0].Decision.Rule, Address: got[0].Decision.MailFrom})
		must(t, err)
		if len(again) == 0 {
			t.Errorf("%.10q: not found by what it says", text)
		}
	}
}

func TestManyDomainsAreBounded(t *testing.T) {
	j := open(t, journal.Options{Dir: t.TempDir()})
	d := held(1)
	d.Domains = map[string]int{"": 7, "big.example": 5000}
	for i := range 1000 {
		d.Domains[fmt.Sprintf("d%03d.example", i)] = 1
	}
	must(t, j.Append(d))
	got := explain(t, j, d.ID)[0].Decision.Domains
	if len(got) != journal.MaxDomains+1 || got["big.example"] != 5000 || got[""] != 7+1000-(journal.MaxDomains-1) {
		t.Errorf("got %d domains, %d others", len(got), got[""])
	}
}

func TestUnfitRecordsAreErrors(t *testing.T) {
	j := open(t, journal.Options{Dir: t.TempDir()})
	for name, r := range map[string]journal.Record{
		"state that is not JSON": journal.Incident{ID: "i", State: json.RawMessage("{")},
		"the same over lines":    journal.Incident{ID: "i", State: json.RawMessage("{\n")},
		"huge state":             journal.Incident{ID: "i", State: json.RawMessage(`"` + strings.Repeat("x", 2<<20) + `"`)},
		"huge value":             journal.Value{Name: "n", Value: strings.Repeat("x", 1<<20)},
	} {
		if err := j.Append(r, held(1)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if len(explain(t, j, newID(1))) != 1 {
		t.Error("a record beside an unfit one is not there")
	}
	must(t, j.Append(journal.Incident{ID: "i", State: json.RawMessage("{\n\"a\": 1\n}")}))
	incidents, err := j.Incidents(t.Context(), false)
	must(t, err)
	if len(incidents) != 1 || string(incidents[0].State) != `{"a":1}` {
		t.Errorf("got %+v", incidents)
	}
}

func TestTwoOpens(t *testing.T) {
	dir := t.TempDir()
	j := open(t, journal.Options{Dir: dir})
	if _, err := journal.Open(t.Context(), journal.Options{Dir: dir}); !errors.Is(err, journal.ErrInUse) {
		t.Errorf("second open: got %v", err)
	}
	must(t, j.Append(held(1)))
	must(t, j.Close())
	open(t, journal.Options{Dir: dir})
}

func TestClosed(t *testing.T) {
	j := open(t, journal.Options{Dir: t.TempDir()})
	must(t, j.Close())
	if err := j.Append(held(1)); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("append: got %v", err)
	}
	j.Note(accepted(1))
	if _, err := j.Holds(t.Context(), journal.HoldQuery{}); err == nil {
		t.Error("a search in a closed journal has an answer")
	}
	if err := j.Close(); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("second close: got %v", err)
	}
}

func TestSparesSaysWhatNoteWouldTake(t *testing.T) {
	j := open(t, journal.Options{Dir: t.TempDir(), AcceptedPerSecond: 2, Now: func() time.Time { return start }})
	for i := range 3 {
		spares := j.Spares()
		if spares {
			j.Note(accepted(i))
		}
		if want := i < 2; spares != want {
			t.Errorf("row %d: spares %v", i, spares)
		}
	}
	if s := j.Stats(); s.Noted != 2 || s.DroppedAccepted != 1 {
		t.Errorf("%d noted, %d dropped", s.Noted, s.DroppedAccepted)
	}
}
