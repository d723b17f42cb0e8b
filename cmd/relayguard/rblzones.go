package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/render"
	"relayguard/rbl"
	"relayguard/rbl/history"
)

func newRBLZones() *cobra.Command {
	var all, dead, asJSON bool
	cmd := &cobra.Command{
		Use:   "zones",
		Short: "show which blocklists are asked, and which are not and why",
		Long: strings.TrimSpace(`
Shows the lists that are asked, what they list, how much a listing there harms, how
the list was in the daemon's last round, and what its operator's terms are. Those that
somebody may expect to be asked and that are not (for want of a key, by their terms)
are there with the reason; --all shows every list that is known, --dead those that
have closed and must not be asked.

TERMS non-commercial: free for others than businesses; key, account: the operator
gives one; register: the resolver's address is to be registered; N/day: questions.

Exit status: 0; 2 usage, or the configuration names a list that is not known or has
closed; 3 cannot tell.`),
		Example: "  relayguard rbl zones\n  relayguard rbl zones --all --json | jq -r '.zones[] | select(.severity == \"high\") | .zone'\n  relayguard rbl zones --dead",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if all && dead {
				return usage(cmd, "--all and --dead do not go together")
			}
			c, err := commandConfig(cmd)
			if err != nil {
				return err
			}
			a := &asking{}
			if err := a.choose(c); err != nil {
				return &exitError{exitUsage, err}
			}
			if dead {
				return showClosed(cmd, a.table.ClosedLists(), asJSON)
			}
			remarks(cmd, a.warnings)
			return showZones(cmd, rblZones(a, lastStates(cmd), all, c.RBL.Disable), asJSON)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "every list that is known")
	cmd.Flags().BoolVar(&dead, "dead", false, "lists that have closed")
	jsonFlag(cmd, &asJSON)
	return cmd
}

// rblZone is a list, whether it is asked, and how it was.
type rblZone struct {
	rbl.Zone
	Used   bool                `json:"used"`
	Why    string              `json:"why,omitempty"` // it is not used
	States []history.ZoneState `json:"states"`        // by kind, of the daemon's last round

	expected bool // somebody may expect it to be used
}

// lastStates is how lists were in the daemon's last round, by name; nothing where that
// is not known.
func lastStates(cmd *cobra.Command) map[string][]history.ZoneState {
	states := map[string][]history.ZoneState{}
	client, c, err := asker(cmd)
	if err != nil {
		return states
	}
	ctx := cmd.Context()
	var s rblStatus
	if alive(ctx, client, aliveTimeout) == nil {
		err = client.Get(ctx, "/v1/rbl/status", nil, &s)
	} else if h, peekErr := history.Peek(ctx, c.RBLDirectory()); peekErr == nil {
		s.Zones, err = h.Zones(ctx)
		h.Close()
	}
	if err != nil {
		remark(cmd, "how lists were in the last round is not known: %v", err)
	}
	for _, z := range s.Zones {
		states[z.Zone] = append(states[z.Zone], z)
	}
	return states
}

// rblZones are the lists that are asked, then those that are not, by name.
func rblZones(a *asking, states map[string][]history.ZoneState, all bool, disabled []string) []rblZone {
	out := []rblZone{}
	seen := map[string]bool{}
	add := func(z rbl.Zone, used, expected bool, why string) {
		if !seen[z.Name] {
			seen[z.Name] = true
			out = append(out, rblZone{z, used, why, append([]history.ZoneState{}, states[z.Name]...), expected})
		}
	}
	for _, z := range a.zones {
		add(z, true, true, "")
	}
	for _, n := range a.not {
		add(n.Zone, false, true, n.Why)
	}
	if !all {
		return out
	}
	for _, z := range a.table.Zones() {
		why := "off, unless rbl.enable names it"
		switch {
		case slices.Contains(disabled, z.Name):
			why = "rbl.disable names it"
		case z.Default == rbl.Never:
			why = "only where a command names it"
		}
		add(z, false, false, why)
	}
	slices.SortStableFunc(out, func(x, y rblZone) int {
		return cmp.Or(boolOrder(x.Used, y.Used), strings.Compare(x.Name, y.Name))
	})
	return out
}

// boolOrder puts what is so first.
func boolOrder(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func showZones(cmd *cobra.Command, all []rblZone, asJSON bool) error {
	out := cmd.OutOrStdout()
	if asJSON {
		return shown(render.JSON(out, struct {
			Zones []rblZone `json:"zones"`
		}{all}))
	}
	page, used := render.PageOf(out), 0
	t := &render.Table{Columns: []render.Column{{Title: "ZONE", Min: 14, Weight: 2}, {Title: "KINDS", Whole: true}, {Title: "SEVERITY", Whole: true}, {Title: "USED", Whole: true}, {Title: "STATE", Min: 7}}}
	if roomy(page) {
		t.Columns = append(t.Columns, render.Column{Title: "TERMS", Min: 10}, wrapped("WHY NOT"))
	}
	for i := range all {
		z := &all[i]
		row := []string{z.Name, z.kinds(), z.Severity.String(), "no", z.states(), z.terms(), z.Why}
		if z.Used {
			row[3] = "yes"
			used++
		}
		t.Rows = append(t.Rows, row)
	}
	if err := t.Write(out, page); err != nil {
		return shown(err)
	}
	for i := range all {
		if z := &all[i]; z.expected && !z.Used && !roomy(page) {
			remark(cmd, "%s: %s", z.Name, z.Why)
		}
	}
	remark(cmd, "%s asked, %d shown that are not", counted(used, "list"), len(all)-used)
	return nil
}

func (z *rblZone) kinds() string {
	names := make([]string, len(z.Kinds))
	for i, k := range z.Kinds {
		names[i] = k.String()
	}
	return strings.Join(names, ",")
}

// states is how it was: in one word if all its kinds were so.
func (z *rblZone) states() string {
	var all []string
	for _, s := range z.States {
		if word := s.State.String(); !slices.Contains(all, word) {
			all = append(all, word)
		}
	}
	if len(all) < 2 {
		return strings.Join(all, "")
	}
	all = nil
	for _, s := range z.States {
		all = append(all, s.Kind.String()+":"+s.State.String())
	}
	return strings.Join(all, ",")
}

func (z *rblZone) terms() string {
	var all []string
	for word, is := range map[string]bool{"non-commercial": z.Terms.NonCommercial, "register": z.Terms.Register, "account": z.Terms.Account, "key": z.Key != ""} {
		if is {
			all = append(all, word)
		}
	}
	slices.Sort(all)
	if z.Terms.PerDay > 0 {
		all = append(all, fmt.Sprintf("%d/day", z.Terms.PerDay))
	}
	return strings.Join(all, ",")
}

func showClosed(cmd *cobra.Command, all []rbl.Closed, asJSON bool) error {
	out := cmd.OutOrStdout()
	if asJSON {
		return shown(render.JSON(out, struct {
			Closed []rbl.Closed `json:"closed"`
		}{append([]rbl.Closed{}, all...)}))
	}
	t := &render.Table{Columns: []render.Column{{Title: "ZONE", Min: 14, Weight: 2}, {Title: "CLOSED", Min: 10}, wrapped("WHY")}}
	for _, z := range all {
		name := z.Name
		if z.Suffix {
			name = "*." + name
		}
		why := z.Message
		if z.Warn {
			why = "not certain: " + why
		}
		t.Rows = append(t.Rows, []string{name, z.Died, why})
	}
	return shown(t.Write(out, render.PageOf(out)))
}
