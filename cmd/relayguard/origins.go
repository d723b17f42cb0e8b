package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/render"
	"relayguard/journal"
)

func newOrigins() *cobra.Command {
	return group("origins", "rank who sends: accounts, web sites, plugins, texts", `
Who sends how much, by the journal: accounts, and of mail from web sites the site,
the plugin of the site, and the text that it is made from. A site counts only where
it is proven that mail is from it; a plugin also where its mail is recognised by
its form, and KNOWN BY says so. Rows about accepted mail that were left out under
load are not counted: see relayguard status.

While the daemon is dead root reads the journal itself.`,
		newOriginsList(), newOriginsShow(), newOriginsWithPlugin())
}

// originFlags are since when, and how many.
type originFlags struct {
	since  moment
	limit  int
	asJSON bool
}

func (f *originFlags) add(cmd *cobra.Command, limit int, what string) {
	f.limit = limit
	cmd.Flags().Var(&f.since, "since", "not before this `time`: 2h, 3d, 2026-03-02, or RFC 3339 (default "+what+")")
	if limit > 0 {
		cmd.Flags().IntVar(&f.limit, "limit", limit, "at most so many")
	}
	jsonFlag(cmd, &f.asJSON)
}

// query is what they ask for; standard is how far back without --since, 0: all.
func (f *originFlags) query(cmd *cobra.Command, standard time.Duration) (journal.RankQuery, error) {
	if cmd.Flags().Lookup("limit") != nil && (f.limit < 1 || f.limit > journal.MaxLimit) {
		return journal.RankQuery{}, usage(cmd, "--limit: got %d, want 1 to %d", f.limit, journal.MaxLimit)
	}
	q := journal.RankQuery{Since: f.since.Time, Limit: f.limit}
	if q.Since.IsZero() && standard > 0 {
		q.Since = time.Now().Add(-standard)
	}
	q.Since = q.Since.Truncate(time.Second) // as the daemon is told
	return q, nil
}

// askOrRead asks the daemon for something about origins, or root the journal.
func askOrRead[T any](cmd *cobra.Command, path string, values url.Values, read func(context.Context, originJournal) (T, error)) (T, error) {
	return look(cmd, func(c *control.Client) (out T, err error) {
		err = c.Get(cmd.Context(), path, values, &out)
		return out, err
	}, func(r *journal.Reader) (T, error) { return read(context.WithoutCancel(cmd.Context()), r) })
}

// aDay is how far back origins look where nothing else is said.
const aDay = 24 * time.Hour

