package wordpress_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"relayguard/systemtest/relay"
)

// errand is something harmless that a visitor does, and the address that mail
// has to reach because of it, whatever else happens.
type errand struct {
	what string
	to   string
	do   func(context.Context) error
}

// rounds is how often the visitors of a site do something during an attack.
const rounds = 4

// customers are the accounts of every site, by login, two for each round.
var customers = [rounds][2]string{{"hanako", "jiro"}, {"saburo", "yoshiko"}, {"goro", "michiko"}, {"kenji", "naomi"}}

// everyday is what visitors of a site do in a round: customers forgot their
// passwords, somebody writes to the owner.
func (s *site) everyday(round int) []errand {
	var all []errand
	for _, customer := range customers[round] {
		all = append(all, errand{"new password at " + s.name, customer + "@customers-of-" + s.name, func(ctx context.Context) error { return s.forgot(ctx, customer) }})
	}
	return append(all, errand{"contact form of " + s.name, s.owner(), func(ctx context.Context) error {
		return s.contact(ctx, fmt.Sprintf("Is your shop open on holiday %d?", round))
	}})
}

// friendly are two visitors a round who do share the post with a friend.
func (s *site) friendly(round int) []errand {
	var all []errand
	for _, who := range strangers("friend-of-"+s.name, 2*rounds)[2*round : 2*round+2] {
		all = append(all, errand{"share button of " + s.name, who.to, func(ctx context.Context) error {
			if ok, err := s.share(ctx, who); err != nil || !ok {
				return fmt.Errorf("%s: share to %s: handed over %t, %w", s.name, who.to, ok, err)
			}
			return nil
		}})
	}
	return all
}

// run does them, one after the other.
func run(ctx context.Context, errands []errand) error {
	for _, e := range errands {
		if err := e.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", e.what, err)
		}
	}
	return nil
}

// wantErrands waits until the mail of all errands arrived.
func wantErrands(t *testing.T, r *relay.Relay, all []errand) {
	t.Helper()
	ctx := soon(t)
	want := make(map[string]int)
	for _, e := range all {
		want[e.to]++
	}
	for _, e := range all {
		if count := want[e.to]; count > 0 {
			delete(want, e.to)
			wantArrived(t, ctx, r, e, count)
		}
	}
}

// wantArrived waits until at least that many mails of an errand left the house,
// or enough of them are held.
func wantArrived(t *testing.T, ctx context.Context, r *relay.Relay, e errand, count int) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		arrived := len(r.Sink.To(e.to))
		if arrived >= count {
			return
		}
		queue, err := r.QueueList(ctx)
		held := 0
		for _, q := range queue {
			if q.QueueName == "hold" && q.To(e.to) {
				held++
			}
		}
		if err != nil || arrived+held >= count || ctx.Err() != nil {
			t.Errorf("%s: %d mails to %s arrived, want %d; %d are held", e.what, arrived, e.to, count, held)
			return
		}
		<-tick.C
	}
}
