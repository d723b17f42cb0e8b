package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/render"
	"relayguard/rbl"
	"relayguard/rbl/check"
)

// rblChecked is what check prints as JSON.
type rblChecked struct {
	At        time.Time     `json:"at"`
	Seconds   float64       `json:"seconds"`
	Queries   int64         `json:"queries"`
	Resolvers []string      `json:"resolvers"`
	Subjects  []rblStanding `json:"subjects"`
	Answers   []rbl.Answer  `json:"answers"`
	Zones     []rbl.Health  `json:"zones"`
	NotAsked  []rblNotAsked `json:"not_asked"`
	Trouble   []string      `json:"trouble"`     // what of ours could not be found
	Unread    []string      `json:"keys_unread"` // that are configured
	Unsure    bool          `json:"unsure"`      // an address that sends may not be among the subjects
	own       bool          // what sends was to be found, not given
	remarks   []string      // about keys and resolvers
}

// rblNotAsked is a list that somebody may expect to be asked, and is not.
type rblNotAsked struct {
	Zone    string `json:"zone"`
	Why     string `json:"why"`
	matters bool   // it is among those that harm most, and on by default
}

// rblStanding is how many lists said what of a subject. Listed is of severity above
// info; range and asn of what names whole networks.
type rblStanding struct {
	Subject rbl.Subject `json:"subject"`
	How     string      `json:"how"`
	Listed  int         `json:"listed"`
	Range   int         `json:"range"` // of Listed: only networks
	Info    int         `json:"info"`  // on lists that harm nobody
	Clean   int         `json:"clean"`
	Unknown int         `json:"unknown"`
	Refused int         `json:"refused"`
}

// take counts what a round said.
func (found *rblChecked) take(r check.Round, subjects []rbl.Subject, how map[rbl.Subject]string) {
	found.At, found.Seconds, found.Queries = r.Began, r.Took.Seconds(), r.Queries
	found.Answers, found.Zones = append([]rbl.Answer{}, r.Answers...), append([]rbl.Health{}, r.Zones...)
	place := map[rbl.Subject]int{}
	for i, s := range subjects {
		place[s] = i
		found.Subjects = append(found.Subjects, rblStanding{Subject: s, How: cmp.Or(how[s], "given")})
	}
	for i := range found.Answers {
		if at, ours := place[found.Answers[i].Subject]; ours {
			found.Subjects[at].count(&found.Answers[i])
		}
	}
}

func (s *rblStanding) count(a *rbl.Answer) {
	switch {
	case a.Result == rbl.Listed && a.Worst() > rbl.Info:
		s.Listed++
		if !slices.ContainsFunc(a.Hits, func(h rbl.Hit) bool { return h.Severity > rbl.Info && !h.Scope.Wide() }) {
			s.Range++
		}
	case a.Result == rbl.Listed:
		s.Info++
	case a.Result == rbl.Clean:
		s.Clean++
	case a.Result == rbl.Refused:
		s.Refused++
	default:
		s.Unknown++
	}
}

// asked is how many lists were asked about it.
func (s *rblStanding) asked() int { return s.Listed + s.Info + s.Clean + s.Unknown + s.Refused }

// sum adds all subjects up; addresses says whether one of them is an address.
func (found *rblChecked) sum() (all rblStanding, addresses, unasked bool) {
	for _, s := range found.Subjects {
		all.Listed, all.Range, all.Info = all.Listed+s.Listed, all.Range+s.Range, all.Info+s.Info
		all.Clean, all.Unknown, all.Refused = all.Clean+s.Clean, all.Unknown+s.Unknown, all.Refused+s.Refused
		addresses = addresses || s.Subject.Addr.IsValid()
		unasked = unasked || s.asked() == 0
	}
	return all, addresses, unasked
}

// doubt says why nothing can be told although nothing is listed; "" if it can.
func (found *rblChecked) doubt(allow int) string {
	all, addresses, unasked := found.sum()
	switch missing := all.Unknown + all.Refused; {
	case found.own && !addresses:
		return "it is not known which addresses send"
	case found.Unsure:
		return "an address that sends may not have been checked: " + strings.Join(found.Trouble, "; ")
	case len(found.Unread) > 0:
		return strings.Join(found.Unread, "; ")
	case unasked:
		return "of something no list was asked"
	case missing > allow:
		return fmt.Sprintf("%s unknown, %d refused", counted(all.Unknown, "answer"), all.Refused)
	}
	return ""
}

