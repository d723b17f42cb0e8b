package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/render"
)

func newQueueSummary() *cobra.Command {
	var f queueFlags
	var top int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "summary",
		Short: "what is stuck, whose it is, where it goes and why, in one screen",
		Long: strings.TrimSpace(`
Adds up all queued mail: each queue by age as qshape(1) does (<20m is those that are
there for less than 20 minutes, and not in the column before), then the largest origins (plugin and site,
site or account, as far as the journal knows), destinations and reasons, and what to
type next. MESSAGES of a destination counts a message once for each domain that it
goes to; the others count it once. Flags choose as those of queue list.

Exit status: 0; 2 usage; 3 cannot tell, or not all of it: the queue or the journal
could not be read.`),
		Example: "  relayguard queue summary\n  relayguard queue summary --queue deferred --top 20\n  relayguard queue summary --json | jq '.origins[0]'",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter, err := f.filter(cmd, nil)
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("top") && (top < 1 || top > 1000) {
				return usage(cmd, "--top: got %d, want 1 to 1000", top)
			}
			h, err := reach(cmd)
			if err != nil {
				return err
			}
			defer h.Close()
			s, err := h.QueueSummary(cmd.Context(), filter)
			if err != nil {
				return answerOf(err)
			}
			out := cmd.OutOrStdout()
			if asJSON {
				err = render.JSON(out, &s)
			} else {
				err = writeQueueSummary(out, render.PageOf(out).Headings(out), cmp.Or(s.Looked, time.Now()), &s, top)
				tellQueueGaps(cmd, &s.QueueEnd)
			}
			if err == nil && (s.Skipped > 0 || s.NoJournal != "") {
				return &exitError{code: exitCannotTell}
			}
			return wroteAll(err)
		},
	}
	f.add(cmd)
	cmd.Flags().IntVar(&top, "top", 0, "so many `lines` of each kind, rather than what fits a screen of 24")
	jsonFlag(cmd, &asJSON)
	return cmd
}

// summaryLines is how long a summary is: a screen, but for the prompt.
const summaryLines = 23

