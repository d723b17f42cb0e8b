package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// queueTable is what commands over the queue of one mail server took.
type queueTable struct {
	server string
	each   int // messages that were deferred, and that were held
	rows   []queueRow
}

// queueRow is one command. plain is what the mail server's own tool took, if there
// is a reference.
type queueRow struct {
	name      string
	ours      ours
	goal      bool // its first line has a goal
	reference string
	plain     cost
}

// results are the lines of bench.json.
func (t *queueTable) results() (all []result) {
	first, memory := &goal{mostFirstLineSeconds, false, false}, &goal{mostQueueMB, false, false}
	for i := range t.rows {
		r := &t.rows[i]
		order := []string{theGuard, r.reference}
		put := func(name, unit string, g *goal, our, their float64) {
			values := map[string]float64{theGuard: our}
			if r.reference != "" && their > 0 {
				values[r.reference] = their
			}
			all = append(all, compare(t.nameOf(r)+name, unit, r.reference, g, values, order)...)
		}
		if r.goal {
			put("first_s", "s", first, r.ours.first, r.plain.first)
		} else if r.ours.first > 0 { // acts; a small one is over before it says anything
			put("progress_s", "s", nil, r.ours.first, 0)
		}
		put("s", "s", nil, r.ours.all, r.plain.all)
		put("command_rss", "MB", memory, r.ours.mb, r.plain.mb)
		put("daemon_rss", "MB", memory, r.ours.daemon, 0)
		put("helper_rss", "MB", memory, r.ours.helper, 0)
	}
	return all
}

// nameOf is "queue/postfix/100k/held_list/".
func (t *queueTable) nameOf(r *queueRow) string {
	size := strconv.Itoa(t.each)
	if t.each%1000 == 0 {
		size = strconv.Itoa(t.each/1000) + "k"
	}
	return "queue/" + t.server + "/" + size + "/" + strings.ReplaceAll(r.name, " ", "_") + "/"
}

// printQueues writes one row a command, in less than 80 columns.
func printQueues(w io.Writer, all []*queueTable) {
	const row = "%-14s %7s %7s %-10s %7s %6s %6s %6s %6s\n"
	for _, t := range all {
		if len(t.rows) == 0 {
			continue
		}
		fmt.Fprintf(w, "\nThe queue of %s, %d messages and as many held. s: until the first row\nof a list or the first word of progress, and the end. MB: resident at most.\n", t.server, t.each)
		fmt.Fprintf(w, row, "", "first s", "all s", "reference", "all s", "ratio", "MB", "daemon", "helper")
		for i := range t.rows {
			r := &t.rows[i]
			first, plain, ratio := "-", "", ""
			if r.ours.first > 0 {
				first = short(r.ours.first)
			}
			if r.goal {
				first = judged(r.ours.first, mostFirstLineSeconds)
			}
			if r.reference != "" {
				plain, ratio = short(r.plain.all), short(r.ours.all/r.plain.all)
			}
			fmt.Fprintf(w, row, r.name, first, short(r.ours.all), r.reference, plain, ratio,
				judged(r.ours.mb, mostQueueMB), judged(r.ours.daemon, mostQueueMB), judged(r.ours.helper, mostQueueMB))
		}
		fmt.Fprintf(w, "Goals: a list's first row within %d s, %d MB a process; ! is a miss.\n", mostFirstLineSeconds, mostQueueMB)
	}
}

// short writes three digits.
func short(v float64) string {
	s, _ := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 3, 64), 64) // what FormatFloat writes
	return strconv.FormatFloat(s, 'f', -1, 64)
}

// judged marks what is more than it is to be.
func judged(v, most float64) string {
	if v > most {
		return "!" + short(v)
	}
	return short(v)
}

// medianCost is that of rounds; of memory it is the most.
func medianCost(all []cost) cost {
	return cost{
		first: medianBy(all, func(c cost) float64 { return c.first }), all: medianBy(all, func(c cost) float64 { return c.all }),
		lines: all[0].lines, mb: slices.MaxFunc(all, func(a, b cost) int { return cmp.Compare(a.mb, b.mb) }).mb,
	}
}

func medianOurs(all []ours) (of ours) {
	var costs []cost
	for _, o := range all {
		costs = append(costs, o.cost)
		of.daemon, of.helper = max(of.daemon, o.daemon), max(of.helper, o.helper)
	}
	of.cost = medianCost(costs)
	return of
}

func medianBy[T any](all []T, what func(T) float64) float64 {
	var values []float64
	for _, v := range all {
		values = append(values, what(v))
	}
	return median(values)
}
