package desk_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/holds"
	"relayguard/journal"
	"relayguard/policy"
	"relayguard/policy/origin"
)

// Many sites send as www-data; what is done about one is not done to the others.

const wwwData = "local_user:www-data"

// mailOf is a decision about a message of www-data.
func (s *site) mailOf(v policy.Verdict, rule, site, template, id string) {
	s.t.Helper()
	d := journal.Decision{ID: "d" + strings.ToLower(id), Time: s.start, Stage: journal.StageMessage, Verdict: v, Rule: rule, Account: wwwData, QueueID: id,
		MailFrom: "taro@example.jp", Size: 1000, Recipients: 1, UID: 33, LocalUser: "www-data", Site: site, Template: template}
	if site != "" {
		d.SiteBy = "signed"
	}
	if err := s.journal.Append(d); err != nil {
		s.t.Fatal(err)
	}
	q := file(id, s.start)
	if v == policy.Accept {
		q.Queue = "deferred"
	}
	s.mta.put(q)
}

// capped is a site whose room has place for so many messages under each name.
func capped(t *testing.T, most int64) *site {
	s := open(t)
	s.d.Room = holds.NewRoom(holds.Caps{OriginMessages: most, OriginBytes: 1 << 50, ServerMessages: 1 << 30})
	return s
}

// wantFull checks which of these names have no more room.
func (s *site) wantFull(when string, names map[string]bool) {
	s.t.Helper()
	for name, want := range names {
		if got := s.d.Room.Full(name); got != want {
			s.t.Errorf("%s: %s is full: %t, want %t", when, name, got, want)
		}
	}
}

func TestRoomOfSharedAccountsIsCountedBySiteAndText(t *testing.T) {
	s := capped(t, 2)
	s.mailOf(policy.Hold, "hour", "shop.example.jp", "", "A1A1A1")
	s.mailOf(policy.Hold, "hour", "shop.example.jp", "t1", "A2A2A2")
	s.mailOf(policy.Hold, "hour", "blog.example.jp", "", "B1B1B1")
	s.mailOf(policy.Hold, "hour", "", "t1", "C1C1C1")
	s.mailOf(policy.Hold, "hour", "", "t1", "C2C2C2")
	s.mailOf(policy.Hold, "hour", "", "", "D1D1D1")
	s.reconcile()
	s.wantRoom(6)
	s.wantFull("counted", map[string]bool{"site:shop.example.jp": true, "site:blog.example.jp": false, "template:t1": true, "template:t2": false, wwwData: false})
	if r, err := release(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: ids("A1A1A1", "C1C1C1"), Reason: "x"}); err != nil || r.Counts["done"] != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	s.wantFull("released", map[string]bool{"site:shop.example.jp": false, "template:t1": false})
	s.wantRoom(4)
}

func TestSuspendedSiteTakesItsOwnRoom(t *testing.T) {
	s := capped(t, 2)
	s.mailOf(policy.Accept, "", "shop.example.jp", "", "A1A1A1")
	s.mailOf(policy.Accept, "", "shop.example.jp", "", "A2A2A2")
	if out := s.suspend("site:shop.example.jp"); out.Held != 2 {
		t.Fatalf("%+v", out)
	}
	want := map[string]bool{"site:shop.example.jp": true, wwwData: false, "site:blog.example.jp": false}
	s.wantFull("suspended", want)
	s.reconcile()
	s.wantFull("reconciled", want)
}

// What the red switch holds of the queue is of its site, too: it takes that one's
// room, and stays held if the site is suspended by the time that mail goes again.
func TestStoppedMailIsOfItsSite(t *testing.T) {
	s := capped(t, 2)
	for _, id := range []string{"A1A1A1", "A2A2A2"} {
		s.mailOf(policy.Accept, "", "shop.example.jp", "", id)
	}
	s.mailOf(policy.Accept, "", "blog.example.jp", "", "B1B1B1")
	if _, err := s.d.Stop(t.Context(), s.now, admin, "to look"); err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"site:shop.example.jp": true, wwwData: false, "site:blog.example.jp": false}
	s.wantFull("stopped", want)
	if h := s.entries("A1A1A1"); len(h) != 1 || h[0].Account != wwwData || h[0].Site != "shop.example.jp" {
		t.Errorf("entry: %+v", h)
	}
	s.reconcile()
	s.wantFull("reconciled", want)
	s.suspend("site:shop.example.jp")
	if out, err := s.d.Start(t.Context(), s.now, admin, "looked", false); err != nil || out.Withheld != 2 {
		t.Errorf("%+v, %v", out, err)
	}
	s.wantIn("hold", "A1A1A1", "A2A2A2")
	s.wantState(journal.StateReleased, "B1B1B1")
}

