package sendmail_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"relayguard/mta"
	"relayguard/mta/backup"
	"relayguard/mta/sendmail"
	"relayguard/mta/sendmail/sendmailtest"
)

// A make in /etc/mail writes the time into the cf files: that is no change. Anything
// else is.
func TestUndoAfterMake(t *testing.T) {
	p := startAttached(t, sendmailtest.Options{SubmitTo: "submit", Services: []sendmailtest.Service{{Name: "smtp"}, {Name: "submit", Auth: true, Modifiers: "a"}}})
	before := p.files(t)
	if _, err := p.apply(t.Context(), setupDay); err != nil {
		t.Fatal(err)
	}
	applied := p.files(t)
	if err := p.Rebuild(t.Context()); err != nil {
		t.Fatal(err)
	}
	if made := p.files(t); made["sendmail.cf"] == applied["sendmail.cf"] {
		writeText(t, filepath.Join(p.ConfigDir, "sendmail.cf"), "##### built at another time\n"+made["sendmail.cf"])
	}
	made := p.files(t)
	for file, change := range map[string]func(string) string{
		"sendmail.cf": func(text string) string { return strings.Replace(text, "O MaxHopCount=", "O MaxHopCount=1", 1) },
		"submit.cf":   func(text string) string { return text + "O CheckpointInterval=7\n" },
		"submit.mc":   func(text string) string { return text + "dnl mine\n" },
	} {
		changed := change(made[file])
		if changed == made[file] {
			t.Fatalf("%s is as before", file)
		}
		writeText(t, filepath.Join(p.ConfigDir, file), changed)
		if _, err := p.undo(t.Context(), false); !errors.Is(err, backup.ErrChangedSince) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: got %v", file, err)
		}
		writeText(t, filepath.Join(p.ConfigDir, file), made[file])
	}
	if _, err := p.undo(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	p.same(t, before)
}

// While outgoing mail is stopped sendmail.cf is what sendmail.mc makes all the same,
// and where it is not the remedy is not a make.
func TestInspectKnowsTheRedSwitch(t *testing.T) {
	p := startAttached(t, sendmailtest.Options{Services: []sendmailtest.Service{{Name: "smtp"}}})
	stale := func() *mta.Finding {
		t.Helper()
		var found *mta.Finding
		p.Inside(func() {
			i, err := sendmail.Load(t.Context(), p.setup.Tools, p.ConfigDir)
			if err != nil {
				t.Error(err)
				return
			}
			all := sendmail.Inspect(t.Context(), sendmail.Inspection{Instance: i, Listeners: p.setup.Listeners, Built: true})
			if n := slices.IndexFunc(all, func(f mta.Finding) bool { return f.ID == "cf-stale" }); n >= 0 {
				found = &all[n]
			}
		})
		return found
	}
	p.Inside(func() {
		i, err := sendmail.Load(t.Context(), p.setup.Tools, p.ConfigDir)
		if err == nil {
			_, err = (sendmail.RedSwitch{Instance: i, StateDir: filepath.Join(t.TempDir(), "queue")}).StopOutgoing(t.Context(), setupDay)
		}
		if err != nil {
			t.Error(err)
		}
	})
	cf := filepath.Join(p.ConfigDir, "sendmail.cf")
	if text := readText(t, cf); !strings.Contains(text, "# relayguard stop begins") {
		t.Fatal("mail is not stopped")
	}
	if f := stale(); f != nil {
		t.Errorf("stopped: %s", f.What)
	}
	mc := filepath.Join(p.ConfigDir, "sendmail.mc")
	writeText(t, mc, strings.Replace(readText(t, mc), "MAILER(", "define(`confMAX_HOP', `17')dnl\nMAILER(", 1))
	if f := stale(); f == nil || !strings.Contains(f.Remedy, "relayguard start first") || !strings.Contains(f.What, "MaxHopCount") {
		t.Errorf("stopped, and changed: %+v", f)
	}
}

const ownRules = "LOCAL_RULE_0\nR$* < @ far . example . > $*\t$#esmtp $@ [192.0.2.5] $: $1 < @ far . example . > $2"

// What the guard's account may not read is named, and so is what is to be written.
func TestInspectNamesTheDomainsThatTheGuardMisses(t *testing.T) {
	t.Parallel()
	s := startWithTools(t, sendmailtest.Options{MC: []string{withAccess}, CF: []string{ownRules}})
	makeMap(t, s, "hash", "access", "To:to.example RELAY\nboth.example RELAY\nno.example REJECT\n")
	writeText(t, filepath.Join(s.ConfigDir, "relay-domains"), "relayed.example\n")
	others := func(path string) bool { // may read it
		info, err := os.Stat(path)
		return err != nil || info.Mode().Perm()&0o004 != 0
	}
	for name, c := range map[string]struct {
		closed []string
		named  []string
		want   []string // domains in the remedy
	}{
		"all open":           {},
		"access.db":          {closed: []string{"access.db"}, want: []string{"both.example", "to.example"}},
		"access.db, one":     {closed: []string{"access.db"}, named: []string{"to.example"}, want: []string{"both.example"}},
		"access.db, both":    {closed: []string{"access.db"}, named: []string{"to.example", "both.example"}},
		"relay-domains, too": {closed: []string{"access.db", "relay-domains"}, want: []string{"both.example", "relayed.example", "to.example"}},
	} {
		for _, file := range []string{"access.db", "relay-domains"} {
			mode := os.FileMode(0o644)
			if slices.Contains(c.closed, file) {
				mode = 0o640
			}
			if err := os.Chmod(filepath.Join(s.ConfigDir, file), mode); err != nil {
				t.Fatal(err)
			}
		}
		var found []mta.Finding
		withTools(t, s, func(ctx context.Context, i *sendmail.Instance) error {
			found = sendmail.Inspect(ctx, sendmail.Inspection{Instance: i, Inside: &sendmail.InsideView{MayRead: others,
				Named: func(d string) bool { return slices.Contains(c.named, d) }}})
			return nil
		})
		n := slices.IndexFunc(found, func(f mta.Finding) bool { return f.ID == "inside-missed" })
		if (n >= 0) != (len(c.want) > 0) {
			t.Errorf("%s: found %+v", name, found)
		}
		if n >= 0 {
			if quoted := `"` + strings.Join(c.want, `", "`) + `" ]`; !strings.Contains(found[n].Remedy, quoted) || !strings.Contains(found[n].Where, c.closed[0]) || found[n].Severity != mta.Warning {
				t.Errorf("%s: got %+v, want %s", name, found[n], quoted)
			}
		}
		if !slices.ContainsFunc(found, func(f mta.Finding) bool {
			return f.ID == "route-unread" && f.Severity == mta.Info && strings.Contains(f.What, "$#esmtp")
		}) {
			t.Errorf("%s: LOCAL_RULE_0 is not among %+v", name, found)
		}
	}
}
