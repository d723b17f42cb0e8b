package policy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relayguard/policy"
)

// book is what logins may use in every case of testdata/ownership.
var book = map[string][]string{
	"taro@example.jp":      {"taro.yamada@example.jp", "info@example.jp", "taro@extra.example", "@shop.example", "@例え.jp"},
	"Hanako@example.jp":    {"hanako.yamada@example.jp", "info@example.jp", "taro+vip@example.jp", "sales-bounces@example.jp"},
	"taro+list@example.jp": {"list@example.jp"},
	"taro-owner":           {"list@example.jp"},
	"admin":                {"*"},
	"ops desk":             {"ops@extra.example"},
}

func addressBook(t *testing.T) *policy.AddressBook {
	b := new(policy.AddressBook)
	for login, uses := range book {
		for _, use := range uses {
			if err := b.Add(login, use); err != nil {
				t.Fatal(err)
			}
		}
	}
	return b
}

// ownerMap answers as Postfix's tables would: the address, the address without
// its tag, the domain.
type ownerMap map[string][]string

func (m ownerMap) Owners(_ context.Context, addresses []string) (all [][]string, err error) {
	for _, a := range addresses {
		all = append(all, m.owners(a))
	}
	return all, nil
}

func (m ownerMap) owners(address string) []string {
	local, domain, _ := strings.Cut(address, "@")
	base, _, _ := strings.Cut(local, "+")
	for _, key := range []string{address, base + "@" + domain, "@" + domain} {
		if logins, ok := m[key]; ok {
			return strings.Split(strings.ToLower(strings.Join(logins, " ")), " ")
		}
	}
	return []string{}
}

// ownershipCase is one case of a file, see testdata/ownership/README.md.
type ownershipCase struct {
	name, login, mail string
	rcpts             []string
	fields            [][2]string
	owners            ownerMap
	want              []string
}

func ownershipCases(t *testing.T, path string) (all []ownershipCase) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var c *ownershipCase
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		verb, rest, _ := strings.Cut(line, " ")
		if line == "" || verb == "#" {
			continue
		}
		if verb != "==" && c == nil {
			t.Fatalf("%s:%d: no case yet", path, n)
		}
		switch verb {
		case "==":
			all = append(all, ownershipCase{name: rest, login: "taro@example.jp", mail: "taro@example.jp", owners: ownerMap{}})
			c = &all[len(all)-1]
		case "login":
			c.login = rest
		case "mail":
			c.mail = strings.TrimSuffix(strings.TrimPrefix(rest, "<"), ">")
		case "rcpt":
			c.rcpts = append(c.rcpts, rest)
		case "map":
			key, logins, _ := strings.Cut(rest, " ")
			c.owners[key] = strings.Split(logins, ",")
		case "|":
			if name, value, ok := strings.Cut(rest, ":"); ok && !strings.HasPrefix(rest, " ") {
				c.fields = append(c.fields, [2]string{name, strings.ReplaceAll(value, "#", "\x01")})
			} else {
				c.fields[len(c.fields)-1][1] += "\r\n" + rest
			}
		case "want":
			if c.want = []string{}; rest != "pass" {
				c.want = strings.Fields(rest)
			}
		default:
			t.Fatalf("%s:%d: %q", path, n, line)
		}
	}
	for i := range all {
		c := &all[i]
		if c.want == nil {
			t.Fatalf("%s: case %q wants nothing", path, c.name)
		}
		if c.rcpts == nil {
			c.rcpts = []string{"friend@example.net"}
		}
		if c.fields == nil {
			c.fields = [][2]string{{"From", "Taro <taro@example.jp>"}}
			if c.login != "taro@example.jp" {
				c.fields = [][2]string{{"From", " " + c.mail}}
			}
		}
	}
	return all
}

