package postfix

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestInspectAWebNode(t *testing.T) {
	checks := t.TempDir()
	writeFile(t, filepath.Join(checks, "all"), "/^X-Relayguard-/ IGNORE\n")
	writeFile(t, filepath.Join(checks, "others"), "/^X-Relayguard-(Uid|Origin|Call):/ IGNORE\n/^Subject:/ WARN\n")
	writeFile(t, filepath.Join(checks, "warn"), "/^X-Relayguard-/ WARN ours\n")
	const way = "relayhost=[relay.example.jp]\n"
	for name, c := range map[string]struct {
		main, master string
		want         []string // ID Severity Where
	}{
		"all is well":                     {main: way + "smtp_header_checks=regexp:" + checks + "/others\nmilter_header_checks=regexp:" + checks + "/warn\n"},
		"no way to the relay":             {want: []string{"node-relayhost critical main.cf"}},
		"a way by the default transport":  {main: "default_transport=smtp:[relay.example.jp]:2525\n"},
		"a way that a table may have":     {main: "transport_maps=inline:{example.jp=smtp:[x]}\n", want: []string{"node-relayhost warning main.cf"}},
		"the signature is taken off":      {main: way + "smtp_header_checks=regexp:" + checks + "/all\n", want: []string{"node-header-lost warning smtp_header_checks"}},
		"taken off as the guard writes":   {main: way + "milter_header_checks=regexp:" + checks + "/all\n", want: []string{"node-header-lost warning milter_header_checks"}},
		"taken off by one service":        {main: way, master: "slow unix - - y - - smtp -o smtp_header_checks=regexp:" + checks + "/all\n", want: []string{"node-header-lost warning slow/unix: smtp_header_checks"}},
		"by a table that is not there":    {main: way + "smtp_header_checks=regexp:/nosuch/checks\n", want: []string{"node-header-lost warning smtp_header_checks"}},
		"recipients that were not signed": {main: way + "always_bcc=archive@example.jp\nvirtual_alias_maps=inline:{a@example.jp=b@example.net}\n", want: []string{"node-recipients warning main.cf", "node-recipients warning main.cf"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := newInstance(t, guarded+c.main, guardedMaster+c.master)
			inspect := func(field string) []string {
				return idsOf(Inspect(context.Background(), Inspection{Instance: in.load(t), Listeners: in.listeners, LocalMail: localMail, NodeHeader: field}))
			}
			if got := inspect("X-Relayguard-Node"); !slices.Equal(got, c.want) {
				t.Errorf("got\n %s\nwant\n %s", strings.Join(got, "\n "), strings.Join(c.want, "\n "))
			}
			if got := inspect(""); len(got) > 0 {
				t.Errorf("where there is no web node: %q", got)
			}
		})
	}
}
