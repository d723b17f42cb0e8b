package main

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/render"
	"relayguard/cmd/internal/sites"
)

func newWordPressStatus() *cobra.Command {
	var at place
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status [PATH]",
		Short: "tell whether sites sign their mail, and whether it is believed",
		Long: strings.TrimSpace(`
Looks at the files in the WordPress at PATH, or in all sites that are registered
with a directory, and compares them with what the daemon has registered.

PLUGIN and KEY are "current", "other" (of another version of relayguard, or changed
by hand: run install again), "foreign" (not relayguard's, or not to be read) or
"missing".

Exit status: 0 all is well; 1 something is missing or not believed; 2 usage; 3
something could not be looked at.`),
		Example: "  relayguard wordpress status\n  relayguard wordpress status /srv/www/shop.example.jp --json",
		Args:    atMost("PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			known := askRegister(cmd)
			var all []siteState
			var err error
			if len(args) > 0 {
				all, err = at.one(cmd, &known, args[0])
			} else if err = known.err; err == nil {
				all = lookAtAll(cmd, &known)
			}
			if err != nil {
				return err
			}
			if asJSON {
				err = render.JSON(cmd.OutOrStdout(), all)
			} else {
				err = writeSites(cmd, all)
			}
			if err != nil {
				return &exitError{exitCannotTell, err}
			}
			return siteFinding(&known, all)
		},
	}
	at.flags(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

// one looks at the site that was asked for.
func (p *place) one(cmd *cobra.Command, known *register, path string) ([]siteState, error) {
	found, err := p.find(cmd, known, path)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	s := siteState{Root: found.Root, UID: found.UID}
	s.look(cmd.Context(), found)
	s.compare(known)
	return []siteState{s}, nil
}

// lookAtAll looks at all that are registered with a directory on this machine, as
// the account with which they are.
func lookAtAll(cmd *cobra.Command, known *register) []siteState {
	all := []siteState{}
	for _, site := range known.all {
		if site.Root == "" {
			continue
		}
		all = append(all, lookAt(cmd, known, site))
	}
	slices.SortFunc(all, func(a, b siteState) int { return cmp.Compare(a.Site, b.Site) })
	return all
}

func lookAt(cmd *cobra.Command, known *register, site sites.Info) siteState {
	s := siteState{Site: site.Name, Root: site.Root, UID: site.UID}
	found, err := new(place).look(known, site.Root)
	if err != nil {
		s.unsure, s.Remarks = true, []string{err.Error()}
	} else {
		s.look(cmd.Context(), found)
		s.UID = found.UID
		found.Close()
	}
	s.compare(known)
	return s
}

func writeSites(cmd *cobra.Command, all []siteState) error {
	page := render.PageOf(cmd.OutOrStdout())
	t := &render.Table{Columns: []render.Column{{Title: "SITE", Weight: 2, Min: 10}, {Title: "PLUGIN", Whole: true}, {Title: "KEY", Whole: true}, {Title: "REGISTERED", Whole: true}, {Title: "ROOT", Weight: 3, Min: 10}}}
	for _, s := range all {
		t.Rows = append(t.Rows, []string{cmp.Or(s.Site, "-"), cmp.Or(string(s.Plugin), "-"), cmp.Or(string(s.Key), "-"), s.Registered, s.Root})
	}
	if err := t.Write(cmd.OutOrStdout(), page); err != nil {
		return err
	}
	for _, s := range all {
		for _, r := range s.Remarks {
			remark(cmd, "%s: %s", cmp.Or(s.Site, s.Root), r)
		}
	}
	return nil
}

func siteFinding(known *register, all []siteState) error {
	switch {
	case known.err != nil:
		return known.err
	case slices.ContainsFunc(all, func(s siteState) bool { return s.unsure }):
		return &exitError{exitCannotTell, errors.New("not everything could be looked at")}
	case slices.ContainsFunc(all, func(s siteState) bool { return !s.good() }):
		return &exitError{code: exitFinding}
	}
	return nil
}
