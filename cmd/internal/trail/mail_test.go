package trail_test

import (
	"fmt"
	"hash/maphash"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/trail"
	"relayguard/mta/maillog"
	"relayguard/policy/limit"
)

var seed = maphash.MakeSeed()

func digest(s string) limit.Item { return limit.Item(maphash.String(seed, strings.ToLower(s))) }

// learning is a trail that learns of example.jp.
func learning() (*post, *trail.Expansions) {
	e := trail.NewExpansions(digest, func(to string) bool { return strings.HasSuffix(strings.ToLower(to), "@example.jp") })
	return newPost(func(o *trail.Options) { o.Expansions = e }), e
}

// counting is a charge of another unit.
func counting(unit limit.Unit, who string) limit.Charge {
	c := charge(who, 1)
	c.Counts, c.Items = unit, []limit.Item{1}
	return c
}

func TestOnlyWhatCountsRecipientsGrows(t *testing.T) {
	p := newPost(nil)
	p.Accepted("A", passed(1, charge("login:taro", 1), counting(limit.Messages, "m"), counting(limit.Bytes, "b"), counting(limit.Distinct, "d"), counting(limit.FirstTime, "f"), counting(limit.Recipients, "r")))
	p.Event(t.Context(), now, queued(0, "A", 50))
	if got := []int64{p.used(t, "login:taro"), p.used(t, "r"), p.used(t, "m"), p.used(t, "b")}; !slices.Equal(got, []int64{49, 49, 0, 0}) || p.buckets.Len() != 2 {
		t.Errorf("charged %d, in %d buckets", got, p.buckets.Len())
	}
}

func TestBouncesAreChargedToTheirMessage(t *testing.T) {
	to := func(id, status string, n int) maillog.Event {
		e := delivery(id, status)
		e.Count = n
		return e
	}
	for _, c := range []struct {
		name   string
		events []maillog.Event
		want   int64 // of a message to 3
	}{
		{"delivered and deferred", []maillog.Event{to("A", maillog.Sent, 1), to("A", maillog.Deferred, 1)}, 0},
		{"bounced", []maillog.Event{to("A", maillog.Bounced, 1), to("A", maillog.Sent, 1)}, 1},
		{"expired", []maillog.Event{to("A", maillog.Expire, 1)}, 1},
		{"repeated", []maillog.Event{to("A", maillog.Bounced, 2)}, 2},
		{"all", []maillog.Event{to("A", maillog.Bounced, 1), to("A", maillog.Bounced, 1), to("A", maillog.Expire, 1)}, 3},
		{"more than it has recipients", []maillog.Event{to("A", maillog.Bounced, 2), to("A", maillog.Bounced, 2_000_000_000), to("A", maillog.Bounced, 1)}, 3},
		{"with those of an alias", []maillog.Event{queued(0, "A", 5), to("A", maillog.Bounced, 9)}, 5},
		{"with those of a forged line", []maillog.Event{queued(0, "A", 2_000_000_000), to("A", maillog.Bounced, 2_000_000_000)}, 1003},
		{"by a copy", []maillog.Event{forwarded(1, "A", "C"), to("C", maillog.Bounced, 1)}, 1},
		{"by copies, more than it has", []maillog.Event{forwarded(1, "A", "C"), forwarded(1, "C", "D"), to("C", maillog.Bounced, 2), to("D", maillog.Bounced, 2)}, 3},
		{"requeued", []maillog.Event{requeued("A", "E"), to("E", maillog.Bounced, 1)}, 1},
		{"of somebody else's", []maillog.Event{to("Z", maillog.Bounced, 1)}, 0},
		{"after a line that says it left", []maillog.Event{removed("A"), to("A", maillog.Bounced, 1)}, 1},
		{"after forged lines", []maillog.Event{removed("A"), removed("A"), queued(0, "A", 5), to("A", maillog.Bounced, 9)}, 5},
		{"of the next with its id", []maillog.Event{removed("A"), later(to("A", maillog.Bounced, 1))}, 0},
		{"of the next, when it is forgotten", []maillog.Event{removed("A"), later(removed("R")), to("A", maillog.Bounced, 1)}, 0},
		{"requeued after a forged line", []maillog.Event{removed("A"), requeued("A", "E"), later(to("E", maillog.Bounced, 1))}, 1},
		{"addresses that were only asked for", []maillog.Event{to("A", maillog.Undeliverable, 1)}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPost(nil)
			m := passed(3)
			m.Bounces = []limit.Charge{counting(limit.Bounces, "login:taro"), counting(limit.Bounces, "server")}
			p.Accepted("A", m)
			for _, e := range c.events {
				p.Event(t.Context(), now, e)
			}
			if a, b := max(p.used(t, "login:taro"), 0), max(p.used(t, "server"), 0); a != c.want || b != c.want || p.Counts().Returned != c.want {
				t.Errorf("charged %d and %d, counted %d; want %d", a, b, p.Counts().Returned, c.want)
			}
		})
	}
	p := newPost(nil) // no bounce rule concerns it
	p.Accepted("A", passed(3))
	p.Event(t.Context(), now, delivery("A", maillog.Bounced))
	if p.buckets.Len() != 0 || p.Counts().Returned != 0 || p.Counts().Bounced != 1 {
		t.Errorf("%d buckets, %+v", p.buckets.Len(), p.Counts())
	}
}

