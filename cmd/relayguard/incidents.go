package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/render"
	"relayguard/incident"
)

func newIncident() *cobra.Command {
	return group("incident", "list and show incidents", `
What belongs together, one sender stopped for one cause, is one incident: it opens
with the first stop and closes when there was none for alert.quiet.`,
		newIncidentList(), newIncidentShow())
}

func newIncidentList() *cobra.Command {
	var all, asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "list open incidents",
		Long: strings.TrimSpace(`
Lists incidents, open ones first, of these the one with the latest stop first.
Closed ones, which the daemon remembers for a while, come with --all.

Exit status: 0; 2 usage; 3 cannot tell.`),
		Example: "  relayguard incident list --all",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			found, err := get[[]incident.Incident](cmd, "/v1/incidents", nil)
			if err != nil {
				return err
			}
			if !all {
				found = slices.DeleteFunc(found, func(i incident.Incident) bool { return !i.Open() })
			}
			sortIncidents(found)
			out, page := cmd.OutOrStdout(), render.PageOf(cmd.OutOrStdout())
			switch {
			case asJSON:
				err = render.JSON(out, append([]incident.Incident{}, found...))
			case len(found) == 0:
				remark(cmd, "there is none")
			default:
				err = incidentList(page, time.Now(), found).Write(out, page)
			}
			if err != nil {
				return &exitError{exitCannotTell, err}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "closed ones, too")
	jsonFlag(cmd, &asJSON)
	return cmd
}

func sortIncidents(all []incident.Incident) {
	slices.SortStableFunc(all, func(a, b incident.Incident) int {
		switch {
		case a.Open() != b.Open() && a.Open():
			return -1
		case a.Open() != b.Open():
			return 1
		}
		return b.Updated.Compare(a.Updated)
	})
}

func incidentList(page render.Page, now time.Time, all []incident.Incident) *render.Table {
	t := &render.Table{Columns: []render.Column{{Title: "ID", Whole: true}, {Title: "ORIGIN", Weight: 2, Min: 14}, {Title: "CAUSE", Min: 8}, {Title: "SINCE", Whole: true}, {Title: "LAST STOP", Whole: true}, {Title: "STOPS", Right: true, Whole: true}, {Title: "STATE", Whole: true}}}
	for _, i := range all {
		state := "open"
		if !i.Open() {
			state = "closed"
		}
		t.Rows = append(t.Rows, []string{i.ID, i.Origin, i.Cause, agoOrWhen(page, now, i.Opened), agoOrWhen(page, now, i.Updated), number(i.Stops), state})
	}
	return t
}

// agoOrWhen is a time for people in few columns, and for programs in full.
func agoOrWhen(page render.Page, now, t time.Time) string {
	if page.Cut {
		return render.Ago(now, t)
	}
	return when(page, t)
}

func newIncidentShow() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "show an incident with its time line",
		Long: strings.TrimSpace(`
Shows an incident that is open, or was closed a while ago, with its time line: how
it began, how it was noticed, what was done about it. Of mail from web sites it has
the site, the plugin, how the site was called, the file and line, and the clients
whose requests it were: the most frequent of each, with how often they were seen.
relayguard notice writes a letter about it to the site's owner, without the clients.

Exit status: 0; 1 no such incident is known; 2 usage; 3 cannot tell.`),
		Example: "  relayguard incident show i-0d5kqw3m8x",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, c, err := asker(cmd)
			if err != nil {
				return err
			}
			var all []incident.Incident
			if err := client.Get(cmd.Context(), "/v1/incidents", nil, &all); err != nil {
				return answerOf(err)
			}
			n := slices.IndexFunc(all, func(i incident.Incident) bool { return i.ID == args[0] })
			if n < 0 {
				return &exitError{exitFinding, &escapedError{fmt.Errorf("no incident %s is known; relayguard incident list --all lists them", args[0])}}
			}
			out := cmd.OutOrStdout()
			if asJSON {
				err = render.JSON(out, all[n])
			} else {
				var b bytes.Buffer
				err = writeIncident(&b, render.PageOf(out), time.Now(), &all[n], c.Local.SharedUsers)
				if err == nil {
					_, err = out.Write(b.Bytes())
				}
			}
			if err != nil {
				return &exitError{exitCannotTell, err}
			}
			return nil
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// writeIncident writes an incident. Shared are the Unix accounts as which many
// sites send.
func writeIncident(b *bytes.Buffer, page render.Page, now time.Time, i *incident.Incident, shared []string) error {
	l := pairList{}
	l.add("incident", "%s", i.ID)
	l.add("origin", "%s", i.Origin)
	if i.Account != "" && i.Account != i.Origin {
		l.add("account", "%s", strings.Join(i.Accounts(), ", "))
	}
	l.add("cause", "%s", i.Cause)
	l.known("noticed", i.Noticed)
	l.add("opened", "%s", shortTime(now, i.Opened))
	l.add("last stop", "%s", shortTime(now, i.Updated))
	if i.Open() {
		l.add("state", "open")
	} else {
		l.add("state", "closed %s", shortTime(now, i.Closed))
	}
	l.add("stops", "%s, %s", counted(i.Stops, "message"), counted(i.Recipients, "recipient"))
	if i.Reopened > 0 {
		l.add("came back", "%s", counted(i.Reopened, "time"))
	}
	l.details(i.Details)
	if err := page.Pairs(b, l); err != nil {
		return err
	}
	if len(i.Notes) > 0 {
		b.WriteByte('\n')
		notes := make(pairList, len(i.Notes))
		for n, note := range i.Notes {
			notes[n] = render.Pair{Label: note.Time.Local().Format(time.DateTime), Text: note.Text}
		}
		if err := page.Pairs(b, notes); err != nil {
			return err
		}
	}
	b.WriteString("\nwhat next:\n")
	writeNext(b, i, shared)
	return nil
}

