package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/config"
	"relayguard/rbl"
)

// rblCheck are the flags of rbl check.
type rblCheck struct {
	zones, resolvers    []string
	allowUnknown        int
	nagios, all, asJSON bool
}

func newRBLCheck() *cobra.Command {
	var f rblCheck
	cmd := &cobra.Command{
		Use:   "check [ADDRESS|DOMAIN]...",
		Short: "ask blocklists now, with or without a daemon",
		Long: strings.TrimSpace(`
Asks every list about the addresses and domains given, which must be such as the
Internet can see: others no list can know. Without any it asks about the
addresses from which mail really leaves, the names by which this server introduces
itself, and the sending domains (relayguard rbl addresses shows them). Run it as
root: others may not be able to read the keys of lists.

Each list is first asked whether it can be believed. What it says if not is unknown,
never clean, and why is told on standard error. What is not clean is listed, the
worst first; --all lists every answer. A listing of severity "info" harms nobody.
SCOPE range and asn name networks, of which somebody else may be the cause.

--zone asks only the lists that it names. --resolver asks by a name server other
than the configuration's; do not take a public one: lists refuse those.

--nagios prints one line with counts and exits as monitoring plugins do: 0 OK, 1
WARNING (listed), 2 CRITICAL (an address or domain is listed on a list of severity
high or critical), 3 UNKNOWN.

Exit status: 0; 1 listed, info aside; 2 usage or configuration; 3 cannot tell:
nothing is listed, and more answers are unknown or refused than --allow-unknown
says, a configured key cannot be read, or it is not known for each address whether
it sends.`),
		Example: "  relayguard rbl check\n  relayguard rbl check 203.0.113.5 2001:db8::25 example.jp --all\n  relayguard rbl check --nagios --allow-unknown 5\n  relayguard rbl check 203.0.113.5 --zone bl.spamcop.net --json",
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.nagios {
				return f.plugin(cmd, args)
			}
			found, err := f.run(cmd, args)
			if err != nil {
				return err
			}
			return f.show(cmd, found, time.Now())
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.zones, "zone", nil, "ask only this `list`; may be given several times")
	flags.StringArrayVar(&f.resolvers, "resolver", nil, "ask by the name server at this `address:port`; may be given several times")
	flags.IntVar(&f.allowUnknown, "allow-unknown", 0, "so `many` unknown or refused answers are fine")
	flags.BoolVar(&f.nagios, "nagios", false, "print one line for monitoring, with its exit codes")
	flags.BoolVar(&f.all, "all", false, "list every answer, clean ones too")
	jsonFlag(cmd, &f.asJSON)
	return cmd
}

// run asks. Errors say how to exit.
func (f *rblCheck) run(cmd *cobra.Command, args []string) (*rblChecked, error) {
	given, err := f.arguments(cmd, args)
	if err != nil {
		return nil, err
	}
	c, err := commandConfig(cmd)
	if err != nil {
		return nil, err
	}
	a, err := f.asking(cmd, c)
	if err != nil {
		return nil, err
	}
	ctx, stop := interruptible(cmd.Context())
	defer stop()
	found := &rblChecked{remarks: a.warnings, Resolvers: a.names(), NotAsked: []rblNotAsked{}, Trouble: []string{}, Unread: append([]string{}, a.unread...)}
	for _, n := range a.not {
		found.NotAsked = append(found.NotAsked, rblNotAsked{n.Zone.Name, n.Why, n.Zone.Default == rbl.On && n.Zone.Severity >= rbl.High && !a.asks(n.Zone.Keyed)})
	}
	how := map[rbl.Subject]string{}
	if len(args) == 0 {
		if given, how, err = found.findOwn(ctx, c); err != nil {
			return nil, err
		}
	}
	stopLine, progress := func() {}, (func(done, all int))(nil)
	if !f.nagios {
		stopLine, progress = progressLine(cmd.ErrOrStderr(), "asking blocklists: %d of %d answers")
	}
	round := a.checker(nil, nil).Run(ctx, given, a.zones, progress)
	stopLine()
	found.take(round, given, how)
	return found, nil
}

// findOwn finds what really sends.
func (found *rblChecked) findOwn(ctx context.Context, c *config.Config) (all []rbl.Subject, how map[rbl.Subject]string, err error) {
	t := ownTargets(ctx, c)
	all, how = t.subjects()
	found.own, found.Unsure, found.Trouble = true, t.Unsure, t.Trouble
	if t.Left > 0 {
		found.Trouble = append(found.Trouble, fmt.Sprintf("%s are not checked: they are too many", counted(t.Left, "domain")))
	}
	if len(all) == 0 {
		why := cmp.Or(strings.Join(found.Trouble, "; "), "name them, or set rbl.addresses")
		return nil, nil, &exitError{exitCannotTell, &escapedError{fmt.Errorf("it is not known which addresses send: %s", why)}}
	}
	return all, how, nil
}

// arguments are the subjects that were typed, each once.
func (f *rblCheck) arguments(cmd *cobra.Command, args []string) (all []rbl.Subject, err error) {
	for _, arg := range args {
		s, err := outsideSubject(arg)
		if err != nil {
			return nil, usage(cmd, "%v", err)
		}
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	switch {
	case f.allowUnknown < 0:
		return nil, usage(cmd, "--allow-unknown: got %d, want at least 0", f.allowUnknown)
	case f.nagios && (f.asJSON || f.all):
		return nil, usage(cmd, "--nagios goes with neither --json nor --all")
	}
	return all, nil
}

func (f *rblCheck) asking(cmd *cobra.Command, c *config.Config) (*asking, error) {
	servers := make([]string, len(f.resolvers))
	for i, text := range f.resolvers {
		var err error
		if servers[i], err = nameServer(text); err != nil {
			return nil, usage(cmd, "--resolver: %v", err)
		}
	}
	return askingOf(c, f.zones, servers)
}
