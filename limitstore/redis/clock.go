package redis

import (
	"context"
	"fmt"
	"time"

	"relayguard/policy/limit"
)

// clockAsks is how often Redis is asked for its time. The answer that came back
// soonest is the most exact.
const clockAsks = 5

// theirs is a time of ours by Redis's clock, which all relays count by.
func (s *Shared) theirs(now time.Time) time.Time {
	return now.Add(time.Duration(s.offset.Load()) * time.Microsecond)
}

// ourTimes turns the times of Redis's answer into ours.
func (s *Shared) ourTimes(out *limit.Outcome) {
	offset := time.Duration(s.offset.Load()) * time.Microsecond
	if offset == 0 {
		return
	}
	for i := range out.Uses {
		if u := &out.Uses[i]; !u.FreeAt.IsZero() {
			u.FreeAt = u.FreeAt.Add(-offset)
		}
	}
}

// measure asks Redis for its time and remembers how far it is from ours. Redis
// read its clock at some time between question and answer; an offset that is
// smaller than what is unknown of that is none.
//
// The offset may jump, when another Redis takes over whose clock is behind. In a
// bucket time does not run backwards: it stands still until that clock is there.
func (s *Shared) measure(ctx context.Context) error {
	shortest, offset := time.Duration(-1), int64(0)
	for range clockAsks {
		asked := time.Now()
		there, err := s.clock(ctx)
		if err != nil {
			return fmt.Errorf("ask redis for its time: %w", err)
		}
		trip := time.Since(asked)
		if shortest >= 0 && trip >= shortest {
			continue
		}
		shortest = trip
		off := there.Sub(asked.Add(trip / 2))
		if offset = off.Microseconds(); off.Abs() <= trip/2+time.Microsecond { // TIME is cut off to microseconds
			offset = 0
		}
	}
	s.offset.Store(offset)
	return nil
}

func (s *Shared) clock(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	return s.remote.Time(ctx)
}
