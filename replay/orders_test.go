package replay_test

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/replay"
)

// verdicts runs a trace and gives what became of each message, by its label.
func verdicts(t *testing.T, h *house, events ...event) map[string]string {
	t.Helper()
	got := map[string]string{}
	for label, tally := range h.run(t, lines(events...)).Labels {
		got[label] = sums(tally)
	}
	return got
}

const (
	passes  = "1/1 0/0 0/0 0/0"
	held    = "0/0 1/1 0/0 0/0"
	refused = "0/0 0/0 0/0 1/1"
)

func labelled(at time.Duration, label, login string, more ...event) event {
	return mail(at, login, 1, append(more, event{"label": label})...)
}

func TestSuspendAndResume(t *testing.T) {
	site := event{"login": "", "local_user": "web", "site": "shop.example.jp", "plugin": "share"}
	for _, c := range []struct {
		origin string
		mail   event
		want   string
	}{
		{"login:TARO@example.jp", event{"login": "Taro@example.jp"}, refused},
		{"local_user:web", site, held},
		{"site:Shop.example.jp", site, held},
		{"plugin:share", site, held},
		{"plugin:other", site, passes},
		{"local_user:other", site, passes},
		{"local_user:uid:5", event{"login": "", "uid": 5}, held},
		{"local_user:5", event{"login": "", "uid": 5}, held},
	} {
		got := verdicts(t, newHouse(),
			labelled(0, "before", "", c.mail), told(1, "suspend", event{"origin": c.origin}), labelled(2, "suspended", "", c.mail),
			told(3, "resume", event{"origin": c.origin}), labelled(4, "resumed", "", c.mail))
		if want := map[string]string{"before": passes, "suspended": c.want, "resumed": passes}; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", c.origin, got, want)
		}
	}
}

// Who is resumed has half of each limit for a week; one for whom there was
// nothing to resume has all of it.
func TestResumeBeginsProbation(t *testing.T) {
	const taro, day = "taro@example.jp", 24 * time.Hour
	for _, suspended := range []bool{true, false} {
		events := []event{told(1, "resume", event{"origin": "login:" + taro}), mail(time.Hour, taro, 3), mail(8*day, taro, 3)}
		want := "2/6 0/0 0/0 0/0"
		if suspended {
			events = append([]event{told(0, "suspend", event{"origin": "login:" + taro})}, events...)
			want = "1/3 0/0 0/0 1/3"
		}
		s := newHouse(limited("hour", limit.Login, limit.Recipients, policy.Reject, window(4, time.Hour))).run(t, lines(events...))
		if got := sums(s.Labels[""]); got != want {
			t.Errorf("suspended %v: %s, want %s", suspended, got, want)
		}
	}
}

// What abuse shut, a resume opens: of the account, alone or beside others, and
// of what is nobody's account.
func TestResumeOpensWhatAbuseShut(t *testing.T) {
	const taro = "taro@example.jp"
	for _, c := range []struct {
		per    []limit.Per
		resume string
		want   string
	}{
		{[]limit.Per{limit.Login}, "login:" + taro, passes},
		{[]limit.Per{limit.Login, limit.RecipientDomain}, "login:" + taro, passes},
		{[]limit.Per{limit.RecipientDomain}, "recipient_domain:example.net", passes},
		{[]limit.Per{limit.Login}, "login:other@example.jp", refused},
		{[]limit.Per{limit.Login}, "", refused},
	} {
		rule := policy.LimitRule{Limit: limit.Limit{Name: "abuse", Per: c.per, Counts: limit.Messages, Kind: limit.Abuse, Windows: []limit.Window{window(2, time.Hour)}}, Then: policy.Reject}
		events := []event{labelled(0, "1", taro), labelled(1, "2", taro), labelled(2, "3", taro)}
		if c.resume != "" {
			events = append(events, told(time.Minute, "resume", event{"origin": c.resume}))
		}
		got := verdicts(t, newHouse(rule), append(events, labelled(48*time.Hour, "resumed", taro))...)
		if want := map[string]string{"1": passes, "2": passes, "3": refused, "resumed": c.want}; !reflect.DeepEqual(got, want) {
			t.Errorf("%v, resumed %q: %v, want %v", c.per, c.resume, got, want)
		}
	}
}

