package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/render"
)

func newStop() *cobra.Command {
	var reason string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "stop",
		Short: "the red switch: hold all mail to the outside",
		Long: strings.TrimSpace(`
Stops all mail to the outside, at once: new mail is held by the guard, what is in
the queue by the MTA. Mail to the inside is not touched. relayguard start takes it
back.

It works without the daemon, as root: what comes in meanwhile is then put off by
the MTA, and stays stopped when the daemon comes back.

Exit status: 0; 1 it is stopped, but for what is told; 2 usage; 3 it did not work,
or not allowed.`),
		Example: "  relayguard stop --reason 'spam run, source unknown'",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needed(cmd, "reason", reason, "a word is enough: it is shown to everybody who asks"); err != nil {
				return err
			}
			h, err := reachSwitch(cmd)
			if err != nil {
				return err
			}
			defer h.Close()
			out, err := h.Stop(cmd.Context(), stopOrder{Reason: reason})
			if err != nil {
				remarks(cmd, out.Caveats)
				return answerOf(err)
			}
			if asJSON {
				err = render.JSON(cmd.OutOrStdout(), out)
			} else {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "all mail to the outside is stopped\n%s in the queue held with it\n", counted(out.Held, "message"))
				remark(cmd, "relayguard start lets it go again, start --keep all but what is held by then")
			}
			return done(cmd, err, out.Caveats)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why: `text` for the journal and status")
	jsonFlag(cmd, &asJSON)
	return cmd
}
