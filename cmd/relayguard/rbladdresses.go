package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/blocklists"
	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/render"
	"relayguard/rbl/history"
)

// maxReceived bounds a message whose Received lines are read: they stand at its top.
const maxReceived = 1 << 20

func newRBLAddresses() *cobra.Command {
	var learn, forget string
	var trust, asJSON bool
	cmd := &cobra.Command{
		Use:   "addresses",
		Short: "show which addresses and domains are checked, or learn one",
		Long: strings.TrimSpace(`
Shows the addresses from which mail really leaves, how each is known (a setting of the
mail server, of the configuration, or Received lines), the name it introduces itself
with, and the domains that are checked; and what could not be found out: behind NAT, or
with a relay host, receivers see another address than this machine.

--learn reads a message of this server as somebody outside received it, headers and
all, and has the daemon remember the address that the first foreign server saw: send
a mail to a mailbox elsewhere, and save it there as a file. - is standard input.
Received lines can be forged: the daemon must know the mail, by the queue id in this
server's own line. --trust takes the message all the same.
--forget takes such an address away. rbl.addresses in the configuration overrides
all that is found.

Exit status: 0; 1 no such address was learnt; 2 usage; 3 cannot tell: no address is
known, or the message has no Received line of this server's mail, or of none that the
daemon knows.`),
		Example: "  relayguard rbl addresses\n  relayguard rbl addresses --learn received.eml\n  relayguard rbl addresses --forget 203.0.113.5",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case cmd.Flags().Changed("learn") && cmd.Flags().Changed("forget"):
				return usage(cmd, "--learn and --forget do not go together")
			case trust && !cmd.Flags().Changed("learn"):
				return usage(cmd, "--trust goes with --learn only")
			case cmd.Flags().Changed("learn"):
				return learnAddress(cmd, learn, trust, asJSON)
			case cmd.Flags().Changed("forget"):
				return forgetAddress(cmd, forget, asJSON)
			}
			return showAddresses(cmd, asJSON)
		},
	}
	cmd.Flags().StringVar(&learn, "learn", "", "learn from a message as it was received outside: a `file`, or -")
	cmd.Flags().BoolVar(&trust, "trust", false, "learn from it though the daemon does not know this mail")
	cmd.Flags().StringVar(&forget, "forget", "", "forget this `address` that was learnt")
	jsonFlag(cmd, &asJSON)
	return cmd
}

func showAddresses(cmd *cobra.Command, asJSON bool) error {
	c, err := commandConfig(cmd)
	if err != nil {
		return err
	}
	t := ownTargets(cmd.Context(), c)
	out := cmd.OutOrStdout()
	if asJSON {
		err = render.JSON(out, t)
	} else {
		page := render.PageOf(out)
		table := &render.Table{Columns: []render.Column{{Title: "SUBJECT", Min: 15, Weight: 2}, {Title: "HELO", Min: 8}, wrapped("HOW")}}
		for _, a := range t.Addresses { // one may introduce itself by several names
			table.Rows = append(table.Rows, []string{a.Addr.String(), a.Helo, a.How})
		}
		all, how := t.subjects()
		for _, s := range all {
			if !s.Addr.IsValid() {
				table.Rows = append(table.Rows, []string{s.String(), "", how[s]})
			}
		}
		err = table.Write(out, page)
	}
	if err != nil {
		return shown(err)
	}
	remarks(cmd, t.Trouble)
	if t.Left > 0 {
		remark(cmd, "%s are not checked: they are too many", counted(t.Left, "domain"))
	}
	if len(t.Addresses) == 0 {
		return &exitError{exitCannotTell, errors.New("no address is known from which mail leaves; set rbl.addresses")}
	}
	return nil
}

// rblFound is what --learn and --forget print as JSON.
type rblFound struct {
	Found  []rblLearning    `json:"found"`
	Learnt []history.Learnt `json:"learnt"` // all that the daemon knows by then
}

