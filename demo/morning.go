package main

import "context"

// morning is the day after: what an admin reads first.
func morning(ctx context.Context, a *admin) error {
	return a.command(ctx, order{
		why:  "the morning after: what has changed, what is to be done, who was active",
		args: []string{"report"}, exit: 1, lines: 45,
		says: []string{"What changed", "What to do", "Mail", "share"},
	})
}
