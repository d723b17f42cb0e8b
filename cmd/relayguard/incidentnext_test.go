package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"relayguard/incident"
)

// What to do next fits what the incident is about. An account as which many sites
// send is never to be suspended.
func TestIncidentSaysWhatNext(t *testing.T) {
	d := newFakeDaemon(t)
	text, err := os.ReadFile(d.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.config, fmt.Appendf(text, "\n[local]\nshared_users = [\"www-data\", \"php\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const shared = "is not to be suspended: many sites send as it, local.shared_users)"
	cases := []struct {
		origin, account, cause string
		want, without          []string
	}{
		{"template:cc95bad42eedfdd4", "local_user:www-data", "template-first-time",
			[]string{"origins show template:cc95bad42eedfdd4", "held list --template cc95bad42eedfdd4", "resume template:cc95bad42eedfdd4 --cause", "limits set template-first-time key:template:cc95bad42eedfdd4 --windows", "(local_user:www-data " + shared},
			[]string{"relayguard suspend"}},
		{"template:cc95bad42eedfdd4", "local_user:www-data@web3", "template-first-time", []string{"(local_user:www-data@web3 " + shared}, []string{"relayguard suspend"}},
		{"template:cc95bad42eedfdd4", "local_user:site12", "template-first-time", []string{"resume template:"}, []string{"shared_users", "relayguard suspend"}},
		{"plugin:share@shop.example.jp", "local_user:www-data", "plugin-first-time",
			[]string{"origins show plugin:share@shop.example.jp", "held list --plugin share@shop.example.jp", "notice i-", "suspend plugin:share@shop.example.jp --reason", "resume plugin:share@shop.example.jp --cause"},
			[]string{"suspend local_user"}},
		{"site:shop.example.jp", "local_user:www-data", "site-volume",
			[]string{"held list --site shop.example.jp", "suspend site:shop.example.jp --reason", "resume site:shop.example.jp --cause"}, []string{"suspend local_user"}},
		{"local_user:php", "local_user:php", "shared-volume", []string{"held list --account local_user:php", "(local_user:php " + shared}, []string{"relayguard suspend"}},
		{"local_user:site12", "local_user:site12", "local-volume", []string{"suspend local_user:site12 --reason"}, []string{"shared_users"}},
		{"login:taro@example.jp", "login:taro@example.jp", "login-volume", []string{"held list --account login:taro@example.jp", "suspend login:taro@example.jp --reason"}, nil},
		{"node:web3", "node:web3", "header", []string{"held list --account node:web3"}, []string{"relayguard suspend"}},
		{"server", "", "map", []string{"explain"}, []string{"suspend", "held list"}},
	}
	var all []incident.Incident
	for n, c := range cases {
		i := someIncident(c.origin)
		i.ID, i.Account, i.Cause = fmt.Sprint("i-", n), c.account, c.cause
		all = append(all, i)
	}
	d.always("GET /v1/incidents", all)
	for n, c := range cases {
		code, stdout, stderr := d.run("incident", "show", all[n].ID)
		_, next, _ := strings.Cut(stdout, "what next:")
		for _, want := range c.want {
			if code != exitFine || !strings.Contains(next, want) {
				t.Errorf("%s of %s: exit %d, no %q in\n%s%s", c.origin, c.account, code, want, stdout, stderr)
			}
		}
		for _, without := range c.without {
			if strings.Contains(next, without) {
				t.Errorf("%s of %s: %q in\n%s", c.origin, c.account, without, next)
			}
		}
	}
}
