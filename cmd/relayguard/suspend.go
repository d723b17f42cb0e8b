package main

import (
	"fmt"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/render"
)

// accountHelp says how accounts are written.
const accountHelp = `ACCOUNT is login:NAME, local_user:NAME (a Unix account; of a web node NAME@NODE)
or network:NAME (a trusted network); a name alone is a login, unless a Unix account
has the same: then say which is meant.`

// placeHelp is accountHelp where sites and plugins are meant, too.
const placeHelp = accountHelp + ` It may also be site:NAME (a web site),
plugin:NAME@SITE, or plugin:NAME (on all sites).`

// certain refuses a name alone that is a Unix account's: to stop the login of
// that name would stop nothing of what the account sends.
func certain(cmd *cobra.Command, account string) error {
	if strings.Contains(account, ":") {
		return nil
	}
	if _, err := user.Lookup(account); err != nil {
		return nil // then it can only be a login
	}
	return usage(cmd, "%s is a Unix account here: say local_user:%s, or login:%s if the login of that name is meant", account, account, account)
}

func newSuspend() *cobra.Command {
	var term span
	var reason string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "suspend ACCOUNT",
		Short: "stop an account's sending, at once",
		Long: strings.TrimSpace(`
Stops what an account sends, not what it gets, until it is resumed or --for is
over: new mail is refused, and what it has in the queue is held. Mail programs see
550; sendmail(1) refuses a Unix account of its own, and what comes from one that
many sites share is held. A site's or a plugin's mail is refused by
relayguard-sendmail, so that PHP's mail() is false (relayguard php install), and
held where PHP does not use that; above the caps on held mail it is refused. Of a
site or plugin that is neither registered nor in the journal it is said that nothing
is known of it.

` + placeHelp + `

Exit status: 0; 1 it is suspended, but something else did not work, or nothing is
known of such a site or plugin; 2 usage; 3 cannot tell, or not allowed.`),
		Example: "  relayguard suspend taro@example.jp --reason 'password stolen'\n  relayguard suspend local_user:site12 --for 2h --reason 'spam from a form'\n  relayguard suspend plugin:share-by-mail@shop.example.jp --reason 'abused'",
		Args:    exactly("ACCOUNT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needed(cmd, "reason", reason, "say why, for the journal and for who asks later"); err != nil {
				return err
			}
			if err := certain(cmd, args[0]); err != nil {
				return err
			}
			out, err := post[desk.Suspended](cmd, "/v1/suspend", desk.Suspension{Account: args[0], Term: time.Duration(term), Reason: reason})
			if err != nil {
				return err
			}
			if asJSON {
				err = render.JSON(cmd.OutOrStdout(), out)
			} else {
				err = writeSuspended(cmd, &out)
			}
			return done(cmd, err, out.Remarks)
		},
	}
	cmd.Flags().Var(&term, "for", "for this `time`: 90m, 2h, 3d; else until it is resumed")
	cmd.Flags().StringVar(&reason, "reason", "", "why: `text` for the journal")
	jsonFlag(cmd, &asJSON)
	return cmd
}

// done ends an act that was done: remarks are what did not work.
func done(cmd *cobra.Command, err error, problems []string) error {
	remarks(cmd, problems)
	if err != nil {
		return &exitError{exitCannotTell, err}
	}
	if len(problems) > 0 {
		return &exitError{code: exitFinding}
	}
	return nil
}

func writeSuspended(cmd *cobra.Command, s *desk.Suspended) error {
	now := time.Now()
	l := pairList{}
	l.add("suspended", "%s, %s", s.Account, untilWhen(now, s.Switch.Until, "until it is resumed"))
	l.known("local mail", s.Local)
	l.add("held", "%s that it had in the queue", counted(s.Held, "message"))
	if err := render.PageOf(cmd.OutOrStdout()).Pairs(cmd.OutOrStdout(), l); err != nil {
		return err
	}
	account := shellWord(s.Account, "ACCOUNT")
	fmt.Fprintf(cmd.ErrOrStderr(), "what is held: relayguard held list --account %s\nwhen it is mended: relayguard resume %s --cause '...'\n", account, account)
	return nil
}
