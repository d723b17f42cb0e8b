package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/render"
	"relayguard/policy"
)

// paceOrder asks for paced release to stop for an account, or to go on.
type paceOrder struct {
	Account string `json:"account"`
	Stop    bool   `json:"stop"`
	Reason  string `json:"reason"`
}

func newHeldPace() *cobra.Command {
	return group("pace", "see and stop what is let go by itself as budget comes back", `
What only volume limits hold is let go by itself, the oldest first, as there is room
again: not under an open incident of abuse or a suspension, not when too much of it
bounces, and not when it is older than hold.max_age. New mail under the same limit
queues behind it. To stop it, for a complaint came: held pace stop. To hurry it:
relayguard held release, which charges nobody, or more room by limits set or allow
bulk.`,
		newHeldPaceList(), newHeldPaceSwitch(true), newHeldPaceSwitch(false))
}

func newHeldPaceList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "list what waits for budget, and until when",
		Long:    "Lists the lines of held mail, one for each account and limit, that with the oldest\nmessage first. NEXT is when its oldest is asked about again, or why it stands still.\n\nExit status: 0; 2 usage; 3 cannot tell.",
		Example: "  relayguard held pace list",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := get[[]desk.Line](cmd, "/v1/held/lines", nil)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			page := render.PageOf(out)
			switch {
			case asJSON:
				return shown(render.JSON(out, all))
			case len(all) == 0:
				remark(cmd, "nothing waits for budget")
				return nil
			}
			return shown(lineTable(page, time.Now(), all).Write(out, page))
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newHeldPaceSwitch(stop bool) *cobra.Command {
	var o paceOrder
	var asJSON bool
	o.Stop = stop
	use, short, long := "start", "let an account's mail go by itself again", "Takes back relayguard held pace stop."
	if stop {
		use, short, long = "stop", "let nothing of an account go by itself", "What is held of the account stays held until relayguard held pace start, or until an\nadmin releases it. Its new mail goes on as its limits say, behind what waits."
	}
	cmd := &cobra.Command{
		Use:     use + " ACCOUNT",
		Short:   short,
		Long:    strings.TrimSpace(long + "\n\n" + accountHelp + "\n\nExit status: 0; 1 it was so already; 2 usage; 3 cannot tell, or not allowed."),
		Example: "  relayguard held pace " + use + " taro@example.jp --reason 'the list is bought'",
		Args:    exactly("ACCOUNT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Account = args[0]
			if stop {
				if err := needed(cmd, "reason", o.Reason, "say why, for who finds it later"); err != nil {
					return err
				}
			}
			if err := certain(cmd, args[0]); err != nil {
				return err
			}
			return order(cmd, policy.Pause, "/v1/held/pace", o, asJSON)
		},
	}
	cmd.Flags().StringVar(&o.Reason, "reason", "", "why: `text` for the journal")
	jsonFlag(cmd, &asJSON)
	return cmd
}

// lineTable has a line for each account and limit.
func lineTable(page render.Page, now time.Time, all []desk.Line) *render.Table {
	t := &render.Table{Columns: []render.Column{{Title: "ACCOUNT", Min: 16, Weight: 2}, {Title: "LIMIT", Min: 10}, {Title: "WAITING", Right: true, Whole: true}, {Title: "OLDEST", Whole: true}, {Title: "NEXT", Min: 8, Weight: 2}}}
	for _, l := range all {
		next := "soon"
		switch {
		case l.Stopped != "":
			next = "stopped: " + l.Stopped
		case l.NextFree.After(now):
			next = untilFree(page, now, false, l.NextFree)
		}
		oldest := render.Ago(now, l.Oldest)
		if !page.Cut {
			oldest = when(page, l.Oldest)
		}
		t.Rows = append(t.Rows, []string{l.Account, l.Limit, number(l.Waiting), oldest, next})
	}
	return t
}
