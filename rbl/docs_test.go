package rbl_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/check"
	"relayguard/rbl/sender"
)

// manual is what is written for who runs it.
func manual(t *testing.T) string { return read(t, "../docs/blocklists.md") }

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// fenced are the blocks of one language.
func fenced(manual, language string) (all []string) {
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(manual, -1) {
		all = append(all, m[1])
	}
	return all
}

func TestZonesFileOfTheManualLoads(t *testing.T) {
	tried := 0
	for _, block := range fenced(manual(t), "toml") {
		if !strings.Contains(block, "[[zone]]") {
			continue
		}
		tried++
		path := filepath.Join(t.TempDir(), "zones.toml")
		if err := os.WriteFile(path, []byte(block), 0o600); err != nil {
			t.Fatal(err)
		}
		table, err := rbl.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^name = "(.*)"$`).FindAllStringSubmatch(block, -1) {
			z, found := table.Find(m[1])
			closed, over := table.IsClosed(m[1])
			if !found && !over || found && z.Status != "own" && z.Status != "" {
				t.Errorf("%s: found %v (status %q), closed %v (%s)", m[1], found, z.Status, over, closed.Message)
			}
		}
		use, _, err := table.Choose(rbl.Choice{Commercial: true})
		if err != nil || !slices.ContainsFunc(use, func(z rbl.Zone) bool { return strings.Contains(block, fmt.Sprintf("name = %q", z.Name)) }) {
			t.Errorf("nothing of it is asked (%v)", err)
		}
	}
	if tried == 0 {
		t.Error("the manual has no file of zones")
	}
}

// Every key of the sections has its place in a manual, and a manual names no other.
func TestManualsNameEachKey(t *testing.T) {
	example := read(t, "../packaging/relayguard.toml")
	for section, path := range map[string]string{"rbl": "../docs/blocklists.md", "report": "../docs/report.md"} {
		_, keys, found := strings.Cut(example, "\n["+section+"]\n")
		keys, _, _ = strings.Cut(keys, "\n[")
		text := read(t, path)
		known := map[string]bool{}
		for _, m := range regexp.MustCompile(`(?m)^#([a-z_]+) = `).FindAllStringSubmatch(keys, -1) {
			known[m[1]] = true
			if !strings.Contains(text, section+"."+m[1]) {
				t.Errorf("%s does not name %s.%s", path, section, m[1])
			}
		}
		if !found || len(known) == 0 {
			t.Errorf("no keys of %s in the example", section)
		}
		for _, m := range regexp.MustCompile("`"+section+`\.([a-z_]+)`).FindAllStringSubmatch(text, -1) {
			if !known[m[1]] {
				t.Errorf("%s: there is no key %s.%s", path, section, m[1])
			}
		}
	}
}

// What the manual says of states, results, severities and scopes is all there is.
func TestManualNamesEachStateAndWord(t *testing.T) {
	text := manual(t)
	for _, s := range rbl.States() {
		if name := strings.ReplaceAll(s.String(), "_", " "); !strings.Contains(text, "| "+name+" |") {
			t.Errorf("no row for the state %q", name)
		}
	}
	for _, r := range rbl.Results() {
		if !strings.Contains(text, "| "+r.String()+" |") {
			t.Errorf("no row for the result %q", r)
		}
	}
	for s := rbl.Info; s <= rbl.Critical; s++ {
		if !strings.Contains(text, s.String()) {
			t.Errorf("the severity %q is not named", s)
		}
	}
	for s := rbl.ScopeAddress; s <= rbl.ScopeDomain; s++ {
		if !strings.Contains(text, "`"+s.String()+"`") {
			t.Errorf("the scope %q is not named", s)
		}
	}
}

// counting is a resolver behind which all lists are well and nothing is listed.
type counting struct {
	there   map[string]bool // test entries, and the lists themselves
	records map[string]rbl.Response

	mu    sync.Mutex
	asked []string // names
}

func (c *counting) Name() string { return "127.0.0.1:53" }

func (c *counting) Ask(_ context.Context, name string, t rbl.Type) rbl.Response {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, name)
	if r, known := c.records[fmt.Sprint(name, " ", t)]; known {
		r.Outcome, r.Server = rbl.Answered, c.Name()
		return r
	}
	switch {
	case !c.there[name]:
		return rbl.Response{Outcome: rbl.NoName, Server: c.Name()}
	case t == rbl.TypeA:
		return rbl.Response{Outcome: rbl.Answered, Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.2")}, Server: c.Name()}
	}
	return rbl.Response{Outcome: rbl.Answered, Server: c.Name()}
}

func (c *counting) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.asked)
}

