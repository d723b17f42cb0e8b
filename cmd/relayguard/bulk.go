package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/policy"
)

// bulkOrder asks for room for one announced mailing.
type bulkOrder struct {
	For    string    `json:"for"`
	Count  int64     `json:"count"`
	Until  time.Time `json:"until"`
	Reason string    `json:"reason"`
}

func newAllowBulk() *cobra.Command {
	var o bulkOrder
	var until deadline
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "bulk ACCOUNT --count N --until DATE",
		Short: "make room for one announced mailing",
		Long: strings.TrimSpace(`
Lets ACCOUNT send to so many recipients beyond its own volume limits, until DATE or
until they are used up: month-end bills, a newsletter. Only what those limits have no
room for is charged to it. Limits of its domain, its
customer and the server, and those against abuse, of bytes or of bounces, count as
ever. What its limits hold already goes first. Announced again, it is replaced.
relayguard allow list lists what is announced, allow remove calls it off, limits show
ACCOUNT says how much of it was used.

` + accountHelp + `

Exit status: 0; 2 usage; 3 cannot tell, or not allowed.`),
		Example: "  relayguard allow bulk billing@example.jp --count 8000 --until 2026-12-01 --reason 'bills of November'",
		Args:    exactly("ACCOUNT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.For, o.Until = args[0], until.Time
			switch {
			case o.Count < 1:
				return usage(cmd, "--count: got %d, want how many recipients", o.Count)
			case o.Until.IsZero():
				return usage(cmd, "--until is missing: say when the mailing is over, such as 2026-12-01 or --for 2d")
			}
			if err := needed(cmd, "reason", o.Reason, "say which mailing, for who finds it later"); err != nil {
				return err
			}
			if err := certain(cmd, args[0]); err != nil {
				return err
			}
			return order(cmd, policy.Bulk, "/v1/bulk", o, asJSON)
		},
	}
	cmd.Flags().Int64Var(&o.Count, "count", 0, "so many `recipients`")
	until.flags(cmd, "then it is over, used up or not")
	cmd.Flags().StringVar(&o.Reason, "reason", "", "which mailing: `text` for the journal")
	jsonFlag(cmd, &asJSON)
	return cmd
}
