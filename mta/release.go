package mta

import "time"

// Release says how ReleaseMail treats old mail.
type Release struct {
	Now time.Time
	// Margin is how much of its lifetime a message must have left to be released
	// as it is; with less it is requeued, which begins its lifetime anew. 0: a
	// day, or half the lifetime if that is less. Negative: nothing is requeued.
	Margin time.Duration
}

// TooOld tells whether a message of that age should be requeued rather than
// released.
func (r Release) TooOld(age, lifetime time.Duration) bool {
	margin := r.Margin
	if margin == 0 {
		margin = min(24*time.Hour, lifetime/2)
	}
	return margin >= 0 && age > lifetime-margin
}
