package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/phpsetup"
	"relayguard/cmd/internal/render"
	"relayguard/cmd/internal/wrapper"
)

func newPHP() *cobra.Command {
	return group("php", "let PHP tell which site and script mail is from", `
Two pieces, each useful alone:

The wrapper (install --wrapper, the default) is a sendmail(1) for PHP. It tells
the daemon of each mail before the MTA gets it: the Unix account, the pool of
php-fpm, the directory, the script. It lets the daemon refuse at once, so that
PHP's mail() is false. Without the daemon mail goes as it did before.

The prepend (install --prepend --pool FILE) takes the place of PHP's mail() and
signs which plugin or script calls it, whatever software the site runs. It needs
PHP 8.0, and keys: see relayguard wordpress install.`,
		newPHPInstall(), newPHPStatus(), newPHPRemove())
}

// phpFlags are the flags of the commands below php.
type phpFlags struct {
	setup          phpsetup.Setup
	sendmail       string
	apply, asJSON  bool
	files          bool
	binary, prefix string // for tests: relayguard itself; before all paths
}

func (f *phpFlags) which(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.setup.Version, "version", "", "only this `version` of PHP, such as 8.2")
	flags.StringVar(&f.setup.SAPI, "sapi", "", "only PHP as it is run so: `fpm|apache2|cli|...`")
	flags.StringVar(&f.prefix, "root", "", "`directory` before all paths, to try it out")
	flags.StringVar(&f.binary, "binary", "", "`path` of relayguard itself")
	flags.MarkHidden("root")
	flags.MarkHidden("binary")
}

// finish fills in what the flags leave open.
func (f *phpFlags) finish(cmd *cobra.Command) error {
	c, err := commandConfig(cmd)
	if err != nil {
		return err
	}
	s := &f.setup
	s.Root, s.Binary = f.prefix, f.binary
	if s.Binary == "" {
		if s.Binary, err = os.Executable(); err != nil {
			return &exitError{exitCannotTell, fmt.Errorf("find relayguard's own program: %w", err)}
		}
	}
	if s.Pool != "" {
		if s.Pool, err = filepath.Abs(s.Pool); err != nil {
			return &exitError{exitCannotTell, err}
		}
	}
	now, err := wrapper.Load(filepath.Join(s.Root, wrapper.SettingsPath))
	if err != nil {
		remark(cmd, "%v", err)
	}
	s.Settings = wrapper.Settings{Sendmail: now.Sendmail, Socket: c.Origin.CallSocket, Timeout: c.Origin.CallTimeout}
	if f.sendmail != "" {
		s.Settings.Sendmail = f.sendmail
	}
	if !filepath.IsAbs(s.Settings.Sendmail) {
		return usage(cmd, "--sendmail: got %q, want an absolute path", s.Settings.Sendmail)
	}
	return nil
}

// phpError gives an error its exit code.
func phpError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, phpsetup.ErrUsage):
		return &exitError{exitUsage, err}
	}
	return &exitError{exitCannotTell, err}
}

func newPHPInstall() *cobra.Command {
	var f phpFlags
	cmd := &cobra.Command{
		Use:   "install",
		Short: "put the sendmail wrapper or the prepend into PHP's settings",
		Long: strings.TrimSpace(`
Prints what is to be changed, each with its reason; --apply makes the changes.
What you have set stays where it is: a file of relayguard's is read after it, for
each PHP in /etc/php, or with --pool a marked block at the end of that pool's
file. relayguard php remove takes it out again.

No service is restarted: the commands that let PHP read its settings again are
printed for you to run.

The wrapper keeps the options of the present sendmail_path, such as -f. If that
names another program than /usr/sbin/sendmail, name it with --sendmail: then the
wrapper hands mail to that one.

What the wrapper needs of an account's limits, or mail() fails: 2 GB of address
space (ulimit -v, RLimitMEM; it uses 30 MB); 16 processes free for each mail under
way, for threads count, too (ulimit -u, RLimitNPROC); 20 open files (ulimit -n).

The prepend is off by default, goes into pools of php-fpm only, and needs PHP 8.0
or newer. It runs the present auto_prepend_file after itself. Sites of the pool
that set one by .user.ini, as security plugins do, no longer can: name that file
with --chain. "none" chains nothing.

Exit status: 0 nothing to change, or done; 1 there is something to change; 2 it
cannot be set up so; 3 it did not work.`),
		Example: "  relayguard php install\n  relayguard php install --version 8.2 --sapi fpm --apply\n" +
			"  relayguard php install --prepend --pool /etc/php/8.2/fpm/pool.d/shop.conf --apply",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.finish(cmd); err != nil {
				return err
			}
			return f.install(cmd)
		},
	}
	f.which(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&f.setup.Wrapper, "wrapper", false, "the sendmail wrapper (the default without --prepend)")
	flags.BoolVar(&f.setup.Prepend, "prepend", false, "the prepend for mail() that no must-use plugin sees")
	flags.StringVar(&f.setup.Pool, "pool", "", "put it into this pool's `file` of php-fpm")
	flags.StringVar(&f.setup.Chain, "chain", "", "the `file` that the prepend runs after itself, or none")
	flags.StringVar(&f.sendmail, "sendmail", "", "`program` that the wrapper hands mail to (default as set, else /usr/sbin/sendmail)")
	flags.BoolVar(&f.apply, "apply", false, "make the changes")
	jsonFlag(cmd, &f.asJSON)
	return cmd
}

