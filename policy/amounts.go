package policy

import (
	"fmt"
	"slices"
	"time"

	"relayguard/policy/limit"
)

const (
	maxBulk     = 1_000_000_000        // recipients that a bulk order may allow
	maxBulkTerm = 400 * 24 * time.Hour // the longest window that its bucket can have
)

// checkAmounts says what is wrong with how much a switch allows.
func (s *Switch) checkAmounts() error {
	switch {
	case s.Kind == Set:
		if err := windowsFit(s.Windows); err != nil {
			return fmt.Errorf("set %s %s: %w", s.Subject, s.Rule, err)
		}
	case len(s.Windows) > 0:
		return fmt.Errorf("%s %s: found %d windows, want none: only set has them", s.Kind, s.Subject, len(s.Windows))
	}
	switch {
	case s.Kind != Bulk && s.Count != 0:
		return fmt.Errorf("%s %s: found count %d, want none: only bulk has one", s.Kind, s.Subject, s.Count)
	case s.Kind != Bulk:
	case s.Count < 1 || s.Count > maxBulk:
		return fmt.Errorf("bulk %s: found count %d, want 1 to %d recipients", s.Subject, s.Count, maxBulk)
	case s.Until.IsZero():
		return fmt.Errorf("bulk %s: found no end, want one: what is not used by then is gone", s.Subject)
	case s.Since.IsZero(): // it has not begun
	case s.Until.Sub(s.Since) > maxBulkTerm || !s.Until.After(s.Since):
		return fmt.Errorf("bulk %s: found a term from %s to %s, want at most 400 days", s.Subject, s.Since.Format(time.RFC3339), s.Until.Format(time.RFC3339))
	}
	return nil
}

// windowsFit says what is wrong with windows that replace a limit's.
func windowsFit(windows []limit.Window) error {
	if len(windows) < 1 || len(windows) > limit.MaxWindows {
		return fmt.Errorf("found %d windows, want 1 to %d; allow lifts a limit", len(windows), limit.MaxWindows)
	}
	for i, w := range windows {
		if _, err := limit.NewWindow(w.Count, w.Length, w.Soft); err != nil {
			return err
		}
		if slices.ContainsFunc(windows[:i], func(o limit.Window) bool { return o.Length == w.Length }) {
			return fmt.Errorf("found two windows of %s, want different lengths", w.Length)
		}
		if w.Burst && slices.ContainsFunc(windows, func(o limit.Window) bool { return o.Length < w.Length }) {
			return fmt.Errorf("found a burst of %s, want the shortest of the windows for it", w.Length)
		}
	}
	return nil
}
