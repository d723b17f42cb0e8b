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
	cmd.AddCommand(newSetupPostfix(), newSetupSendmail())
	return cmd
}

// backupDir holds what --apply replaced. It is root's: what --undo finds there
// becomes the MTA's configuration. /var/lib/relayguard is the daemon's.
const backupDir = "/var/backups/relayguard"

// setupFlags are the flags of setup postfix and setup sendmail.
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
	f.add(cmd)
	return cmd
}

func (f *setupFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.apply, "apply", false, "make the changes")
	flags.BoolVar(&f.undo, "undo", false, "take the changes of the last --apply back")
	flags.BoolVar(&f.force, "force", false, "with --undo: also what was changed since by somebody else")
	flags.StringVar(&f.smtp, "smtp", "off", "what SMTP services other than submission are for: `off|relay|inbound`")
	flags.StringVar(&f.backups, "backups", backupDir, "`directory` of the backups")
	flags.BoolVar(&f.asJSON, "json", false, "print the settings as JSON")
	cmd.RegisterFlagCompletionFunc("smtp", cobra.FixedCompletions([]string{"off", "relay", "inbound"}, cobra.ShellCompDirectiveNoFileComp))
}

// mtaSetup is what the setup of a mail server can do.
type mtaSetup interface {
	// plan lists the settings; obstacle says why apply would refuse.
	plan(ctx context.Context) (settings []mtaSetting, obstacle, err error)
	apply(ctx context.Context, now time.Time) (setupOutcome, error)
	undo(ctx context.Context, force bool) (setupOutcome, error)
}

// mtaSetting is a setting of a mail server, to be printed.
type mtaSetting struct {
	place, service, name, value, was, why string

	line    string // as the mail server's file has it
	changes bool
	isFile  bool // value is the text of a file
}

// setupOutcome is what apply or undo did.
type setupOutcome struct {
	changed                    []mtaSetting
	restored                   []string
	backup                     string
	earlier, running, verified bool
}

// setupOf is the setup of one mail server by its name.
type setupOf struct {
	mtaSetup
	name, configDir string // "Postfix", "/etc/postfix"
}

func (f *setupFlags) run(cmd *cobra.Command, c *config.Config) error {
	if err := isKind(c, config.KindPostfix); err != nil {
		return err
	}
	smtp, err := f.smtpRole(c)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	return f.do(cmd, newPostfixSetup(c, smtp, f.backups))
}

