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
func (d *Desk) Tighten(_ context.Context, now time.Time, by By, account, reason string) (done string, err error) {
	p, why, err := d.tightening(now, account)
	if err != nil || why != "" {
		return why, err
	}
	p.Kind, p.Reason, p.By, p.Since, p.Until = policy.Probation, reason, by.Name, now, now.Add(probation)
	done = "half of each limit " + until(p)
	d.append(d.audit(now, by, "tighten", d.name(&p), reason, done))
	if _, err = d.Switches.Set(p); err != nil {
		return "", fmt.Errorf("halve the limits of %s: %w", d.name(&p), err)
	}
	d.tell(now, d.name(&p), "the limits of "+d.name(&p)+" halved by "+by.Name)
	return done, nil
}

// WouldTighten does nothing, and says whose limits Tighten would halve; with why it
// would leave them alone. Its errors are those of Tighten.
func (d *Desk) WouldTighten(now time.Time, account string) (whose, why string, err error) {
	p, why, err := d.tightening(now, account)
	if err != nil {
		return "", "", err
	}
	return d.name(&p), why, nil
}

// tightening is whose limits would be halved, or why they would not.
func (d *Desk) tightening(now time.Time, account string) (p policy.Switch, why string, err error) {
	subject, value, err := d.Account(account)
	if err != nil {
		return p, "", err
	}
	about := policy.Switch{Subject: subject, Value: value}
	if name := d.name(&about); d.shared(name) {
		return p, "", fmt.Errorf("halve the limits of %s: %w", name, ErrShared)
	}
	p = d.onProbation(&about, true, false, nil)[0]
	for _, one := range []*policy.Switch{&about, &p} {
		if d.Switches.Find(now, switches.What{Kind: policy.Suspend, Subject: one.Subject, Value: one.Value}) != nil {
			return p, "it is suspended", nil
		}
	}
	if there := d.Switches.Find(now, switches.What{Kind: policy.Probation, Subject: p.Subject, Value: p.Value}); there != nil {
		return p, "its limits are halved already, " + until(*there), nil
	}
	return p, "", nil
}
