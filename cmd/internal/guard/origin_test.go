package guard_test

import (
	"bytes"
	"log/slog"
	"testing"

	"relayguard/cmd/internal/guard"
	"relayguard/policy"
	"relayguard/policy/origin"
)

// shared is a message that a site's plugin sent.
func shared() *policy.Message {
	m := message("", "wordpress@shop.example.jp", "friend@example.net")
	m.Role, m.Submitted, m.UID = policy.Local, true, 33
	m.Site, m.SiteConfidence, m.Plugin, m.PluginConfidence, m.Template, m.TemplateConfidence = "shop.example.jp", origin.Signed, "share-by-mail", origin.Signed, "ab12", origin.Fingerprint
	m.Call = origin.Call{Entry: "ajax", Script: "wp-content/plugins/share-by-mail/send.php:41", WebClient: "198.51.100.7", Pool: "shop", Software: "WP-EMail"}
	return m
}

func TestTheJournalLearnsOfSiteAndPlugin(t *testing.T) {
	g, k := newKept(rules(policy.Enforce))
	d := g.Message(t.Context(), shared())
	r := k.all[d.ID]
	if r.Site != "shop.example.jp" || r.SiteBy != "signed" || r.Plugin != "share-by-mail" || r.PluginBy != "signed" || r.Template != "ab12" || r.Entry != "ajax" ||
		r.Script != "wp-content/plugins/share-by-mail/send.php:41" || r.WebClient != "198.51.100.7" || r.Pool != "shop" || r.Software != "WP-EMail" {
		t.Errorf("%+v", r)
	}
	d = g.Message(t.Context(), message("taro@example.jp", "taro@example.jp", "friend@example.net"))
	if r := k.all[d.ID]; r.Site != "" || r.SiteBy != "" || r.Plugin != "" || r.PluginBy != "" {
		t.Errorf("of a login: %+v", r)
	}
}

func TestTheLineNamesSiteAndPluginAndNoWebClient(t *testing.T) {
	var log logged
	to := slog.New(slog.NewJSONHandler(&log, nil))
	g := guard.New(rules(policy.Enforce), to, to)
	g.Message(t.Context(), shared())
	g.Message(t.Context(), message("taro@example.jp", "taro@example.jp", "friend@example.net"))
	lines := log.lines(t)
	if len(lines) != 2 {
		t.Fatalf("%q", log.text())
	}
	for name, want := range map[string]any{"site": "shop.example.jp", "plugin": "share-by-mail", "entry": "ajax", "script": "wp-content/plugins/share-by-mail/send.php:41", "template": "ab12"} {
		if got := lines[0][name]; got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
		if got, there := lines[1][name]; there {
			t.Errorf("%s of a login: %v", name, got)
		}
	}
	if bytes.Contains([]byte(log.text()), []byte("198.51.100.7")) {
		t.Errorf("a web client is in the log: %s", log.text())
	}
}