// writeQueueSummary writes the screen.
func writeQueueSummary(w io.Writer, page render.Page, now time.Time, s *desk.QueueSummary, top int) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s) in the queue", counted(s.Messages, "message"), render.Bytes(s.Bytes))
	if s.Seen > s.Messages {
		fmt.Fprintf(&b, ", of %d", s.Seen)
	}
	shown := slices.DeleteFunc(slices.Clone(s.Queues), func(q desk.Share) bool { return q.Messages == 0 })
	if len(shown) == 0 {
		b.WriteByte('\n')
		_, err := io.WriteString(w, b.String())
		return err
	}
	fmt.Fprintf(&b, ", the oldest for %s\n", render.Ago(now, oldest(shown)))
	heads := section(page, ageTable(page, s.Bounds, shown))
	next := nextSteps(s)
	const fixed, sections = 2, 3 // lines: the first, NEXT; sections have a title each
	rows := room(summaryLines-fixed-sections-len(heads)-len(next), top, len(s.Origins), len(s.Destinations), len(s.Errors))
	lines := slices.Concat(heads, section(page, shareTable("WHOSE", now, s.Origins, rows[0], ofOrigin(s))),
		section(page, shareTable("WHERE TO", now, s.Destinations, rows[1], mostly)), section(page, shareTable("WHY", now, s.Errors, rows[2], nil)))
	for _, line := range lines {
		b.WriteString(line + "\n")
	}
	if len(next) > 0 {
		b.WriteString(page.Heading("NEXT") + "\n")
	}
	for _, line := range next {
		b.WriteString(line + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// room is how many lines each section has: so many in all, at least two each, or
// most of each if that is given.
func room(lines, most int, want ...int) []int {
	rows := make([]int, len(want))
	for given := true; given; {
		given = false
		for i := range want {
			if rows[i] < want[i] && (most > 0 && rows[i] < most || most == 0 && (lines > 0 || rows[i] < 2)) {
				rows[i]++
				lines--
				given = true
			}
		}
	}
	return rows
}

func oldest(all []desk.Share) (t time.Time) {
	for _, s := range all {
		if t.IsZero() || !s.Oldest.IsZero() && s.Oldest.Before(t) {
			t = s.Oldest
		}
	}
	return t
}

// section is a table as lines, its titles bold.
func section(page render.Page, t *render.Table) []string {
	if len(t.Rows) == 0 {
		return nil
	}
	var b strings.Builder
	_ = t.Write(&b, page) // into memory
	title, rest, _ := strings.Cut(strings.TrimSuffix(b.String(), "\n"), "\n")
	return append([]string{page.Heading(title)}, strings.Split(rest, "\n")...)
}

// narrowAges are the classes of ages that a narrow page has room for.
const narrowAges = 6

// ageTable is queues by age: how many messages are there for less than that, and
// not for less than what is left of it.
func ageTable(page render.Page, bounds []time.Duration, all []desk.Share) *render.Table {
	shown := make([]bool, len(bounds)) // others are in the class after theirs
	for i := range bounds {
		fromLast := len(bounds) - 1 - i
		shown[i] = roomy(page) || len(bounds) < narrowAges || fromLast%2 == 0 && fromLast < 2*(narrowAges-1)
	}
	t := &render.Table{Columns: []render.Column{{Title: "QUEUE", Whole: true}, {Title: "MESSAGES", Right: true, Whole: true}}}
	for i, b := range bounds {
		if shown[i] {
			t.Columns = append(t.Columns, render.Column{Title: "<" + shortSpan(b), Right: true, Whole: true})
		}
	}
	if n := len(bounds); n > 0 {
		t.Columns = append(t.Columns, render.Column{Title: shortSpan(bounds[n-1]) + "+", Right: true, Whole: true})
	}
	t.Columns = append(t.Columns, render.Column{Title: "SIZE", Right: true, Whole: true})
	for _, s := range all {
		row, n := []string{s.Name, number(s.Messages)}, 0
		for i := range len(bounds) + min(len(bounds), 1) {
			if i < len(s.Ages) {
				n += s.Ages[i]
			}
			if i < len(bounds) && !shown[i] {
				continue
			}
			cell := ""
			if n > 0 {
				cell = number(n)
			}
			row, n = append(row, cell), 0
		}
		t.Rows = append(t.Rows, append(row, render.Bytes(s.Bytes)))
	}
	return t
}

// shortSpan is a bound of ages, as qshape(1) has them: in minutes if hours leave a
// rest.
func shortSpan(d time.Duration) string {
	switch {
	case d >= 24*time.Hour && d%(24*time.Hour) == 0:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d >= time.Hour && d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dm", d/time.Minute)
}

// shareTable is the largest shares, and the rest in one line; more, which may be
// nil, has something to add to each.
func shareTable(title string, now time.Time, all []desk.Share, rows int, more func(*desk.Share) string) *render.Table {
	t := &render.Table{Columns: []render.Column{{Title: "MESSAGES", Right: true, Whole: true}, {Title: "OLDEST", Right: true, Whole: true}, {Title: title, Min: 24, Weight: 2}}}
	if more == nil {
		t.Columns[2].Weight = 5
	} else {
		t.Columns = append(t.Columns, render.Column{Title: "MOSTLY", Weight: 3})
	}
	for i, s := range all {
		if i == rows-1 && len(all) > rows || s.Name == "" {
			t.Rows = append(t.Rows, rest(all[i:], now))
			break
		}
		row := []string{number(s.Messages), render.Ago(now, s.Oldest), s.Name}
		if more != nil {
			row = append(row, more(&s))
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// rest is the line for all that have no line.
func rest(all []desk.Share, now time.Time) []string {
	names, messages := 0, 0
	for _, s := range all {
		messages += s.Messages
		if names++; s.Name == "" {
			names += s.Others - 1
		}
	}
	return []string{number(messages), render.Ago(now, oldest(all)), fmt.Sprintf("(%s)", counted(names, "other")), ""}
}

// mostly is the most frequent error of a share.
func mostly(s *desk.Share) string {
	if len(s.Errors) == 0 {
		return ""
	}
	return core(s.Errors[0])
}

// unknownOrigin is what the summary calls those that the journal does not know.
const unknownOrigin = "unknown"

// ofOrigin is mostly; of those who are not known it names the largest sender, if at
// least half of their mail must be his.
func ofOrigin(s *desk.QueueSummary) func(*desk.Share) string {
	return func(o *desk.Share) string {
		known := s.Messages - o.Messages
		if o.Name == unknownOrigin && len(s.Senders) > 0 && s.Senders[0].Name != "" && (s.Senders[0].Messages-known)*2 >= o.Messages {
			return "from " + s.Senders[0].Name
		}
		return mostly(o)
	}
}

// nextSteps are what to type next, at most three; what cannot be typed is left out.
func nextSteps(s *desk.QueueSummary) []string {
	var all []string
	say := func(note, form, what string) {
		word := shellWord(what, "")
		if word == "" {
			return
		}
		line := fmt.Sprintf("  relayguard "+form, word)
		if note = "  # " + note; render.Width(line+note) <= 80 {
			line += note
		}
		all = append(all, line)
	}
	if len(s.Origins) > 0 && s.Origins[0].Messages*4 >= s.Messages {
		if of, known := strings.CutPrefix(originFlag(s.Origins[0].Name), "--"); known {
			flag, name, _ := strings.Cut(of, " ")
			say("whose mail it is", "queue list --"+flag+" %s --limit 20", name)
		}
	}
	if len(s.Origins) > 0 && s.Origins[0].Name == unknownOrigin && len(s.Senders) > 0 && s.Senders[0].Messages*4 >= s.Messages {
		say("nobody known: by sender", "queue list --from %s --limit 20", s.Senders[0].Name)
	}
	for _, q := range s.Queues {
		if q.Name == "hold" && q.Messages*4 >= s.Messages && q.Messages > 0 {
			say("what waits for you", "queue summary --queue %s", "hold")
		}
	}
	if len(s.Destinations) > 0 && s.Destinations[0].Name != unknownOrigin && s.Destinations[0].Messages*4 >= s.Messages && mostly(&s.Destinations[0]) != "" {
		say("where it is stuck", "queue list --to-domain %s --limit 20", s.Destinations[0].Name)
	}
	if len(s.Errors) > 0 && looksListed(s.Errors[0].Name) {
		all = append(all, "  relayguard rbl status  # the reason speaks of a blocklist")
	}
	return all[:min(len(all), 3)]
}

// originFlag is the flag that chooses an origin, with a space before its value;
// "" for those that are not known.
func originFlag(name string) string {
	kind, value, found := strings.Cut(name, ":")
	switch {
	case name == "" || name == unknownOrigin || !found:
		return ""
	case kind == "plugin", kind == "site", kind == "login":
		return "--" + kind + " " + value
	}
	return "--account " + name
}

// looksListed reports whether a reason speaks of a blocklist.
func looksListed(why string) bool {
	why = strings.ToLower(why)
	return slices.ContainsFunc([]string{"blocklist", "block list", "blacklist", "black list", "spamhaus", "listed", "rbl", "reputation", "spamcop", "barracuda"}, func(word string) bool { return strings.Contains(why, word) })
}