// most are the questions to the list that got most.
func (c *counting) most(zones []rbl.Zone) (most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, z := range zones {
		n := 0
		for _, name := range c.asked {
			if strings.HasSuffix(name, "."+z.Name) {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

func behind(zones []rbl.Zone) *counting {
	c := &counting{there: map[string]bool{}, records: map[string]rbl.Response{}}
	for _, z := range zones {
		c.there[z.Name] = true
		for _, labels := range []string{z.Test.Listed4, z.Test.Listed6, z.Test.ListedDomain} {
			if labels != "" {
				c.there[z.TestName(labels, "")] = true
			}
		}
	}
	return c
}

// a4, a6 and so on are the typical host: its names are as they should be.
const (
	a4, a6   = "203.0.113.5", "2001:db8::25"
	helo     = "mail.example.jp"
	reverse4 = "5.113.0.203.in-addr.arpa"
	reverse6 = "5.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
)

func sendingDomains() []string { return []string{"example.jp", "example.org", "example.net"} }

func (c *counting) host() {
	put := func(name string, t rbl.Type, r rbl.Response) { c.records[fmt.Sprint(name, " ", t)] = r }
	put(reverse4, rbl.TypePTR, rbl.Response{Names: []string{helo}})
	put(reverse6, rbl.TypePTR, rbl.Response{Names: []string{helo}})
	put(helo, rbl.TypeA, rbl.Response{Addrs: []netip.Addr{netip.MustParseAddr(a4)}})
	put(helo, rbl.TypeAAAA, rbl.Response{Addrs: []netip.Addr{netip.MustParseAddr(a6)}})
	for _, name := range append(sendingDomains(), helo) {
		put(name, rbl.TypeTXT, rbl.Response{Texts: []string{"v=spf1 ip4:" + a4 + " ip6:" + a6 + " -all"}})
	}
}

// The manual says how many questions a typical host asks: this counts them.
func TestManualStatesTheQuestionsOfATypicalHost(t *testing.T) {
	synctest.Test(t, statesTheQuestions) // lists are asked at their pace
}

func statesTheQuestions(t *testing.T) {
	const rounds = 4 // one every 6 hours
	text := manual(t)
	use, _, err := rbl.Builtin().Choose(rbl.Choice{Commercial: true})
	if err != nil {
		t.Fatal(err)
	}
	var subjects []rbl.Subject
	for _, a := range []string{a4, a6} {
		subjects = append(subjects, rbl.Subject{Addr: netip.MustParseAddr(a)})
	}
	for _, d := range append(sendingDomains(), helo) {
		subjects = append(subjects, rbl.Subject{Name: d})
	}
	r := behind(use)
	now := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	c := check.New(check.Options{Resolvers: []rbl.Resolver{r}, Now: func() time.Time { return now }})
	for range rounds {
		round := c.Run(t.Context(), subjects, use, nil)
		for _, h := range round.Zones {
			if h.State != rbl.Healthy {
				t.Errorf("%s (%s) is %s: %s", h.Zone, h.Kind, h.State, h.Why)
			}
		}
		for _, a := range round.Answers {
			if a.Result != rbl.Clean {
				t.Errorf("%s on %s is %s: %s", a.Subject, a.Zone, a.Result, a.Why)
			}
		}
		now = now.Add(6 * time.Hour)
	}
	lists, most := r.count(), r.most(use)
	r.host()
	var sending []sender.Sending
	for _, s := range subjects[:2] {
		sending = append(sending, sender.Sending{Addr: s.Addr, Helo: helo})
	}
	for range rounds {
		for _, f := range sender.Look(t.Context(), r, sending, sendingDomains()) {
			if f.State != sender.OK {
				t.Errorf("%s of %s is %s: %s", f.Check, f.Subject, f.State, f.Found)
			}
		}
	}
	receivers := r.count() - lists
	around := behind(use)
	check.New(check.Options{Resolvers: []rbl.Resolver{around}}).Neighbours(t.Context(), []netip.Prefix{netip.MustParsePrefix(a4 + "/24")}, use, 0)
	t.Logf("%d lists; %d questions a day to lists, at most %d to one, %d about what receivers look at; %d a week about neighbours", len(use), lists, most, receivers, around.count())
	for _, want := range []string{
		fmt.Sprintf("%d lists are built in", len(rbl.Builtin().Zones())), fmt.Sprintf("%d lists are", len(use)), fmt.Sprintf("%d lists that have closed", len(rbl.Builtin().ClosedLists())),
		fmt.Sprintf("**%d more**", receivers), fmt.Sprintf("**%d questions a day**", lists), fmt.Sprintf("%d a round", lists/rounds), fmt.Sprintf("at most %d to one list", most), fmt.Sprintf("**%d a week**", around.count()),
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the manual does not say %q", want)
		}
	}
}
