package share_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"relayguard/cmd/internal/share"
	"relayguard/cmd/internal/switches"
	"relayguard/limitstore/redis/redistest"
	"relayguard/policy"
)

// relay is one of a fleet.
type relay struct {
	*share.Share
	t    *testing.T
	name string
	path string
	file *switches.File

	told chan string // effects, in their order
	log  log
}

// log is safe for concurrent use.
type log struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func client(t *testing.T, addr string) *goredis.Client {
	c := goredis.NewClient(&goredis.Options{Addr: addr, MaxRetries: -1, DialerRetries: 1, DialTimeout: 2 * time.Second, ReadTimeout: 5 * time.Second})
	t.Cleanup(func() { c.Close() })
	return c
}

// join starts a relay. It shares when it is told to.
func join(t *testing.T, c goredis.UniversalClient, name string, change func(*share.Options)) *relay {
	t.Helper()
	r := &relay{t: t, name: name, path: filepath.Join(t.TempDir(), "switches.json"), told: make(chan string, 1000)}
	r.open(c, change)
	return r
}

// open starts it anew, with the file that it had.
func (r *relay) open(c goredis.UniversalClient, change func(*share.Options)) {
	r.t.Helper()
	file, err := switches.Open(r.path, new(policy.Board), time.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	tell := func(what string) func(context.Context, policy.Switch) {
		return func(_ context.Context, s policy.Switch) { r.told <- what + " " + string(s.Kind) + " " + s.About() }
	}
	o := share.Options{Client: c, Prefix: "test", Relay: r.name, File: file, Arrived: tell("arrived"), Left: tell("left"), Log: slog.New(slog.NewTextHandler(io.Writer(&r.log), nil))}
	if change != nil {
		change(&o)
	}
	r.file, r.Share = file, share.New(o)
}

// run shares in the background until the test is over.
func (r *relay) run() {
	ctx, cancel := context.WithCancel(r.t.Context())
	var done sync.WaitGroup
	done.Go(func() { r.Run(ctx) })
	r.t.Cleanup(func() {
		cancel()
		done.Wait()
	})
}

// hears waits for the next effects here: these, and no others.
func (r *relay) hears(want ...string) {
	r.t.Helper()
	for _, w := range want {
		select {
		case got := <-r.told:
			if got != w {
				r.t.Errorf("%s: %q, want %q", r.name, got, w)
			}
		case <-time.After(time.Minute):
			r.t.Fatalf("%s waits in vain for %q", r.name, w)
		}
	}
}

func (r *relay) set(s policy.Switch) policy.Switch {
	r.t.Helper()
	s.Reason, s.By, s.Since = "spam", "ann@"+r.name, time.Now()
	s, err := r.file.Set(s)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *relay) suspend(login string) policy.Switch {
	r.t.Helper()
	return r.set(policy.Switch{Kind: policy.Suspend, Subject: policy.SubjectLogin, Value: login})
}

func (r *relay) resume(login string) {
	r.t.Helper()
	gone, err := r.file.Remove(func(s policy.Switch) bool { return s.Kind == policy.Suspend && s.Value == login })
	if err != nil || len(gone) != 1 {
		r.t.Fatalf("%s: resume %s: %v, %v", r.name, login, gone, err)
	}
}

// abouts lists what is in force.
func (r *relay) abouts() string {
	all := []string{}
	for _, s := range r.file.All(time.Now()) {
		all = append(all, string(s.Kind)+" "+s.About())
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}

// knows is all that the relay knows, to the letter.
func (r *relay) knows() string {
	all := []string{}
	for _, e := range r.file.Entries() {
		all = append(all, string(e.Encode()))
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// settle has all relays exchange until each has heard of all.
func settle(t *testing.T, all ...*relay) {
	t.Helper()
	for range 2 {
		for _, r := range all {
			if err := r.Sync(t.Context()); err != nil {
				t.Fatalf("%s: %v", r.name, err)
			}
		}
	}
	for _, r := range all[1:] {
		if got, want := r.knows(), all[0].knows(); got != want {
			t.Errorf("%s knows\n%.2000s\nand %s\n%.2000s", r.name, got, all[0].name, want)
		}
	}
	for _, r := range all {
		if r.Remark(t.Context()) != "" || r.Health().Away {
			t.Errorf("%s: %q, %+v", r.name, r.Remark(t.Context()), r.Health())
		}
	}
}

func fleet(t *testing.T, c func(i int) goredis.UniversalClient, change func(i int, o *share.Options)) []*relay {
	t.Helper()
	var all []*relay
	for i, name := range []string{"mx1", "mx2", "mx3"} {
		all = append(all, join(t, c(i), name, func(o *share.Options) {
			if change != nil {
				change(i, o)
			}
		}))
	}
	return all
}

func TestOrdersAreInForceOnAllRelaysAndActOnce(t *testing.T) {
	for name, start := range map[string]func(t *testing.T) func(int) goredis.UniversalClient{
		"single": func(t *testing.T) func(int) goredis.UniversalClient {
			server := redistest.Server(t)
			return func(int) goredis.UniversalClient { return client(t, server.Addr) }
		},
		"cluster": func(t *testing.T) func(int) goredis.UniversalClient {
			nodes := redistest.Cluster(t, 3)
			return func(int) goredis.UniversalClient {
				c := goredis.NewClusterClient(&goredis.ClusterOptions{Addrs: nodes.Addresses()})
				t.Cleanup(func() { c.Close() })
				return c
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			all := fleet(t, start(t), nil)
			a, b, c := all[0], all[1], all[2]
			for _, r := range all {
				r.run()
			}
			s := a.suspend("taro@example.jp")
			b.hears("arrived suspend login:taro@example.jp")
			c.hears("arrived suspend login:taro@example.jp")
			for _, r := range all {
				if got := r.file.All(time.Now()); len(got) != 1 || got[0].ID != s.ID || got[0].Reason != "spam" || got[0].By != "ann@mx1" || !got[0].Since.Equal(s.Since) {
					t.Errorf("%s has %+v", r.name, got)
				}
			}
			for _, r := range all {
				if err := r.Sync(t.Context()); err != nil {
					t.Error(err)
				}
			}
			b.resume("taro@example.jp")
			a.hears("left suspend login:taro@example.jp")
			c.hears("left suspend login:taro@example.jp")
			c.set(policy.Switch{Kind: policy.Deny, Subject: policy.SubjectNetwork, Value: "192.0.2.0/24"})
			a.hears("arrived deny network:192.0.2.0/24")
			b.hears("arrived deny network:192.0.2.0/24")
			if len(a.told)+len(b.told)+len(c.told) != 0 {
				t.Error("something more came")
			}
			for _, r := range all {
				if got := r.abouts(); got != "deny network:192.0.2.0/24" {
					t.Errorf("%s has %s", r.name, got)
				}
			}
		})
	}
}

// An effect waits for the root helper: what was taken back meanwhile has none.
func TestEffectsThatWereTakenBackMeanwhileAreNotHad(t *testing.T) {
	server := redistest.Server(t)
	entered, leave := make(chan bool, 1), make(chan bool)
	a := join(t, client(t, server.Addr), "mx1", nil)
	b := join(t, client(t, server.Addr), "mx2", func(o *share.Options) {
		tell := o.Arrived
		o.Arrived = func(ctx context.Context, s policy.Switch) {
			if s.Value == "slow" {
				entered <- true
				<-leave
			}
			tell(ctx, s)
		}
	})
	b.run()
	a.suspend("slow")
	settle(t, a, b)
	<-entered
	a.suspend("taro")
	settle(t, a, b)
	a.suspend("jiro")
	settle(t, a, b)
	a.resume("taro")
	settle(t, a, b)
	close(leave)
	b.hears("arrived suspend login:slow", "left suspend login:taro", "arrived suspend login:jiro")
}

func TestEveryKindButTheRedSwitchIsShared(t *testing.T) {
	server := redistest.Server(t)
	all := fleet(t, func(int) goredis.UniversalClient { return client(t, server.Addr) }, func(i int, o *share.Options) { o.LocalUsers = i == 2 })
	a, b := all[0], all[1]
	end := time.Now().Add(time.Hour)
	for _, s := range []policy.Switch{
		{Kind: policy.Stop},
		{Kind: policy.Suspend, Subject: policy.SubjectLocalUser, Value: "1000"},
		{Kind: policy.Set, Subject: policy.SubjectKey, Value: "local_user:33 recipient_domain:example.net", Rule: "day", Windows: perDay},
		{Kind: policy.Set, Subject: policy.SubjectKey, Value: "login:taro", Rule: "day", Windows: perDay},
		{Kind: policy.Suspend, Subject: policy.SubjectSite, Value: "shop.example.jp"},
		{Kind: policy.Probation, Subject: policy.SubjectLogin, Value: "a"},
		{Kind: policy.Deny, Subject: policy.SubjectHelo, Value: ".example.org"},
		{Kind: policy.Allow, Subject: policy.SubjectTrusted, Value: "web", Rule: "day"},
		{Kind: policy.Bulk, Subject: policy.SubjectLogin, Value: "a", Count: 9, Until: end},
		{Kind: policy.Pause, Subject: policy.SubjectLogin, Value: "a"},
	} {
		a.set(s)
	}
	want := "allow network:web,bulk login:a,deny helo:.example.org,pause login:a,probation login:a,set key:login:taro,suspend site:shop.example.jp"
	for range 2 {
		for _, r := range all {
			if err := r.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := b.abouts(); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	i := slices.IndexFunc(b.file.All(end.Add(-time.Minute)), func(s policy.Switch) bool { return s.Kind == policy.Set })
	if got := b.file.All(end.Add(-time.Minute))[i]; !slices.Equal(got.Windows, perDay) {
		t.Errorf("%+v", got)
	}
	all[2].set(policy.Switch{Kind: policy.Suspend, Subject: policy.SubjectLocalUser, Value: "2000"})
	for _, r := range []*relay{all[2], a, b} {
		if err := r.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(a.abouts()+b.abouts(), "2000") {
		t.Error("a uid of a relay with other Unix accounts is in force")
	}
}

func TestNewestChangeOfTheSameStays(t *testing.T) {
	server := redistest.Server(t)
	// Their own clocks do not matter once Redis told its.
	skew := []time.Duration{-time.Hour, time.Hour, 0}
	all := fleet(t, func(int) goredis.UniversalClient { return client(t, server.Addr) }, func(i int, o *share.Options) {
		o.Now = func() time.Time { return time.Now().Add(skew[i]) }
	})
	a, b, c := all[0], all[1], all[2]
	settle(t, all...)
	for i, r := range all {
		if got := r.Health().Offset + skew[i]; got.Abs() > 30*time.Second {
			t.Errorf("%s: Redis is ahead by %v", r.name, r.Health().Offset)
		}
	}
	for range 3 {
		b.suspend("taro")
		settle(t, all...)
		a.resume("taro")
		settle(t, all...)
		if got := a.abouts() + b.abouts() + c.abouts(); got != "" {
			t.Fatalf("left %s", got)
		}
		a.suspend("taro")
		settle(t, all...)
		b.resume("taro")
		settle(t, all...)
	}
	// At the same time, on all: one stays, the same everywhere.
	for _, r := range all {
		r.suspend("hanako")
	}
	settle(t, all...)
	if got := c.abouts(); got != "suspend login:hanako" {
		t.Errorf("left %q", got)
	}
}

func TestOrderThatWasDatedAheadIsRedated(t *testing.T) {
	server := redistest.Server(t)
	a := join(t, client(t, server.Addr), "mx1", nil)
	b := join(t, client(t, server.Addr), "mx2", func(o *share.Options) { o.Now = func() time.Time { return time.Now().Add(100 * 24 * time.Hour) } })
	b.suspend("taro") // before it has asked Redis
	b.suspend("jiro")
	b.resume("jiro")
	settle(t, b, a)
	a.resume("taro")
	a.suspend("jiro")
	settle(t, a, b)
	if got := b.abouts(); got != "suspend login:jiro" {
		t.Errorf("in force %q", got)
	}
}

func TestWhileRedisIsAwayOrdersAreHereAndGoOutLater(t *testing.T) {
	server := redistest.Server(t)
	var nets []*redistest.Network
	all := fleet(t, func(int) goredis.UniversalClient {
		n := redistest.Proxy(t, server.Addr)
		nets = append(nets, n)
		return client(t, n.Addr)
	}, nil)
	a, b, c := all[0], all[1], all[2]
	a.suspend("old")
	a.suspend("both")
	settle(t, all...)
	nets[0].Refuse()
	nets[1].Refuse()
	for range 2 {
		if a.Sync(t.Context()) == nil || b.Sync(t.Context()) == nil {
			t.Fatal("Redis is there")
		}
	}
	a.suspend("a")
	a.resume("both")
	b.suspend("b")
	b.resume("old")
	b.suspend("both") // is the newer
	c.suspend("c")
	if err := c.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h := a.Health(); !h.Away || h.Since.IsZero() || h.Why == "" || h.Waiting != 2 || !strings.Contains(a.Remark(t.Context()), "do not know of it yet: Redis is away since") {
		t.Errorf("%+v, %q", h, a.Remark(t.Context()))
	}
	if got := a.abouts(); got != "suspend login:a,suspend login:old" {
		t.Errorf("in force here %s", got)
	}
	nets[0].Restore()
	nets[1].Restore()
	settle(t, all...)
	if got := a.abouts(); got != "suspend login:a,suspend login:b,suspend login:both,suspend login:c" {
		t.Errorf("in force %s", got)
	}
	for _, r := range []*relay{a, b} {
		if text := r.log.String(); strings.Count(text, "are not shared") != 1 || strings.Count(text, "shared again") != 1 {
			t.Errorf("%s says %s", r.name, text)
		}
	}
}

func TestRemarkWaitsUntilRedisHasTheOrder(t *testing.T) {
	server := redistest.Server(t)
	a, b := join(t, client(t, server.Addr), "mx1", nil), join(t, client(t, server.Addr), "mx2", nil)
	a.run()
	a.suspend("taro")
	if got := a.Remark(t.Context()); got != "" {
		t.Errorf("%q", got)
	}
	if err := b.Sync(t.Context()); err != nil || b.abouts() != "suspend login:taro" {
		t.Errorf("%v, in force %s", err, b.abouts())
	}
	b.suspend("hanako") // nobody shares it
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := b.Remark(ctx); !strings.Contains(got, "not answered so far") {
		t.Errorf("%q", got)
	}
}

func TestEmptiedRedisIsFilledAgain(t *testing.T) {
	server := redistest.Server(t)
	all := fleet(t, func(int) goredis.UniversalClient { return client(t, server.Addr) }, nil)
	a, b, c := all[0], all[1], all[2]
	a.suspend("taro")
	a.suspend("hanako")
	settle(t, all...)
	b.resume("taro")
	settle(t, a, b) // c does not know that yet
	server.Restart()
	redistest.Until(t, "the server is back", a.Sync)
	settle(t, a, c, b)
	if got := c.abouts(); got != "suspend login:hanako" {
		t.Errorf("in force %s", got)
	}
}

func TestRelayThatWasDownBringsNothingBack(t *testing.T) {
	server := redistest.Server(t)
	db := client(t, server.Addr)
	a := join(t, db, "mx1", nil)
	b := join(t, db, "mx2", nil)
	b.suspend("taro")
	b.suspend("jiro")
	settle(t, a, b)
	a.resume("taro")
	settle(t, a)
	b.suspend("hanako") // Redis has not heard of it when b goes down
	b.open(db, nil)
	settle(t, b, a)
	if got := a.abouts(); got != "suspend login:hanako,suspend login:jiro" {
		t.Errorf("in force %s", got)
	}
	// A day, and a month: what was taken back is known for 30 days.
	for days, want := range map[int]string{1: "", 29: "", 31: "suspend login:x"} {
		db.FlushAll(t.Context())
		ago := time.Now().Add(-time.Duration(days) * 24 * time.Hour)
		old := join(t, db, "old", nil)
		x := policy.Switch{ID: "sx", Kind: policy.Suspend, Subject: policy.SubjectLogin, Value: "x", Since: ago.Add(-time.Hour), Changed: ago.Add(-time.Hour)}
		e := switches.Entry{What: switches.What{Kind: x.Kind, Subject: x.Subject, Value: x.Value}, Changed: x.Changed.UTC().Truncate(time.Microsecond), Switch: &x}
		if _, err := old.file.Merge(time.Now(), []switches.Entry{e}); err != nil {
			t.Fatal(err)
		}
		e.Changed, e.Switch = ago.UTC().Truncate(time.Microsecond), nil
		fresh := join(t, db, "fresh", nil)
		other := join(t, db, "other", nil)
		if _, err := other.file.Merge(ago, []switches.Entry{e}); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			for _, r := range []*relay{other, old, fresh} {
				if err := r.Sync(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got := fresh.abouts(); got != want {
			t.Errorf("after %d days %q, want %q", days, got, want)
		}
	}
}

func TestWhatIsOldIsDroppedFromRedis(t *testing.T) {
	server := redistest.Server(t)
	db := client(t, server.Addr)
	a := join(t, db, "mx1", nil)
	old := time.Now().Add(-31 * 24 * time.Hour).UTC().Truncate(time.Microsecond)
	what := func(v string) switches.What {
		return switches.What{Kind: policy.Suspend, Subject: policy.SubjectLogin, Value: v}
	}
	ended := policy.Switch{ID: "s1", Kind: policy.Suspend, Subject: policy.SubjectLogin, Value: "ended", Until: old, Changed: old.Add(-time.Hour)}
	put(t, db, switches.Entry{What: what("gone"), Changed: old})
	put(t, db, switches.Entry{What: what("ended"), Changed: ended.Changed, Switch: &ended})
	put(t, db, switches.Entry{What: what("lately"), Changed: old.Add(48 * time.Hour)})
	settle(t, a)
	if names := db.HKeys(t.Context(), "{test}:switches").Val(); len(names) != 1 || !strings.Contains(names[0], "lately") {
		t.Errorf("left %q", names)
	}
}

// put writes an entry as another relay does.
func put(t *testing.T, db *goredis.Client, e switches.Entry) {
	t.Helper()
	name := fmt.Sprintf("[%q,%q,%q,%q]", e.What.Kind, e.What.Subject, e.What.Value, e.What.Rule)
	raw(t, db, name, string(e.Encode()))
}

func raw(t *testing.T, db *goredis.Client, name, value string) {
	t.Helper()
	if err := db.HSet(t.Context(), "{test}:switches", name, value).Err(); err != nil {
		t.Fatal(err)
	}
	if err := db.Incr(t.Context(), "{test}:switches:version").Err(); err != nil {
		t.Fatal(err)
	}
}
