package desk

import (
	"context"
	"errors"
	"fmt"

	"time"

	"relayguard/cmd/internal/switches"
	"relayguard/policy"
)

// ErrShared: many send as it, and they are not to pay for one of them.
var ErrShared = errors.New("many share it")

// Tighten halves each limit of an account, a site, or the site of a plugin for a week,
// as a resume does. What is suspended or on probation already stays as it is. An
// account that many share is left alone: ErrShared.
func (d *Desk) Tighten(ctx context.Context, now time.Time, by By, account, reason string) (done string, err error) {
	subject, value, err := d.Account(account)
	if err != nil {
		return "", err
	}
	about := policy.Switch{Subject: subject, Value: value}
	name := d.name(&about)
	if d.shared(name) {
		return "", fmt.Errorf("halve the limits of %s: %w", name, ErrShared)
	}
	for _, p := range d.onProbation(&about, true, false, nil) {
		if there := d.Switches.Find(now, switches.What{Kind: policy.Suspend, Subject: p.Subject, Value: p.Value}); there != nil {
			return "it is suspended", nil
		}
		if there := d.Switches.Find(now, switches.What{Kind: policy.Probation, Subject: p.Subject, Value: p.Value}); there != nil {
			return "its limits are halved already, " + until(*there), nil
		}
		p.Kind, p.Reason, p.By, p.Since, p.Until = policy.Probation, reason, by.Name, now, now.Add(probation)
		if p, err = d.Switches.Set(p); err != nil {
			return "", err
		}
		done = "half of each limit " + until(p)
		d.append(d.audit(now, by, "tighten", d.name(&p), reason, done))
	}
	d.tell(now, name, "the limits of "+name+" halved by "+by.Name)
	return done, nil
}
