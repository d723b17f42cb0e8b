package main

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/control"
	"relayguard/policy"
	"relayguard/policy/limit"
)

func TestLimitsShowOfAnAccountSaysItAll(t *testing.T) {
	d := everything(t, "taro@example.jp")
	term := newTerminal(t, 100)
	code, shown, stderr := term.run(t, "", "limits", "show", "taro@example.jp", "--config", d.config)
	flat := strings.Join(strings.Fields(shown), " ")
	for _, part := range []string{"login-volume recipients 10m 33 1000* now set for login:taro@example.jp", "1h 995 1000 in 1h", "burst messages 10m 1 1 SHUT default",
		"login-volume: counts outside recipients, when taro@example.jp; 3 messages held until there is room", "right now: a message to 10 recipients: hold (login-volume: over: taro@example.jp)"} {
		if !strings.Contains(flat, part) {
			t.Errorf("no %q in\n%s", part, shown)
		}
	}
	if code != exitFine || stderr != "" {
		t.Errorf("exit %d, %q", code, stderr)
	}
	if got := d.lastAsked("GET /v1/limits/of"); !strings.HasPrefix(got, "GET /v1/limits/of?recipients=10&who=taro%40example.jp") {
		t.Errorf("asked %s", got)
	}
}

func TestLimitOrdersAreAskedFor(t *testing.T) {
	d := everything(t, "taro@example.jp")
	for line, want := range map[string]string{
		"limits set login-volume taro@example.jp --windows 600/1h,3000/1d --burst 300/10m --reason cards": `POST /v1/limits/set {"limit":"login-volume","for":"taro@example.jp","windows":["600/1h","3000/1d"],"burst":"300/10m","reason":"cards"}`,
		"limits unset login-volume domain:example.jp --reason over":                                       `POST /v1/limits/unset {"limit":"login-volume","for":"domain:example.jp","reason":"over"}`,
		"limits reset taro@example.jp --limit login-volume --reason r":                                    `POST /v1/limits/reset {"limit":"login-volume","for":"taro@example.jp","reason":"r"}`,
		"held pace stop taro@example.jp --reason list":                                                    `POST /v1/held/pace {"account":"taro@example.jp","stop":true,"reason":"list"}`,
		"held pace start taro@example.jp":                                                                 `POST /v1/held/pace {"account":"taro@example.jp","stop":false,"reason":""}`,
	} {
		code, _, stderr := d.run(strings.Fields(line)...)
		if got := d.lastAsked("POST"); code != exitFine || got != want {
			t.Errorf("%s: exit %d (%s), asked\n%s\nwant\n%s", line, code, stderr, got, want)
		}
	}
	code, stdout, stderr := d.run("allow", "bulk", "taro@example.jp", "--count", "8000", "--until", "2999-12-31", "--reason", "bills")
	var o bulkOrder
	_, body, _ := strings.Cut(d.lastAsked("POST /v1/bulk"), "bulk ")
	if err := json.Unmarshal([]byte(body), &o); err != nil || code != exitFine {
		t.Fatalf("exit %d, %s, %v", code, stderr, err)
	}
	if want := time.Date(3000, 1, 1, 0, 0, 0, 0, time.Local); o.For != "taro@example.jp" || o.Count != 8000 || !o.Until.Equal(want) || o.Reason != "bills" || !strings.Contains(stdout, "8000") {
		t.Errorf("asked for %+v, said %q", o, stdout)
	}
}

