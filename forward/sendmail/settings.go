package sendmail

import (
	"context"
	"fmt"
	"strings"

	"relayguard/forward"
)

// settings is the unit of sendmail.cf itself.
func (f *finder) settings() forward.Unit {
	return forward.Unit{ID: "sendmail " + f.file, Paths: []string{f.file}, Writer: 0, Server: true, Read: f.readSettings}
}

// relays are the macros that name another host, and whose mail it gets.
var relays = []struct {
	macro, says string
	mechanism   forward.Mechanism
}{
	{"S", "SMART_HOST", forward.Setting},
	{"H", "MAIL_HUB", forward.Setting},
	{"R", "LOCAL_RELAY", forward.Setting},
	{"L", "LUSER_RELAY", forward.LuserRelay},
}

// readSettings reads the file anew: what concerns everybody.
func (f *finder) readSettings(ctx context.Context) forward.Reading {
	var reading forward.Reading
	data, info, err := f.host.Files.Read(ctx, f.file, forward.ReadOptions{})
	if err != nil {
		reading.Gaps = append(reading.Gaps, forward.Gap{Source: f.file, Why: err.Error()})
		return reading
	}
	config := Parse(data)
	base := forward.Rule{Owner: forward.Everybody, Mode: forward.Redirect, Server: true, UID: info.UID}
	for _, relay := range relays {
		value := config.Macros[relay.macro]
		if value == "" || strings.HasPrefix(value, "error:") {
			continue
		}
		rule := base
		rule.Mechanism, rule.Line = relay.mechanism, config.Lines["D "+relay.macro]
		rule.Source = fmt.Sprintf("%s (D%s) in %s", relay.says, relay.macro, f.file)
		rule.Kind, rule.Target = relayTarget(relay.macro, f.expand(value))
		reading.Rules = append(reading.Rules, rule)
	}
	rule := base
	rule.Mechanism, rule.Kind, rule.Target, rule.Digest = forward.Setting, forward.Asked, "rewriting rules of "+f.file, config.Rules
	rule.Source, rule.Note = f.file, "S, R and M lines are not followed, a change of them shows"
	reading.Rules = append(reading.Rules, rule)
	for _, milter := range config.Milters {
		if strings.Contains(milter, "relayguard") {
			continue
		}
		rule := base
		rule.Mechanism, rule.Kind, rule.Target, rule.Source = forward.Setting, forward.Asked, "milter "+milter, f.file
		reading.Rules = append(reading.Rules, rule)
	}
	return reading
}

// relayTarget reads "mailer:host" or a host; unknown users may also go to an
// address or a local name ("local:name").
func relayTarget(macro, value string) (forward.Kind, string) {
	mailer, rest, found := strings.Cut(value, ":")
	switch {
	case macro == "L" && found && strings.EqualFold(mailer, "local"):
		return forward.Address, rest
	case macro == "L" && strings.Contains(value, "@"):
		if found {
			return forward.Address, rest
		}
		return forward.Address, value
	case !found:
		return forward.NextHop, "relay:" + value
	}
	return forward.NextHop, value
}
