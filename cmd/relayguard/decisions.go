package main

import (
	"context"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/render"
	"relayguard/journal"
	"relayguard/policy"
)

// decisionFlags are what decisions searches for.
type decisionFlags struct {
	account, login, localUser, address, rule, queueID, messageID, client, stage, before string
	site, plugin, template, node                                                        string
	verdicts                                                                            []string
	since, until                                                                        moment
	limit                                                                               int
	asJSON                                                                              bool
}

func newDecisions() *cobra.Command {
	var f decisionFlags
	cmd := &cobra.Command{
		Use:   "decisions",
		Short: "search what was decided",
		Long: strings.TrimSpace(`
Searches the journal, the newest decision first. What is given must all hold;
--verdict may be given several times. Recipients are not in the journal, their
domains are: see relayguard explain.

On terminals of less than 110 columns the envelope sender and the queue id are
left out, and of mail from web sites PLUGIN@SITE; either id will do for relayguard
explain.

While the daemon is dead root reads the journal itself. Rows about accepted mail
may be missing: they are left out under load, and relayguard status counts them.

Exit status: 0, also if nothing was found; 2 usage; 3 the journal cannot be
asked.`),
		Example: "  relayguard decisions --verdict hold --verdict reject --since 2h\n  relayguard decisions --login taro@example.jp --limit 20\n  relayguard decisions --address @example.jp --since 2026-03-02 --json",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.account, "account", "", "of this `account`: login:NAME, local_user:NAME, network:NAME or unknown")
	flags.StringVar(&f.login, "login", "", "of this SASL `login`")
	flags.StringVar(&f.localUser, "local-user", "", "of this Unix `account`")
	flags.StringVar(&f.address, "address", "", "envelope sender or From: `ADDRESS or @DOMAIN`")
	flags.StringVar(&f.site, "site", "", "of this web `site`")
	flags.StringVar(&f.plugin, "plugin", "", "of this plugin: `NAME or NAME@SITE`")
	flags.StringVar(&f.template, "template", "", "whose text looks like `template`, as explain names it")
	flags.StringVar(&f.node, "node", "", "from this web `node`")
	flags.StringVar(&f.rule, "rule", "", "decided by this `rule`")
	flags.StringArrayVar(&f.verdicts, "verdict", nil, "with this `verdict`: "+strings.Join(policy.Verdicts(), ", "))
	flags.Var(&f.since, "since", "not before this `time`: 2h, 3d, 2026-03-02, or RFC 3339")
	flags.Var(&f.until, "until", "before this `time`, likewise")
	flags.StringVar(&f.queueID, "queue-id", "", "the MTA's queue `id`")
	flags.StringVar(&f.messageID, "message-id", "", "the header field, with its `<angle@brackets>`")
	flags.StringVar(&f.client, "client", "", "SMTP client's IP `address`")
	flags.StringVar(&f.stage, "stage", "", "answered at: `rcpt|message|call`")
	flags.StringVar(&f.before, "before", "", "only older than the decision with this `id`: the next page")
	flags.IntVar(&f.limit, "limit", journal.DefaultLimit, "at most so many")
	jsonFlag(cmd, &f.asJSON)
	cmd.RegisterFlagCompletionFunc("verdict", cobra.FixedCompletions(policy.Verdicts(), cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("stage", cobra.FixedCompletions([]string{journal.StageRecipient, journal.StageMessage, journal.StageCall}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (f *decisionFlags) run(cmd *cobra.Command) error {
	values, err := f.values(cmd)
	if err != nil {
		return err
	}
	all, err := look(cmd, func(c *control.Client) (all []desk.Decision, err error) {
		err = c.Get(cmd.Context(), "/v1/decisions", values, &all)
		return all, err
	}, func(r *journal.Reader) ([]desk.Decision, error) {
		q, err := decisionQuery(values)
		if err != nil {
			return nil, err
		}
		return readerDesk(r).Decisions(context.WithoutCancel(cmd.Context()), q)
	})
	if err != nil {
		return err
	}
	out, page := cmd.OutOrStdout(), render.PageOf(cmd.OutOrStdout())
	switch {
	case f.asJSON:
		err = render.JSON(out, all)
	case len(all) == 0:
		remark(cmd, "no decision is like that")
	default:
		if err = decisionTable(page, all).Write(out, page); err == nil && len(all) == f.limit {
			remark(cmd, "there may be older ones: --before %s, or a larger --limit", all[len(all)-1].ID)
		}
	}
	if err != nil {
		return &exitError{exitCannotTell, err}
	}
	return nil
}

// readerDesk is a desk that only looks.
func readerDesk(r *journal.Reader) *desk.Desk { return newDesk(readOnly{r}, nil, nil) }

// values is the search as the daemon is asked for it; decisionQuery reads it.
func (f *decisionFlags) values(cmd *cobra.Command) (url.Values, error) {
	v := url.Values{}
	for _, verdict := range f.verdicts {
		if _, err := policy.ParseVerdict(verdict); err != nil {
			return nil, usage(cmd, "--verdict: got %q, want one of %s", verdict, strings.Join(policy.Verdicts(), ", "))
		}
		v.Add("verdict", verdict)
	}
	if f.client != "" {
		ip, err := netip.ParseAddr(f.client)
		if err != nil {
			return nil, usage(cmd, "--client: got %q, want an IP address", f.client)
		}
		v.Set("client", ip.Unmap().WithZone("").String())
	}
	switch {
	case f.stage != "" && f.stage != journal.StageRecipient && f.stage != journal.StageMessage && f.stage != journal.StageCall:
		return nil, usage(cmd, "--stage: got %q, want rcpt, message or call", f.stage)
	case f.limit < 1 || f.limit > journal.MaxLimit:
		return nil, usage(cmd, "--limit: got %d, want 1 to %d", f.limit, journal.MaxLimit)
	}
	site, plugin, err := siteAndPlugin(cmd, f.site, f.plugin)
	if err != nil {
		return nil, err
	}
	for name, value := range map[string]string{"site": site, "plugin": plugin, "template": strings.TrimPrefix(f.template, "template:"), "node": f.node, "account": accountOf(f.account), "login": strings.ToLower(f.login), "local_user": f.localUser, "address": f.address,
		"rule": f.rule, "queue_id": f.queueID, "message_id": f.messageID, "stage": f.stage, "before": f.before, "limit": strconv.Itoa(f.limit)} {
		if value != "" {
			v.Set(name, value)
		}
	}
	for name, at := range map[string]time.Time{"since": f.since.Time, "until": f.until.Time} {
		if !at.IsZero() {
			v.Set(name, at.UTC().Format(time.RFC3339))
		}
	}
	return v, nil
}

func decisionTable(page render.Page, all []desk.Decision) *render.Table {
	t := &render.Table{Columns: []render.Column{{Title: "TIME", Whole: true}, {Title: "ID", Whole: true}, {Title: "VERDICT", Whole: true},
		{Title: "ACCOUNT", Weight: 2, Min: 12}, {Title: "RULE", Min: 8}, {Title: "RCPTS", Right: true, Whole: true}}}
	wide, sites := roomy(page), slices.ContainsFunc(all, func(d desk.Decision) bool { return d.Site != "" || d.Plugin != "" })
	if wide {
		t.Columns = append(t.Columns, render.Column{Title: "FROM", Weight: 2}, render.Column{Title: "QUEUE ID", Whole: true})
	}
	if wide && sites {
		t.Columns = append(t.Columns, render.Column{Title: "PLUGIN@SITE", Weight: 2})
	}
	for i := range all {
		d := &all[i]
		row := []string{when(page, d.Time), d.ID, d.Verdict, d.Account, d.Rule, number(d.Recipients), sender(d.MailFrom), d.QueueID}
		t.Rows = append(t.Rows, append(row, pluginAt(d.Plugin, d.Site)))
	}
	return t
}

// pluginAt is a plugin of a site as people write it; what is not known is left
// out.
func pluginAt(plugin, site string) string {
	if site == "" {
		return plugin
	}
	return plugin + "@" + site
}

// siteAndPlugin reads --site and --plugin: the latter may name the site as well.
func siteAndPlugin(cmd *cobra.Command, site, plugin string) (string, string, error) {
	site, plugin = strings.ToLower(strings.TrimPrefix(site, "site:")), strings.ToLower(strings.TrimPrefix(plugin, "plugin:"))
	if at := strings.LastIndexByte(plugin, '@'); at >= 0 {
		of := plugin[at+1:]
		switch plugin = plugin[:at]; {
		case plugin == "" || of == "":
			return "", "", usage(cmd, "--plugin: want NAME or NAME@SITE")
		case site != "" && site != of:
			return "", "", usage(cmd, "--plugin names the site %q, --site %q", of, site)
		}
		site = of
	}
	return site, plugin, nil
}
