package wordpress_test

import (
	"encoding/json"
	"strings"
	"testing"
)

// incident is of relayguard incident list --json what an admin needs first.
type incident struct {
	Origin  string   `json:"origin"`
	Buckets []string `json:"buckets"`
	Stops   int      `json:"stops"`
	Details struct {
		Site       string  `json:"site"`
		Plugin     string  `json:"plugin"`
		Entries    []named `json:"entries"`
		Scripts    []named `json:"scripts"`
		WebClients []named `json:"web_clients"`
	} `json:"details"`
}

type named struct {
	Value string `json:"value"`
	Count int    `json:"count"`
}

// wantIncident checks that the attack on a site is the one incident, that it
// names what was abused and how, and that the letter to the customer does.
func wantIncident(t *testing.T, s *site, stops int) {
	t.Helper()
	result, err := s.relay.Relayguard(soon(t), "incident", "list", "--json")
	if err != nil || result.ExitCode != 0 {
		t.Fatalf("relayguard incident list: %+v, %v", result, err)
	}
	var all []incident
	if err := json.Unmarshal([]byte(result.Stdout), &all); err != nil {
		t.Fatalf("relayguard incident list: %v\n%s", err, result.Stdout)
	}
	if len(all) != 1 {
		t.Fatalf("%d incidents, want that of %s alone:\n%s", len(all), s.name, result.Stdout)
	}
	i := &all[0]
	if i.Details.Site != s.name || i.Stops != stops {
		t.Errorf("%d stops of site %q, want %d of %s", i.Stops, i.Details.Site, stops, s.name)
	}
	letter, err := s.relay.Relayguard(soon(t), "notice", s.name)
	if err != nil || letter.ExitCode != 0 || !strings.Contains(letter.Stdout, s.name) {
		t.Errorf("relayguard notice %s: %+v, %v", s.name, letter, err)
	}
	if !s.labelled() {
		return
	}
	const plugin, file = "share-by-mail", "wp-content/plugins/share-by-mail/share-by-mail.php:"
	if want := "plugin:" + plugin + "@" + s.name; i.Origin != want || len(i.Buckets) != 1 || i.Buckets[0] != want || i.Details.Plugin != plugin {
		t.Errorf("incident of %s, buckets %q, plugin %q, want all of %s", i.Origin, i.Buckets, i.Details.Plugin, want)
	}
	if e := i.Details.Entries; len(e) == 0 || e[0].Value != s.entry() || e[0].Count != stops {
		t.Errorf("entries %+v, want %d through %s", e, stops, s.entry())
	}
	if f := i.Details.Scripts; len(f) == 0 || !strings.HasPrefix(f[0].Value, file) {
		t.Errorf("scripts %+v, want %s...", f, file)
	}
	if c := i.Details.WebClients; s.entry() == "ajax" && (len(c) == 0 || c[0].Value != "127.0.0.1") {
		t.Errorf("web clients %+v, want 127.0.0.1", c)
	}
	if !strings.Contains(letter.Stdout, plugin) || !strings.Contains(letter.Stdout, file) {
		t.Errorf("the letter names no plugin or no file:\n%s", letter.Stdout)
	}
}
