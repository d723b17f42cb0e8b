package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/config"
	"relayguard/mta/backup"
	"relayguard/mta/postfix"
	"relayguard/policy"
)

func newSetup() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "setup COMMAND",
		Short: "print, apply or undo the MTA's settings",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &exitError{exitUsage, fmt.Errorf("%s knows no MTA %q; see: %s --help", cmd.CommandPath(), args[0], cmd.CommandPath())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SetOut(cmd.ErrOrStderr())
			cmd.Help()
			return &exitError{code: exitUsage}
		},
	}
	cmd.AddCommand(newSetupPostfix())
	return cmd
}

// backupDir holds what --apply replaced. It is root's: what --undo finds there
// becomes Postfix's configuration. /var/lib/relayguard is the daemon's.
const backupDir = "/var/backups/relayguard"

// setupFlags are the flags of setup postfix.
type setupFlags struct {
	apply, undo, force, asJSON bool
	smtp, backups              string
}

func newSetupPostfix() *cobra.Command {
	var f setupFlags
	cmd := &cobra.Command{
		Use:   "postfix",
		Short: "attach the guard to Postfix",
		Long: strings.TrimSpace(`
Prints the settings that attach the guard's listeners to Postfix, each with its
reason, and marks those that are not yet so. Other milters and header checks
that you have stay; the guard comes first, so that nobody signs or scans what is
then refused.

The submission services and mail from sendmail(1) are attached always. For the
other SMTP services, port 25 among them, you must say what they are for:

    --smtp off      leave them alone (the default)
    --smtp relay    only your own machines send through them: a
                    client needs AUTH or an address in a trusted
                    network
    --smtp inbound  strangers write to you through them: they are
                    never refused, those who log in are judged as
                    everywhere

--apply changes main.cf and master.cf, after a backup, lets Postfix check and
reload them, and looks whether Postfix then asks the guard: it connects to each
SMTP service, and hands in a message by sendmail(1) that nobody gets and of which
nothing stays. If not, everything is put back. The guard must run. A second
--apply changes nothing. --undo puts the files back as they were; if somebody
changed them since, only with --force. Backups that others than root may change
are refused.

Exit status: 0 nothing to change, or done; 1 there is something to change; 2
usage; 3 it did not work, and the old settings are in force.`),
		Example: "  relayguard setup postfix --smtp inbound\n  relayguard setup postfix --smtp inbound --apply\n  relayguard setup postfix --undo",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, _, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			return f.run(cmd, c)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.apply, "apply", false, "make the changes")
	flags.BoolVar(&f.undo, "undo", false, "take the changes of the last --apply back")
	flags.BoolVar(&f.force, "force", false, "with --undo: also what was changed since by somebody else")
	flags.StringVar(&f.smtp, "smtp", "off", "what SMTP services other than submission are for: `off|relay|inbound`")
	flags.StringVar(&f.backups, "backups", backupDir, "`directory` of the backups")
	flags.BoolVar(&f.asJSON, "json", false, "print the settings as JSON")
	cmd.RegisterFlagCompletionFunc("smtp", cobra.FixedCompletions([]string{"off", "relay", "inbound"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (f *setupFlags) run(cmd *cobra.Command, c *config.Config) error {
	smtp, err := f.smtpRole(c)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	setup := postfix.Setup{ConfigDir: c.MTA.ConfigDirectory, Listeners: postfixListeners(c), SMTP: smtp, LocalMail: localMail(c), Backups: f.backups, ProbeLocal: true}
	setup.Verify = setup.VerifyBySMTP(postfix.SMTPProbe{})
	switch {
	case f.apply && f.undo:
		return &exitError{exitUsage, errors.New("--apply and --undo do not go together")}
	case f.asJSON && f.undo:
		return &exitError{exitUsage, errors.New("--json does not go with --undo")}
	case f.force && !f.undo:
		return &exitError{exitUsage, errors.New("--force goes with --undo")}
	case f.undo:
		return f.takeBack(cmd, setup)
	case f.apply:
		return f.change(cmd, setup)
	}
	return f.print(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), setup)
}

// smtpRole reads --smtp; zero is off.
func (f *setupFlags) smtpRole(c *config.Config) (policy.Role, error) {
	if f.smtp == "off" {
		return 0, nil
	}
	role, err := policy.ParseRole(f.smtp)
	if err != nil || role != policy.Relay && role != policy.Inbound {
		return 0, fmt.Errorf("--smtp: got %q, want off, relay or inbound", f.smtp)
	}
	if !slices.ContainsFunc(c.Listeners, func(l config.Listener) bool { return l.Role == role }) {
		return 0, fmt.Errorf("--smtp %s: the configuration has no [[listener]] with role %q; add one, and the others that you want beside it", role, role)
	}
	return role, nil
}

// print shows the plan.
func (f *setupFlags) print(ctx context.Context, stdout, stderr io.Writer, setup postfix.Setup) error {
	i, err := postfix.Load(ctx, setup.Tools, setup.ConfigDir)
	if err != nil {
		return &exitError{exitCannotTell, err}
	}
	settings, err := setup.Plan(ctx, i)
	if err != nil {
		return &exitError{exitCannotTell, err}
	}
	changes := 0
	for _, s := range settings {
		if s.Changes() {
			changes++
		}
	}
	if f.asJSON {
		err = writeSettingsJSON(stdout, settings)
	} else {
		err = writeSettings(stdout, settings)
		if changes == 0 {
			fmt.Fprintf(stderr, "%s: nothing to change, all %d settings are as they should be\n", setup.ConfigDir, len(settings))
		} else {
			fmt.Fprintf(stderr, "%s: %d of %d settings to change; make the changes with --apply\n", setup.ConfigDir, changes, len(settings))
		}
		if f.smtp == "off" {
			fmt.Fprintln(stderr, "SMTP services other than submission are left alone; see --smtp in --help")
		}
	}
	if err != nil {
		return &exitError{exitCannotTell, err}
	}
	if changes > 0 {
		return &exitError{code: exitFinding}
	}
	return nil
}

// mark tells what is to change from what is so already.
func mark(s postfix.Setting) string {
	if s.Changes() {
		return "+"
	}
	return "="
}

func writeSettings(w io.Writer, settings []postfix.Setting) error {
	var b strings.Builder
	for _, s := range settings {
		fmt.Fprintf(&b, "%s %-9s  %s\n", mark(s), s.Place, s)
		if s.Changes() && s.Was != "" && s.Place != postfix.InFile {
			b.WriteString(wrap("was: "+s.Was, 13, 80))
		}
		if s.Place == postfix.InFile && s.Changes() {
			for line := range strings.Lines(s.Value) {
				fmt.Fprintf(&b, "%13s| %s", "", line)
			}
		}
		b.WriteString(wrap(s.Why, 13, 80))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeSettingsJSON(w io.Writer, settings []postfix.Setting) error {
	type setting struct {
		Place   string `json:"place"`
		Service string `json:"service,omitempty"`
		Name    string `json:"name"`
		Value   string `json:"value"`
		Was     string `json:"was,omitempty"`
		Changes bool   `json:"changes"`
		Why     string `json:"why"`
	}
	all := make([]setting, len(settings))
	for i, s := range settings {
		all[i] = setting{string(s.Place), s.Service, s.Name, s.Value, s.Was, s.Changes(), s.Why}
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		Settings []setting `json:"settings"`
	}{all})
}

func (f *setupFlags) change(cmd *cobra.Command, setup postfix.Setup) error {
	out, err := setup.Apply(cmd.Context(), time.Now())
	if err != nil {
		return &exitError{exitCannotTell, err}
	}
	write := writeSettings
	if f.asJSON {
		write = writeSettingsJSON
	}
	if err := write(cmd.OutOrStdout(), out.Changed); err != nil {
		return &exitError{exitCannotTell, err}
	}
	say := cmd.ErrOrStderr()
	switch {
	case len(out.Changed) == 0:
		fmt.Fprintln(say, "everything is as it should be; nothing changed")
		return nil
	case out.Verified:
		fmt.Fprintln(say, "done: Postfix has reloaded its settings and asks the guard")
	case !out.Running:
		fmt.Fprintln(say, "done: Postfix is not running; it will ask the guard when it starts")
	}
	fmt.Fprintf(say, "the old settings are in %s; --undo puts them back\n", out.Backup)
	return nil
}

func (f *setupFlags) takeBack(cmd *cobra.Command, setup postfix.Setup) error {
	out, err := setup.Undo(cmd.Context(), f.force)
	switch {
	case errors.Is(err, backup.ErrNone):
		return &exitError{exitUsage, err}
	case err != nil:
		return &exitError{exitCannotTell, err}
	}
	for _, path := range out.Restored {
		fmt.Fprintln(cmd.OutOrStdout(), path)
	}
	if out.Running {
		fmt.Fprintln(cmd.ErrOrStderr(), "the old settings are back, and Postfix has reloaded them")
	} else {
		fmt.Fprintln(cmd.ErrOrStderr(), "the old settings are back")
	}
	if out.Earlier {
		fmt.Fprintln(cmd.ErrOrStderr(), "those of an earlier --apply are still in force; another --undo takes them back, too")
	}
	return nil
}
