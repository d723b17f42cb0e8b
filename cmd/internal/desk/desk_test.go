package desk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/holds"
	"relayguard/cmd/internal/switches"
	"relayguard/journal"
	"relayguard/mta"
	"relayguard/policy"
	"relayguard/policy/limit"
)

const (
	taro   = "login:taro@example.jp"
	hanako = "login:hanako@example.jp"
)

var admin = desk.By{Name: "root", UID: 0, LoginUID: 1000}

// site is a desk with a real journal, switches and room around a queue in
// memory. Mail came in at its start, an hour ago; now is the present.
type site struct {
	t       *testing.T
	d       *desk.Desk
	mta     *mailServer
	journal *faultyJournal
	board   *policy.Board
	path    string // of the switches
	log     *safeBuffer
	start   time.Time
	now     time.Time
	told    []string // lines of incidents
	till    *till    // nil: nothing is released by itself
	lines   *policy.Lines
}

// faultyJournal is a journal that can be away.
type faultyJournal struct {
	*journal.Journal
	mu                   sync.Mutex
	behind, full, broken error // of Sync, of Append, of searches for holds
	away                 error // of all that is known under an id
	searched             int   // how often for holds of a rule
}

func (j *faultyJournal) setAway(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.away = err
}

func (j *faultyJournal) searches() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.searched
}

func (j *faultyJournal) Explain(ctx context.Context, id string) ([]journal.Explanation, error) {
	j.mu.Lock()
	err := j.away
	j.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return j.Journal.Explain(ctx, id)
}

func (j *faultyJournal) set(behind, full, broken error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.behind, j.full, j.broken = behind, full, broken
}

func (j *faultyJournal) faults() (behind, full, broken error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.behind, j.full, j.broken
}

func (j *faultyJournal) Sync(ctx context.Context) error {
	if behind, _, _ := j.faults(); behind != nil {
		return behind
	}
	return j.Journal.Sync(ctx)
}

func (j *faultyJournal) Append(all ...journal.Record) error {
	if _, full, _ := j.faults(); full != nil {
		return full
	}
	return j.Journal.Append(all...)
}

func (j *faultyJournal) Holds(ctx context.Context, q journal.HoldQuery) ([]journal.Hold, error) {
	if _, _, broken := j.faults(); broken != nil {
		return nil, broken
	}
	all, err := j.Journal.Holds(ctx, q)
	if q.Rule != "" {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.searched++
	}
	return all, err
}

func (j *faultyJournal) EachHold(ctx context.Context, q journal.HoldQuery, fn func(*journal.Hold) error) error {
	if _, _, broken := j.faults(); broken != nil {
		return broken
	}
	if q.Rule != "" {
		j.mu.Lock()
		j.searched++
		j.mu.Unlock()
	}
	return j.Journal.EachHold(ctx, q, fn)
}

func (j *faultyJournal) Known(ctx context.Context, ids []string) ([]journal.Known, error) {
	_, _, broken := j.faults()
	j.mu.Lock()
	away := j.away
	j.mu.Unlock()
	if err := errors.Join(broken, away); err != nil {
		return nil, err
	}
	return j.Journal.Known(ctx, ids)
}

