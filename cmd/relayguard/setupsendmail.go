package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/config"
	"relayguard/mta/probe"
	"relayguard/mta/sendmail"
	"relayguard/policy"
)

func newSetupSendmail() *cobra.Command {
	var f setupFlags
	cmd := &cobra.Command{
		Use:   "sendmail",
		Short: "attach the guard to Sendmail",
		Long: strings.TrimSpace(`
Prints the settings that attach the guard's listeners to Sendmail, each with its
reason, and marks those that are not yet so. Other milters that you have stay;
the guard comes first, so that nobody signs or scans what is then refused.

The submission services and mail from sendmail(1) are attached always. The latter
gets a port of its own on loopback, 24, to which submit.cf then hands it: so the
guard knows it from other programs' SMTP. For the other services, port 25 among
them, you must say what they are for:

    --smtp off      leave them alone (the default)
    --smtp relay    only your own machines send through them: a
                    client needs AUTH or an address in a trusted
                    network
    --smtp inbound  strangers write to you through them: they are
                    never refused, those who log in are judged as
                    everywhere

--apply changes sendmail.mc and submit.mc and has m4 make sendmail.cf and
submit.cf of them, after a backup. It does so only where m4, run on what you have,
makes just what is in force: else a change of yours would be lost, or come into
force with it; then it says what to bring together, or to add by hand. It lets
Sendmail itself read the new files, has the daemon reload them, and looks whether
Sendmail then asks the guard: it connects to each service, and asks Sendmail where
mail from sendmail(1) goes. If not, everything is put back. The guard must run. A
second --apply changes nothing. --undo puts the files back as they were; if
somebody changed them since, beyond the comments that a make writes anew, only with
--force. Backups that others than root may
change are refused.

Exit status: 0 nothing to change, or done; 1 there is something to change; 2
usage; 3 it did not work, and the old settings are in force.`),
		Example: "  relayguard setup sendmail --smtp inbound\n  relayguard setup sendmail --smtp inbound --apply\n  relayguard setup sendmail --undo",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, _, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			if err := isKind(c, config.KindSendmail); err != nil {
				return err
			}
			smtp, err := f.smtpRole(c)
			if err != nil {
				return &exitError{exitUsage, err}
			}
			return f.do(cmd, newSendmailSetup(c, smtp, f.backups))
		},
	}
	f.add(cmd)
	return cmd
}

// sendmailSetup is the mtaSetup of Sendmail.
type sendmailSetup struct{ setup sendmail.Setup }

func newSendmailSetup(c *config.Config, smtp policy.Role, backups string) setupOf {
	s := sendmail.Setup{ConfigDir: c.MTA.ConfigDirectory, Listeners: mtaListeners(c), SMTP: smtp, Deadline: c.Milter.DecisionTimeout, Backups: backups}
	s.Verify = s.VerifyBySMTP(probe.SMTP{})
	return setupOf{sendmailSetup{s}, "Sendmail", s.ConfigDir}
}

func (p sendmailSetup) plan(ctx context.Context) (settings []mtaSetting, obstacle, err error) {
	i, err := sendmail.Load(ctx, p.setup.Tools, p.setup.ConfigDir)
	if err != nil {
		return nil, nil, err
	}
	all, err := p.setup.Plan(ctx, i)
	if err != nil {
		return nil, nil, err
	}
	return sendmailSettings(all), p.setup.Obstacle(ctx, i), nil
}

func (p sendmailSetup) apply(ctx context.Context, now time.Time) (setupOutcome, error) {
	out, err := p.setup.Apply(ctx, now)
	return sendmailOutcome(out), err
}

func (p sendmailSetup) undo(ctx context.Context, force bool) (setupOutcome, error) {
	out, err := p.setup.Undo(ctx, force)
	return sendmailOutcome(out), err
}

func sendmailOutcome(o sendmail.Outcome) setupOutcome {
	return setupOutcome{sendmailSettings(o.Changed), o.Restored, o.Backup, o.Earlier, o.Running, o.Verified}
}

func sendmailSettings(settings []sendmail.Setting) []mtaSetting {
	all := make([]mtaSetting, len(settings))
	for i, s := range settings {
		all[i] = mtaSetting{string(s.Place), s.Service, s.Name, s.Value, s.Was, s.Why, s.String(), s.Changes(), false}
	}
	return all
}
