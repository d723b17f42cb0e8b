package incident_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"relayguard/incident"
	"relayguard/policy"
)

var start = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

// desk keeps what a Book saves and tells.
type desk struct {
	mu     sync.Mutex
	saved  map[string]incident.Incident
	saves  int
	alerts []incident.Alert
}

func (d *desk) save(i incident.Incident) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.saved == nil {
		d.saved = map[string]incident.Incident{}
	}
	d.saved[i.ID] = i
	d.saves++
}

func (d *desk) alert(a incident.Alert) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.alerts = append(d.alerts, a)
}

func (d *desk) events() []incident.Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []incident.Event
	for _, a := range d.alerts {
		all = append(all, a.Event)
	}
	return all
}

func (d *desk) all() []incident.Incident {
	var all []incident.Incident
	for _, i := range d.saved {
		all = append(all, i)
	}
	return all
}

func newBook(o incident.Options) (*incident.Book, *desk) {
	d := &desk{}
	o.Save, o.Alert = d.save, d.alert
	return incident.NewBook(o), d
}

func stop(origin, cause string) incident.Stop {
	return incident.Stop{Origin: origin, Cause: cause, Verdict: policy.Hold, Recipients: 2, ID: "06f0000000001", QueueID: "4A1B2C"}
}

func wantEvents(t *testing.T, d *desk, want ...incident.Event) {
	t.Helper()
	if got := d.events(); !slices.Equal(got, want) {
		t.Fatalf("alerts %q, want %q", got, want)
	}
}

func TestOneOriginAndCauseIsOneIncident(t *testing.T) {
	b, d := newBook(incident.Options{})
	now := start
	for range 100 {
		b.Observe(now, stop("login:taro@example.jp", "login-hour"))
		now = now.Add(time.Second)
		b.Tick(now)
	}
	wantEvents(t, d, incident.Opened)
	open := b.Open()
	if len(open) != 1 || open[0].Stops != 100 || open[0].Recipients != 200 || open[0].First != "06f0000000001" || open[0].LastQueue != "4A1B2C" {
		t.Fatalf("open: %+v", open)
	}
	if d.saves > 3 {
		t.Errorf("saved %d times in 100 seconds", d.saves)
	}

	now = now.Add(time.Hour) // it has a hundred times what was told
	b.Tick(now.Add(-time.Minute))
	wantEvents(t, d, incident.Opened, incident.Updated)
	b.Tick(now)
	wantEvents(t, d, incident.Opened, incident.Updated, incident.Closed)
	if i := d.saved[open[0].ID]; len(b.Open()) != 0 || i.Open() || i.Stops != 100 || len(i.Notes) != 2 {
		t.Errorf("after the end: %+v", i)
	}
	for _, a := range d.alerts {
		if !strings.Contains(a.Text, "login:taro@example.jp") || !strings.Contains(a.Text, "relayguard explain 06f0000000001") || a.Incident.Notes != nil {
			t.Errorf("alert %+v", a)
		}
	}
}

func TestUpdateOnlyWhenItDoubled(t *testing.T) {
	b, d := newBook(incident.Options{})
	now := start
	for range 10 {
		b.Observe(now, stop("login:a", "login-hour"))
	}
	b.Tick(now)
	now = now.Add(50 * time.Minute)
	for range 9 {
		b.Observe(now, stop("login:a", "login-hour"))
	}
	now = now.Add(50 * time.Minute)
	b.Tick(now)
	wantEvents(t, d, incident.Opened)
	b.Observe(now, stop("login:a", "login-hour"))
	b.Tick(now)
	wantEvents(t, d, incident.Opened, incident.Updated)
}

