package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/render"
	"relayguard/policy"
)

// limitOrder asks for other windows of a limit.
type limitOrder struct {
	Limit   string    `json:"limit"`
	For     string    `json:"for"` // "login:taro@example.jp", "domain:example.jp", "customer:acme", "key:..."
	Windows []string  `json:"windows,omitempty"`
	Burst   string    `json:"burst,omitempty"`
	Until   time.Time `json:"until,omitzero"`
	Reason  string    `json:"reason"`
}

// whoHelp says what limits can be set for.
const whoHelp = `WHO is login:NAME (or a plain login), local_user:NAME, network:NAME, site:NAME,
plugin:NAME, domain:NAME, customer:NAME, or key:VALUE for any other budget as
limits list names it.`

func newLimitsSet() *cobra.Command {
	var o limitOrder
	var windows []string
	var until deadline
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "set LIMIT WHO --windows COUNT/TIME,...",
		Short: "give one account, domain or customer other windows",
		Long: strings.TrimSpace(`
Puts other windows in place of all that the configuration gives LIMIT, its burst
too, for one WHO. It acts at once and outlives a restart; what was used stays used.
What was set before is replaced. Where relays share limits it is for all of them. In
the phase learning windows only tell, and a burst acts: the limit's own without --burst.

` + whoHelp + `
With a domain or a customer each login and site of theirs has these windows by
itself. The narrowest counts: key, plugin, site, account, domain, customer; of two
about the same this order goes before an [[override]] of the configuration.

Exit status: 0; 2 usage; 3 cannot tell, or not allowed.`),
		Example: "  relayguard limits set login-volume taro@example.jp --windows 600/1h,3000/1d --burst 300/10m --until 2026-12-31 --reason 'year-end cards'\n  relayguard limits set login-volume domain:example.jp --windows 100/1h --for 3d --reason 'new customer'",
		Args:    exactly("LIMIT", "WHO"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Limit, o.For, o.Windows, o.Until = args[0], args[1], windows, until.Time
			switch {
			case len(windows) == 0:
				return usage(cmd, `--windows is missing: give them all, such as "600/1h,3000/1d"`)
			case strings.TrimSpace(o.For) == "":
				return usage(cmd, "WHO is empty")
			}
			if err := needed(cmd, "reason", o.Reason, "say why, for who finds it later"); err != nil {
				return err
			}
			return order(cmd, policy.Set, "/v1/limits/set", o, asJSON)
		},
	}
	cmd.Flags().StringSliceVar(&windows, "windows", nil, "how many in which time, as the configuration writes it: 600/1h,3000/1d")
	cmd.Flags().StringVar(&o.Burst, "burst", "", "the short window that acts while learning, too: 300/10m")
	until.flags(cmd, "else until it is unset")
	cmd.Flags().StringVar(&o.Reason, "reason", "", "why: `text` for the journal")
	jsonFlag(cmd, &asJSON)
	return cmd
}

// order gives an order, and shows what came of it.
func order(cmd *cobra.Command, kind policy.SwitchKind, path string, o any, asJSON bool) error {
	all, err := post[[]given](cmd, path, o)
	if err != nil {
		return err
	}
	return showGiven(cmd, kind, all, asJSON)
}

// showGiven shows orders, and what their admin has to know.
func showGiven(cmd *cobra.Command, kind policy.SwitchKind, all []given, asJSON bool) error {
	if asJSON {
		return shown(render.JSON(cmd.OutOrStdout(), all))
	}
	orders := make([]policy.Switch, len(all))
	for i := range all {
		orders[i] = all[i].Switch
	}
	err := showSwitches(cmd, kind, orders)
	for i := range all {
		remarks(cmd, all[i].Remarks)
	}
	return err
}

// showSwitches shows orders as a table.
func showSwitches(cmd *cobra.Command, kind policy.SwitchKind, all []policy.Switch) error {
	out := cmd.OutOrStdout()
	return shown(switchTable(render.PageOf(out), time.Now(), kind, all).Write(out, render.PageOf(out)))
}

func newLimitsUnset() *cobra.Command {
	var o limitOrder
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "unset LIMIT WHO",
		Short: "take back what limits set gave",
		Long: strings.TrimSpace(`
Takes back other windows, so that those of the configuration are in force again.
What was used stays used.

` + whoHelp + `

Exit status: 0; 1 there is none such; 2 usage; 3 cannot tell, or not allowed.`),
		Example: "  relayguard limits unset login-volume taro@example.jp --reason 'the cards are out'",
		Args:    exactly("LIMIT", "WHO"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Limit, o.For = args[0], args[1]
			return order(cmd, policy.Set, "/v1/limits/unset", o, asJSON)
		},
	}
	cmd.Flags().StringVar(&o.Reason, "reason", "", "why: `text` for the journal")
	jsonFlag(cmd, &asJSON)
	return cmd
}

// forgotten are the budgets that limits reset emptied.
type forgotten struct {
	Reset []bucketShown `json:"reset"` // as they were
}

func newLimitsReset() *cobra.Command {
	var o limitOrder
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "reset WHO",
		Short: "forget what an account has used of its limits",
		Long: strings.TrimSpace(`
Empties the budgets of WHO, of all limits or of the one that --limit names, as if
it had sent nothing. A shut one is opened. Held mail that waits for room goes as far
as there is room now; other held mail stays held.

WHO is an account (login:NAME or a plain login, local_user:NAME, network:NAME) or any
other budget as limits list names it: machine:ADDRESS, domain:NAME, server. Budgets
that count it together with something else are emptied, too.

Exit status: 0; 1 nothing was used; 2 usage; 3 cannot tell, or not allowed.`),
		Example: "  relayguard limits reset taro@example.jp --limit login-volume --reason 'password changed'",
		Args:    exactly("WHO"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.For = args[0]
			if strings.TrimSpace(o.For) == "" {
				return usage(cmd, "WHO is empty")
			}
			if err := needed(cmd, "reason", o.Reason, "say why, for who finds it later"); err != nil {
				return err
			}
			f, err := post[forgotten](cmd, "/v1/limits/reset", o)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			switch {
			case asJSON:
				err = render.JSON(out, f)
			case len(f.Reset) > 0:
				err = bucketTable(render.PageOf(out), time.Now(), f.Reset).Write(out, render.PageOf(out))
			}
			if err == nil && len(f.Reset) == 0 {
				remark(cmd, "nothing was used")
				return &exitError{code: exitFinding}
			}
			return shown(err)
		},
	}
	cmd.Flags().StringVar(&o.Limit, "limit", "", "only of this `limit`")
	cmd.Flags().StringVar(&o.Reason, "reason", "", "why: `text` for the journal")
	jsonFlag(cmd, &asJSON)
	return cmd
}