// do does what the flags ask for.
func (f *setupFlags) do(cmd *cobra.Command, setup setupOf) error {
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

// isKind refuses the setup of a mail server that the configuration is not for: its
// directory and sockets would be the other's.
func isKind(c *config.Config, kind string) error {
	if c.MTA.Kind == kind {
		return nil
	}
	return &exitError{exitUsage, fmt.Errorf("the configuration has mta.kind %q; for this mail server set it to %q", c.MTA.Kind, kind)}
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
func (f *setupFlags) print(ctx context.Context, stdout, stderr io.Writer, setup setupOf) error {
	settings, obstacle, err := setup.plan(ctx)
	if err != nil {
		return &exitError{exitCannotTell, err}
	}
	changes := 0
	for _, s := range settings {
		if s.changes {
			changes++
		}
	}
	if f.asJSON {
		err = writeSettingsJSON(stdout, settings)
	} else {
		err = writeSettings(stdout, settings)
		switch {
		case changes == 0:
			fmt.Fprintf(stderr, "%s: nothing to change, all %d settings are as they should be\n", setup.configDir, len(settings))
		case obstacle != nil:
			fmt.Fprintf(stderr, "%s: %d of %d settings to change; --apply would not: %v\n", setup.configDir, changes, len(settings), obstacle)
		default:
			fmt.Fprintf(stderr, "%s: %d of %d settings to change; make the changes with --apply\n", setup.configDir, changes, len(settings))
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
func mark(s mtaSetting) string {
	if s.changes {
		return "+"
	}
	return "="
}

func writeSettings(w io.Writer, settings []mtaSetting) error {
	var b strings.Builder
	for _, s := range settings {
		fmt.Fprintf(&b, "%s %-9s  %s\n", mark(s), s.place, s.line)
		if s.changes && s.was != "" && !s.isFile {
			b.WriteString(wrap("was: "+s.was, 13, 80))
		}
		if s.isFile && s.changes {
			for line := range strings.Lines(s.value) {
				fmt.Fprintf(&b, "%13s| %s", "", line)
			}
		}
		b.WriteString(wrap(s.why, 13, 80))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeSettingsJSON(w io.Writer, settings []mtaSetting) error {
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
		all[i] = setting{s.place, s.service, s.name, s.value, s.was, s.changes, s.why}
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		Settings []setting `json:"settings"`
	}{all})
}

func (f *setupFlags) change(cmd *cobra.Command, setup setupOf) error {
	out, err := setup.apply(cmd.Context(), time.Now())
	if err != nil {
		return &exitError{exitCannotTell, err}
	}
	write := writeSettings
	if f.asJSON {
		write = writeSettingsJSON
	}
	if err := write(cmd.OutOrStdout(), out.changed); err != nil {
		return &exitError{exitCannotTell, err}
	}
	say := cmd.ErrOrStderr()
	switch {
	case len(out.changed) == 0:
		fmt.Fprintln(say, "everything is as it should be; nothing changed")
		return nil
	case out.verified:
		fmt.Fprintf(say, "done: %s has reloaded its settings and asks the guard\n", setup.name)
	case !out.running:
		fmt.Fprintf(say, "done: %s is not running; it will ask the guard when it starts\n", setup.name)
	}
	fmt.Fprintf(say, "the old settings are in %s; --undo puts them back\n", out.backup)
	return nil
}

func (f *setupFlags) takeBack(cmd *cobra.Command, setup setupOf) error {
	out, err := setup.undo(cmd.Context(), f.force)
	switch {
	case errors.Is(err, backup.ErrNone):
		return &exitError{exitUsage, err}
	case err != nil:
		return &exitError{exitCannotTell, err}
	}
	for _, path := range out.restored {
		fmt.Fprintln(cmd.OutOrStdout(), path)
	}
	if out.running {
		fmt.Fprintf(cmd.ErrOrStderr(), "the old settings are back, and %s has reloaded them\n", setup.name)
	} else {
		fmt.Fprintln(cmd.ErrOrStderr(), "the old settings are back")
	}
	if out.earlier {
		fmt.Fprintln(cmd.ErrOrStderr(), "those of an earlier --apply are still in force; another --undo takes them back, too")
	}
	return nil
}

// postfixSetup is the mtaSetup of Postfix.
type postfixSetup struct{ setup postfix.Setup }

func newPostfixSetup(c *config.Config, smtp policy.Role, backups string) setupOf {
	s := postfix.Setup{ConfigDir: c.MTA.ConfigDirectory, Listeners: mtaListeners(c), SMTP: smtp, LocalMail: localMail(c), Backups: backups, ProbeLocal: true}
	s.Verify = s.VerifyBySMTP(postfix.SMTPProbe{})
	return setupOf{postfixSetup{s}, "Postfix", s.ConfigDir}
}

func (p postfixSetup) plan(ctx context.Context) (settings []mtaSetting, obstacle, err error) {
	i, err := postfix.Load(ctx, p.setup.Tools, p.setup.ConfigDir)
	if err != nil {
		return nil, nil, err
	}
	all, err := p.setup.Plan(ctx, i)
	return postfixSettings(all), nil, err
}

func (p postfixSetup) apply(ctx context.Context, now time.Time) (setupOutcome, error) {
	out, err := p.setup.Apply(ctx, now)
	return postfixOutcome(out), err
}

func (p postfixSetup) undo(ctx context.Context, force bool) (setupOutcome, error) {
	out, err := p.setup.Undo(ctx, force)
	return postfixOutcome(out), err
}

func postfixOutcome(o postfix.Outcome) setupOutcome {
	return setupOutcome{postfixSettings(o.Changed), o.Restored, o.Backup, o.Earlier, o.Running, o.Verified}
}

func postfixSettings(settings []postfix.Setting) []mtaSetting {
	all := make([]mtaSetting, len(settings))
	for i, s := range settings {
		all[i] = mtaSetting{string(s.Place), s.Service, s.Name, s.Value, s.Was, s.Why, s.String(), s.Changes(), s.Place == postfix.InFile}
	}
	return all
}