func TestRules(t *testing.T) {
	rules := incident.DefaultRules()
	rules["burst"] = incident.Rule{After: 3, Within: time.Minute}
	for name, c := range map[string]struct {
		stops  func(b *incident.Book)
		origin []string
	}{
		"strangers without AUTH": {func(b *incident.Book) {
			for i := range 10_000 {
				b.Observe(start, stop(fmt.Sprint("network:", i), policy.RuleAuth))
			}
		}, nil},
		"denied": {func(b *incident.Book) { b.Observe(start, stop("", "denied")) }, nil},
		"an address of somebody else": {func(b *incident.Book) {
			b.Observe(start, stop("login:a", policy.RuleEnvelope))
		}, []string{"login:a"}},
		"nobody's mail": {func(b *incident.Book) { b.Observe(start, stop("", "hold-cap")) }, []string{"unknown"}},
		"what only tells": {func(b *incident.Book) {
			s := stop("login:a", "login-hour")
			s.Verdict = policy.Tell
			b.Observe(start, s)
		}, nil},
		"below the threshold": {func(b *incident.Book) {
			for i := range 9 { // never three in a minute
				b.Observe(start.Add(time.Duration(i)*31*time.Second), stop("login:a", "burst"))
			}
		}, nil},
		"over the threshold": {func(b *incident.Book) {
			for i := range 3 {
				b.Observe(start.Add(time.Duration(i)*time.Second), stop("login:a", "burst"))
				b.Observe(start, stop(fmt.Sprint("login:b", i), "burst"))
			}
		}, []string{"login:a"}},
		"the server's own trouble": {func(b *incident.Book) {
			for i := range 100 {
				b.Observe(start, stop(fmt.Sprint("login:", i), policy.RuleMap))
			}
		}, []string{incident.OriginServer}},
	} {
		b, d := newBook(incident.Options{Rules: rules})
		c.stops(b)
		b.Tick(start)
		var got []string
		for _, i := range b.Open() {
			got = append(got, i.Origin)
		}
		if !slices.Equal(got, c.origin) || len(d.alerts) != len(c.origin) {
			t.Errorf("%s: open %q, %d alerts, want %q", name, got, len(d.alerts), c.origin)
		}
	}
}

func TestThresholdCountsWhatCameBefore(t *testing.T) {
	b, _ := newBook(incident.Options{Rules: map[string]incident.Rule{"burst": {After: 3, Within: time.Minute}}})
	for i := range 4 {
		s := stop("login:a", "burst")
		s.ID = fmt.Sprint("id", i)
		b.Observe(start.Add(time.Duration(i)*time.Second), s)
	}
	i := b.Open()[0]
	if i.Stops != 4 || i.Recipients != 8 || i.First != "id0" || i.Last != "id3" || !i.Opened.Equal(start) {
		t.Errorf("%+v", i)
	}
}

// An origin that comes and goes as fast as its incident closes is told of ever
// less often.
func TestFlapping(t *testing.T) {
	for name, gap := range map[string]func(i int) time.Duration{
		"every hour":           func(int) time.Duration { return time.Hour },
		"as soon as it closed": nil,
	} {
		b, d := newBook(incident.Options{Quiet: time.Minute})
		now := start
		const flips = 10_000
		for i := range flips {
			b.Observe(now, stop("login:a", "login-hour"))
			b.Tick(now)
			if gap != nil {
				now = now.Add(gap(i))
				b.Tick(now)
				continue
			}
			for len(b.Open()) > 0 {
				now = now.Add(time.Hour)
				b.Tick(now)
			}
		}
		days := int(now.Sub(start) / (24 * time.Hour))
		if most := 40 + 2*days; len(d.alerts) > most {
			t.Errorf("%s: %d alerts on %d flips in %d days, want at most %d", name, len(d.alerts), flips, days, most)
		}
		if i := d.all()[0]; len(d.saved) != 1 || len(i.Notes) > 50 || i.Stops != flips || !strings.HasPrefix(i.Notes[0].Text, "noticed") {
			t.Errorf("%s: %d incidents, %d notes, %d stops", name, len(d.saved), len(i.Notes), i.Stops)
		}
	}
}