// show prints what was found, and says it by the exit code.
func (f *rblCheck) show(cmd *cobra.Command, found *rblChecked, now time.Time) error {
	out := cmd.OutOrStdout()
	var err error
	if f.asJSON {
		err = render.JSON(out, found)
	} else {
		page := render.PageOf(out)
		err = rblAnswerTable(page, found, f.all).Write(out, page)
	}
	if err != nil {
		return &exitError{exitCannotTell, err}
	}
	found.tell(cmd, f.asJSON)
	all, _, _ := found.sum()
	if all.Listed > 0 {
		return &exitError{code: exitFinding}
	}
	if doubt := found.doubt(f.allowUnknown); doubt != "" {
		return &exitError{exitCannotTell, fmt.Errorf("nothing is listed, and that does not say that all is clean: %s", doubt)}
	}
	return nil
}

// tell says what is not in the table.
func (found *rblChecked) tell(cmd *cobra.Command, asJSON bool) {
	remarks(cmd, found.remarks)
	remarks(cmd, found.Trouble)
	remarks(cmd, found.notAsked())
	for _, line := range zoneRemarks(found.Zones) {
		remark(cmd, "%s", line)
	}
	if asJSON {
		return
	}
	for i := range found.Subjects {
		remark(cmd, "%s", found.Subjects[i].line())
	}
	remark(cmd, "%s by %s in %.1fs", counted(found.Queries, "question"), strings.Join(found.Resolvers, ", "), found.Seconds)
}

// notAsked tells of lists that are not asked: why, of those that matter, and how many
// there are beside.
func (found *rblChecked) notAsked() (lines []string) {
	others := 0
	for _, n := range found.NotAsked {
		if n.matters {
			lines = append(lines, fmt.Sprintf("not asked: %s: %s", n.Zone, n.Why))
		} else {
			others++
		}
	}
	if others > 0 {
		lines = append(lines, fmt.Sprintf("not asked: %s more, for want of a key or by their terms: relayguard rbl zones", counted(others, "list")))
	}
	return lines
}

// maxAlike is how many lists that are in the same state have a line each.
const maxAlike = 5

// zoneRemarks say which lists cannot be believed; all is by zone. Of a list that is so
// for all its kinds there is one line, of many that are so at once, too: then it is
// rather the resolver.
func zoneRemarks(all []rbl.Health) []string {
	var lines []string
	zones, why := map[rbl.State][]string{}, map[rbl.State]string{}
	byState := map[rbl.State][]string{} // their lines
	for i := 0; i < len(all); i++ {
		h := all[i]
		if h.State == rbl.Healthy {
			continue
		}
		kinds := []string{h.Kind.String()}
		for ; i+1 < len(all) && all[i+1].Zone == h.Zone && all[i+1].State == h.State && all[i+1].Why == h.Why; i++ {
			kinds = append(kinds, all[i+1].Kind.String())
		}
		line := fmt.Sprintf("not believed: %s (%s) is %s", h.Zone, strings.Join(kinds, ", "), shownState(h.State))
		if h.Why != "" {
			line += ": " + h.Why
		}
		byState[h.State] = append(byState[h.State], line)
		if !slices.Contains(zones[h.State], h.Zone) {
			zones[h.State] = append(zones[h.State], h.Zone)
		}
		why[h.State] = cmp.Or(why[h.State], h.Why)
	}
	for _, state := range rbl.States() {
		if n := len(zones[state]); n <= maxAlike {
			lines = append(lines, byState[state]...)
			continue
		}
		line := fmt.Sprintf("not believed: %s are %s: %s", counted(len(zones[state]), "list"), shownState(state), someOf(zones[state], maxAlike))
		if why[state] != "" {
			line += "; the first: " + why[state]
		}
		lines = append(lines, line)
	}
	return lines
}

// shownState is a state in words.
func shownState(s rbl.State) string { return strings.ReplaceAll(s.String(), "_", " ") }

