package config_test

import (
	"slices"
	"testing"

	"relayguard/cmd/internal/config"
)

func TestBesideSendmailDefaultsAreSendmails(t *testing.T) {
	c, err := config.Parse("test", []byte("[mta]\nkind = \"sendmail\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	if c.MTA.ConfigDirectory != "/etc/mail" {
		t.Errorf("mta.config_directory: got %q", c.MTA.ConfigDirectory)
	}
	if len(c.Listeners) != len(config.Default().Listeners) {
		t.Errorf("%d listeners", len(c.Listeners))
	}
	for _, l := range c.Listeners {
		if l.Endpoint.Path != "/run/relayguard/"+l.Name+".sock" || l.Group != "" || !slices.Equal(l.Peers, []string{"root"}) {
			t.Errorf("listener %s: got %+v", l.Name, l)
		}
	}
}

func TestListenersOfTheFileBesideSendmail(t *testing.T) {
	c, err := config.Parse("test", []byte(`[mta]
kind = "sendmail"
config_directory = "/srv/mail"

[[listener]]
name = "relay"
role = "relay"
address = "unix:/run/rg/relay.sock"

[[listener]]
name = "local"
role = "local"
address = "unix:/run/rg/local.sock"
group = "smmta"
peers = ["smmta"]
`))
	if err != nil {
		t.Fatal(err)
	}
	if l := c.Listeners[0]; l.Group != "" || !slices.Equal(l.Peers, []string{"root"}) || l.Endpoint.Path != "/run/rg/relay.sock" {
		t.Errorf("what is left out: got %+v", l)
	}
	if l := c.Listeners[1]; l.Group != "smmta" || !slices.Equal(l.Peers, []string{"smmta"}) {
		t.Errorf("what is said: got %+v", l)
	}
	if c.MTA.ConfigDirectory != "/srv/mail" {
		t.Errorf("mta.config_directory: got %q", c.MTA.ConfigDirectory)
	}
}
