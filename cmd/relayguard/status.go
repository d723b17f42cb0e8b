package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/forwards"
	"relayguard/cmd/internal/render"
	"relayguard/incident"
	"relayguard/policy"
)

func newStatus() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "say what is happening now",
		Long: strings.TrimSpace(`
Says whether somebody abuses the server now, and who: first the open incidents,
one a line, and the command that explains them; then the red switch and the
suspensions, the phase, what is held, what was decided since the daemon started,
and whether journal, MTA log and alerts are well.

Exit status: 0 all is quiet; 1 an incident is open, the red switch is pulled, a
forwarding rule that alerted is not approved, one of our addresses is on a blocklist
that alerts, or the journal, the limits' store, the
hold queue, the MTA's red switch, the watch over forwarding rules or over blocklists
or a channel of alerts is not well; 3 the daemon does not run.`),
		Example: "  relayguard status\n  relayguard status --json | jq '.incidents[].origin'",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, c, err := asker(cmd)
			if err != nil {
				return err
			}
			var s status
			if err := client.Get(cmd.Context(), "/v1/status", nil, &s); err != nil {
				if errors.Is(err, control.ErrDead) {
					return tellDead(cmd, c.Control.Socket, asJSON)
				}
				return answerOf(err)
			}
			if asJSON {
				err = render.JSON(cmd.OutOrStdout(), s)
			} else {
				err = writeStatus(cmd.OutOrStdout(), render.PageOf(cmd.OutOrStdout()), &s)
			}
			if err != nil {
				return &exitError{exitCannotTell, err}
			}
			if len(s.Incidents) > 0 || s.Stopped != nil || !s.Journal.OK || !s.Store.OK || s.Queue != "" || s.MTAStop != "" || s.NoRoom != "" || s.Forwards != nil && s.Forwards.Due > 0 || s.NoForwards != "" || s.NoBlocklists != "" || s.Blocklists.finding() || slices.ContainsFunc(s.Alerts, func(a alertStatus) bool { return a.Problem != "" }) {
				return &exitError{code: exitFinding}
			}
			return nil
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// tellDead says what is known of a daemon that does not answer. Its socket is as
// old as its start; one that ended in order took it away.
func tellDead(cmd *cobra.Command, socket string, asJSON bool) error {
	dead := struct {
		Running bool      `json:"running"`
		Socket  string    `json:"socket"`
		Started time.Time `json:"started,omitzero"`
		Known   string    `json:"known"`
	}{Socket: socket, Known: "it ended in order, or was never started: its socket is not there"}
	if info, err := os.Lstat(socket); err == nil {
		dead.Started = info.ModTime()
		dead.Known = "it was killed or crashed: it left its socket, started " + shortTime(time.Now(), info.ModTime())
	} else if !errors.Is(err, os.ErrNotExist) {
		dead.Known = err.Error()
	}
	if asJSON {
		if err := render.JSON(cmd.OutOrStdout(), dead); err != nil {
			return &exitError{exitCannotTell, err}
		}
	}
	return &exitError{exitCannotTell, fmt.Errorf("%w: nobody answers on %s; %s; %s. The reason is in: journalctl -u relayguard", control.ErrDead, socket, dead.Known, startHint)}
}

func writeStatus(w io.Writer, page render.Page, s *status) error {
	if len(s.Incidents) == 0 {
		if _, err := fmt.Fprintln(w, "no open incident"); err != nil {
			return err
		}
	}
	if err := incidentTable(page, s.Now, s.Incidents).Write(w, page); err != nil {
		return err
	}
	if len(s.Incidents) > 0 {
		others := ""
		if len(s.Incidents) > 1 {
			others = " (or another of these ids)"
		}
		fmt.Fprintf(w, "why: relayguard explain %s%s\n", shellWord(s.Incidents[0].Last, "ID"), others)
	}
	fmt.Fprintln(w)
	var pairs []render.Pair
	if s.Stopped != nil {
		pairs = append(pairs, render.Pair{Label: "red switch", Text: fmt.Sprintf("all mail to the outside is held since %s, by %s: %s; relayguard start lets it go", shortTime(s.Now, s.Stopped.Since), s.Stopped.By, s.Stopped.Reason)})
	}
	if s.MTAStop != "" {
		pairs = append(pairs, render.Pair{Label: "mta stop", Text: s.MTAStop})
	}
	for i, sw := range s.Suspended {
		label := ""
		if i == 0 {
			label = "suspended"
		}
		pairs = append(pairs, render.Pair{Label: label, Text: fmt.Sprintf("%s %s, by %s: %s", accountName(&sw), untilWhen(s.Now, sw.Until, "until it is resumed"), sw.By, sw.Reason)})
	}
	return page.Pairs(w, append(pairs, s.pairs()...))
}

