package desk

import (
	"context"
	"time"

	"relayguard/policy"
)

// Arrived carries out here what another relay's admin ordered. The order itself
// is in force already, and journaled where it was given.
func (d *Desk) Arrived(ctx context.Context, s policy.Switch) {
	if s.Kind != policy.Suspend {
		d.Hurry()
		return
	}
	now, by, account := time.Now(), By{Name: s.By, UID: -1, LoginUID: -1}, d.name(&s)
	d.append(d.audit(now, by, "suspend", account, s.Reason, "ordered on another relay, "+until(s)))
	if s.Subject == policy.SubjectLocalUser {
		if _, err := d.forbidSubmit(ctx, s.Value); err != nil {
			d.Log.Error("suspended on another relay: sendmail(1) still takes its mail here, which is held instead", "account", account, "error", err)
		}
	}
	d.tell(now, account, "suspended "+account+" by "+s.By+" on another relay")
	held, err := d.holdQueued(ctx, now, by, account, "suspended: "+s.Reason)
	if err != nil {
		d.Log.Error("suspended on another relay: not all of its mail in the queue here is held", "account", account, "error", err)
	}
	d.Log.Info("suspended on another relay", "account", account, "held", held)
}

// Departed ends here what another relay's admin took back.
func (d *Desk) Departed(ctx context.Context, s policy.Switch) {
	d.Hurry()
	if s.Kind != policy.Suspend {
		return
	}
	now, account := time.Now(), d.name(&s)
	d.append(d.audit(now, By{Name: s.By, UID: -1, LoginUID: -1}, "resume", account, s.Reason, "ordered on another relay"))
	if s.Subject == policy.SubjectLocalUser && !d.suspendedAgain(now, &s) {
		if err := d.allowSubmit(ctx, s.Value); err != nil {
			d.Log.Error("resumed on another relay: sendmail(1) still refuses its mail here", "account", account, "error", err)
		}
	}
	d.tell(now, account, "resumed "+account+" on another relay")
	d.Log.Info("resumed on another relay", "account", account)
}