func TestWhoseAddressItIs(t *testing.T) {
	files, err := filepath.Glob("testdata/ownership/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range files {
		cases := ownershipCases(t, path)
		if len(cases) == 0 {
			t.Fatalf("%s: no cases", path)
		}
		for _, c := range cases {
			t.Run(strings.TrimSuffix(filepath.Base(path), ".txt")+"/"+c.name, func(t *testing.T) {
				p := rules(policy.Enforce)
				p.Addresses.Book, p.Addresses.Envelope, p.Addresses.HeaderFrom = addressBook(t), policy.Hold, policy.Hold
				if len(c.owners) > 0 {
					p.Addresses.Map = c.owners
				}
				m := message(policy.Submission, c.mail, c.rcpts...)
				m.Login, m.AuthType = c.login, "PLAIN"
				for _, f := range c.fields {
					m.Header.Add([]byte(f[0]), []byte(f[1]))
				}
				d := p.Message(t.Context(), now, m)
				if got := rulesOf(d); !slices.Equal(got, c.want) {
					t.Errorf("objections %q, want %q; %+v", got, c.want, d.Findings)
				}
				if stopped := d.Verdict != policy.Accept; stopped != (len(c.want) > 0) {
					t.Errorf("verdict %v", d.Verdict)
				}
			})
		}
	}
}

func TestAddressBookRefusesWhatIsNoRight(t *testing.T) {
	for _, use := range []string{"", "@", "taro", "@exa mple.jp", "taro@", "@a..b", "**", "a@b\n"} {
		if err := new(policy.AddressBook).Add("taro", use); (err == nil) != (use == "a@b\n") { // a line's end is not part of it
			t.Errorf("Add(%q): %v", use, err)
		}
	}
}

// slowMap answers when asked to give up.
type slowMap struct{}

func (slowMap) Owners(ctx context.Context, _ []string) ([][]string, error) {
	<-ctx.Done()
	return nil, fmt.Errorf("ask table: %w", context.Cause(ctx))
}

// brokenMap cannot be read.
type brokenMap struct{}

func (brokenMap) Owners(context.Context, []string) ([][]string, error) {
	return nil, errors.New("table is down")
}

func TestSlowMapGetsTheConfiguredAnswerInTime(t *testing.T) {
	for _, slow := range []policy.Verdict{policy.Tell, policy.Hold, policy.Defer} {
		for name, owners := range map[string]policy.OwnerMap{"slow": slowMap{}, "broken": brokenMap{}} {
			t.Run(name+"/"+slow.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := rules(policy.Enforce)
					p.Addresses.Envelope, p.Addresses.HeaderFrom, p.Addresses.Slow = policy.Reject, policy.Reject, slow
					p.Addresses.Map, p.Addresses.MapTimeout = owners, time.Second
					m := message(policy.Submission, "office@example.jp", "friend@example.net")
					m.Login = "taro@example.jp"
					m.Header.Add([]byte("From"), []byte("office@example.jp"))
					began := time.Now()
					r := p.Recipient(t.Context(), now, m, "friend@example.net")
					d := p.Message(t.Context(), now, m)
					if took := time.Since(began); took > 3*time.Second { // RCPT, envelope, From
						t.Errorf("took %v", took)
					}
					if d.Verdict != slow || d.Rule != policy.RuleMap || slices.Contains(rulesOf(d), policy.RuleEnvelope) {
						t.Errorf("verdict %v by %q: %+v", d.Verdict, d.Rule, d.Findings)
					}
					want := map[policy.Verdict]policy.Verdict{policy.Tell: policy.Tell, policy.Hold: policy.Tell, policy.Defer: policy.Defer}[slow]
					if r.Verdict != want || (want == policy.Defer) != (r.Reply.Code == 451) {
						t.Errorf("at RCPT %v %v, want %v", r.Verdict, r.Reply, want)
					}
				})
			})
		}
	}
}

// patientMap knows whose the address is, and nothing of its forms yet.
type patientMap struct{ asked *int }

func (m patientMap) Owners(_ context.Context, addresses []string) ([][]string, error) {
	*m.asked++
	return make([][]string, len(addresses)), nil
}

func TestManyFormsDoNotMakeAMapSlow(t *testing.T) {
	asked := 0
	p := rules(policy.Enforce)
	p.Addresses.Envelope, p.Addresses.Slow, p.Addresses.Map = policy.Hold, policy.Tell, patientMap{&asked}
	m := message(policy.Submission, "a-b-c-d-e-f-g-h-i-j-k-l-m-n-o-p=x.y@victim.example", "friend@example.net")
	m.Login = "taro@example.jp"
	if d := p.Message(t.Context(), now, m); d.Verdict != policy.Hold || d.Rule != policy.RuleEnvelope || asked != 1 {
		t.Errorf("verdict %v by %q after %d questions; want hold by envelope-address after one", d.Verdict, d.Rule, asked)
	}
}