// incidentTable has a line for each incident.
func incidentTable(page render.Page, now time.Time, all []incident.Incident) *render.Table {
	t := &render.Table{Columns: []render.Column{{Title: "ORIGIN", Min: 21}, {Title: "CAUSE", Min: 8}, {Title: "SINCE", Whole: true}, {Title: "STOPS", Right: true, Whole: true}, {Title: "EXPLAIN", Whole: true}}}
	for _, i := range all {
		since := render.Ago(now, i.Opened)
		if !page.Cut {
			since = when(page, i.Opened)
		}
		t.Rows = append(t.Rows, []string{i.Origin, i.Cause, since, number(i.Stops), i.Last})
	}
	return t
}

// pairs are what status says below incidents and switches.
func (s *status) pairs() []render.Pair {
	held := fmt.Sprintf("%s (%s) by relayguard", counted(s.Held.Messages, "message"), render.Bytes(s.Held.Bytes))
	if s.Foreign > 0 {
		held += fmt.Sprintf(", %d by others", s.Foreign)
	}
	pairs := []render.Pair{{Label: "phase", Text: phaseLine(s.Phase)}, {Label: "held", Text: held}}
	if s.NoRoom != "" {
		pairs = append(pairs, render.Pair{Label: "no room", Text: "nothing more is held, what would be is refused at its source: " + s.NoRoom})
	}
	if s.Forwards != nil {
		pairs = append(pairs, render.Pair{Label: "forwards", Text: forwardsLine(s.Forwards, s.Now)})
	}
	if s.NoForwards != "" {
		pairs = append(pairs, render.Pair{Label: "forwards", Text: s.NoForwards})
	}
	if s.Blocklists != nil {
		pairs = append(pairs, render.Pair{Label: "blocklists", Text: s.Blocklists.line(s.Now)})
	}
	if s.NoBlocklists != "" {
		pairs = append(pairs, render.Pair{Label: "blocklists", Text: "not watched: " + s.NoBlocklists})
	}
	if s.Queue != "" {
		pairs = append(pairs, render.Pair{Label: "hold queue", Text: "cannot be looked at, so held mail cannot be listed, released or deleted: " + s.Queue + "; see journalctl -u relayguard-queue"})
	}
	if len(s.Forbidden) > 0 {
		pairs = append(pairs, render.Pair{Label: "sendmail(1)", Text: fmt.Sprintf("refuses accounts that are not suspended: %s; relayguard resume local_user:NAME ends that", strings.Join(s.Forbidden, ", "))})
	}
	if line := s.Store.line(s.Now); line != "" {
		pairs = append(pairs, render.Pair{Label: "limits", Text: line})
	}
	if s.Relays != "" {
		pairs = append(pairs, render.Pair{Label: "relays", Text: s.Relays})
	}
	pairs = append(pairs, s.Nodes.pairs(s.Now)...)
	if s.Waiting > 0 {
		pairs = append(pairs, render.Pair{Label: "paced", Text: fmt.Sprintf("%s of it until there is room, then released by itself: relayguard held pace list", counted(s.Waiting, "message"))})
	}
	return append(pairs,
		render.Pair{Label: "messages", Text: s.messageLine()},
		render.Pair{Label: "denied", Text: fmt.Sprintf("%s in force; relayguard deny list", counted(s.Denied, "denial"))},
		render.Pair{Label: "journal", Text: s.Journal.line()},
		render.Pair{Label: "mta log", Text: s.Log.line()},
		render.Pair{Label: "alerts", Text: alertLine(s.Alerts)},
		render.Pair{Label: "daemon", Text: fmt.Sprintf("version %s, since %s, %s from the MTA", s.Version, shortTime(s.Now, s.Since), counted(s.Open, "connection"))})
}

