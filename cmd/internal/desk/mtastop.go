package desk

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"relayguard/cmd/internal/queue"
	"relayguard/policy"
)

// Standing is where the MTA's settings do not go with the switches.
type Standing struct {
	Stop      string   // the red switch; "" if it goes with ours
	Forbidden []string // accounts that sendmail(1) refuses and that are not suspended
}

func (s *Standing) well() bool { return s.Stop == "" && len(s.Forbidden) == 0 }

// Compare tells where what the MTA stops does not go with the switches in force.
// UserName is the name of a Unix account, "" if it has none; node is this guard's
// name if it is a web node.
func Compare(mta *queue.Status, all []policy.Switch, node string, userName func(uid int) string) Standing {
	var out Standing
	pulled, suspended := false, map[string]bool{}
	for _, s := range all {
		pulled = pulled || s.Kind == policy.Stop
		if uid, here := accountHere(s.Value, node); s.Kind == policy.Suspend && s.Subject == policy.SubjectLocalUser && here {
			suspended[userName(uid)] = true
		}
	}
	switch stop := &mta.Stop; {
	case stop.Stopped && !pulled:
		out.Stop = fmt.Sprintf("the MTA still stops all mail to the outside, since %s, though the red switch is not pulled; relayguard start ends that", stop.Since.UTC().Format(time.RFC3339))
	case pulled && !stop.Stopped:
		out.Stop = "the red switch is pulled, and the MTA does not stop what is in its queue; relayguard stop does it again"
	case stop.Stopped && len(stop.Missing) > 0:
		out.Stop = fmt.Sprintf("the MTA's settings that stop mail to the outside were changed since (%s), so it may go out; relayguard stop sets them again", strings.Join(stop.Missing, ", "))
	}
	for _, name := range mta.Forbidden {
		if !suspended[name] {
			out.Forbidden = append(out.Forbidden, name)
		}
	}
	slices.Sort(out.Forbidden)
	return out
}

// standingWait bounds how long the MTA is asked what it stops.
const standingWait = 5 * time.Second

// lookAtStop asks what the MTA stops, and keeps what does not go with the
// switches. What cannot be asked leaves the last answer.
func (d *Desk) lookAtStop(ctx context.Context, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, standingWait)
	defer cancel()
	status, err := d.Queue.Status(ctx)
	if err != nil {
		d.tellOnce("mta status", "what the MTA stops is not known", "error", err)
		return
	}
	d.mended("mta status")
	found := Compare(&status, d.Switches.All(now), d.ownNode(), d.UserName)
	d.mu.Lock()
	before := d.standing
	d.standing = found
	d.mu.Unlock()
	if found.Stop != "" && found.Stop != before.Stop {
		d.Log.Error("the red switch of the MTA and ours do not agree", "why", found.Stop)
	}
	if len(found.Forbidden) > 0 && !slices.Equal(found.Forbidden, before.Forbidden) {
		d.Log.Warn("sendmail(1) refuses accounts that are not suspended", "accounts", strings.Join(found.Forbidden, " "))
	}
}

// MTAStopped tells where the MTA's settings did not go with the switches when it
// was last asked, by Reconcile. Before it says so the MTA is asked once more:
// somebody may have mended it, or an order was half done.
func (d *Desk) MTAStopped(ctx context.Context, now time.Time) Standing {
	kept := func() Standing {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.standing
	}
	if s := kept(); s.well() {
		return s
	}
	d.lookAtStop(ctx, now)
	return kept()
}