// writeNext writes the commands that fit an incident.
func writeNext(b *bytes.Buffer, i *incident.Incident, shared []string) {
	say := func(format string, args ...any) { fmt.Fprintf(b, "  "+format+"\n", args...) }
	say("relayguard explain %s", shellWord(i.Last, "ID"))
	site, plugin := incident.SiteOf(i.Origin)
	from := shellWord(i.Origin, "")
	name, isText := strings.CutPrefix(i.Origin, "template:")
	switch {
	case from != "" && site != "":
		say("relayguard origins show %s", from)
		if plugin != "" {
			say("relayguard held list --plugin %s", shellWord(pluginAt(plugin, site), "NAME"))
		} else {
			say("relayguard held list --site %s", shellWord(site, "SITE"))
		}
		say("relayguard notice %s", i.ID)
		if i.Open() {
			say("relayguard suspend %s --reason '...'", from)
			say("relayguard resume %s --cause '...'", from)
		}
	case from != "" && isText:
		say("relayguard origins show %s", from)
		say("relayguard held list --template %s", shellWord(name, "NAME"))
		if i.Open() {
			say("relayguard resume %s --cause '...'", from)
			say("relayguard limits set %s %s --windows COUNT/TIME --for TIME --reason '...'", shellWord(i.Cause, "LIMIT"), shellWord("key:"+i.Origin, "WHO"))
			for _, account := range i.Accounts() {
				if isShared(account, shared) {
					say("(%s is not to be suspended: many sites send as it, local.shared_users)", shellWord(account, "its account"))
				}
			}
		}
	default:
		account := i.Accounts()[0]
		who := shellWord(account, "")
		if !strings.Contains(who, ":") {
			return
		}
		say("relayguard held list --account %s", who)
		switch kind, _, _ := strings.Cut(account, ":"); {
		case !i.Open() || !slices.Contains([]string{"login", "local_user", "network"}, kind):
		case isShared(account, shared):
			say("(%s is not to be suspended: many sites send as it, local.shared_users)", who)
		default:
			say("relayguard suspend %s --reason '...'", who)
		}
	}
}

// isShared reports whether many sites send as an account, here or on a web node.
func isShared(account string, shared []string) bool {
	name, ok := strings.CutPrefix(account, "local_user:")
	name, _, _ = strings.Cut(name, "@")
	return ok && slices.Contains(shared, name)
}

// details are what is known of the site and the program that the mail is from.
func (l *pairList) details(d *incident.Details) {
	if d == nil {
		return
	}
	l.known("site", d.Site)
	l.known("plugin", d.Plugin)
	if len(d.Plugins) > 1 || d.Plugin == "" {
		l.counts("plugins", d.Plugins)
	}
	l.counts("entries", d.Entries)
	l.counts("scripts", d.Scripts)
	l.counts("web clients", d.WebClients)
	l.known("looks like", d.Software)
	l.known("template", d.Template)
	l.known("node", d.Node)
}

// counts are values with how often each was seen, a line each.
func (l *pairList) counts(label string, all []incident.Count) {
	for _, c := range all {
		number := number(c.Count)
		if c.Over > 0 {
			number = fmt.Sprintf("%d to %d", c.Count-c.Over, c.Count)
		}
		*l = append(*l, render.Pair{Label: label, Text: fmt.Sprintf("%s (%s, %s to %s)", c.Value, number, c.First.Local().Format("01-02 15:04"), c.Last.Local().Format("01-02 15:04"))})
		label = ""
	}
}