func (f *phpFlags) install(cmd *cobra.Command) error {
	f.setup.Wrapper = f.setup.Wrapper || !f.setup.Prepend
	plan, err := f.setup.Plan()
	if err != nil {
		return phpError(err)
	}
	write := writePHPPlan
	if f.asJSON {
		write = writePHPPlanJSON
	}
	if err := write(cmd.OutOrStdout(), plan); err != nil {
		return &exitError{exitCannotTell, err}
	}
	changes := 0
	for _, c := range plan {
		if c.Changes() {
			changes++
		}
	}
	switch {
	case changes == 0:
		remark(cmd, "nothing to change, all %d files are as they should be", len(plan))
		return nil
	case !f.apply:
		remark(cmd, "%d of %d files to change; make the changes with --apply", changes, len(plan))
		return &exitError{code: exitFinding}
	}
	if err := phpsetup.Apply(plan); err != nil {
		return &exitError{exitCannotTell, err}
	}
	remark(cmd, "done: %d files changed", changes)
	sayReload(cmd, phpsetup.Reload(plan))
	return nil
}

func sayReload(cmd *cobra.Command, commands []string) {
	if len(commands) > 0 {
		remark(cmd, "PHP that runs goes by its old settings until you do:")
		for _, c := range commands {
			remark(cmd, "    %s", c)
		}
	}
}