func TestBounceThatTheStoreDoesNotTakeIsTold(t *testing.T) {
	var log strings.Builder
	p := newPost(func(o *trail.Options) {
		o.Buckets, o.Log = full{}, slog.New(slog.NewTextHandler(&log, nil))
	})
	m := passed(1)
	m.Bounces = []limit.Charge{counting(limit.Bounces, "login:taro")}
	p.Accepted("A", m)
	p.Event(t.Context(), now, delivery("A", maillog.Bounced))
	if !strings.Contains(log.String(), "charge a bounce") || strings.Contains(log.String(), "taro") {
		t.Errorf("log %q", log.String())
	}
}

func TestOutcomeIsToldOfTheMessageThatTheGuardSaw(t *testing.T) {
	var told []string
	p := newPost(func(o *trail.Options) {
		o.Outcome = func(id, status string, n int) { told = append(told, fmt.Sprint(id, " ", status, " ", n)) }
	})
	p.Accepted("A", passed(1))
	for _, e := range []maillog.Event{delivery("A", maillog.Deferred), forwarded(1, "A", "C"), delivery("C", maillog.Bounced), requeued("H", "I"), delivery("I", maillog.Sent)} {
		p.Event(t.Context(), now, e)
	}
	if got := strings.Join(told, ","); got != "A deferred 1,A sent 1,A bounced 1,H sent 1" || got != strings.Join(p.notes, ",") {
		t.Errorf("told %s, noted %s", got, strings.Join(p.notes, ","))
	}
}

// by is a delivery whose address an alias made of another.
func by(id, origTo, status string, n int) maillog.Event {
	e := delivery(id, status)
	e.OrigTo, e.Count = origTo, n
	return e
}

func TestWhatAnAddressStandsForIsLearnt(t *testing.T) {
	const team, all, one = "team@example.jp", "all@example.jp", "hanako@example.jp"
	for _, c := range []struct {
		name      string
		to        []string
		events    []maillog.Event
		team, all int
	}{
		{"nothing", []string{team}, nil, 1, 1},
		{"one", []string{team}, []maillog.Event{queued(0, "A", 1), removed("A")}, 1, 1},
		{"an alias of 50", []string{team}, []maillog.Event{queued(0, "A", 50)}, 50, 1},
		{"in other spelling", []string{"Team@Example.JP"}, []maillog.Event{queued(0, "A", 50)}, 50, 1},
		{"a .forward", []string{team}, []maillog.Event{queued(0, "A", 1), forwarded(1, "A", "C"), queued(1, "C", 10), removed("A")}, 10, 1},
		{"a .forward that is logged late", []string{team}, []maillog.Event{queued(0, "A", 1), queued(1, "C", 10), forwarded(1, "A", "C"), removed("A"), removed("C")}, 10, 1},
		{"a copy of which the log tells after the message left", []string{team}, []maillog.Event{queued(0, "A", 1), forwarded(1, "A", "C"), removed("A"), queued(1, "C", 10)}, 10, 1},
		{"copies of copies", []string{team}, []maillog.Event{forwarded(1, "A", "C"), queued(1, "C", 3), forwarded(2, "C", "D"), queued(2, "D", 4)}, 6, 1},
		{"more than a message is charged for", []string{team}, []maillog.Event{queued(0, "A", 2_000_000_000)}, 1001, 1},
		{"one of two", []string{team, one}, []maillog.Event{queued(0, "A", 4), by("A", team, maillog.Sent, 1), by("A", team, maillog.Bounced, 2), by("A", "", maillog.Sent, 1), removed("A")}, 3, 1},
		{"deferred at first", []string{team, one}, []maillog.Event{by("A", team, maillog.Deferred, 2), by("A", team, maillog.Deferred, 2), by("A", team, maillog.Sent, 2), removed("A")}, 2, 1},
		{"both of two", []string{team, all}, []maillog.Event{by("A", team, maillog.Sent, 2), by("A", all, maillog.Sent, 7), removed("A")}, 2, 7},
		{"by a copy", []string{team, one}, []maillog.Event{forwarded(0, "A", "C"), by("C", team, maillog.Sent, 5), removed("A"), by("C", team, maillog.Sent, 1)}, 6, 1},
		{"not who was not written to", []string{team, one}, []maillog.Event{by("A", all, maillog.Sent, 7)}, 1, 1},
		{"a forged line", []string{team, one}, []maillog.Event{by("A", team, maillog.Sent, 2_000_000_000)}, 1001, 1},
		{"not of a message that nobody sent", []string{one}, []maillog.Event{queued(0, "Z", 50), by("Z", team, maillog.Sent, 50)}, 1, 1},
		{"not of others' domains", []string{"team@example.net"}, []maillog.Event{queued(0, "A", 50)}, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, e := learning()
			m := passed(len(c.to), charge("login:taro", 1))
			m.Rcpts = c.to
			p.Accepted("A", m)
			for _, event := range c.events {
				p.Event(t.Context(), now, event)
			}
			if e.Of(team) != c.team || e.Of(all) != c.all || e.Of("team@example.net") != 1 || e.Of(one) != 1 {
				t.Errorf("%d and %d, want %d and %d; others %d, %d", e.Of(team), e.Of(all), c.team, c.all, e.Of("team@example.net"), e.Of(one))
			}
		})
	}
}