func TestForgottenAfterGrace(t *testing.T) {
	b, d := newBook(incident.Options{})
	b.Observe(start, stop("login:a", "login-hour"))
	b.Tick(start)
	b.Tick(start.Add(time.Hour))
	b.Tick(start.Add(25 * time.Hour))
	if s := b.Size(); s != (incident.Size{}) {
		t.Errorf("kept %+v", s)
	}
	b.Observe(start.Add(26*time.Hour), stop("login:a", "login-hour"))
	b.Tick(start.Add(26 * time.Hour))
	wantEvents(t, d, incident.Opened, incident.Closed, incident.Opened)
	if len(d.saved) != 2 {
		t.Errorf("%d incidents, want another one", len(d.saved))
	}
}

func TestStaysOpenWhileStillOver(t *testing.T) {
	over, asked := true, 0
	b, d := newBook(incident.Options{StillOver: func(origin, cause, bucket string, _ time.Time) bool {
		if origin != "login:a" || cause != "login-hour" || bucket != "" {
			t.Errorf("asked about %s, %s, %q", origin, cause, bucket)
		}
		asked++
		return over
	}})
	b.Observe(start, stop("login:a", "login-hour"))
	for at := time.Duration(0); at <= 3*time.Hour; at += time.Second {
		b.Tick(start.Add(at))
		b.Tick(start.Add(at))
	}
	wantEvents(t, d, incident.Opened)
	if asked < 60 || asked > 121 {
		t.Errorf("asked %d times in two hours, want about once a minute", asked)
	}
	over = false
	b.Tick(start.Add(4 * time.Hour))
	wantEvents(t, d, incident.Opened, incident.Closed)
}

func TestRestartDoesNotAlertAgain(t *testing.T) {
	b, d := newBook(incident.Options{})
	now := start
	for i := range 20 {
		b.Observe(now, stop(fmt.Sprint("login:", i), "login-hour"))
	}
	b.Tick(now)
	if len(d.alerts) != 20 {
		t.Fatalf("%d alerts", len(d.alerts))
	}
	for range 50 {
		saved := d.all()
		b, d = newBook(incident.Options{})
		b.Load(saved)
		now = now.Add(30 * time.Second)
		for i := range 20 {
			b.Observe(now, stop(fmt.Sprint("login:", i), "login-hour"))
		}
		b.Tick(now)
		b.SaveAll(now)
		if len(d.alerts) > 0 || len(b.Open()) != 20 || len(d.saved) != 20 {
			t.Fatalf("after a restart: %d alerts, %d open, %d saved", len(d.alerts), len(b.Open()), len(d.saved))
		}
	}
	b.Tick(now.Add(time.Hour))
	if len(b.Open()) != 0 {
		t.Errorf("%d stay open", len(b.Open()))
	}
	saved := d.all()
	b, d = newBook(incident.Options{})
	b.Load(saved)
	b.Observe(now.Add(90*time.Minute), stop("login:3", "login-hour"))
	b.Tick(now.Add(90 * time.Minute))
	wantEvents(t, d, incident.Updated)
	if i := d.alerts[0].Incident; i.Reopened != 1 || i.Stops != 52 || !strings.Contains(d.alerts[0].Text, "back once") {
		t.Errorf("came back as %+v", d.alerts[0])
	}
}

func TestLoadMoreThanThereIsRoomFor(t *testing.T) {
	var saved []incident.Incident
	for i := range 20 {
		at := start.Add(time.Duration(i) * time.Second)
		saved = append(saved, incident.Incident{ID: fmt.Sprint("i-", i), Origin: fmt.Sprint("login:", i%15), Cause: "x", Opened: at, Updated: at, Alerted: at})
	}
	b, d := newBook(incident.Options{MaxOpen: 10})
	b.Load(saved)
	b.Tick(start.Add(time.Minute))
	if n := len(b.Open()); n != 10 || len(d.alerts) != 0 {
		t.Errorf("%d open, %d alerts", n, len(d.alerts))
	}
	for _, i := range d.saved {
		if i.Open() {
			t.Errorf("saved open: %+v", i)
		}
	}
	if len(d.saved) != 10 {
		t.Errorf("%d were closed in the journal, want 10", len(d.saved))
	}
}

