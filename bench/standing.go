package main

import (
	"fmt"
	"io"
	"strconv"
)

// standing is what came of one combination of a contest: paces of each round.
type standing struct {
	name, reference string // "memory/3x16": buckets and callers
	ours, theirs    []pace
	goal            *goal
}

func rate(p pace) float64 { return p.perSecond }
func p99(p pace) float64  { return microseconds(p.p99) }

// added is how many microseconds more a step takes.
func (s *standing) added() float64 {
	return 1e6/medianOf(s.ours, rate) - 1e6/medianOf(s.theirs, rate)
}

func medianOf(paces []pace, what func(pace) float64) float64 {
	var all []float64
	for _, p := range paces {
		all = append(all, what(p))
	}
	return median(all)
}

// results are the lines of bench.json; the goal is with the one it is about.
func (s *standing) results() (all []result) {
	order := []string{theGuard, s.reference}
	compared := func(name, unit string, g *goal, what func(pace) float64) {
		values := map[string]float64{theGuard: medianOf(s.ours, what), s.reference: medianOf(s.theirs, what)}
		all = append(all, compare("limits/"+s.name+"/"+name, unit, s.reference, g, values, order)...)
	}
	if s.goal.ofRatio {
		compared("steps_per_s", "1/s", s.goal, rate)
	} else {
		compared("steps_per_s", "1/s", nil, rate)
		all = append(all, result{Name: "limits/" + s.name + "/added", Value: round(s.added()), Unit: "us", Reference: s.reference, goal: s.goal})
	}
	compared("p99", "us", nil, p99)
	return all
}

// printStandings writes one row a combination, in less than 80 columns.
func printStandings(w io.Writer, all []standing) {
	if len(all) == 0 {
		return
	}
	const row = "%-12s %8v %-12s %8v %7s %7s %3s %7v %7v\n"
	fmt.Fprintln(w, "\nLimits, steps of so many buckets x callers. p99 is of one step, in us.")
	fmt.Fprintf(w, row, "", "1/s", "reference", "1/s", "ratio", "goal", "met", "p99", "its p99")
	for i := range all {
		s := &all[i]
		r := s.results()
		judged := r[0]
		shown := strconv.FormatFloat(judged.Ratio, 'f', 2, 64) + "x"
		if !s.goal.ofRatio {
			judged = r[2]
			shown = fmt.Sprintf("%+.2fus", judged.Value)
		}
		met := "no"
		if s.goal.met(judged) {
			met = "yes"
		}
		fmt.Fprintf(w, row, s.name, number(r[0].Value), s.reference, number(r[1].Value), shown, s.goal, met,
			number(medianOf(s.ours, p99)), number(medianOf(s.theirs, p99)))
	}
}
