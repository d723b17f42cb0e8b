package desk_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/desk"
	"relayguard/journal"
	"relayguard/mta"
	"relayguard/policy"
)

// queued lists what a filter chooses, by queue id.
func (s *site) queued(f desk.QueueFilter) (map[string]desk.Queued, desk.QueueEnd) {
	s.t.Helper()
	out := map[string]desk.Queued{}
	end, err := s.d.QueueList(s.t.Context(), s.now, f, func(m desk.Queued) error {
		out[m.QueueID] = m
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return out, end
}

// stuck is deferred mail with a reason.
func stuck(id string, arrival time.Time, why string, to ...string) mta.QueueFile {
	q := file(id, arrival)
	q.Queue, q.Reason, q.Recipients = "deferred", why, to
	return q
}

func TestQueueListTellsWhoseMailItIs(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1")
	s.pass(hanako, "deferred", "B1B1B1")
	s.passFrom("shop.example.jp", "share", "C1C1C1")
	s.mta.put(file("E1E1E1", s.start)) // nobody knows of it
	all, end := s.queued(desk.QueueFilter{})
	if len(all) != 4 || end.Messages != 4 || end.Seen != 4 || end.Bytes != 4000 {
		t.Fatalf("got %+v, %+v, want four messages", all, end)
	}
	for id, want := range map[string]desk.Queued{
		"A1A1A1": {ID: "da1a1a1", Queue: "hold", Account: taro, Verdict: "hold", Rule: "volume", HeldBy: "relayguard"},
		"B1B1B1": {ID: "db1b1b1", Queue: "deferred", Account: hanako, Verdict: "accept"},
		"E1E1E1": {Queue: "hold", HeldBy: "other"},
	} {
		if got := all[id]; got.ID != want.ID || got.Queue != want.Queue || got.Account != want.Account || got.Verdict != want.Verdict || got.Rule != want.Rule || got.HeldBy != want.HeldBy {
			t.Errorf("%s: got %+v, want %+v", id, got, want)
		}
	}
	if got := all["C1C1C1"]; got.Site != "shop.example.jp" || got.Plugin != "share" {
		t.Errorf("got %+v, want its site and plugin", got)
	}
}

func TestQueueListKnowsReusedIDsApart(t *testing.T) {
	s := open(t)
	old := journal.Decision{ID: "dold", Time: s.start.Add(-time.Hour), Stage: journal.StageMessage, Verdict: policy.Accept, Account: taro, QueueID: "A1A1A1", MailFrom: "taro@example.jp", UID: -1}
	if err := s.journal.Append(old); err != nil { // delivered; then the id was another's
		t.Fatal(err)
	}
	s.pass(hanako, "deferred", "A1A1A1")
	later := file("B1B1B1", s.start.Add(time.Minute)) // of which the guard knows nothing
	later.Queue = "deferred"
	s.decide(policy.Accept, taro, "", "B1B1B1", s.start)
	s.mta.put(later)
	anew := file("C1C1C1", s.start.Add(-2*time.Hour)) // queued anew, so it came long before another's decision under its id
	anew.Queue, anew.Sender = "deferred", "jiro@example.jp"
	s.decide(policy.Accept, taro, "", "C1C1C1", s.start)
	s.mta.put(anew)
	all, _ := s.queued(desk.QueueFilter{})
	for id, want := range map[string]string{"A1A1A1": hanako, "B1B1B1": "", "C1C1C1": ""} {
		if got := all[id].Account; got != want {
			t.Errorf("%s: of %q, want %q", id, got, want)
		}
	}
}

func TestQueueListFollowsMailThatWasQueuedAnew(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1")
	s.mta.tooOld["A1A1A1"] = "F1F1F1"
	if r, err := release(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: ids("A1A1A1")}); err != nil || r.Counts["done"] != 1 {
		t.Fatal(r, err)
	}
	all, _ := s.queued(desk.QueueFilter{Account: taro})
	if m := all["F1F1F1"]; m.ID != "da1a1a1" || m.Account != taro {
		t.Errorf("got %+v, want taro's message under its new id", all)
	}
}

func TestQueueListFilters(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1", "A2A2A2")
	s.pass(hanako, "deferred", "B1B1B1")
	s.passFrom("shop.example.jp", "share", "C1C1C1")
	s.mta.put(stuck("D1D1D1", s.now.Add(-time.Minute), "connect to mx.example.net[192.0.2.1]:25: Connection timed out", "x@mail.example.com", "y@EXAMPLE.net"))
	big := file("E1E1E1", s.start)
	big.Size, big.Sender = 1<<20, ""
	s.mta.put(big)
	for _, c := range []struct {
		f    desk.QueueFilter
		want string
	}{
		{desk.QueueFilter{Account: taro}, "A1A1A1 A2A2A2"},
		{desk.QueueFilter{Login: "hanako@example.jp"}, "B1B1B1"},
		{desk.QueueFilter{Account: "unknown"}, "D1D1D1 E1E1E1"},
		{desk.QueueFilter{Account: "plugin:share@shop.example.jp"}, "C1C1C1"},
		{desk.QueueFilter{Site: "shop.example.jp"}, "C1C1C1"},
		{desk.QueueFilter{Rule: "volume"}, "A1A1A1 A2A2A2"},
		{desk.QueueFilter{Queue: "deferred", Account: hanako}, "B1B1B1"},
		{desk.QueueFilter{HeldBy: "other"}, "E1E1E1"},
		{desk.QueueFilter{HeldBy: "relayguard"}, "A1A1A1 A2A2A2"},
		{desk.QueueFilter{MailFrom: "<>"}, "E1E1E1"},
		{desk.QueueFilter{MinSize: 2000}, "E1E1E1"},
		{desk.QueueFilter{Domain: "example.com"}, ""},
		{desk.QueueFilter{Domain: "Mail.example.com"}, "D1D1D1"},
		{desk.QueueFilter{Error: "TIMED OUT"}, "D1D1D1"},
		{desk.QueueFilter{NewerThan: 10 * time.Minute}, "D1D1D1"},
		{desk.QueueFilter{OlderThan: 10 * time.Minute, MaxSize: 1000, Queue: "hold"}, "A1A1A1 A2A2A2"},
		{desk.QueueFilter{Before: s.start.Add(-time.Hour)}, ""},
		{desk.QueueFilter{IDs: []string{"da1a1a1", "B1B1B1", "F9F9F9"}}, "A1A1A1 B1B1B1"},
		{desk.QueueFilter{Account: taro, Limit: 1}, "A1A1A1"},
	} {
		all, end := s.queued(c.f)
		for _, id := range strings.Fields(c.want) {
			if _, there := all[id]; !there {
				t.Errorf("%+v: no %s", c.f, id)
			}
		}
		if len(all) != len(strings.Fields(c.want)) || end.Messages != len(all) || end.More != (c.f.Limit > 0) {
			t.Errorf("%+v: got %v, %+v, want %q", c.f, all, end, c.want)
		}
	}
	if _, err := s.d.QueueList(t.Context(), s.now, desk.QueueFilter{Queue: "corrupt"}, nil); !errors.Is(err, desk.ErrUsage) {
		t.Errorf("a queue that there is not: %v", err)
	}
}

func TestQueueListWithoutJournal(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1")
	s.mta.skipped = 3
	s.journal.set(nil, nil, errors.New("the disk is away"))
	all, end := s.queued(desk.QueueFilter{})
	if len(all) != 1 || all["A1A1A1"].HeldBy != "" || end.NoJournal == "" || end.Skipped != 3 {
		t.Errorf("got %+v, %+v, want the message, of nobody known", all, end)
	}
	err := s.d.ActOnQueue(t.Context(), s.now, admin, desk.QueueOrder{Verb: "release", Filter: desk.QueueFilter{All: true}}, func(desk.Step) error { return nil })
	if err == nil || len(s.mta.did()) > 0 {
		t.Errorf("released without knowing whose it is: %v, %v", err, s.mta.did())
	}
}

// The listing of a large queue is not waited for.
func TestQueueListSendsWhileTheQueueIsRead(t *testing.T) {
	s := open(t)
	for n := range 50 {
		s.mta.put(stuck(fmt.Sprintf("A%05X", n), s.start, "", "x@example.net"))
	}
	sent := 0
	s.mta.after["list"] = func() error {
		if sent == 0 {
			t.Error("nothing was sent before the listing was at its end")
		}
		return nil
	}
	if _, err := s.d.QueueList(t.Context(), s.now, desk.QueueFilter{}, func(desk.Queued) error { sent++; return nil }); err != nil || sent != 50 {
		t.Errorf("sent %d, %v", sent, err)
	}
	hungUp := errors.New("hung up")
	if _, err := s.d.QueueList(t.Context(), s.now, desk.QueueFilter{}, func(desk.Queued) error { return hungUp }); !errors.Is(err, hungUp) {
		t.Errorf("got %v, want that nobody listens", err)
	}
}

func TestQueueShow(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1")
	show := func(instance string, ids ...string) []desk.QueueShown {
		t.Helper()
		all, err := s.d.QueueShow(t.Context(), s.now, desk.QueueLook{IDs: ids, Instance: instance})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	for _, id := range []string{"A1A1A1", "da1a1a1"} {
		if m := show("", id); len(m) != 1 || m[0].QueueID != "A1A1A1" || m[0].Decision == nil || m[0].Decision.Rule != "volume" || len(m[0].Held) != 1 {
			t.Errorf("%s: got %+v", id, m)
		}
	}
	if m := show("", "B1B1B1"); len(m) != 0 {
		t.Errorf("got %+v", m)
	}
	if _, err := s.d.QueueShow(t.Context(), s.now, desk.QueueLook{IDs: []string{"A1A1A1", ""}}); !errors.Is(err, desk.ErrUsage) {
		t.Errorf("an empty id: %v", err)
	}
	twin := file("A1A1A1", s.start)
	twin.Instance, twin.Sender = "postfix-out", "x@example.org"
	s.mta.put(twin)
	if m := show("", "A1A1A1"); len(m) != 2 {
		t.Errorf("an id of two instances: %+v", m)
	}
	if m := show("postfix-out", "A1A1A1"); len(m) != 1 || m[0].MailFrom != "x@example.org" {
		t.Errorf("got %+v", m)
	}
}

func TestQueueShowLooksOnceForAll(t *testing.T) {
	s := open(t)
	want := []string{"B3B3B3", "B1B1B1", "B2B2B2"}
	s.pass(taro, "deferred", "B1B1B1", "B2B2B2", "B3B3B3", "B4B4B4")
	looks := 0
	s.mta.before["list"] = func() error { looks++; return nil }
	all, err := s.d.QueueShow(t.Context(), s.now, desk.QueueLook{IDs: []string{"B3B3B3", "F9F9F9", "B1B1B1", "db2b2b2", "B3B3B3"}})
	if err != nil || looks != 1 {
		t.Errorf("%d looks, %v, want one for all", looks, err)
	}
	var got []string
	for _, m := range all {
		got = append(got, m.QueueID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q, as they were named", got, want)
	}
}

func TestQueueSummaryAnswersWhatIsStuckWhoseWhereAndWhy(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1")
	s.passFrom("shop.example.jp", "share", "C1C1C1")
	for n := range 20 {
		why := fmt.Sprintf("host mx%d.example.net[192.0.2.%d] said: 451 4.7.1 <user%d@example.net>: Greylisted, try again in %d seconds; id 4ZJ1k8%02dVz1y (in reply to RCPT TO command)", n%3, n, n, 300-n, n)
		s.mta.put(stuck(fmt.Sprintf("D%05X", n), s.now.Add(-time.Duration(n)*time.Minute), why, fmt.Sprintf("user%d@example.net", n), "b@example.com"))
	}
	q, err := s.d.QueueSummary(t.Context(), s.now, desk.QueueFilter{})
	if err != nil || q.Messages != 22 || q.Seen != 22 {
		t.Fatalf("got %+v, %v", q, err)
	}
	if len(q.Errors) != 1 || q.Errors[0].Messages != 20 || !strings.Contains(q.Errors[0].Name, "451 4.7.1") || strings.Contains(q.Errors[0].Name, "user") {
		t.Errorf("errors: got %+v, want one cause of 20 messages", q.Errors)
	}
	if q.Origins[0].Name != "unknown" || q.Origins[0].Messages != 20 || len(q.Origins) != 3 || q.Origins[0].Errors[0] != q.Errors[0].Name {
		t.Errorf("origins: %+v", q.Origins)
	}
	where := map[string]int{}
	for _, d := range q.Destinations {
		where[d.Name] = d.Messages
	}
	if where["example.net"] < 21 || where["example.com"] != 20 {
		t.Errorf("destinations: %v", where)
	}
	if len(q.Bounds) != 9 || len(q.Origins[0].Ages) != 10 || q.Origins[0].Ages[0] != 5 || q.Origins[0].Ages[1] != 5 || q.Origins[0].Ages[2] != 10 {
		t.Errorf("ages: %v", q.Origins[0].Ages)
	}
	if s := q.Queues[0]; s.Name != "deferred" || s.Queues["deferred"] != s.Messages {
		t.Errorf("queues: %+v", q.Queues)
	}
}

func TestQueueSummaryIsBounded(t *testing.T) {
	s := open(t)
	all := make([]mta.QueueFile, 20_000)
	for n := range all {
		all[n] = stuck(fmt.Sprintf("A%06X", n), s.start, fmt.Sprintf("host name%dx.example%d.net said no", n, n), fmt.Sprintf("x@d%d.example.com", n))
		all[n].Sender = fmt.Sprintf("s%d@example.jp", n)
		if n%4 == 0 {
			all[n].Sender, all[n].Recipients = "many@example.jp", []string{"x@large.example.org"}
		}
	}
	s.mta.files = all
	q, err := s.d.QueueSummary(t.Context(), s.now, desk.QueueFilter{})
	if err != nil {
		t.Fatal(err)
	}
	for what, shares := range map[string][]desk.Share{"many@example.jp": q.Senders, "large.example.org": q.Destinations} {
		rest, sum := shares[len(shares)-1], 0
		for _, one := range shares {
			sum += one.Messages
		}
		if len(shares) != 2001 || rest.Name != "" || rest.Others < 10_000 || sum != 20_000 {
			t.Errorf("%d shares, the rest %+v, %d messages in all", len(shares), rest, sum)
		}
		if shares[0].Name != what || shares[0].Messages != 5000 {
			t.Errorf("the largest: %+v, want %s", shares[0], what)
		}
	}
}

// blank is a journal that knows of nothing.
type blank struct{ desk.Journal }

func (blank) Known(context.Context, []string) ([]journal.Known, error) { return nil, nil }

// one is a queue with one message.
type one struct {
	mailServer
	q mta.QueueFile
}

func (o *one) List(_ context.Context, fn func(mta.QueueFile) error) error { return fn(o.q) }

func redacted(t *testing.T, why string, to ...string) (line, cause string) {
	t.Helper()
	d := desk.Desk{Journal: blank{}, Queue: &one{q: stuck("A1A1A1", time.Unix(1, 0), why, to...)}}
	if _, err := d.QueueList(t.Context(), time.Unix(2, 0), desk.QueueFilter{}, func(m desk.Queued) error { line = m.Error; return nil }); err != nil {
		t.Fatal(err)
	}
	q, err := d.QueueSummary(t.Context(), time.Unix(2, 0), desk.QueueFilter{})
	if err != nil {
		t.Fatal(err)
	}
	if len(q.Errors) > 0 {
		cause = q.Errors[0].Name
	}
	return line, cause
}

func TestErrorsNameNobody(t *testing.T) {
	for _, c := range []struct{ why, line, cause string }{
		{"host mx1.example.net[192.0.2.7] said: 450 4.2.1 <taro@example.net>: Mailbox full (in reply to RCPT TO command)",
			"host mx1.example.net[192.0.2.7] said: 450 4.2.1 <...@example.net>: Mailbox full (in reply to RCPT TO command)",
			"host *.example.net[...] said: 450 4.2.1 <...>: Mailbox full (in reply to RCPT TO command)"},
		{"connect to mx.example.net[2001:db8::1]:25: Connection timed out", "connect to mx.example.net[2001:db8::1]:25: Connection timed out", "connect to *.example.net[...]:N: Connection timed out"},
		{`user unknown: "taro"`, `user unknown: "..."`, `user unknown: "..."`},
		{"RCPT TO:<taro> refused", "RCPT TO:<...> refused", "RCPT TO:<...> refused"},
		{"550 User taro not found", "550 User ... not found", "550 User ... not found"},
		{`"john doe"@example.net is full`, "...@example.net is full", "... is full"},
		{"see https://mail.example/u?e=taro%40example.net", "see https:...@example.net", "see https:...@example.net"},
		{"taro＠example.net", "...@example.net", "..."},
		{"bounce+x=y.example@example.net", "...@example.net", "..."},
		{"the mail system is slow", "the mail system is slow", "the mail system is slow"},
	} {
		line, cause := redacted(t, c.why, "taro@example.net", "mail@example.net")
		if line != c.line || cause != c.cause {
			t.Errorf("%q: got %q, %q\nwant %q, %q", c.why, line, cause, c.line, c.cause)
		}
	}
	first, one := redacted(t, "550 no such user here secretperson116 AT dest", "secretperson116@example.net")
	_, same := redacted(t, "550 no such user here verylonglocalpart AT dest", "verylonglocalpart@example.net")
	if strings.Contains(first, "secret") || one != same {
		t.Errorf("a local part that stands alone: %q; causes %q and %q", first, one, same)
	}
	if line, _ := redacted(t, strings.Repeat("ä ", 4000)); len(line) > 303 {
		t.Errorf("%d octets", len(line))
	}
}

func FuzzErrorsNameNobody(f *testing.F) {
	f.Add("450 4.2.1 <taro@example.net>: full", "taro", "example.net")
	f.Add("taro@example.net@other.example", "taro", "example.net")
	f.Add(`<"a b"@example.net>`, "a b", "example.net")
	f.Add("\xff@\xff %40 &#64; \uff20", "x", "y")
	f.Fuzz(func(t *testing.T, why, local, domain string) {
		line, cause := redacted(t, why, local+"@"+domain)
		for _, text := range []string{line, cause} {
			if len(text) > 2000 || strings.ToValidUTF8(text, "") != text {
				t.Errorf("%q: got %q", why, text)
			}
			for i := range len(text) {
				if text[i] == '@' && !strings.HasSuffix(text[:i], "...") {
					t.Errorf("%q: got %q, which has a local part", why, text)
				}
			}
		}
	})
}