func TestNotes(t *testing.T) {
	b, d := newBook(incident.Options{})
	b.Observe(start, stop("login:a", "login-hour"))
	b.Observe(start, stop("login:a", policy.RuleEnvelope))
	b.Observe(start, stop("login:b", "login-hour"))
	b.Tick(start)
	if n := b.NoteOrigin(start.Add(time.Second), "login:a", "suspended by root: password stolen"); n != 2 {
		t.Errorf("noted in %d", n)
	}
	id := b.Open()[0].ID
	for i := range 200 {
		if !b.Note(start, id, fmt.Sprint(i, strings.Repeat("é", 600))) {
			t.Fatal("no such incident")
		}
	}
	if b.Note(start, "i-none", "x") {
		t.Error("noted in an incident that is none")
	}
	b.Tick(start.Add(2 * time.Second))
	i, ok := b.Find(id)
	if !ok || len(i.Notes) != 50 || len(d.saved[id].Notes) != 50 || len(i.Notes[49].Text) > 500 || !strings.HasPrefix(i.Notes[49].Text, "199") || !strings.HasPrefix(i.Notes[0].Text, "noticed: mail was held") {
		t.Errorf("%d notes, %d saved: %v", len(i.Notes), len(d.saved[id].Notes), i.Notes[0])
	}
	wantEvents(t, d, incident.Opened, incident.Opened, incident.Opened)
}

// An attack must not use alerts as an amplifier: 1,000,000 stops of 100,000
// origins.
func TestFloodIsBounded(t *testing.T) {
	rules := incident.DefaultRules()
	rules["slow"] = incident.Rule{After: 5, Within: time.Hour}
	for cause, each := range map[string]int{"login-hour": 250_000, "slow": 50_000} {
		b, d := newBook(incident.Options{Rules: rules})
		var all sync.WaitGroup
		done := make(chan struct{})
		for w := range 4 {
			all.Go(func() {
				for i := range each {
					b.Observe(start, stop(fmt.Sprint("login:", (i*4+w)%100_000), cause))
				}
			})
		}
		ticked := make(chan struct{})
		go func() {
			defer close(ticked)
			for {
				select {
				case <-done:
					return
				case <-time.After(20 * time.Millisecond):
					b.Tick(start)
					b.Open()
				}
			}
		}()
		all.Wait()
		close(done)
		<-ticked
		b.Tick(start)
		if s := b.Size(); s.Open > 1002 || s.Closed > 1000 || s.Pending > 4001 || len(d.alerts) > 1002 { // two are of others
			t.Errorf("%s: %+v, %d alerts", cause, s, len(d.alerts))
		}
		stops, others := int64(0), false
		for _, i := range b.Open() {
			stops += i.Stops
			others = others || i.Origin == incident.OriginOthers
		}
		if !others || cause == "login-hour" && stops != int64(4*each) {
			t.Errorf("%s: %d stops in incidents, others: %v", cause, stops, others)
		}
		for hours := range 30 {
			b.Tick(start.Add(time.Duration(hours) * time.Hour))
			if s := b.Size(); s.Closed > 2100 {
				t.Errorf("%s: %+v", cause, s)
			}
		}
		if s := b.Size(); s.Open+s.Closed+s.Pending != 0 {
			t.Errorf("%s: a day later %+v are kept", cause, s)
		}
	}
}