// forwardsLine is how the watch over forwarding rules stands.
func forwardsLine(f *forwards.Status, now time.Time) string {
	line := fmt.Sprintf("%d rules that do not end inside", f.Findings)
	if f.Due > 0 {
		line = fmt.Sprintf("%s that should be looked at: relayguard forwards list --due; %s", counted(f.Due, "rule"), line)
	}
	switch {
	case f.Error != "":
		line += "; " + f.Error
	case f.Scanned.IsZero():
		line += "; the first scan is not over yet"
	default:
		line += fmt.Sprintf("; all read %s, watched by %s", shortTime(now, f.Scanned), f.Method)
	}
	return line
}

// accountName is whom a switch is about, a Unix account by its name.
func accountName(s *policy.Switch) string {
	uid, err := strconv.Atoi(s.Value)
	if s.Subject != policy.SubjectLocalUser || err != nil {
		return s.About()
	}
	return "local_user:" + cmp.Or(userName(uid), "uid:"+s.Value)
}

// alertLine is how the channels of alerts do.
func alertLine(all []alertStatus) string {
	if len(all) == 0 {
		return "nobody is told: alert names nobody"
	}
	var channels []string
	for _, a := range all {
		line := fmt.Sprintf("%s: %d sent", a.Channel, a.Delivered)
		if a.Waiting > 0 {
			line += fmt.Sprintf(", %d waiting", a.Waiting)
		}
		if a.Kept > 0 {
			line += fmt.Sprintf(", %d kept back", a.Kept)
		}
		if a.Problem != "" {
			line += ", the last attempt failed: " + a.Problem
		}
		channels = append(channels, line)
	}
	return strings.Join(channels, "; ")
}

// messageLine is how many messages were decided how, by verdicts.
func (s *status) messageLine() string {
	var parts []string
	for _, name := range policy.Verdicts() {
		if n := s.Messages[name]; n > 0 || name == policy.Accept.String() {
			parts = append(parts, fmt.Sprintf("%d %s", n, name))
		}
	}
	line := strings.Join(parts, ", ")
	if s.Refused > 0 {
		line += "; " + counted(s.Refused, "recipient") + " refused before there was a message"
	}
	return line + "; since " + render.Ago(s.Now, s.Since)
}

// phaseLine says in one line what the phase means.
func phaseLine(phase string) string {
	switch phase {
	case policy.Learning.String():
		return "learning: bursts and abuse limits act, what else is wrong is told"
	case policy.Observe.String():
		return "observe: rules only tell; deny, suspend and stop act"
	case policy.Enforce.String():
		return "enforce: all rules act"
	}
	return phase
}

func (j *journalStatus) line() string {
	var parts []string
	if !j.OK {
		parts = append(parts, "not well: mail is decided all the same, but what is decided may not outlive a crash")
	}
	parts = append(parts, cmp.Or(j.Text, "fine"))
	if j.Backlog > 0 && !j.OK {
		parts = append(parts, counted(j.Backlog, "record")+" in memory only")
	}
	if j.Lag > 1<<20 {
		parts = append(parts, render.Bytes(j.Lag)+" not yet searchable")
	}
	if j.Lost > 0 {
		parts = append(parts, counted(j.Lost, "record")+" about stops, holds or orders lost")
	}
	if j.DroppedAccepted > 0 {
		parts = append(parts, counted(j.DroppedAccepted, "row")+" about accepted mail left out under load")
	}
	return strings.Join(parts, "; ")
}

func (l *logStatus) line() string {
	if l.Source == "none" {
		return "not read (mta.log): what becomes of mail is not known"
	}
	parts := []string{l.Source}
	if l.Problem != "" {
		parts = []string{"cannot be read, so what becomes of mail is not known: " + l.Problem}
	} else if l.Events == 0 {
		parts = append(parts, "nothing of the MTA in it so far")
	} else {
		parts = append(parts, fmt.Sprintf("%d sent, %d deferred, %d bounced", l.Delivered, l.Deferred, l.Bounced))
	}
	for _, bad := range []struct {
		n    int64
		text string
	}{{l.Gaps, "gap"}, {l.Unreadable, "unreadable line"}} {
		if bad.n > 0 {
			parts = append(parts, counted(bad.n, bad.text))
		}
	}
	if l.Gaps+l.Unreadable > 0 {
		parts = append(parts, "deliveries may be missing from explain")
	}
	return strings.Join(parts, "; ")
}
