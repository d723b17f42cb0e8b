package rbl_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/check"
	"relayguard/rbl/dnstest"
	"relayguard/rbl/resolve"
)

// A key is asked with and shows nowhere: not where the list quotes it, not where a
// server fails. With a wrong one the list is not "clean".
func TestKeyZones(t *testing.T) {
	const key, wrong = "k3ysecret26", "wr0ngsecret26"
	n := dnstest.StartNSD(t, map[string]string{
		"zen.dq.spamhaus.net": strings.ReplaceAll(`
2.0.0.127.KEY A 127.0.0.2
`+listed6+`.KEY A 127.0.0.2
5.2.0.192.KEY A 127.0.0.4
5.2.0.192.KEY TXT "asked as 5.2.0.192.KEY.zen.dq.spamhaus.net, see https://zen.dq.spamhaus.net/KEY/192.0.2.5"
`, "KEY", key),
		"combined.mail.abusix.zone": strings.ReplaceAll(`
2.0.0.127.KEY A 127.0.0.2
5.2.0.192.KEY A 127.0.0.11
`, "KEY", key),
	})
	spamhaus, abusix := known(t, "zen.dq.spamhaus.net"), known(t, "combined.mail.abusix.zone")
	zones := []rbl.Zone{spamhaus, abusix}
	good := unbound(t, n.Addr, dnstest.Unbound{}, spamhaus.Name, abusix.Name)
	silent := dnstest.StartFake(t, func(dnstest.Query) dnstest.Reply { return dnstest.Silence() })
	garbage := dnstest.StartFake(t, func(dnstest.Query) dnstest.Reply { return dnstest.Garbage(true, 0x84, 0, 0xff, 0xff, 0xff, 0xff) })
	for name, c := range map[string]struct {
		by      rbl.Resolver
		key     string
		results string
	}{
		"right":      {good, key, "listed listed"},
		"upper case": {good, strings.ToUpper(key), "listed listed"},
		"wrong":      {good, wrong, "unknown unknown"},
		"missing":    {good, "", "unknown unknown"},
		"silent":     {resolve.New(silent.Addr, 100*time.Millisecond), key, "unknown unknown"},
		"garbage":    {resolve.New(garbage.Addr, 100*time.Millisecond), key, "unknown unknown"},
		"nobody":     {direct(closedPort(t)), key, "unknown unknown"},
		"refuses":    {direct(withAnotherList(t)), key, "refused refused"},
	} {
		t.Run(name, func(t *testing.T) {
			keys := map[string]string{}
			if c.key != "" {
				keys = map[string]string{spamhaus.Key: c.key, abusix.Key: c.key}
			}
			var log bytes.Buffer
			round := check.New(check.Options{
				Resolvers: []rbl.Resolver{c.by}, Keys: keys,
				Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
			}).Run(t.Context(), subjects("192.0.2.5"), zones, nil)
			raw, err := json.Marshal(round)
			if err != nil {
				t.Fatal(err)
			}
			all := strings.ToLower(string(raw) + log.String() + fmt.Sprintf("%+v", round))
			if c.key != "" && strings.Contains(all, strings.ToLower(c.key)) {
				t.Errorf("the key shows: %s", all)
			}
			if got := fmt.Sprint(round.Answers[0].Result, " ", round.Answers[1].Result); got != c.results {
				t.Errorf("%s, want %s: %s", got, c.results, raw)
			}
			if name == "right" && len(round.Answers[1].Reasons) != 1 {
				t.Errorf("reasons %q", round.Answers[1].Reasons)
			}
			if name == "wrong" {
				why(t, round, spamhaus.Name, "the key may be wrong")
			}
			if name == "missing" && (round.Queries != 0 || round.Zones[0].State != rbl.NotAsked) {
				t.Errorf("asked without a key: %s", raw)
			}
		})
	}
}