func writePHPPlan(w io.Writer, plan []phpsetup.Change) error {
	var b strings.Builder
	for _, c := range plan {
		mark, text := "=", c.Part
		if c.Changes() {
			mark = "+"
		}
		if text == "" {
			text = c.Text
		}
		fmt.Fprintf(&b, "%s %s", mark, render.Escape(c.Path))
		if c.Link != "" {
			fmt.Fprintf(&b, " -> %s", render.Escape(c.Link))
		}
		b.WriteString("\n")
		if c.Changes() {
			for line := range strings.Lines(text) {
				fmt.Fprintf(&b, "      | %s\n", render.Escape(strings.TrimSuffix(line, "\n")))
			}
		}
		b.WriteString(wrap(c.Why, 6, 80))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writePHPPlanJSON(w io.Writer, plan []phpsetup.Change) error {
	type change struct {
		Path    string `json:"path"`
		Link    string `json:"link,omitempty"`
		Text    string `json:"text,omitempty"`
		Changes bool   `json:"changes"`
		Why     string `json:"why"`
	}
	out := struct {
		Files []change `json:"files"`
	}{make([]change, len(plan))}
	for i, c := range plan {
		out.Files[i] = change{c.Path, c.Link, c.Text, c.Changes(), c.Why}
	}
	return render.JSON(w, out)
}

func newPHPStatus() *cobra.Command {
	var f phpFlags
	cmd := &cobra.Command{
		Use:   "status",
		Short: "which PHPs and pools have the wrapper and the prepend",
		Long: strings.TrimSpace(`
Lists each PHP, and each pool that has settings of its own about mail, with the
sendmail_path that it goes by when it has read its settings. It reads files: what
an Apache VirtualHost, .htaccess or .user.ini says is not seen.

Exit status: 0 all of them have the wrapper, and it works; 1 some have not, or
something is wrong.`),
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.finish(cmd); err != nil {
				return err
			}
			return f.status(cmd)
		},
	}
	f.which(cmd)
	jsonFlag(cmd, &f.asJSON)
	return cmd
}

func (f *phpFlags) status(cmd *cobra.Command) error {
	report, err := f.setup.Status()
	if err != nil {
		return phpError(err)
	}
	out := struct {
		phpsetup.Report
		Daemon string `json:"daemon,omitempty"` // what is wrong with it
	}{Report: report}
	if conn, err := net.DialTimeout("unix", f.setup.Settings.Socket, f.setup.Settings.Timeout); err == nil {
		conn.Close()
	} else if report.Wrappers > 0 {
		out.Daemon = fmt.Sprintf("the daemon cannot be asked, mail goes without a token: %v; %s", err, startHint)
	}
	wrong := report.Problem != "" || out.Daemon != "" || report.Wrappers < len(report.Places)
	table := render.Table{Columns: []render.Column{{Title: "PHP"}, {Title: "RUN AS"}, {Title: "WRAPPER"}, {Title: "PREPEND"}, {Title: "SENDMAIL_PATH", Weight: 2}, {Title: "POOL"}, {Title: "NOTE", Wrap: true, Weight: 2}}}
	for _, p := range report.Places {
		table.Rows = append(table.Rows, []string{p.Version, p.SAPI, yesNo(p.Wrapper), yesNo(p.Prepend), p.SendmailPath, p.Pool, p.Note})
		wrong = wrong || p.Note != ""
	}
	if f.asJSON {
		err = render.JSON(cmd.OutOrStdout(), out)
	} else {
		err = table.Write(cmd.OutOrStdout(), render.PageOf(cmd.OutOrStdout()))
		for _, text := range []string{out.Problem, out.Daemon} {
			if text != "" {
				remark(cmd, "%s", text)
			}
		}
		if len(report.Places) == 0 {
			remark(cmd, "there is no PHP in %s/etc/php", f.setup.Root)
		}
	}
	if err != nil {
		return &exitError{exitCannotTell, err}
	}
	if wrong {
		return &exitError{code: exitFinding}
	}
	return nil
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

func newPHPRemove() *cobra.Command {
	var f phpFlags
	cmd := &cobra.Command{
		Use:   "remove",
		Short: "take the sendmail wrapper and the prepend out of PHP's settings",
		Long: strings.TrimSpace(`
Takes out what relayguard php install put into the settings of PHP: everywhere, or
with --version, --sapi or --pool there only. The settings are then as they were.

The wrapper's and the prepend's own files stay, for PHP runs them until it has read
its settings again: without them mail() or every page would fail. Reload what is
printed, and then take them away with --files.

With --files they stay if a setting still names them, if this same call took one out
of a setting, or if a worker of php-fpm or apache2 began before the settings changed.
That a pool without workers (pm = ondemand) was not reloaded cannot be seen: reload
it first.

Exit status: 0 done, or nothing to do; 1 --files was said, and they stay; 3 it did
not work.`),
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.finish(cmd); err != nil {
				return err
			}
			out, err := f.setup.Remove(f.files)
			for _, path := range out.Files {
				fmt.Fprintln(cmd.OutOrStdout(), render.Escape(path))
			}
			if err != nil {
				return phpError(err)
			}
			sayReload(cmd, out.Reload)
			switch {
			case out.Early != "":
				remark(cmd, "kept %s: %s", strings.Join(out.Kept, ", "), out.Early)
				return &exitError{code: exitFinding}
			case len(out.Kept) > 0:
				remark(cmd, "kept for PHP that runs, take them away with --files after that: %s", strings.Join(out.Kept, ", "))
			case len(out.Files) == 0:
				remark(cmd, "nothing of relayguard is in PHP's settings")
			}
			return nil
		},
	}
	f.which(cmd)
	cmd.Flags().StringVar(&f.setup.Pool, "pool", "", "only out of this pool's `file`")
	cmd.Flags().BoolVar(&f.files, "files", false, "take the wrapper's and the prepend's own files away, too")
	return cmd
}
