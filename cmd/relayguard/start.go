package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/render"
	"relayguard/policy"
)

func newStart() *cobra.Command {
	var reason string
	var keep, asJSON bool
	cmd := &cobra.Command{
		Use:   "start",
		Short: "take the red switch back",
		Long: strings.TrimSpace(`
Lets mail to the outside go again after relayguard stop, and releases what that
held. With --keep it stays held, to be looked at: relayguard held list --rule
kept. It does not start the daemon; that is: systemctl start relayguard.

It works without the daemon, as root.

Exit status: 0, also if nothing was stopped; 1 something that was held could not
be released, or what else is told; 2 usage; 3 it did not work, or not allowed.`),
		Example: "  relayguard start --keep --reason 'the account is suspended'",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := reachSwitch(cmd)
			if err != nil {
				return err
			}
			defer h.Close()
			out, err := h.Start(cmd.Context(), stopOrder{Reason: reason, Keep: keep})
			if err != nil {
				remarks(cmd, out.Remarks)
				return answerOf(err)
			}
			if asJSON {
				err = render.JSON(cmd.OutOrStdout(), out)
			} else {
				err = writeStarted(cmd, &out)
			}
			if err := done(cmd, err, out.Remarks); err != nil {
				return err
			}
			if out.Released["failed"] > 0 {
				return &exitError{code: exitFinding}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "what is held stays held")
	cmd.Flags().StringVar(&reason, "reason", "", "why: `text` for the journal")
	jsonFlag(cmd, &asJSON)
	return cmd
}

func writeStarted(cmd *cobra.Command, s *desk.Started) error {
	if !s.Was {
		remark(cmd, "the red switch was not pulled")
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "mail to the outside goes\n%s that it held released\n", counted(s.Released["done"], "message"))
	if n := s.Released["failed"]; n > 0 {
		remark(cmd, "%s could not be released; relayguard held list --rule %s", counted(n, "message"), policy.RuleStopped)
	}
	if s.Withheld > 0 {
		remark(cmd, "%s of suspended accounts stay held; relayguard held list --rule %s", counted(s.Withheld, "message"), policy.RuleSuspended)
	}
	if n := s.Kept - s.Withheld; n > 0 {
		remark(cmd, "%s stay held; relayguard held list", counted(n, "message"))
	}
	return err
}
