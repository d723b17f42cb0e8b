// Command relayguard guards a shared mail relay: see the manual pages that it
// writes itself with "relayguard man DIR".
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/wrapper"
)

// version is set by the build.
var version = "dev"

// Exit codes, the same for every command.
const (
	exitFine       = 0
	exitFinding    = 1 // refused, listed, changed, wrong
	exitUsage      = 2 // the command line or the configuration
	exitCannotTell = 3
)

// exitError carries an exit code. Without an error inside, the command has said
// already what there was to say.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func main() {
	if filepath.Base(os.Args[0]) == wrapper.Name {
		os.Exit(sendmailMain(os.Args[1:]))
	}
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// run is main with everything that it touches as arguments.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if len(args) == 0 {
		root.SetArgs([]string{"--help"})
		root.SetOut(stderr)
		root.ExecuteContext(ctx)
		return exitUsage
	}
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitFine
	}
	var exit *exitError
	if !errors.As(err, &exit) {
		// cobra's own: flags, arguments, commands, with a hint on lines of its own
		text := strings.Replace(strings.Join(strings.Fields(err.Error()), " "), " Did you mean this? ", "; did you mean: ", 1)
		exit = &exitError{exitUsage, fmt.Errorf("%s; see: relayguard --help", text)}
	}
	if exit.err != nil {
		tell(stderr, exit.err)
	}
	return exit.code
}

// tell prints an error; several, such as those of a configuration, have a line
// each.
func tell(w io.Writer, err error) {
	var problems config.Errors
	if errors.As(err, &problems) {
		for _, p := range problems {
			fmt.Fprintln(w, p)
		}
		return
	}
	for line := range strings.SplitSeq(err.Error(), "\n") { // errors.Join has one a line
		fmt.Fprintln(w, "relayguard:", line)
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "relayguard COMMAND",
		Short: "abuse guard for shared mail relays",
		Long: strings.TrimSpace(`
relayguard sits on the milter socket of a mail relay that many people and web
sites share. It lets out only mail whose sender is known and sends no more than
its limits allow; the rest waits in the MTA's hold queue or is refused. Of each
stop it says why; of what waits an admin says what becomes of it.

At 3 a.m.: status, explain ID, held list, suspend ACCOUNT, and if all else fails
stop.

Data goes to standard output, remarks to standard error.
Exit status: 0 fine, 1 a finding, 2 usage or configuration, 3 cannot tell.`),
		Version:           version,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true // make install puts its scripts in place
	root.SetVersionTemplate("relayguard {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &exitError{exitUsage, fmt.Errorf("%w; see: %s --help", err, cmd.CommandPath())}
	})
	root.PersistentFlags().StringP("config", "c", config.DefaultPath, "configuration `file`")
	root.AddCommand(newServe(), newCheck(), newSetup(), newMan(),
		newStatus(), newExplain(), newDecisions(), newHeld(), newQueue(), newSuspend(), newResume(), newStop(), newStart(),
		newPHP(), newWordPress(), newDeny(), newAllow(), newLimits(), newReplay(), newMetrics(), newIncident(), newOrigins(), newNotice(), newForwards(), newRBL(), newReport(), newJournal(), newQueueHelper(), newWatchHelper())
	return root
}

// noArgs is cobra.NoArgs in words for people.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return &exitError{exitUsage, fmt.Errorf("%s takes no argument %q; see: %s --help", cmd.CommandPath(), args[0], cmd.CommandPath())}
}

// loadConfig reads the file that --config names. A missing file at the default
// place means the defaults; one that was asked for must be there.
func loadConfig(cmd *cobra.Command) (*config.Config, string, error) {
	path, err := cmd.Flags().GetString("config")
	if err != nil {
		return nil, "", err
	}
	c, err := config.Load(path)
	if errors.Is(err, os.ErrNotExist) && !cmd.Flags().Changed("config") {
		return config.Default(), path, nil
	}
	if err != nil {
		return nil, path, &exitError{exitUsage, err}
	}
	return c, path, nil
}
