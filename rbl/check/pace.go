package check

import (
	"context"
	"time"
)

// usualRate is how many questions a second an operator gets whose terms say nothing.
const usualRate = 50

// aroundEvery is the time between two questions of a look around to one zone: nobody
// waits for it.
const aroundEvery = 250 * time.Millisecond

// pace spaces what goes to one place in time. It waits by the machine's clock, not by
// Options.Now.
type pace struct {
	turn chan struct{} // taken by who is next; no Mutex: it is held while waiting
	sent []time.Time   // the newest, at most usualRate; by who has the turn
}

func newPace() *pace { return &pace{turn: make(chan struct{}, 1)} }

// enter waits until one more question keeps within so many in so long. Then it is the
// caller's turn until it calls leave, unless there is an error: that of ctx.
func (p *pace) enter(ctx context.Context, so int, long time.Duration) error {
	if err := take(ctx, p.turn); err != nil {
		return err
	}
	if len(p.sent) < so {
		return nil
	}
	due := time.NewTimer(time.Until(p.sent[len(p.sent)-so].Add(long)))
	defer due.Stop()
	select {
	case <-due.C:
		return nil
	case <-ctx.Done():
		p.leave(false)
		return ctx.Err()
	}
}

// leave ends the turn; sent: a question is about to be sent.
func (p *pace) leave(sent bool) {
	if sent {
		if len(p.sent) == usualRate {
			p.sent = append(p.sent[:0], p.sent[1:]...)
		}
		p.sent = append(p.sent, time.Now())
	}
	<-p.turn
}

// within is a rate as so many in so long: in no second are there more.
func within(perSecond float64) (so int, long time.Duration) {
	so = int(min(max(perSecond, 1), usualRate))
	return so, time.Duration(float64(so) / perSecond * float64(time.Second))
}

// operator is what all zones of one share: they together are asked at a pace.
type operator struct {
	*pace
	rates map[string]float64 // what the terms say, by zone; by Checker.mu
}

// whose is who is asked by a zone: its operator, or nobody but itself.
type whose struct{ operator, zone string }

// rate is the least of what the terms of its zones say.
func (o *operator) rate() float64 {
	if len(o.rates) == 0 {
		return usualRate
	}
	least := 0.0
	for _, rate := range o.rates {
		if least == 0 || rate < least {
			least = rate
		}
	}
	return least
}
