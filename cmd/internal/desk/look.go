package desk

import (
	"context"
	"strconv"
	"strings"
	"time"

	"relayguard/journal"
	"relayguard/policy"
	"relayguard/policy/origin"
)

// Explain tells all that is known under the id of a decision or of a message in
// the MTA's queue; several things if a queue id was used again, the newest
// first.
func (d *Desk) Explain(ctx context.Context, now time.Time, id string) ([]Explanation, error) {
	all, err := d.Journal.Explain(ctx, id)
	if err != nil {
		return nil, err
	}
	out := make([]Explanation, len(all))
	for i := range all {
		out[i] = explanationOf(&all[i])
		out[i].Suspended = d.suspension(now, &all[i].Decision)
	}
	return out, nil
}

// suspension is that of a decision's account, if there is one now.
func (d *Desk) suspension(now time.Time, j *journal.Decision) *policy.Switch {
	o := origin.Origin{UID: j.UID}
	if j.ID == "" {
		return nil
	}
	o.Login.Value, o.LocalUser.Value, o.Network.Value = j.Login, j.LocalUser, j.Network
	o.Site.Value, o.Plugin.Value, o.Node.Value = j.Site, j.Plugin, j.Node
	if uid, _, on := strings.Cut(d.nodeID(j.LocalUser), "@"); on {
		o.NodeUID, _ = strconv.Atoi(uid)
	} else {
		o.NodeUID = origin.NoUID
	}
	board := d.Switches.All(now)
	return policy.NewSwitches(board).Suspended(now, &o)
}

// Decisions searches the journal, the newest first.
func (d *Desk) Decisions(ctx context.Context, q journal.Query) ([]Decision, error) {
	all, err := d.Journal.Decisions(ctx, q)
	if err != nil {
		return nil, err
	}
	out := make([]Decision, len(all))
	for i := range all {
		out[i] = decisionOf(&all[i])
	}
	return out, nil
}
