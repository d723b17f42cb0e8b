package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/render"
)

// commandConfig is the configuration for a command that needs little more of it
// than the daemon's socket: a file that is wrong, or that this account may not
// read, does not keep anybody from it. One that was asked for must be right.
func commandConfig(cmd *cobra.Command) (*config.Config, error) {
	c, path, err := loadConfig(cmd)
	if err == nil || cmd.Flags().Changed("config") {
		return c, err
	}
	if !errors.Is(err, fs.ErrPermission) {
		remark(cmd, "%s has faults (see: relayguard check); going by the defaults", path)
	}
	return config.Default(), nil
}

// asker asks the daemon for a command.
func asker(cmd *cobra.Command) (*control.Client, *config.Config, error) {
	c, err := commandConfig(cmd)
	if err != nil {
		return nil, nil, err
	}
	return control.NewClient(c.Control.Socket), c, nil
}

// get asks the daemon for something to look at.
func get[T any](cmd *cobra.Command, path string, query url.Values) (out T, err error) {
	client, _, err := asker(cmd)
	if err == nil {
		err = answerOf(client.Get(cmd.Context(), path, query, &out))
	}
	return out, err
}

// post asks the daemon to do something.
func post[T any](cmd *cobra.Command, path string, in any) (out T, err error) {
	client, _, err := asker(cmd)
	if err == nil {
		err = answerOf(client.Post(cmd.Context(), path, in, &out))
	}
	return out, err
}

// startHint is what helps against control.ErrDead.
const startHint = "start it: systemctl start relayguard"

// answerOf gives an error the exit code that fits it. What the daemon says may
// have something of a stranger's in it.
func answerOf(err error) error {
	var answer *control.Error
	code := exitCannotTell
	switch {
	case err == nil:
		return nil
	case errors.Is(err, desk.ErrUsage):
		code = exitUsage
	case errors.Is(err, desk.ErrNotHeld), errors.Is(err, desk.ErrNoSwitch):
		code = exitFinding
	case errors.Is(err, control.ErrDead):
		return &exitError{code, fmt.Errorf("%w; %s", err, startHint)}
	case errors.As(err, &answer) && answer.Status/100 == 4:
		code = map[int]int{400: exitUsage, 404: exitFinding}[answer.Status]
		if code == exitFine {
			code = exitCannotTell
		}
	}
	return &exitError{code, &escapedError{err}}
}

// escapedError is an error in words that a terminal can be shown.
type escapedError struct{ error }

func (e *escapedError) Error() string {
	lines := strings.Split(e.error.Error(), "\n") // errors.Join has one a line
	for i := range lines {
		lines[i] = render.Escape(lines[i])
	}
	return strings.Join(lines, "\n")
}

func (e *escapedError) Unwrap() error { return e.error }

// aliveTimeout is how long the daemon may take to say that it is there: it does
// so from memory.
const aliveTimeout = 5 * time.Second

// errSilent says that something has the daemon's socket and says nothing.
var errSilent = errors.New("the daemon runs, but does not answer")

// alive asks whether the daemon answers: nil, control.ErrDead, errSilent, or
// another reason why it cannot be asked.
func alive(ctx context.Context, client *control.Client, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var any []struct{}
	err := client.Get(ctx, "/v1/switches", nil, &any)
	var answer *control.Error
	switch {
	case errors.As(err, &answer): // a refusal is an answer
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w within %v", errSilent, within)
	}
	return err
}

// isRoot reports whether this process may do without the daemon.
func isRoot() bool { return os.Geteuid() == 0 }

// remark tells something beside the data.
func remark(cmd *cobra.Command, format string, args ...any) {
	fmt.Fprintln(cmd.ErrOrStderr(), render.Escape(fmt.Sprintf(format, args...)))
}

// remarks are several, as the daemon gave them.
func remarks(cmd *cobra.Command, all []string) {
	for _, r := range all {
		remark(cmd, "%s", r)
	}
}

// group is a command that only has others below it.
func group(use, short, long string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use + " COMMAND",
		Short: short,
		Long:  strings.TrimSpace(long),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &exitError{exitUsage, fmt.Errorf("%s has no command %q; see: %s --help", cmd.CommandPath(), args[0], cmd.CommandPath())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SetOut(cmd.ErrOrStderr())
			cmd.Help()
			return &exitError{code: exitUsage}
		},
	}
	cmd.AddCommand(subs...)
	return cmd
}

// exactly is cobra.ExactArgs in words for people; names are the arguments.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usage(cmd, "%s is missing", strings.Join(names[len(args):], " and "))
		case len(args) > len(names):
			return usage(cmd, "%q is one argument too many", args[len(names)])
		}
		return nil
	}
}

// atMost is cobra.MaximumNArgs(1) in words for people.
func atMost(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usage(cmd, "%q is one argument too many: only one %s", args[1], name)
		}
		return nil
	}
}

// usage is an error about the command line.
func usage(cmd *cobra.Command, format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf("%s: %s; see: %s --help", cmd.CommandPath(), fmt.Sprintf(format, args...), cmd.CommandPath())}
}

// needed says that a flag that must say why says nothing.
func needed(cmd *cobra.Command, flag, value, what string) error {
	if strings.TrimSpace(value) == "" {
		return usage(cmd, "--%s is missing: %s", flag, what)
	}
	return nil
}

// jsonFlag adds --json.
func jsonFlag(cmd *cobra.Command, asJSON *bool) {
	cmd.Flags().BoolVar(asJSON, "json", false, "print JSON")
}

// accountOf is an account as the journal names it. A name without a kind is a
// login.
func accountOf(name string) string {
	kind, value, found := strings.Cut(name, ":")
	switch {
	case name == "" || name == "unknown" || found && kind != "login":
		return name
	case found:
		return kind + ":" + strings.ToLower(value)
	}
	return "login:" + strings.ToLower(name)
}