func TestLatestObservationWins(t *testing.T) {
	const team = "team@example.jp"
	p, e := learning()
	id := 0
	send := func(to []string, stands int) {
		id++
		name := fmt.Sprint("Q", id)
		m := passed(len(to))
		m.Rcpts = to
		p.Accepted(name, m)
		p.Event(t.Context(), now, queued(0, name, stands+len(to)-1))
		p.Event(t.Context(), now, by(name, team, maillog.Sent, stands))
		for range to[1:] {
			p.Event(t.Context(), now, by(name, "", maillog.Sent, 1))
		}
		p.Event(t.Context(), now, removed(name))
	}
	for _, n := range []int{5, 9, 3, 3, 1, 4} {
		send([]string{team}, n)
		if e.Of(team) != n {
			t.Errorf("one recipient: %d, want %d", e.Of(team), n)
		}
	}
	for _, n := range []int{5, 9, 3, 1} {
		send([]string{team, "x@example.net"}, n)
		if e.Of(team) != n {
			t.Errorf("two: %d, want %d", e.Of(team), n)
		}
	}
	many := make([]string, 21)
	for i := range many {
		many[i] = team
	}
	send(many, 50) // too many to be remembered for days
	if e.Of(team) != 1 {
		t.Errorf("%d", e.Of(team))
	}
}

func TestWhatWasChargedInAdvanceIsNotChargedAgain(t *testing.T) {
	for _, c := range []struct {
		name               string
		counted            int
		events             []maillog.Event
		expanded, foreseen int64
	}{
		{"as was known", 51, []maillog.Event{queued(0, "A", 51)}, 0, 49},
		{"it has grown", 51, []maillog.Event{queued(0, "A", 61)}, 10, 49},
		{"it has shrunk", 51, []maillog.Event{queued(0, "A", 41)}, 0, 39},
		{"by copies", 51, []maillog.Event{queued(0, "A", 2), forwarded(1, "A", "C"), queued(1, "C", 30), forwarded(1, "A", "D"), queued(1, "D", 30)}, 9, 49},
		{"nothing was", 0, []maillog.Event{queued(0, "A", 51)}, 49, 0},
		{"less than its recipients", 1, []maillog.Event{queued(0, "A", 51)}, 49, 0},
		{"beside the bound", 1002, []maillog.Event{queued(0, "A", 5002)}, 1000, 1000},
	} {
		p := newPost(nil)
		m := passed(2, charge("login:taro", 2))
		m.Counted = c.counted
		p.Accepted("A", m)
		for _, e := range c.events {
			p.Event(t.Context(), now, e)
		}
		if got := max(p.used(t, "login:taro"), 0); got != c.expanded || p.Counts().Expanded != c.expanded || p.Counts().Foreseen != c.foreseen {
			t.Errorf("%s: charged %d, %+v; want %d, foreseen %d", c.name, got, p.Counts(), c.expanded, c.foreseen)
		}
	}
}