// line sums a subject up.
func (s *rblStanding) line() string {
	if s.asked() == 0 {
		return fmt.Sprintf("%s: no list was asked", s.Subject)
	}
	parts := []string{}
	add := func(n int, form string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf(form, n))
		}
	}
	add(s.Listed-s.Range, "listed on %d")
	add(s.Range, "its network on %d")
	add(s.Info, "harmless entry on %d")
	add(s.Unknown, "unknown on %d")
	add(s.Refused, "refused by %d")
	add(s.Clean, "clean on %d")
	return fmt.Sprintf("%s: %s", s.Subject, strings.Join(parts, ", "))
}

// rblRow is one code of an answer, or an answer without.
type rblRow struct {
	answer *rbl.Answer
	hit    *rbl.Hit // nil: not listed
	more   int      // further subjects of which the list says the same
}

// urgency orders rows for people: what harms first, and an address before a network.
func (r *rblRow) urgency() int {
	switch {
	case r.hit != nil && r.hit.Severity > rbl.Info && !r.hit.Scope.Wide():
		return 200 + int(r.hit.Severity)
	case r.hit != nil && r.hit.Severity > rbl.Info:
		return 100 + int(r.hit.Severity)
	case r.hit != nil:
		return 10
	}
	return map[rbl.Result]int{rbl.Refused: 30, rbl.Unknown: 20}[r.answer.Result]
}

// rblRows are the rows of a table: what is not clean, or all. What a list says of
// several subjects in the same words, and is no listing, is one row if joined.
func rblRows(answers []rbl.Answer, all, joined bool) []rblRow {
	type saying struct {
		zone   string
		result rbl.Result
		why    string
	}
	var rows []rblRow
	said := map[saying]int{}
	for i := range answers {
		a := &answers[i]
		if a.Result == rbl.Listed && len(a.Hits) > 0 {
			for j := range a.Hits {
				rows = append(rows, rblRow{answer: a, hit: &a.Hits[j]})
			}
			continue
		}
		if a.Result == rbl.Clean && !all {
			continue
		}
		key := saying{a.Zone, a.Result, a.Why}
		if at, there := said[key]; there && joined && a.Result != rbl.Listed {
			rows[at].more++
			continue
		}
		said[key] = len(rows)
		rows = append(rows, rblRow{answer: a})
	}
	slices.SortStableFunc(rows, func(a, b rblRow) int { return b.urgency() - a.urgency() })
	return rows
}

// rblAnswerTable has what is not clean, or all. On a terminal why a list cannot be
// believed is in the remarks only.
func rblAnswerTable(page render.Page, found *rblChecked, all bool) *render.Table {
	t := &render.Table{Columns: []render.Column{{Title: "SUBJECT", Min: 13, Weight: 2}, {Title: "ZONE", Min: 14, Weight: 2}, {Title: "RESULT", Whole: true}, {Title: "SEVERITY", Whole: true}, {Title: "SCOPE", Whole: true}, wrapped("MEANS")}}
	for _, r := range rblRows(found.Answers, all, page.Cut && !all) {
		subject := r.answer.Subject.String()
		if r.more > 0 {
			subject += fmt.Sprintf(" and %d more", r.more)
		}
		row := []string{subject, r.answer.Zone, r.answer.Result.String(), "", "", r.answer.Why}
		if state := found.state(r.answer); r.hit != nil {
			row[3], row[4], row[5] = r.hit.Severity.String(), r.hit.Scope.String(), r.means()
		} else if page.Cut && state != rbl.Healthy {
			row[5] = shownState(state)
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// state is how the list of an answer is.
func (found *rblChecked) state(a *rbl.Answer) rbl.State {
	for _, h := range found.Zones {
		if h.Zone == a.Zone && h.Kind == a.Subject.Kind() {
			return h.State
		}
	}
	return rbl.Healthy // nothing speaks against it
}

// means is a code in words, and what the list itself says.
func (r *rblRow) means() string {
	text := r.hit.Means
	if r.hit.Code.IsValid() {
		text = strings.TrimSpace(text + " (" + r.hit.Code.String() + ")")
	}
	if len(r.answer.Reasons) > 0 {
		text += ": " + strings.Join(r.answer.Reasons, " / ")
	}
	return text
}
