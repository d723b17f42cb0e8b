package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/render"
)

func newResume() *cobra.Command {
	var cause string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "resume ACCOUNT",
		Short: "let an account send again",
		Long: strings.TrimSpace(`
Ends an account's suspension and opens the abuse limits that are shut for it. For
seven days it is on probation: half of each limit. What was shut counts from nothing
again; of other limits what was used stays used. What of its mail is held stays held
until somebody has looked at it; the command that releases it is told.

Of an account that local.shared_users names, all texts of its mail that are shut are
opened, and all plugins that its incidents name. Not the account is on probation for
them, but each site whose plugin it was.

ACCOUNT may also be a budget that is nobody's account, as limits list names it, such
as template:NAME, machine:ADDRESS or server: then what is shut of it is opened, and
there is no probation.

` + placeHelp + `

Exit status: 0; 1 it was not suspended and no limit shut, or something did not
work; 2 usage; 3 cannot tell, or not allowed.`),
		Example: "  relayguard resume taro@example.jp --cause 'stolen password, changed'",
		Args:    exactly("ACCOUNT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needed(cmd, "cause", cause, "say what had been wrong, and is mended"); err != nil {
				return err
			}
			if err := certain(cmd, args[0]); err != nil {
				return err
			}
			out, err := post[desk.Resumed](cmd, "/v1/resume", desk.Resumption{Account: args[0], Cause: cause})
			if err != nil {
				return err
			}
			if asJSON {
				err = render.JSON(cmd.OutOrStdout(), out)
			} else {
				err = writeResumed(cmd, &out)
			}
			if err := done(cmd, err, out.Remarks); err != nil {
				return err
			}
			if !out.Was && len(out.Opened) == 0 {
				return &exitError{code: exitFinding}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&cause, "cause", "", "what had been wrong, and is mended: `text` for the journal")
	jsonFlag(cmd, &asJSON)
	return cmd
}

func writeResumed(cmd *cobra.Command, r *desk.Resumed) error {
	l := pairList{}
	if r.Was {
		l.add("resumed", "%s", r.Account)
	} else {
		l.add("not suspended", "%s", r.Account)
	}
	l.known("opened", strings.Join(r.Opened, ", "))
	l.known("probation", r.Probation)
	l.known("counts", r.Note)
	l.add("still held", "%s", counted(r.Held, "message"))
	if err := render.PageOf(cmd.OutOrStdout()).Pairs(cmd.OutOrStdout(), l); err != nil {
		return err
	}
	if r.Held > 0 {
		account := shellWord(r.Account, "ACCOUNT")
		fmt.Fprintf(cmd.ErrOrStderr(), "look: relayguard held list --account %s\nrelease: relayguard held release --account %s\n", account, account)
	}
	return nil
}