// Incidents name the newest buckets only; the store knows all that are shut, and
// the journal whose texts they are.
func TestResumeOpensEveryTextOfTheAccount(t *testing.T) {
	s := open(t)
	var texts []string
	for i := range 12 {
		id := fmt.Sprintf("A%dA%dA%d", i, i, i)
		s.mailOf(policy.Hold, "abuse", "", fmt.Sprint("t", i), id)
		texts = append(texts, fmt.Sprint("template:t", i))
	}
	s.decide(policy.Hold, hanako, "abuse", "B1B1B1", s.start)
	others := []string{"template:hers", "template:old"}
	for _, value := range slices.Concat(texts, others) {
		s.shut(value)
	}
	s.d.Shut = func(string) []string { return texts[4:] }
	out, err := s.d.Resume(t.Context(), s.now, admin, desk.Resumption{Account: wwwData, Cause: "form removed"})
	if err != nil || !slices.Equal(out.Opened, []string{"abuse"}) || out.Probation != "" || len(out.Remarks) != 0 {
		t.Errorf("%+v, %v, want it opened and nobody on probation", out, err)
	}
	for _, value := range texts {
		if s.isShut(value) {
			t.Errorf("%s is still shut", value)
		}
	}
	for _, value := range others {
		if !s.isShut(value) {
			t.Errorf("%s is another's, and open", value)
		}
	}
	if got := s.inForce(wwwData); len(got) != 0 {
		t.Errorf("in force for all sites: %v", got)
	}
	// What the account itself did puts it on probation.
	s.shut("local_user:33")
	if out, err := s.d.Resume(t.Context(), s.now, admin, desk.Resumption{Account: wwwData, Cause: "mended"}); err != nil || !strings.HasPrefix(out.Probation, "half of each limit until ") {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestResumeOfASiteOpensItsTexts(t *testing.T) {
	s := open(t)
	s.mailOf(policy.Hold, "abuse", "shop.example.jp", "t1", "A1A1A1")
	s.mailOf(policy.Hold, "abuse", "blog.example.jp", "t2", "B1B1B1")
	s.shut("template:t1")
	s.shut("template:t2")
	out, err := s.d.Resume(t.Context(), s.now, admin, desk.Resumption{Account: "site:shop.example.jp", Cause: "updated"})
	if err != nil || len(out.Opened) != 1 || out.Probation == "" || s.isShut("template:t1") || !s.isShut("template:t2") {
		t.Errorf("%+v, %v", out, err)
	}
}

// The desk asks about the message, not about its account.
func TestPaceGoesOnForNeighboursOfAnAbusedSite(t *testing.T) {
	s := paced(t, 100)
	s.d.Abused = func(w *policy.Waits) bool { return w.Origin.Site.Value == "shop.example.jp" }
	for i, name := range []string{"shop.example.jp", "blog.example.jp"} {
		id := fmt.Sprintf("A%dA%dA%d", i, i, i)
		s.mailOf(policy.Hold, "volume", name, "", id)
		w := &policy.Waits{Charges: []policy.WaitCharge{{Limit: "volume", Value: "site:" + name, Amount: 1}}}
		w.Keys = append(w.Keys, bucket("site:"+name))
		w.Origin.UID, w.Origin.LocalUser, w.Origin.Site = 33, origin.Key{Value: "www-data", Confidence: origin.Kernel}, origin.Key{Value: name, Confidence: origin.Signed}
		s.d.Enqueue(policy.Waiting{ID: "d" + strings.ToLower(id), QueueID: id, HeldAt: s.start, Size: 1000, Recipients: 1, Waits: w})
	}
	s.goOn(time.Minute, 5*time.Second)
	s.wantState(journal.StateHeld, "A0A0A0")
	s.wantState(journal.StateReleased, "A1A1A1")
}
