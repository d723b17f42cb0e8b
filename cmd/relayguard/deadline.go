package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/config"
)

// deadline is when an order ends, as a flag: --until DATE, or --for TIME.
type deadline struct{ time.Time }

// Set implements pflag.Value. A day means its end.
func (d *deadline) Set(s string) error {
	t, err := config.ParseUntil(s)
	if err == nil && !t.After(time.Now()) {
		err = fmt.Errorf("%s is over", s)
	}
	d.Time = t
	return err
}

// String implements pflag.Value.
func (d *deadline) String() string {
	if d.IsZero() {
		return ""
	}
	return d.Format(time.RFC3339)
}

// Type implements pflag.Value.
func (d *deadline) Type() string { return "date" }

// term is the same as a time from now.
type term struct{ until *deadline }

func (t term) Set(s string) error {
	var length span
	if err := length.Set(s); err != nil {
		return err
	}
	t.until.Time = time.Now().Add(time.Duration(length))
	return nil
}

func (t term) String() string { return "" }
func (t term) Type() string   { return "time" }

// flags adds --until and --for; both mean the same.
func (d *deadline) flags(cmd *cobra.Command, otherwise string) {
	cmd.Flags().Var(d, "until", "until this `date`: 2026-12-01, 2026-12-01T18:00; "+otherwise)
	cmd.Flags().Var(term{d}, "for", "for this `time`: 90m, 2h, 3d")
	cmd.MarkFlagsMutuallyExclusive("until", "for")
}