// safeBuffer takes a log from several goroutines.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func open(t *testing.T) *site {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Microsecond)
	s := &site{t: t, mta: newMTA(), log: &safeBuffer{}, now: now, start: now.Add(-time.Hour), path: filepath.Join(t.TempDir(), "switches.json")}
	j, err := journal.Open(t.Context(), journal.Options{Dir: t.TempDir(), Settle: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	s.journal = &faultyJournal{Journal: j}
	s.restart()
	return s
}

// restart puts another desk in the place of the one that died: what it knew is
// lost, journal, switches and queue are as it left them.
func (s *site) restart() {
	s.t.Helper()
	s.board = &policy.Board{}
	file, err := switches.Open(s.path, s.board, s.now)
	if err != nil {
		s.t.Fatal(err)
	}
	s.d = &desk.Desk{
		Journal: s.journal, Queue: s.mta, Switches: file, Log: slog.New(slog.NewTextHandler(s.log, nil)),
		Room:    holds.NewRoom(holds.Caps{OriginMessages: 1 << 30, OriginBytes: 1 << 50, ServerMessages: 1 << 30}),
		Buckets: limit.NewMemory(), Limits: func() []string { return []string{"volume", "abuse"} },
		UID: func(name string) (int, error) {
			uid, ok := map[string]int{"www-data": 33, "33": 33, "deploy": 1001, "1001": 1001, "4711": 4711}[name]
			if !ok {
				return 0, fmt.Errorf("no Unix account %q", name)
			}
			return uid, nil
		},
		UserName: func(uid int) string { return map[int]string{33: "www-data", 1001: "deploy"}[uid] },
		Shared:   func(uid int) bool { return uid == 33 },
		SharedAccount: func(name string) bool {
			return slices.Contains([]string{"unknown", "node:web3", "local_user:www-data", "local_user:www-data@web3"}, name)
		},
		Clock: func() time.Time { return time.Time{} }, // a look takes no time, however busy the machine is
		Tell:  func(_ time.Time, account, text string) { s.told = append(s.told, account+": "+text) },
	}
	if s.till != nil {
		s.openTill()
	}
}

// decide journals the guard's decision about a message.
func (s *site) decide(v policy.Verdict, account, rule, id string, at time.Time) {
	s.t.Helper()
	d := journal.Decision{ID: "d" + strings.ToLower(id), Time: at, Stage: journal.StageMessage, Verdict: v, Rule: rule, Account: account, QueueID: id,
		MailFrom: "taro@example.jp", Size: 1000, Recipients: 1, UID: -1}
	if login, ok := strings.CutPrefix(account, "login:"); ok {
		d.Login = login
	}
	if err := s.journal.Append(d); err != nil {
		s.t.Fatal(err)
	}
}

// hold is mail that the guard held at the start.
func (s *site) hold(account, rule string, ids ...string) {
	s.t.Helper()
	for _, id := range ids {
		s.decide(policy.Hold, account, rule, id, s.start)
		s.mta.put(file(id, s.start))
		s.d.Room.Add(account, 1000)
	}
}

// pass is mail that the guard accepted and that is still in a queue.
func (s *site) pass(account, queue string, ids ...string) {
	s.t.Helper()
	for _, id := range ids {
		s.decide(policy.Accept, account, "", id, s.start)
		q := file(id, s.start)
		q.Queue = queue
		s.mta.put(q)
	}
}

var allStates = []journal.State{journal.StateHeld, journal.StateReleasing, journal.StateDeleting, journal.StateReleased, journal.StateDeleted, journal.StateGone}

// entries are the holds of a queue id, newest first, in any state.
func (s *site) entries(id string) []journal.Hold {
	s.t.Helper()
	all, err := s.journal.Journal.Holds(context.Background(), journal.HoldQuery{IDs: []string{id}, States: allStates})
	if err != nil {
		s.t.Error(err)
	}
	return all
}

func (s *site) state(id string) journal.State {
	s.t.Helper()
	all := s.entries(id)
	if len(all) == 0 {
		return ""
	}
	return all[0].State
}

func (s *site) wantState(want journal.State, ids ...string) {
	s.t.Helper()
	for _, id := range ids {
		if got := s.state(id); got != want {
			s.t.Errorf("state of %s: got %q, want %q", id, got, want)
		}
	}
}

func (s *site) wantIn(queue string, ids ...string) {
	s.t.Helper()
	for _, id := range ids {
		if got := s.mta.where(id); got != queue {
			s.t.Errorf("%s is in queue %q, want %q", id, got, queue)
		}
	}
}

func (s *site) wantRoom(messages int64) {
	s.t.Helper()
	if got := s.d.Room.Totals(); got.Messages != messages || got.Bytes != 1000*messages {
		s.t.Errorf("room: got %+v, want %d messages of 1,000 octets", got, messages)
	}
}

// wantEntries checks that all that the hold queue has is in the journal.
func (s *site) wantEntries() {
	s.t.Helper()
	open, err := s.journal.Journal.Holds(context.Background(), journal.HoldQuery{})
	if err != nil {
		s.t.Fatal(err)
	}
	_ = s.mta.List(context.Background(), func(q mta.QueueFile) error {
		if q.Queue == "hold" && !slices.ContainsFunc(open, func(h journal.Hold) bool { return h.QueueID == q.ID }) {
			s.t.Errorf("%s is held and has no entry", q.ID)
		}
		return nil
	})
}

func (s *site) reconcile() {
	s.t.Helper()
	s.now = s.now.Add(5 * time.Minute)
	if err := s.d.Reconcile(s.t.Context(), s.now); err != nil {
		s.t.Fatalf("reconcile: %v", err)
	}
}

func (s *site) actions() (all []string) {
	s.t.Helper()
	actions, err := s.journal.AdminActions(context.Background(), 0)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, a := range actions {
		all = append(all, strings.TrimSpace(a.Verb+" "+a.Target+": "+a.Reason))
	}
	return all
}

func (s *site) breakSwitches() (mend func()) {
	s.t.Helper()
	dir := filepath.Dir(s.path)
	away := dir + ".away"
	if err := os.Rename(dir, away); err != nil {
		s.t.Fatal(err)
	}
	return func() {
		if err := os.Rename(away, dir); err != nil {
			s.t.Fatal(err)
		}
	}
}

func ids(list ...string) desk.Filter { return desk.Filter{IDs: list} }

func outcomes(r desk.Report) map[string]string {
	all := map[string]string{}
	for _, m := range r.Messages {
		all[m.QueueID] = m.Outcome
	}
	return all
}

func TestAccountForms(t *testing.T) {
	s := open(t)
	for name, want := range map[string]string{
		"taro@example.jp":       "login taro@example.jp",
		"Taro@Example.JP":       "login taro@example.jp",
		"login:Taro@example.jp": "login taro@example.jp",
		"network:web-nodes":     "trusted web-nodes",
		"local_user:www-data":   "local_user 33",
		"local_user:uid:33":     "local_user 33",
		"local_user:33":         "local_user 33",
	} {
		subject, value, err := s.d.Account(name)
		if got := string(subject) + " " + value; got != want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
	for _, name := range []string{"", "login:", "network:", "local_user:", "local_user:nobody-here", "shop:web", ":x"} {
		if _, _, err := s.d.Account(name); !errors.Is(err, desk.ErrUsage) {
			t.Errorf("%q: got %v, want ErrUsage", name, err)
		}
	}
	if bucket, err := s.d.Bucket("local_user:www-data"); bucket != "local_user:33" || err != nil {
		t.Errorf("bucket: got %q, %v, want that of the uid", bucket, err)
	}
}

// Everything at once: run with -race. In the end no message is held without an
// entry, and no entry is left in between.
func TestActsAtOnce(t *testing.T) {
	s := open(t)
	var mine, theirs []string
	for i := range 40 {
		mine, theirs = append(mine, fmt.Sprintf("A%05X", i)), append(theirs, fmt.Sprintf("B%05X", i))
	}
	s.hold(taro, "volume", mine...)
	s.pass(hanako, "deferred", theirs...)
	s.d.Tell = nil // its list is not for several
	ctx, now := t.Context(), s.now
	var all sync.WaitGroup
	run := func(f func(i int) error) {
		all.Go(func() {
			for i := range 5 {
				if err := f(i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	run(func(i int) error { return s.d.Reconcile(ctx, now.Add(time.Duration(i)*time.Second)) })
	run(func(i int) error {
		_, err := release(s.d, ctx, now, admin, desk.HeldOrder{Filter: ids(mine[4*i : 4*i+4]...), Reason: "checked"})
		return err
	})
	run(func(i int) error {
		_, err := deleteHeld(s.d, ctx, now, admin, desk.HeldOrder{Filter: ids(mine[4*i+2 : 4*i+6]...), Reason: "spam"})
		return err
	})
	run(func(i int) error {
		_, err := s.d.Suspend(ctx, now, admin, desk.Suspension{Account: hanako, Reason: "stolen"})
		return err
	})
	run(func(i int) error {
		_, err := s.d.Stop(ctx, now, admin, "all at once")
		return err
	})
	run(func(i int) error {
		_, err := s.d.List(ctx, now, desk.Filter{})
		s.d.Looked()
		return err
	})
	run(func(i int) error {
		s.d.Requeued(mine[i], "C"+mine[i], now)
		s.d.HeldByMilter(mine[i], now)
		s.d.Expire(ctx, now)
		return nil
	})
	all.Wait()
	if _, err := s.d.Start(ctx, s.now, admin, "over", false); err != nil {
		t.Fatal(err)
	}
	s.reconcile()
	s.reconcile()
	s.wantEntries()
	open, err := s.journal.Journal.Holds(ctx, journal.HoldQuery{})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range open {
		if h.State != journal.StateHeld {
			t.Errorf("%s is still %s", h.QueueID, h.State)
		}
	}
	for _, id := range theirs {
		s.wantIn("hold", id)
	}
	acted := map[string]int{}
	for _, a := range s.mta.did() {
		if verb, id, _ := strings.Cut(a, " "); verb == "delete" {
			acted[id]++
		}
	}
	for id, n := range acted {
		deleted := slices.ContainsFunc(s.entries(id), func(h journal.Hold) bool { return h.State == journal.StateDeleted })
		if n > 1 || !deleted {
			t.Errorf("%s was deleted %d times: %+v", id, n, s.entries(id))
		}
	}
	s.wantRoom(int64(len(open)))
}

func order(list ...string) desk.HeldOrder {
	return desk.HeldOrder{Filter: ids(list...), Reason: "checked"}
}

// release, deleteHeld and deleteForGood are bulk acts on held mail, with all that
// they tell in one report.
func release(d *desk.Desk, ctx context.Context, now time.Time, by desk.By, o desk.HeldOrder) (desk.Report, error) {
	o.Verb = "release"
	return actOnHeld(d, ctx, now, by, o)
}

func deleteHeld(d *desk.Desk, ctx context.Context, now time.Time, by desk.By, o desk.HeldOrder) (desk.Report, error) {
	o.Verb = "delete"
	return actOnHeld(d, ctx, now, by, o)
}

func deleteForGood(d *desk.Desk, ctx context.Context, now time.Time, by desk.By, o desk.HeldOrder) (desk.Report, error) {
	o.NoCopy = true
	return deleteHeld(d, ctx, now, by, o)
}

func actOnHeld(d *desk.Desk, ctx context.Context, now time.Time, by desk.By, o desk.HeldOrder) (desk.Report, error) {
	o.Tell = true
	r := desk.Report{Verb: o.Verb, DryRun: o.DryRun, Counts: map[string]int{}}
	err := d.ActOnHeld(ctx, now, by, o, func(step desk.Step) error {
		r.Messages, r.Unknown = append(r.Messages, step.Messages...), append(r.Unknown, step.Unknown...)
		if step.Counts != nil {
			r.Counts = step.Counts
		}
		r.Bytes = max(r.Bytes, step.Bytes)
		if step.Cut != "" {
			return errors.New(step.Cut)
		}
		return nil
	})
	return r, err
}
