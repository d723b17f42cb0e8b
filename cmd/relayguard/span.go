package main

import (
	"errors"
	"fmt"
	"time"

	"relayguard/cmd/internal/config"
)

// span is a flag for a length of time; zero if it is not given.
type span time.Duration

func (s *span) Set(text string) error {
	d, err := config.ParseDuration(text)
	if err != nil || d <= 0 {
		return errors.New(`want a length of time such as "90m", "2h" or "3d"`)
	}
	*s = span(d)
	return nil
}

func (s *span) String() string {
	if *s == 0 {
		return ""
	}
	return time.Duration(*s).String()
}

// Type is what help calls the value.
func (s *span) Type() string { return "time" }

// moment is a flag for a point in time: how long ago, or when.
type moment struct{ time.Time }

func (m *moment) Set(text string) error {
	if d, err := config.ParseDuration(text); err == nil && d > 0 {
		m.Time = time.Now().Add(-d)
		return nil
	}
	for _, form := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateTime, time.DateOnly} {
		if t, err := time.ParseInLocation(form, text, time.Local); err == nil {
			m.Time = t
			return nil
		}
	}
	return fmt.Errorf(`want how long ago, such as "2h" or "3d", or when, such as %q`, "2026-03-02T09:00:00+09:00")
}

func (m *moment) String() string {
	if m.IsZero() {
		return ""
	}
	return m.Format(time.RFC3339)
}

// Type is what help calls the value.
func (m *moment) Type() string { return "time" }