// choosyMap refuses some keys, as a database does with octets it cannot take.
type choosyMap map[string][]string

func (m choosyMap) Owners(_ context.Context, addresses []string) ([][]string, error) {
	all := make([][]string, len(addresses))
	for i, a := range addresses {
		if logins, ok := m[a]; ok {
			all[i] = logins
		} else if !strings.Contains(a, "😀") && !strings.HasPrefix(a, "news-bounces@") {
			all[i] = []string{}
		}
	}
	if all[0] == nil {
		return all, errors.New("illegal mix of collations")
	}
	return all, nil
}

func TestWhatTheSenderChoseCannotMakeTheJudgeLookAway(t *testing.T) {
	for name, header := range map[string][2]string{
		"no Sender": {"Subject", "x"}, "refused Sender": {"Sender", "😀@x.example"}, "refused Resent-From": {"Resent-From", "😀@x.example"},
	} {
		p := rules(policy.Enforce)
		p.Addresses.HeaderFrom, p.Addresses.Slow, p.Addresses.Map = policy.Reject, policy.Tell, choosyMap{}
		m := message(policy.Submission, "taro@example.jp", "friend@example.net")
		m.Login = "taro@example.jp"
		m.Header.Add([]byte("From"), []byte("ceo@example.jp"))
		m.Header.Add([]byte(header[0]), []byte(header[1]))
		if d := p.Message(t.Context(), now, m); d.Verdict != policy.Reject || d.Rule != policy.RuleFrom {
			t.Errorf("%s: %v by %q, want reject by from-address", name, d.Verdict, d.Rule)
		}
	}
}

func TestAFormThatCannotBeLookedUpIsNobodysProof(t *testing.T) {
	p := rules(policy.Enforce)
	p.Addresses.Envelope, p.Addresses.Map = policy.Hold, choosyMap{"news@example.jp": {"taro@example.jp"}}
	for from, want := range map[string]policy.Verdict{"news+x@example.jp": policy.Accept, "news-bounces+x=y.example@example.jp": policy.Hold} {
		m := message(policy.Submission, from, "friend@example.net")
		m.Login = "taro@example.jp"
		if d := p.Message(t.Context(), now, m); d.Verdict != want {
			t.Errorf("%s: %v, want %v: %s", from, d.Verdict, want, d.Reason)
		}
	}
}

// plodding takes its time over each question.
type plodding struct{}

func (plodding) Owners(ctx context.Context, addresses []string) ([][]string, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(150 * time.Millisecond):
		return slices.Repeat([][]string{{"taro@example.jp"}}, len(addresses)), nil
	}
}

func TestManyAuthorsDoNotOutlastTheDecision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := rules(policy.Enforce)
		p.Addresses.HeaderFrom, p.Addresses.Slow, p.Addresses.Map, p.Addresses.MapTimeout = policy.Hold, policy.Hold, plodding{}, time.Second
		m := message(policy.Submission, "taro@example.jp", "friend@example.net")
		m.Login = "taro@example.jp"
		for i := range 60 {
			m.Header.Add([]byte("From"), fmt.Appendf(nil, "other%d@example.jp", i))
		}
		began := time.Now()
		d := p.Message(t.Context(), now, m)
		if took := time.Since(began); took > p.Addresses.MapTimeout || d.Verdict != policy.Hold || d.Rule != policy.RuleMap {
			t.Errorf("%v by %q after %v", d.Verdict, d.Rule, took)
		}
	})
}

func TestOwnAddressNeedsNoMap(t *testing.T) {
	p := rules(policy.Enforce)
	p.Addresses.Envelope, p.Addresses.HeaderFrom, p.Addresses.Slow, p.Addresses.Map = policy.Hold, policy.Hold, policy.Defer, brokenMap{}
	p.Addresses.Book = addressBook(t)
	m := message(policy.Submission, "taro@example.jp", "friend@example.net")
	m.Login = "taro@example.jp"
	m.Header.Add([]byte("From"), []byte("taro.yamada@example.jp"))
	if d := p.Message(t.Context(), now, m); d.Verdict != policy.Accept {
		t.Errorf("verdict %v: %s", d.Verdict, d.Reason)
	}
}