func TestHostileNamesAreBoundedAndEscaped(t *testing.T) {
	b, d := newBook(incident.Options{})
	long := "login:\x1b[2J\u202e\xff\n-->" + strings.Repeat("a", 100_000)
	b.Observe(start, stop(long, "login-hour"))
	b.Observe(start, stop(long+"b", "login-hour"))
	b.Tick(start)
	if len(d.alerts) != 2 {
		t.Fatalf("%d alerts: names that begin alike are not one", len(d.alerts))
	}
	for _, a := range d.alerts {
		j, err := a.MarshalJSON()
		if err != nil || len(a.Text) > 700 || len(j) > 3000 || len(a.Incident.Origin) > 300 {
			t.Errorf("%d octets of text, %d of JSON, %v", len(a.Text), len(j), err)
		}
		for _, s := range []string{a.Text, string(j)} {
			if strings.ContainsAny(s, "\x1b\n\u202e") || !utf8.ValidString(s) {
				t.Errorf("not escaped: %q", s)
			}
		}
	}
}

// Observe never waits for what takes alerts or saves.
func TestObserveDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		b := incident.NewBook(incident.Options{
			Save:  func(incident.Incident) { <-stuck },
			Alert: func(incident.Alert) { <-stuck },
		})
		go b.Run(t.Context())
		began := time.Now()
		for i := range 1000 {
			b.Observe(time.Now(), stop(fmt.Sprint("login:", i%50), "login-hour"))
			synctest.Wait()
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("waited %v", took)
		}
		close(stuck)
		b.Observe(time.Now(), stop("login:x", "login-hour"))
	})
}

func TestRunTellsSoonAndClosesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, d := newBook(incident.Options{})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			b.Run(t.Context())
		}()
		b.Observe(time.Now(), stop("login:a", "login-hour"))
		synctest.Wait()
		wantEvents(t, d, incident.Opened)
		time.Sleep(time.Hour + 2*time.Second)
		synctest.Wait()
		wantEvents(t, d, incident.Opened, incident.Closed)
	})
}

func BenchmarkObserve(b *testing.B) {
	book := incident.NewBook(incident.Options{})
	s := stop("login:taro@example.jp", "login-hour")
	b.ReportAllocs()
	for b.Loop() {
		book.Observe(start, s)
	}
}

func TestBucketsAreTheNewest(t *testing.T) {
	asked := map[string]int{}
	b, d := newBook(incident.Options{StillOver: func(_, _, bucket string, _ time.Time) bool {
		asked[bucket]++
		return bucket == "login:a recipient_domain:5.example"
	}})
	at := func(n int) string { return fmt.Sprintf("login:a recipient_domain:%d.example", n) }
	observe := func(buckets ...string) {
		s := stop("login:a", "login-domain")
		s.Buckets = buckets
		b.Observe(start, s)
	}
	observe(strings.Repeat("x", 2000), "login:\xff")
	for i := range 12 {
		observe(at(i))
	}
	observe(at(5))
	observe(at(12), at(5))
	b.Tick(start)
	b.Tick(start.Add(time.Hour))
	if asked[at(5)] != 1 || len(asked) != 1 {
		t.Errorf("asked about %v, want the newest first, and that is over", asked)
	}
	got := d.all()[0].Buckets
	if want := []string{at(6), at(7), at(8), at(9), at(10), at(11), at(12), at(5)}; !slices.Equal(got, want) && !slices.Equal(b.Open()[0].Buckets, want) {
		t.Errorf("buckets %q, want %q", got, want)
	}
	for _, a := range d.alerts {
		if len(a.Incident.Buckets) > 0 || strings.Contains(a.Text, "example") {
			t.Errorf("an alert has %+v", a)
		}
	}
	loaded, _ := newBook(incident.Options{})
	many := b.Open()[0]
	many.Buckets = append(many.Buckets, many.Buckets...)
	loaded.Load([]incident.Incident{many})
	if got := loaded.Open()[0].Buckets; !slices.Equal(got, b.Open()[0].Buckets) {
		t.Errorf("after a restart %q", got)
	}
	before := b.Open()[0].Buckets
	observe(at(20))
	if before[7] != at(5) || b.Open()[0].Buckets[7] != at(20) {
		t.Error("what was handed out is changed")
	}
}
