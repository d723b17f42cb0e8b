package desk_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"relayguard/cmd/internal/queue"
)

// Review 2, finding 5: what the MTA stops without an order of ours is told.
func TestReconcileTellsWhatTheMTAStops(t *testing.T) {
	s := open(t)
	stop := func() string { return s.d.MTAStopped(t.Context(), s.now).Stop }
	s.reconcile()
	if got := stop(); got != "" {
		t.Errorf("all is well: %q", got)
	}
	s.mta.set(func() { s.mta.stopped = true })
	s.reconcile()
	if got := stop(); !strings.Contains(got, "still stops") || !strings.Contains(got, "relayguard start") {
		t.Errorf("stopped without a switch: %q", got)
	}
	if n := strings.Count(s.log.String(), "do not agree"); n != 1 {
		t.Errorf("told %d times, want once:\n%s", n, s.log)
	}
	s.mta.before["status"] = func() error { return errors.New("root helper not reachable") }
	if got := stop(); got == "" {
		t.Error("forgotten, for nobody could be asked")
	}
	s.mta.before = map[string]func() error{}
	s.mta.set(func() { s.mta.stopped = false })
	if got := stop(); got != "" {
		t.Errorf("mended, and told until the next look: %q", got)
	}

	if _, err := s.d.Stop(t.Context(), s.now, admin, "outbreak"); err != nil {
		t.Fatal(err)
	}
	s.reconcile()
	if got := stop(); got != "" {
		t.Errorf("stopped in order: %q", got)
	}
	s.mta.set(func() { s.mta.stopGone = []string{"default_transport"} })
	s.reconcile()
	if got := stop(); !strings.Contains(got, "default_transport") || !strings.Contains(got, "relayguard stop") {
		t.Errorf("changed during a stop: %q", got)
	}
	s.mta.set(func() { s.mta.stopped = false })
	if got := stop(); !strings.Contains(got, "the MTA does not stop") {
		t.Errorf("our switch alone: %q", got)
	}
}

func TestReconcileTellsWhoseSendmailIsForbidden(t *testing.T) {
	s := open(t)
	forbidden := func() []string { return s.d.MTAStopped(t.Context(), s.now).Forbidden }
	s.suspend("local_user:deploy")
	s.reconcile()
	if got := forbidden(); len(got) > 0 {
		t.Errorf("suspended: %q", got)
	}
	s.mta.set(func() { s.mta.forbidden["games"] = true })
	s.reconcile()
	if got := forbidden(); !slices.Equal(got, []string{"games"}) {
		t.Errorf("got %q", got)
	}
}

// A helper of before that does not know the verb, or one that does not answer,
// is no reason not to look at the queue.
func TestReconcileGoesOnWithoutStatus(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1")
	s.mta.before["status"] = func() error { return queue.ErrUnsure }
	s.reconcile()
	s.reconcile()
	if _, problem := s.d.Looked(); problem != "" {
		t.Error(problem)
	}
	s.wantRoom(1)
}
