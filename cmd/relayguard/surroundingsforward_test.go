package main

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/forwards"
	"relayguard/forward"
	"relayguard/mta"
	"relayguard/policy"
)

func TestHowSoonARuleIsToldGoesByTheMethod(t *testing.T) {
	for method, says := range map[string]string{"fanotify": "within 3 s (fanotify)", "inotify": "who wrote it is not known", "none": "within 15m, by the full scan only"} {
		s, _ := well(t)
		d := newFakeDaemon(t)
		d.always("GET /v1/switches", []struct{}{})
		d.always("GET /v1/forwards", forwardsListed{Watch: &forwards.Status{Method: method}})
		s.config.Control.Socket = d.socket
		all := s.inspect(t.Context())
		if len(all) != 1 || all[0].ID != "forward-delay" || all[0].Severity != mta.Info || !strings.Contains(all[0].What, says) || !strings.Contains(all[0].What, "30s") {
			t.Errorf("%s: %+v", method, all)
		}
	}
}

func TestWhatIsNotReadIsAFinding(t *testing.T) {
	s, _ := well(t)
	d := newFakeDaemon(t)
	d.always("GET /v1/switches", []struct{}{})
	d.always("GET /v1/forwards", forwardsListed{Watch: &forwards.Status{Method: "fanotify", Error: "scan forwarding rules: no", Gaps: []forward.Gap{{Source: "tcp:127.0.0.1:1", Why: "cannot be listed"}}}})
	s.config.Control.Socket = d.socket
	var ids []string
	for _, f := range s.inspect(t.Context()) {
		ids = append(ids, f.ID)
	}
	if got := strings.Join(ids, " "); got != "forward-delay forward-scan forward-gaps" {
		t.Errorf("%s", got)
	}
}

// TestForwardedMailHoldsNobodyElses: the way to the egress hop takes one recipient
// at a time.
func TestForwardedMailHoldsNobodyElses(t *testing.T) {
	for name, c := range map[string]struct {
		settings map[string]string
		says     string
	}{
		"one by one":             {map[string]string{"default_transport": "egress:[127.0.0.1]:10027", "egress_destination_recipient_limit": "1"}, ""},
		"the default of all":     {map[string]string{"default_transport": "egress:[127.0.0.1]:10027", "egress_destination_recipient_limit": "$default_destination_recipient_limit", "default_destination_recipient_limit": "1"}, ""},
		"several":                {map[string]string{"default_transport": "egress:[127.0.0.1]:10027", "default_destination_recipient_limit": "50"}, "egress_destination_recipient_limit = 1"},
		"several, said":          {map[string]string{"default_transport": "egress:[::1]:10027", "egress_destination_recipient_limit": "20"}, "egress_destination_recipient_limit = 1"},
		"by relayhost":           {map[string]string{"default_transport": "smtp", "relayhost": "127.0.0.1:10027"}, "smtp_destination_recipient_limit = 1"},
		"for relay_domains":      {map[string]string{"default_transport": "smtp", "relay_transport": "out:localhost:10027"}, "out_destination_recipient_limit = 1"},
		"nothing leads anywhere": {map[string]string{"default_transport": "smtp", "relay_transport": "relay", "relayhost": "[mx.example.net]:587"}, ""},
	} {
		s, settings := well(t)
		s.config.Forward.Stop = config.StopHold
		maps.Copy(settings, c.settings)
		if f := s.together(); f != nil { // without an egress listener another finding says all
			t.Errorf("%s: %+v", name, f)
		}
		s.config.Listeners = append(s.config.Listeners, config.Listener{Name: "egress", Role: policy.Egress})
		f := s.together()
		if (f == nil) != (c.says == "") || f != nil && !strings.Contains(f.Remedy, c.says) {
			t.Errorf("%s: %+v", name, f)
		}
		s.config.Forward.Stop = config.StopOff
		if f := s.together(); f != nil {
			t.Errorf("%s, off: %+v", name, f)
		}
	}
}

// TestAHoldThatHoldsNothingIsAFinding: without a watch, or with one that did not
// begin.
func TestAHoldThatHoldsNothingIsAFinding(t *testing.T) {
	s, _ := well(t)
	s.config.Forward.Stop, s.config.Forward.Watch = config.StopHold, false
	var ids []string
	for _, f := range s.inspect(t.Context()) {
		ids = append(ids, f.ID)
	}
	if got := strings.Join(ids, " "); got != "forward-watch forward-stop" {
		t.Errorf("%s", got)
	}
	s, _ = well(t)
	d := newFakeDaemon(t)
	d.always("GET /v1/switches", []struct{}{})
	d.on("GET /v1/forwards", func(json.RawMessage) (any, error) {
		_, err := (&state{forwardsOff: "open the ledger: disk on fire"}).watched()
		return nil, err
	})
	s.config.Control.Socket, s.config.Forward.Stop = d.socket, config.StopHold
	s.config.Listeners = append(s.config.Listeners, config.Listener{Name: "egress", Role: policy.Egress})
	all := s.inspect(t.Context())
	if len(all) != 1 || all[0].ID != "forward-watch" || all[0].Severity != mta.Warning || !strings.Contains(all[0].What, "disk on fire") || !strings.Contains(all[0].Why, "not in force") {
		t.Errorf("%+v", all)
	}
}
