package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/render"
)

// heldAct is held release or held delete.
type heldAct struct {
	bulk
	choose heldFlags
	yes    bool
	reason string
}

func newHeldAct(verb, short, long string) *cobra.Command {
	a := &heldAct{bulk: bulk{verb: verb, what: "held", missing: errNotHeld}}
	cmd := &cobra.Command{
		Use:   verb + " [ID...]",
		Short: short,
		Long: strings.TrimSpace(long) + fmt.Sprintf(`

IDs are queue ids or ids of decisions. With flags in their place, what is given
must all hold; everything needs --all. More than one message that no ID names is
asked about at a terminal, and elsewhere needs --yes. --dry-run shows what would
be %[1]sd.

Messages that are not %[1]sd, and new queue ids, are listed. ^C ends it when the
messages in hand are done, and says how far it came; the same command again goes
on with what is left.

Exit status: 0; 1 something was not %[1]sd, or nothing is held under an ID; 2
usage; 3 cannot tell, or not allowed.`, verb),
		Example: fmt.Sprintf("  relayguard held %[1]s 4ZJ1k82Vz1y\n  relayguard held %[1]s --login taro@example.jp --rule login-volume --dry-run\n  relayguard held %[1]s --account local_user:www-data --older-than 3d --reason 'spam run'", verb),
		RunE:    a.run,
	}
	a.choose.add(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&a.choose.all, "all", false, "everything that relayguard holds")
	flags.BoolVar(&a.dryRun, "dry-run", false, "only show what it would be")
	if verb == "delete" {
		flags.BoolVar(&a.noCopy, "no-copy", false, "keep no copy: it cannot be brought back")
	}
	flags.BoolVar(&a.yes, "yes", false, "do not ask")
	flags.StringVar(&a.reason, "reason", "", "`text` for the journal")
	jsonFlag(cmd, &a.asJSON)
	return cmd
}

func (a *heldAct) run(cmd *cobra.Command, ids []string) error {
	filter, err := a.choose.filter(cmd, ids)
	switch {
	case err != nil:
		return err
	case len(ids) == 0 && !narrows(filter) && !filter.All:
		return usage(cmd, "nothing chooses among the held mail; name IDs, an account, a rule or an age, or say --all")
	case filter.All && (len(ids) > 0 || narrows(filter)):
		return usage(cmd, "--all goes with nothing else that chooses")
	}
	h, err := reach(cmd)
	if err != nil {
		return err
	}
	defer h.Close()
	order := desk.HeldOrder{Verb: a.verb, Filter: filter, NoCopy: a.noCopy, Reason: a.reason}
	a.messages = func(page render.Page, w io.Writer) *render.Stream {
		return render.NewStream(w, page, heldColumns(page))
	}
	a.row = func(page render.Page, now time.Time, m *desk.Done) []string { return heldRow(page, now, &m.Held) }
	a.do = func(ctx context.Context, dryRun, tell bool, step func(desk.Step) error) error {
		o := order
		o.DryRun, o.Tell = dryRun, tell
		return h.ActOnHeld(ctx, o, step)
	}
	if !a.dryRun && !a.yes && len(ids) == 0 {
		shown := time.Now()
		found, err := a.agree(cmd)
		if err != nil {
			return err
		}
		a.dryRun = !found // then it stays at nothing
		order.Filter = heldAsShown(order.Filter, a.ids, shown, time.Now())
	}
	return a.bulk.run(cmd)
}

// heldAsShown is asShown for held mail.
func heldAsShown(f desk.Filter, ids []string, shown, now time.Time) desk.Filter {
	f.Before = shown
	if f.OlderThan != 0 {
		f.OlderThan += now.Sub(shown)
	}
	if f.NewerThan != 0 {
		f.NewerThan += now.Sub(shown)
	}
	if len(ids) > 0 {
		f.IDs, f.Limit = ids, 0
	}
	return f
}