// What abuse shut is full: it counts from nothing once it is resumed, against half of
// each limit.
func TestResumedAbuseCountsAnew(t *testing.T) {
	const taro = "taro@example.jp"
	rule := policy.LimitRule{Limit: limit.Limit{Name: "abuse", Per: []limit.Per{limit.Login}, Counts: limit.Messages, Kind: limit.Abuse, Windows: []limit.Window{window(4, 24*time.Hour)}}, Then: policy.Reject}
	var events []event
	for i := range 5 {
		events = append(events, labelled(time.Duration(i), fmt.Sprint(i), taro))
	}
	events = append(events, told(time.Minute, "resume", event{"origin": "login:" + taro}))
	for i := 5; i < 8; i++ {
		events = append(events, labelled(time.Hour+time.Duration(i), fmt.Sprint(i), taro))
	}
	got := verdicts(t, newHouse(rule), events...)
	want := map[string]string{"0": passes, "1": passes, "2": passes, "3": passes, "4": refused, "5": passes, "6": passes, "7": refused}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// Each of these stops what would have been let go after ten minutes, or lets it
// go on.
func TestWhatEndsPacedRelease(t *testing.T) {
	const taro, other = "taro@example.jp", "other@example.jp"
	minute := time.Minute
	first := labelled(0, "first", taro, event{"id": "m-first"})
	waits := labelled(minute, "waits", taro, event{"id": "m-waits"})
	about := event{"origin": "login:" + taro}
	for _, c := range []struct {
		name   string
		events []event
		want   string
	}{
		{"nothing", nil, passes},
		{"suspend", []event{told(2*minute, "suspend", about)}, held},
		{"suspend of another", []event{told(2*minute, "suspend", event{"origin": "login:" + other})}, passes},
		{"suspend, and resume in time", []event{told(2*minute, "suspend", about), told(14*minute, "resume", about)}, passes},
		{"complaint by login", []event{told(2*minute, "complaint", event{"login": "TARO@example.jp"})}, held},
		{"complaint by id", []event{told(2*minute, "complaint", event{"id": "m-first"})}, held},
		{"complaint of another", []event{told(2*minute, "complaint", event{"login": other})}, passes},
		{"complaint of what nobody got", []event{told(2*minute, "complaint", event{"id": "m-waits", "login": taro})}, passes},
		{"complaint of nothing known", []event{told(2*minute, "complaint", event{"id": "m-what"})}, passes},
		{"complaint, and resume", []event{told(2*minute, "complaint", event{"login": taro}), told(3*minute, "resume", about)}, passes},
		{"release", []event{told(2*minute, "release", about)}, held}, // by an admin's word
		{"release of another", []event{told(2*minute, "release", event{"origin": "login:" + other})}, passes},
	} {
		h := newHouse(limited("login", limit.Login, limit.Recipients, policy.Hold, window(2, 10*time.Minute)))
		got := verdicts(t, h, append([]event{first, labelled(1, "second", taro), waits}, c.events...)...)
		if got["waits"] != c.want {
			t.Errorf("%s: %s, want %s", c.name, got["waits"], c.want)
		}
	}
}

// Of what a line let go over 5 % bounced, and at least 3: it stops until the
// account is resumed. Bounces of what passed at once say nothing of it.
func TestBouncesStopALine(t *testing.T) {
	const taro = "taro@example.jp"
	for _, c := range []struct {
		name    string
		bounced []string // ids
		status  string
		resume  bool
		want    string
	}{
		{"none", nil, "bounced", false, passes},
		{"two", []string{"p2", "p3"}, "bounced", false, passes},
		{"three", []string{"p2", "p3", "p4"}, "bounced", false, held},
		{"expired", []string{"p2", "p3", "p4"}, "expired", false, held},
		{"deferred", []string{"p2", "p3", "p4"}, "deferred", false, passes},
		{"told twice", []string{"p2", "p2", "p3", "p3"}, "bounced", false, passes},
		{"at once", []string{"p0", "p1", "p2"}, "bounced", false, passes},
		{"resumed", []string{"p2", "p3", "p4"}, "bounced", true, passes},
	} {
		var all []event
		for i, id := range []string{"p0", "p1", "p2", "p3", "p4", "p5"} {
			all = append(all, labelled(time.Duration(i)*time.Second, id, taro, event{"id": id}))
		}
		for i, id := range c.bounced { // two go at 10 minutes, two at 20
			all = append(all, told(25*time.Minute+time.Duration(i), "delivery", event{"id": id, "rcpt_to": "friend0@example.net", "status": c.status}))
		}
		all = append(all, labelled(26*time.Minute, "next", taro), labelled(26*time.Minute, "after", taro), labelled(26*time.Minute, "last", taro))
		if c.resume {
			all = append(all, told(27*time.Minute, "resume", event{"origin": "login:" + taro}))
		}
		h := newHouse(limited("login", limit.Login, limit.Recipients, policy.Hold, window(2, 10*time.Minute)))
		if got := verdicts(t, h, all...); got["next"] != c.want {
			t.Errorf("%s: %v, want %s", c.name, got, c.want)
		}
	}
}

// A bounce is charged to the limits that count them, once for each recipient,
// and not of mail that would have been stopped.
func TestBouncesAreCharged(t *testing.T) {
	const taro = "taro@example.jp"
	for _, c := range []struct {
		ids  string // of messages, a letter each
		want string
	}{
		{"sssssssss", passes}, // it was stopped: nobody got it
		{"ttttttttt", passes}, // it has two recipients
		{"ooooooooo", passes},
		{"tttttttto", refused},
	} {
		h := newHouse(limited("bounces", limit.Login, limit.Bounces, policy.Reject, window(3, 24*time.Hour)), limited("hour", limit.Login, limit.Recipients, policy.Hold, window(3, time.Hour)))
		all := []event{mail(0, taro, 2, event{"id": "t"}), mail(1, taro, 1, event{"id": "o"}), mail(2, taro, 1, event{"id": "s"})}
		for i, id := range c.ids {
			all = append(all, told(time.Minute+time.Duration(i), "delivery", event{"id": string(id), "status": "bounced"}))
		}
		if got := verdicts(t, h, append(all, labelled(3*time.Hour, "next", taro))...); got["next"] != c.want {
			t.Errorf("%s: %s, want %s", c.ids, got["next"], c.want)
		}
	}
}

// Held mail takes room until it is let go, released, or a week old.
func TestHeldMailTakesRoom(t *testing.T) {
	const taro = "taro@example.jp"
	fill := []event{labelled(0, "passes", taro), labelled(1, "held", taro), labelled(2, "over", taro)}
	for _, c := range []struct {
		name  string
		event event
		at    time.Duration
		want  string
	}{
		{"at once", nil, time.Minute, "0/0 0/0 1/1 0/0"},
		{"released", told(30*time.Second, "release", event{"origin": "login:" + taro}), time.Minute, held},
		{"after max_age", nil, 20 * time.Hour, "0/0 0/0 1/1 0/0"},
		{"after a week", nil, 8 * 24 * time.Hour, held},
	} {
		h := newHouse(limited("once", limit.Login, limit.Messages, policy.Hold, window(1, 30*24*time.Hour)))
		h.Enforce.Room = &room{most: 1}
		all := fill
		if c.event != nil {
			all = append(all[:len(all):len(all)], c.event)
		}
		got := verdicts(t, h, append(all[:len(all):len(all)], labelled(c.at, "next", taro))...)
		if got["held"] != held || got["over"] != "0/0 0/0 1/1 0/0" || got["next"] != c.want {
			t.Errorf("%s: %v, want %s", c.name, got, c.want)
		}
	}
	h := newHouse(limited("ten", limit.Login, limit.Messages, policy.Hold, window(1, 10*time.Minute)))
	h.Enforce.Room = &room{most: 1}
	if got := verdicts(t, h, append(fill, labelled(11*time.Minute, "next", taro))...); got["held"] != passes || got["next"] != passes {
		t.Errorf("let go: %v", got)
	}
}

// room has place for so many messages.
type room struct{ most, taken int }

func (r *room) Full(string) bool { return r.taken >= r.most }

func (r *room) Take(string, int64) bool {
	if r.taken >= r.most {
		return false
	}
	r.taken++
	return true
}

func (r *room) Give(string, int64) { r.taken-- }

var _ policy.HoldRoom = (*room)(nil)

// diary keeps what a replay tells of incidents.
type diary struct {
	stops, ticks int
	open         int
	abused       bool
}

func (d *diary) Stopped(time.Time, *policy.Message, *policy.Decision) { d.stops++ }
func (d *diary) Tick(time.Time, *policy.Policy)                       { d.ticks++ }
func (d *diary) Open() int                                            { return d.open }
func (d *diary) Abused(*policy.Waits, *policy.Policy) bool            { return d.abused }
func (d *diary) All() []replay.Incident                               { return nil }

func TestAnIncidentOfAbuseEndsPacedRelease(t *testing.T) {
	for abused, want := range map[bool]string{false: passes, true: held} {
		h := newHouse(limited("login", limit.Login, limit.Recipients, policy.Hold, window(1, 10*time.Minute)))
		d := &diary{abused: abused}
		h.Incidents = d
		got := verdicts(t, h, labelled(0, "first", "taro@example.jp"), labelled(1, "waits", "taro@example.jp"))
		if got["waits"] != want || d.stops != 1 {
			t.Errorf("abused %v: %s, want %s; %d stops", abused, got["waits"], want, d.stops)
		}
	}
}