func newOriginsList() *cobra.Command {
	var f originFlags
	var by, order string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "rank accounts, sites, plugins or texts by what they sent",
		Long: strings.TrimSpace(`
Ranks who sent most, to recipients of all mail that passed and was stopped; with
--order by messages, or by what was stopped. --by site and plugin count mail from
web sites; --by template what texts are alike, as relayguard explain names them.
What passed is under MSGS and RCPTS, what did not under STOPS and STOPPED RCPTS.

Exit status: 0, also if nobody sent; 2 usage; 3 cannot tell.`),
		Example: "  relayguard origins list\n  relayguard origins list --by plugin --since 7d --order stops\n  relayguard origins list --by site --json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := f.query(cmd, aDay)
			if err != nil {
				return err
			}
			q.By, q.Order = journal.RankBy(by), journal.RankOrder(order)
			switch {
			case !slices.Contains(journal.RankBys, q.By):
				return usage(cmd, "--by: got %q, want one of %s", by, names(journal.RankBys))
			case !slices.Contains(journal.RankOrders, q.Order):
				return usage(cmd, "--order: got %q, want one of %s", order, names(journal.RankOrders))
			}
			all, err := askOrRead(cmd, "/v1/origins", rankValues(q), func(ctx context.Context, j originJournal) ([]originRank, error) { return originRanks(ctx, j, q) })
			if err != nil {
				return err
			}
			return showRanks(cmd, f.asJSON, all, "nobody sent since "+q.Since.Local().Format(time.DateTime), func(page render.Page) *render.Table { return rankTable(page, q.By, all) })
		},
	}
	cmd.Flags().StringVar(&by, "by", string(journal.ByAccount), "rank each `"+strings.ReplaceAll(names(journal.RankBys), ", ", "|")+"`")
	cmd.Flags().StringVar(&order, "order", string(journal.OrderRecipients), "by `"+strings.ReplaceAll(names(journal.RankOrders), ", ", "|")+"`")
	f.add(cmd, 20, "24h")
	cmd.RegisterFlagCompletionFunc("by", cobra.FixedCompletions(words(journal.RankBys), cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("order", cobra.FixedCompletions(words(journal.RankOrders), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func words[T ~string](all []T) []string {
	out := make([]string, len(all))
	for i, w := range all {
		out[i] = string(w)
	}
	return out
}

func names[T ~string](all []T) string { return strings.Join(words(all), ", ") }

// showRanks writes a table, or JSON.
func showRanks(cmd *cobra.Command, asJSON bool, all []originRank, none string, table func(render.Page) *render.Table) error {
	out, page := cmd.OutOrStdout(), render.PageOf(cmd.OutOrStdout())
	var err error
	switch {
	case asJSON:
		err = render.JSON(out, append([]originRank{}, all...)) // never null
	case len(all) == 0:
		remark(cmd, "%s", none)
	default:
		err = table(page).Write(out, page)
	}
	if err != nil {
		return &exitError{exitCannotTell, err}
	}
	return nil
}

// sentColumns are what all tables of ranks end with.
var sentColumns = []render.Column{{Title: "MSGS", Right: true, Whole: true}, {Title: "RCPTS", Right: true, Whole: true}, {Title: "STOPS", Right: true, Whole: true}, {Title: "STOPPED RCPTS", Right: true, Whole: true}}

func (r *originRank) sent() []string {
	return []string{number(r.Messages), number(r.Recipients), number(r.Stops), number(r.StoppedRecipients)}
}

func rankTable(page render.Page, by journal.RankBy, all []originRank) *render.Table {
	t := &render.Table{Columns: append([]render.Column{{Title: strings.ToUpper(string(by)), Weight: 3, Min: 12}}, sentColumns...)}
	wide := roomy(page) && by != journal.ByAccount
	if by == journal.ByPlugin {
		t.Columns = append(t.Columns, render.Column{Title: "KNOWN BY", Min: 6})
	}
	if wide {
		t.Columns = append(t.Columns, render.Column{Title: "ACCOUNT", Weight: 2, Min: 10}, render.Column{Title: "LAST", Whole: true})
	}
	for i := range all {
		r := &all[i]
		who := map[journal.RankBy]string{journal.ByAccount: r.Account, journal.BySite: r.Site, journal.ByPlugin: pluginAt(r.Plugin, r.Site), journal.ByTemplate: r.Template}[by]
		row := append([]string{who}, r.sent()...)
		if by == journal.ByPlugin {
			row = append(row, r.KnownBy)
		}
		if wide {
			row = append(row, r.account(), when(page, r.Last))
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// account is whose mail it is, and of how many others.
func (r *originRank) account() string {
	if r.Accounts > 1 {
		return fmt.Sprintf("%s and %d more", r.Account, r.Accounts-1)
	}
	return r.Account
}

func newOriginsShow() *cobra.Command {
	var f originFlags
	cmd := &cobra.Command{
		Use:   "show WHO",
		Short: "show what an account, a site, a plugin or a text sent",
		Long: strings.TrimSpace(`
Shows what WHO sent, by which sites and plugins and how these are known, what it
has used of its limits, its incidents, and its last decisions. WHO is an account
(login:NAME, local_user:NAME, network:NAME, node:NAME; a name alone is a login),
site:NAME, plugin:NAME@SITE, plugin:NAME for that plugin on all sites, or
template:NAME.

Limits are not known while the daemon is dead.

Exit status: 0; 1 nothing is known of WHO since then; 2 usage; 3 cannot tell.`),
		Example: "  relayguard origins show site:shop.example.jp\n  relayguard origins show plugin:share-by-mail@shop.example.jp --since 7d\n  relayguard origins show local_user:site12 --json",
		Args:    exactly("WHO"),
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := f.query(cmd, aDay)
			if err != nil {
				return err
			}
			q.Limit = 0
			who := whoOf(args[0])
			if kind, value, _ := strings.Cut(who, ":"); value == "" && kind != "unknown" {
				return usage(cmd, "WHO is %q; want an account, site:NAME, plugin:NAME@SITE or template:NAME", args[0])
			}
			values := rankValues(q)
			values.Set("who", who)
			shown, err := askOrRead(cmd, "/v1/origins/show", values, func(ctx context.Context, j originJournal) (originShown, error) { return showOrigin(ctx, j, who, q) })
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if f.asJSON {
				err = render.JSON(out, shown)
			} else {
				var b bytes.Buffer
				if err = writeOrigin(&b, render.PageOf(out), time.Now(), &shown); err == nil {
					_, err = out.Write(b.Bytes())
				}
			}
			switch {
			case err != nil:
				return &exitError{exitCannotTell, err}
			case shown.Sent == nil && len(shown.Incidents) == 0 && len(shown.Decisions) == 0 && len(shown.Limits) == 0:
				return &exitError{exitFinding, &escapedError{fmt.Errorf("nothing is known of %s since %s", who, q.Since.Local().Format(time.DateTime))}}
			}
			return nil
		},
	}
	f.add(cmd, 0, "24h")
	return cmd
}

// whoOf is an origin as the journal and the limits name it.
func whoOf(name string) string {
	switch kind, _, _ := strings.Cut(name, ":"); kind {
	case "site", "plugin":
		return strings.ToLower(name)
	}
	return accountOf(name)
}

func writeOrigin(w io.Writer, page render.Page, now time.Time, o *originShown) error {
	l := pairList{}
	l.add("origin", "%s", o.Who)
	if s := o.Sent; s != nil {
		if s.account() != o.Who {
			l.known("account", s.account())
		}
		if o.Who != "site:"+s.Site {
			l.known("site", s.Site)
		}
		l.known("known by", s.KnownBy)
		l.add("sent", "%s to %s", counted(s.Messages, "message"), counted(s.Recipients, "recipient"))
		l.add("stopped", "%s to %s", counted(s.Stops, "message"), counted(s.StoppedRecipients, "recipient"))
		if !s.First.IsZero() {
			l.add("first", "%s", shortTime(now, s.First))
			l.add("last", "%s", shortTime(now, s.Last))
		}
	} else {
		l.add("sent", "nothing")
	}
	if !o.Since.IsZero() {
		l.add("since", "%s", shortTime(now, o.Since))
	}
	if err := page.Pairs(w, l); err != nil {
		return err
	}
	for _, part := range []struct {
		title string
		table *render.Table
	}{
		{"sites", rankTable(page, journal.BySite, o.Sites)},
		{"plugins", rankTable(page, journal.ByPlugin, o.Plugins)},
		{"limits", usedTable(page, now, o.Limits)},
		{"incidents", incidentList(page, now, o.Incidents)},
		{"last decisions", decisionTable(page, o.Decisions)},
	} {
		if len(part.table.Rows) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s:\n", part.title)
		if err := part.table.Write(w, page); err != nil {
			return err
		}
	}
	return nil
}

// usedTable has a line for each bucket's window.
func usedTable(page render.Page, now time.Time, all []bucketShown) *render.Table {
	t := &render.Table{Columns: []render.Column{{Title: "LIMIT", Min: 12}, {Title: "KEY", Min: 10, Weight: 2}, {Title: "WINDOW", Whole: true}, {Title: "USED", Right: true, Whole: true}, {Title: "STATE", Whole: true}}}
	for _, b := range all {
		state := ""
		if b.Latched {
			state = "SHUT"
		} else if b.FreeAt.After(now) {
			state = "full, free " + freeAgain(page, now, b.FreeAt)
		}
		t.Rows = append(t.Rows, []string{b.Limit, b.Key, secondsOf(b.Window), fmt.Sprintf("%d/%d", b.Used, b.Count), state})
	}
	return t
}

func newOriginsWithPlugin() *cobra.Command {
	var f originFlags
	cmd := &cobra.Command{
		Use:   "with-plugin NAME",
		Short: "list every site that uses a plugin",
		Long: strings.TrimSpace(`
Lists every site, and the account that it sends as, whose mail was of the plugin
NAME: for when it turns out to be abused. KNOWN BY fingerprint is a guess by the
mail's form; there the site may not be known. A site that sent nothing by the
plugin is not known to have it.

NAME is as relayguard origins list --by plugin shows it: the plugin's directory,
theme:NAME, mu:NAME, script:PATH.

Exit status: 0; 1 no site is known to use it; 2 usage; 3 cannot tell.`),
		Example: "  relayguard origins with-plugin share-by-mail\n  relayguard origins with-plugin share-by-mail --json | jq -r '.[].site'",
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := f.query(cmd, 0)
			if err != nil {
				return err
			}
			if q.Plugin = strings.ToLower(strings.TrimPrefix(args[0], "plugin:")); q.Plugin == "" {
				return usage(cmd, "NAME is empty")
			}
			all, err := askOrRead(cmd, "/v1/origins/with-plugin", rankValues(q), func(ctx context.Context, j originJournal) ([]originRank, error) { return withPlugin(ctx, j, q) })
			if err == nil {
				err = showRanks(cmd, f.asJSON, all, "no site is known to use "+q.Plugin, func(page render.Page) *render.Table { return useTable(page, all) })
			}
			if err == nil && len(all) == 0 {
				return &exitError{code: exitFinding}
			}
			return err
		},
	}
	f.add(cmd, 1000, "as far as totals go back")
	return cmd
}

func useTable(page render.Page, all []originRank) *render.Table {
	t := &render.Table{Columns: append([]render.Column{{Title: "SITE", Weight: 2, Min: 12}, {Title: "ACCOUNT", Weight: 2, Min: 10}}, sentColumns[:3]...)}
	t.Columns = append(t.Columns, render.Column{Title: "LAST", Whole: true}, render.Column{Title: "KNOWN BY", Min: 6})
	if roomy(page) {
		t.Columns = append(t.Columns, render.Column{Title: "FIRST", Whole: true})
	}
	for i := range all {
		r := &all[i]
		t.Rows = append(t.Rows, append(append([]string{r.Site, r.Account}, r.sent()[:3]...), when(page, r.Last), r.KnownBy, when(page, r.First)))
	}
	return t
}