// Any local account can have a line written that says that a message left the
// queue. What an alias stands for is less only if all of it was seen to arrive.
func TestForgedRemovalTeachesNothing(t *testing.T) {
	const team, one = "team@example.jp", "hanako@example.jp"
	for _, c := range []struct {
		name     string
		to       []string
		events   []maillog.Event
		expanded int64
		team     int
	}{
		{"at once", []string{team}, []maillog.Event{removed("A"), queued(0, "A", 500)}, 499, 500},
		{"and nothing more", []string{team}, []maillog.Event{removed("A")}, 0, 9},
		{"behind a delivery", []string{team}, []maillog.Event{by("A", team, maillog.Sent, 1), removed("A"), queued(0, "A", 500)}, 499, 500},
		{"while it is delivered", []string{team}, []maillog.Event{queued(0, "A", 500), by("A", team, maillog.Sent, 7), removed("A"), by("A", team, maillog.Sent, 493)}, 499, 500},
		{"of two", []string{team, one}, []maillog.Event{queued(0, "A", 9), by("A", team, maillog.Sent, 1), removed("A")}, 7, 9},
		{"of a message with copies", []string{team}, []maillog.Event{removed("A"), forwarded(1, "A", "C"), queued(1, "C", 50)}, 49, 50},
		{"it had shrunk", []string{team}, []maillog.Event{queued(0, "A", 3), removed("A"), by("A", team, maillog.Sent, 2), by("A", team, maillog.Bounced, 1)}, 2, 3},
		{"its copy had shrunk", []string{team}, []maillog.Event{forwarded(1, "A", "C"), queued(1, "C", 3), removed("A"), by("C", team, maillog.Sent, 3), removed("C")}, 2, 3},
		{"deferred is not delivered", []string{team}, []maillog.Event{queued(0, "A", 3), by("A", team, maillog.Deferred, 3), removed("A")}, 2, 9},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, e := learning()
			before := passed(1)
			before.Rcpts = []string{team}
			p.Accepted("B", before)
			p.Event(t.Context(), now, queued(0, "B", 9))
			m := passed(len(c.to), charge("login:taro", 1))
			m.Rcpts = c.to
			p.Accepted("A", m)
			for _, event := range c.events {
				p.Event(t.Context(), now, event)
			}
			if e.Of(team) != c.team || p.Counts().Expanded != c.expanded {
				t.Errorf("stands for %d, want %d; charged %d, want %d", e.Of(team), c.team, p.Counts().Expanded, c.expanded)
			}
		})
	}
}

// learn teaches so many addresses.
func learn(t *testing.T, p *post, at time.Time, names ...string) {
	t.Helper()
	for i, name := range names {
		m := passed(1)
		m.Rcpts = []string{name}
		id := fmt.Sprint(at.Unix(), "X", i)
		p.Accepted(id, m)
		p.Event(t.Context(), at, queued(0, id, 7))
		p.Event(t.Context(), at, removed(id))
	}
}

func TestExpansionsAreForgottenAndBounded(t *testing.T) {
	p, e := learning()
	learn(t, p, now, "old@example.jp", "used@example.jp")
	learn(t, p, now.Add(20*24*time.Hour), "used@example.jp")
	e.Sweep(now.Add(30 * 24 * time.Hour))
	if e.Of("old@example.jp") != 7 {
		t.Error("forgotten early")
	}
	e.Sweep(now.Add(30*24*time.Hour + 1))
	if e.Of("old@example.jp") != 1 || e.Of("used@example.jp") != 7 {
		t.Errorf("%d, %d", e.Of("old@example.jp"), e.Of("used@example.jp"))
	}
	var names []string
	for i := range 10_001 {
		names = append(names, fmt.Sprint("n", i, "@example.jp"))
	}
	learn(t, p, now.Add(21*24*time.Hour), names...)
	if n := len(e.All()); n > 10_000 || n < 9000 {
		t.Errorf("%d are known", n)
	}
	if e.Of("used@example.jp") != 1 || e.Of(names[10_000]) != 7 {
		t.Error("the longest unseen is not the first to go")
	}
}

func TestExpansionsOutliveTheDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "expansions.json")
	p, e := learning()
	if err := e.Load(path, now); err != nil {
		t.Error(err)
	}
	if err := e.Save(path); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("nothing is written to a file")
	}
	learn(t, p, now, "team@example.jp")
	if err := e.Save(path); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(path); strings.Contains(string(text), "team") {
		t.Errorf("the file tells addresses: %s", text)
	}
	_, again := learning()
	if err := again.Load(path, now.Add(time.Hour)); err != nil || again.Of("team@example.jp") != 7 {
		t.Errorf("%v, %d", err, again.Of("team@example.jp"))
	}
	_, late := learning()
	if err := late.Load(path, now.Add(31*24*time.Hour)); err != nil || len(late.All()) != 0 {
		t.Errorf("%v, %v", err, late.All())
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := e.Save(path); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("what is unchanged is written again")
	}
	for _, text := range []string{"", "{", `{"a":1}`, `[{"item":1,"stands":1000000,"seen":"2026-03-02T08:00:00Z"},{"item":2,"stands":-1,"seen":"2026-03-02T08:00:00Z"},{"item":3,"stands":9,"seen":"2027-01-01T00:00:00Z"}]`} {
		_, e := learning()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := e.Load(path, now); (err == nil) != strings.HasPrefix(text, "[") || len(e.All()) != 0 {
			t.Errorf("%q: %v, %v", text, err, e.All())
		}
	}
	var none *trail.Expansions
	if none.Of("x") != 1 {
		t.Error("nil knows something")
	}
}
