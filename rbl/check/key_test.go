package check_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"relayguard/rbl"
	"relayguard/rbl/check"
)

const secret = "q7secretKEY"

func keyed() rbl.Zone {
	z := zone4("dq.example")
	z.Key = "operator"
	return z
}

// The key stands in the question and nowhere else: not in answers, reasons, health or
// log, even where a resolver's error or a list's text quotes the name.
func TestKeyShowsNowhere(t *testing.T) {
	behind := secret + ".dq.example"
	for name, s := range map[string]server{
		"listed": well(entries{
			"5.2.0.192":     addrs("127.0.0.2"),
			"5.2.0.192 TXT": {Outcome: rbl.Answered, Texts: []string{"see https://dq.example/?key=" + strings.ToUpper(secret)}},
		}).server(),
		"silent": func(labels string, _ rbl.Type) rbl.Response {
			return rbl.Response{Outcome: rbl.ServFail, Err: fmt.Errorf("ask for %s.%s: %w", labels, strings.ToLower(behind), errors.New("no"))}
		},
		"silent about a subject": well(entries{
			"5.2.0.192": {Outcome: rbl.Broken, Err: errors.New("lookup 5.2.0.192." + behind)},
		}).server(),
		"emptied": entries{}.server(),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake("r").serve(behind, s).serve("dq.example", entries{}.server())
			var log bytes.Buffer
			c := check.New(check.Options{
				Resolvers: []rbl.Resolver{f}, Keys: map[string]string{"operator": secret},
				Log: slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
			})
			z := keyed()
			round := c.Run(t.Context(), []rbl.Subject{ip("192.0.2.5")}, []rbl.Zone{z}, nil)
			again, health := c.Again(t.Context(), ip("192.0.2.5"), &z, "r")
			raw, err := json.Marshal([]any{round, again, health})
			if err != nil {
				t.Fatal(err)
			}
			if all := string(raw) + fmt.Sprintf("%+v", round) + log.String(); strings.Contains(strings.ToLower(all), strings.ToLower(secret)) {
				t.Errorf("the key shows: %s", all)
			}
			if len(f.questions("."+behind+" A")) == 0 {
				t.Error("not asked with the key")
			}
			if name == "listed" && (round.Answers[0].Result != rbl.Listed || len(round.Answers[0].Reasons) != 1) {
				t.Errorf("%+v", round)
			}
			if name == "emptied" && !strings.Contains(round.Zones[0].Why, "the key may be wrong") {
				t.Errorf("%+v", round.Zones)
			}
		})
	}
}

// Without its key a zone is not asked at all: not without one either.
func TestZoneWithoutItsKey(t *testing.T) {
	for name, keys := range map[string]map[string]string{
		"none":            nil,
		"another's":       {"other": secret},
		"not a label":     {"operator": secret + ".example"},
		"with a new line": {"operator": secret + "\n"},
	} {
		f := newFake("r").serve("dq.example", well(nil).server())
		round := check.New(check.Options{Resolvers: []rbl.Resolver{f}, Keys: keys}).Run(t.Context(), []rbl.Subject{ip("192.0.2.5")}, []rbl.Zone{keyed()}, nil)
		if a, h := round.Answers[0], round.Zones[0]; a.Result != rbl.Unknown || h.State != rbl.NotAsked || !strings.Contains(a.Why, "operator") || strings.Contains(a.Why, secret) {
			t.Errorf("%s: %+v %+v", name, a, h)
		}
		if len(f.questions("")) > 0 {
			t.Errorf("%s: asked", name)
		}
	}
}
