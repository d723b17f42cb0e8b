package sendmail

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"relayguard/mta"
	"relayguard/mta/backup"
)

// options looks at what sendmail.cf lets others do beside sending.
func (r *report) options() {
	privacy := words(r.s.Option("PrivacyOptions"))
	if !slices.Contains(privacy, "restrictqrun") {
		r.add(mta.Finding{ID: "queue-run-by-all", Severity: mta.Warning, Where: "sendmail.cf", What: "PrivacyOptions has no restrictqrun",
			Why: "any account may have the queue run: mail that waits to be looked at is tried again", Remedy: "add restrictqrun to confPRIVACY_FLAGS"})
	}
	if !slices.Contains(privacy, "restrictmailq") {
		r.add(mta.Finding{ID: "queue-shown-to-all", Severity: mta.Info, Where: "sendmail.cf", What: "PrivacyOptions has no restrictmailq",
			Why: "any account sees senders and recipients of the mail that waits, by mailq", Remedy: "add restrictmailq to confPRIVACY_FLAGS"})
	}
	if value := r.s.Option("HoldExpensive"); r.s.Set("HoldExpensive") && isTrue(value) && slices.ContainsFunc(r.s.Mailers(), func(m Mailer) bool { return strings.Contains(m.Flags, "e") }) {
		r.add(mta.Finding{ID: "hold-expensive", Severity: mta.Info, Where: "sendmail.cf", What: "HoldExpensive is on, and some mailers are expensive (F=e)",
			Why: "released mail is not sent at once, but with the next queue run", Remedy: "nothing, if it is meant so"})
	}
	risky := slices.DeleteFunc(words(r.s.Option("DontBlameSendmail")), func(word string) bool {
		return !slices.ContainsFunc(riskyFlags, func(flag string) bool { return strings.HasPrefix(word, flag) })
	})
	if len(risky) > 0 {
		r.add(mta.Finding{ID: "dont-blame", Severity: mta.Warning, Where: "sendmail.cf", What: "DontBlameSendmail has " + strings.Join(risky, ", "),
			Why: "accounts that can write such files decide where others' mail goes, and what is run for it", Remedy: "take it out of confDONT_BLAME_SENDMAIL, and set the files' modes right"})
	}
}

// riskyFlags let other accounts change what Sendmail trusts; others of
// DontBlameSendmail only make it look away from groups.
var riskyFlags = []string{"worldwritable", "runprograminunsafe", "runwritableprogram", "mapinunsafe", "classfileinunsafe", "aliasfileinunsafe"}

func words(list string) []string {
	return strings.FieldsFunc(strings.ToLower(list), func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
}

// sources looks whether the .cf files are what their .mc files make, the lines of the
// red switch aside: else what setup changed is lost with the next make, or is not in
// force yet.
func (r *report) sources(ctx context.Context) {
	for _, of := range []struct{ mc, cf Place }{{InMTA, InMTACF}, {InSubmit, InSubmitCF}} {
		mc, cf := filepath.Join(r.Instance.ConfigDir, string(of.mc)), filepath.Join(r.Instance.ConfigDir, string(of.cf))
		source, err := os.Stat(mc)
		made, errMade := os.Stat(cf)
		if err != nil || errMade != nil {
			continue
		}
		f := mta.Finding{ID: "cf-stale", Severity: mta.Warning, Where: cf, Why: "the next make in " + r.Instance.ConfigDir + " changes what is in force, the guard's part too", Remedy: "bring both together, then make -C " + r.Instance.ConfigDir}
		what, stopped, sure := r.differs(ctx, mc, cf)
		switch {
		case what != "":
			f.What = what
		case !sure && source.ModTime().After(made.ModTime()):
			f.What = "it is older than " + string(of.mc)
		default:
			continue
		}
		if stopped { // a make would take the lines of the switch out
			f.Why += "; outgoing mail is stopped by lines in it, which a make takes out"
			f.Remedy = "relayguard start first; then " + f.Remedy
		}
		r.add(f)
	}
}

// differs makes a .cf file again; sure: it could. stopped: the red switch has lines in
// the file, which are no difference.
func (r *report) differs(ctx context.Context, mc, cf string) (what string, stopped, sure bool) {
	text, err := backup.ReadIfThere(cf)
	if err != nil {
		return "", false, false
	}
	rest, lines, _ := started(string(text), "")
	stopped = lines != ""
	if !r.Built {
		return "", stopped, false
	}
	made, err := m4(ctx, r.Instance.ConfigDir, mc)
	if err != nil {
		return "", stopped, false
	}
	if err := difference(cfLines(rest), cfLines(made)); err != nil {
		return fmt.Sprintf("it is not what %s makes: %v", filepath.Base(mc), err), stopped, true
	}
	return "", stopped, true
}