func TestResetOfNothingIsAFinding(t *testing.T) {
	d := newFakeDaemon(t)
	d.always("POST /v1/limits/reset", forgotten{Reset: []bucketShown{}})
	if code, stdout, stderr := d.run("limits", "reset", "taro", "--reason", "r"); code != exitFinding || stdout != "" || stderr != "nothing was used\n" {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
}

// someEntries are what a store hands over.
func someEntries() []limit.Entry {
	at := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	return []limit.Entry{
		{State: &limit.State{Key: limit.Key{Limit: "login-volume", Value: "login:taro@example.jp"}, Windows: []limit.WindowState{{Length: time.Hour, Cells: []limit.Cell{{Last: at.UnixMicro(), Count: 33}}}}}},
		{Known: &limit.KnownState{Account: "login:taro@example.jp", Items: []limit.KnownItem{{Item: 7, Since: at.UnixMicro(), Last: at.UnixMicro()}}}},
	}
}

func TestExportIsWhatImportReads(t *testing.T) {
	d := newFakeDaemon(t)
	control.Stream(d.mux, "GET /v1/limits/entries", control.Read, func(_ context.Context, _ *http.Request, send func(limit.Entry) error) error {
		for _, e := range someEntries() {
			if err := send(e); err != nil {
				return err
			}
		}
		return nil
	})
	code, lines, stderr := d.run("limits", "export")
	if code != exitFine || strings.Count(lines, "\n") != 2 || stderr != "2 records\n" {
		t.Fatalf("exit %d, %q, %q", code, lines, stderr)
	}
	var got []limit.Entry
	d.on("POST /v1/limits/entries", func(body json.RawMessage) (any, error) {
		var some []limit.Entry
		if err := json.Unmarshal(body, &some); err != nil {
			return nil, err
		}
		got = append(got, some...)
		return imported{len(some)}, nil
	})
	file := filepath.Join(t.TempDir(), "budgets.jsonl")
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, stderr = d.run("limits", "import", file)
	if code != exitFine || stderr != "2 records read\n" || len(got) != 2 {
		t.Fatalf("exit %d, %q, %d", code, stderr, len(got))
	}
	for i, want := range someEntries() {
		a, errA := json.Marshal(got[i])
		b, errB := json.Marshal(want)
		if errA != nil || errB != nil || string(a) != string(b) {
			t.Errorf("got %s, want %s", a, b)
		}
	}
}

func TestImportOfALineThatIsNoneSaysWhich(t *testing.T) {
	d := newFakeDaemon(t)
	d.always("POST /v1/limits/entries", imported{1})
	good, err := json.Marshal(someEntries()[0])
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "budgets.jsonl")
	if err := os.WriteFile(file, []byte(string(good)+"\n{\"limit\":\"\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := d.run("limits", "import", file)
	if code != exitUsage || stdout != "" || !strings.HasPrefix(stderr, "1 record read\n") || !strings.Contains(stderr, "line 2:") {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
	if code, _, stderr := d.run("limits", "import", file+".none"); code != exitUsage || !strings.Contains(stderr, "no such file") {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

// limitsState has an account that has used 33 of its 1000 recipients.
func limitsState(t *testing.T) *state {
	t.Helper()
	s := limitedState(t, policy.Enforce)
	spend(t, s, 1, 33)
	return s
}

func TestOrdersChangeWhatIsInForce(t *testing.T) {
	s, now, by := limitsState(t), time.Now(), byPeer(control.Peer{Name: "root"})
	of := func() limitsOf {
		t.Helper()
		out, err := s.limitsOf(t.Context(), time.Now(), "u0@example.jp", 10)
		if err != nil || len(out.Limits) == 0 {
			t.Fatalf("%+v, %v", out, err)
		}
		return out
	}
	hour := func(o limitsOf) windowShown {
		for _, w := range o.Limits[0].Windows {
			if w.Seconds == 3600 {
				return w
			}
		}
		t.Fatalf("%+v", o)
		return windowShown{}
	}
	if o := of(); hour(o).Used != 33 || hour(o).Count != 1000 || o.Verdict != "accept" {
		t.Errorf("%+v", o)
	}
	if _, err := s.setLimit(now, by, limitOrder{Limit: "login-volume", For: "domain:example.jp", Windows: []string{"40/1h"}, Reason: "r"}); err != nil {
		t.Fatal(err)
	}
	if o := of(); hour(o).Count != 40 || o.Verdict != "hold" || !strings.Contains(o.Limits[0].Source, "domain:example.jp") {
		t.Errorf("set for its domain: %+v", o)
	}
	if _, err := s.setLimit(now, by, limitOrder{Limit: "login-volume", For: "u0@example.jp", Windows: []string{"50/1h"}, Reason: "r"}); err != nil {
		t.Fatal(err)
	}
	if o := of(); hour(o).Count != 50 || o.Verdict != "accept" || !strings.Contains(o.Limits[0].Source, "login:u0@example.jp") {
		t.Errorf("set for itself: %+v", o)
	}
	for _, who := range []string{"u0@example.jp", "domain:example.jp"} {
		if gone, err := s.unsetLimit(now, by, limitOrder{Limit: "login-volume", For: who}); err != nil || len(gone) != 1 {
			t.Errorf("unset %s: %+v, %v", who, gone, err)
		}
		if _, err := s.unsetLimit(now, by, limitOrder{Limit: "login-volume", For: who}); err == nil {
			t.Errorf("unset %s twice", who)
		}
	}
	if o := of(); hour(o).Count != 1000 {
		t.Errorf("unset: %+v", o)
	}
	if _, err := s.allowBulk(now, by, bulkOrder{For: "u0@example.jp", Count: 8000, Until: now.Add(time.Hour), Reason: "bills"}); err != nil {
		t.Fatal(err)
	}
	if o := of(); len(o.Limits) != 2 || o.Limits[1].Limit != "bulk" || o.Limits[1].Windows[0].Count != 8000 {
		t.Errorf("bulk: %+v", o)
	}
	if f, err := s.resetLimits(t.Context(), now, by, limitOrder{For: "u0@example.jp", Reason: "r"}); err != nil || len(f.Reset) == 0 {
		t.Errorf("reset: %+v, %v", f, err)
	}
	if o := of(); hour(o).Used != 0 {
		t.Errorf("after the reset: %+v", o)
	}
	if err := s.journal.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	all, err := s.actions(t.Context(), "")
	if err != nil || len(all) < 6 {
		t.Errorf("journaled: %+v, %v", all, err)
	}
}

func TestOrdersThatMakeNoSenseSayWhy(t *testing.T) {
	s, now, by := limitsState(t), time.Now(), byPeer(control.Peer{Name: "root"})
	for name, c := range map[string]struct {
		ask  func() error
		says string
	}{
		"no such limit": {func() error {
			_, err := s.setLimit(now, by, limitOrder{Limit: "none", For: "u0", Windows: []string{"1/1h"}})
			return err
		}, "there are login-volume"},
		"window": {func() error {
			_, err := s.setLimit(now, by, limitOrder{Limit: "login-volume", For: "u0", Windows: []string{"0/1h"}})
			return err
		}, "0/1h"},
		"octets": {func() error {
			_, err := s.setLimit(now, by, limitOrder{Limit: "login-volume", For: "u0", Windows: []string{"10MB/1h"}})
			return err
		}, "counts recipients"},
		"kind": {func() error {
			_, err := s.setLimit(now, by, limitOrder{Limit: "login-volume", For: "planet:mars", Windows: []string{"1/1h"}})
			return err
		}, `found "planet:mars"`},
		"bulk without an end": {func() error { _, err := s.allowBulk(now, by, bulkOrder{For: "u0", Count: 5}); return err }, "no end"},
		"bulk for a domain": {func() error {
			_, err := s.allowBulk(now, by, bulkOrder{For: "domain:example.jp", Count: 5, Until: now.Add(time.Hour)})
			return err
		}, "subject"},
		"pace goes on already": {func() error { _, err := s.pace(now, by, paceOrder{Account: "u0"}); return err }, "was not stopped"},
		"show a domain":        {func() error { _, err := s.limitsOf(t.Context(), now, "domain:example.jp", 1); return err }, "want an account"},
		"list of no limit":     {func() error { _, err := s.listLimits(t.Context(), now, "", "none", 5); return err }, "there are login-volume"},
	} {
		if err := c.ask(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}

func TestTopOfTheListIsTheFullest(t *testing.T) {
	s := limitsState(t)
	spend(t, s, 1, 500) // u0, once more
	spend(t, s, 20, 1)
	out, err := s.listLimits(t.Context(), time.Now(), "", "login-volume", 1)
	if err != nil || len(out.Buckets) != 1 || out.Buckets[0].Key != "login:u0@example.jp" || out.Buckets[0].Used != 534 {
		t.Errorf("%+v, %v", out.Buckets, err)
	}
}

func TestImportedBudgetsCount(t *testing.T) {
	s := limitedState(t, policy.Enforce)
	e := limit.Entry{State: &limit.State{Key: limit.Key{Limit: "login-volume", Value: "login:u0@example.jp"}, Windows: []limit.WindowState{{Length: time.Hour, Cells: []limit.Cell{{Last: time.Now().UnixMicro(), Count: 999}}}, {Length: 10 * time.Minute}}}}
	if done, err := s.importEntries(t.Context(), time.Now(), byPeer(control.Peer{Name: "root"}), []limit.Entry{e}); err != nil || done.Entries != 1 {
		t.Fatal(done, err)
	}
	o, err := s.limitsOf(t.Context(), time.Now(), "u0@example.jp", 10)
	if err != nil || o.Verdict != "hold" {
		t.Errorf("%+v, %v", o, err)
	}
}