func learnAddress(cmd *cobra.Command, path string, trust, asJSON bool) error {
	if path == "" {
		return usage(cmd, "--learn: name a file, or -")
	}
	client, c, err := asker(cmd)
	if err != nil {
		return err
	}
	message, err := readMessage(cmd, path)
	if err != nil {
		return &exitError{exitCannotTell, &escapedError{fmt.Errorf("read %s: %w", path, err)}}
	}
	helos := ownTargets(cmd.Context(), c).Helos
	seen, err := blocklists.Received(bytes.NewReader(message), helos, nil)
	if err != nil {
		return &exitError{exitCannotTell, &escapedError{fmt.Errorf("read %s: %w", path, err)}}
	}
	if len(seen) == 0 {
		return &exitError{exitCannotTell, &escapedError{fmt.Errorf("%s: no Received line tells from which address this server's mail came; was it received by a server outside, and saved with all its headers?", path)}}
	}
	if !trust {
		if seen, err = knownMail(cmd.Context(), client, message, helos); err != nil {
			return answerOf(err)
		}
		if len(seen) == 0 {
			return &exitError{exitCannotTell, &escapedError{fmt.Errorf("%s: the daemon knows no mail by the queue ids in this server's Received lines: they may be forged, or the mail too old; if you are sure of the message, add --trust", path)}}
		}
	}
	found := rblFound{Found: []rblLearning{}, Learnt: []history.Learnt{}}
	for _, s := range seen {
		confirmRemark(cmd, c, &s)
		l := rblLearning{Addr: s.Addr, Where: learntWhere(&s)}
		found.Found = append(found.Found, l)
		if err := client.Post(cmd.Context(), "/v1/rbl/learn", l, &found.Learnt); err != nil {
			remark(cmd, "%s saw %s; it is not remembered", s.By, s.Addr)
			return answerOf(err)
		}
	}
	return showLearnt(cmd, &found, asJSON)
}

// knownMail is who saw mail of ours that the daemon knows.
func knownMail(ctx context.Context, client *control.Client, message []byte, helos []string) ([]blocklists.Seen, error) {
	var failed error
	seen, err := blocklists.Received(bytes.NewReader(message), helos, func(queueID, _ string) bool {
		if failed != nil {
			return false
		}
		var known []desk.Explanation
		failed = client.Get(ctx, "/v1/explain/"+url.PathEscape(queueID), nil, &known)
		return failed == nil && len(known) > 0
	})
	return seen, errors.Join(failed, err)
}

// confirmRemark tells if DNS of our name does not have an address that was seen.
func confirmRemark(cmd *cobra.Command, c *config.Config, s *blocklists.Seen) {
	a := &asking{}
	if err := a.resolve(c); err != nil {
		remark(cmd, "whether DNS has %s for %s is not known: %v", s.Addr, s.Helo, err)
		return
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), confirmTimeout)
	defer cancel()
	switch confirmed, err := blocklists.Confirmed(ctx, a.resolvers[0], s.Addr, s.Helo); {
	case err != nil:
		remark(cmd, "whether DNS has %s for %s is not known: %v", s.Addr, s.Helo, err)
	case !confirmed:
		remark(cmd, "DNS does not have %s for %s, as which this server introduced itself: receivers think ill of that; or it was not this server", s.Addr, s.Helo)
	}
}

// confirmTimeout bounds the question whether our name has an address.
const confirmTimeout = 15 * time.Second

// learntWhere says how an address is known, for the history and its readers.
func learntWhere(s *blocklists.Seen) string {
	where := "Received by " + s.By
	if len(where) > maxWhere {
		where = strings.ToValidUTF8(where[:maxWhere], "")
	}
	return where
}

// readMessage reads the beginning of a message.
func readMessage(cmd *cobra.Command, path string) ([]byte, error) {
	in := cmd.InOrStdin()
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, errors.Unwrap(err) // the path stands before it already
		}
		defer f.Close()
		in = f
	}
	return io.ReadAll(io.LimitReader(in, maxReceived))
}

func forgetAddress(cmd *cobra.Command, text string, asJSON bool) error {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return usage(cmd, "--forget: got %q, want an address", text)
	}
	learnt, err := post[[]history.Learnt](cmd, "/v1/rbl/forget", rblForgetting{Addr: addr.Unmap()})
	if err != nil {
		return err
	}
	return showLearnt(cmd, &rblFound{Found: []rblLearning{}, Learnt: append([]history.Learnt{}, learnt...)}, asJSON)
}

// showLearnt prints what was found, and else all that is learnt.
func showLearnt(cmd *cobra.Command, found *rblFound, asJSON bool) error {
	out := cmd.OutOrStdout()
	if asJSON {
		return shown(render.JSON(out, found))
	}
	t := &render.Table{Columns: []render.Column{{Title: "ADDRESS", Whole: true}, {Title: "LEARNT", Whole: true}, wrapped("HOW")}}
	page := render.PageOf(out)
	for _, l := range found.Learnt {
		t.Rows = append(t.Rows, []string{l.Addr, when(page, l.At), l.Where})
	}
	if err := t.Write(out, page); err != nil {
		return shown(err)
	}
	for _, l := range found.Found {
		remark(cmd, "found %s: %s; it is checked from the next round on, unless rbl.addresses is set; now: relayguard rbl status --now", l.Addr, l.Where)
	}
	if len(found.Learnt) == 0 {
		remark(cmd, "no address is learnt from Received lines")
	}
	return nil
}
