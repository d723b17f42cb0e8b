package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
)

// result is one line of bench.json. Ratio is Value over that of Reference; 0 if
// there is none.
type result struct {
	Name      string  `json:"name"`
	Value     float64 `json:"value"`
	Unit      string  `json:"unit"`
	Reference string  `json:"reference"`
	Ratio     float64 `json:"ratio"`

	of   string // whose value it is; the guard's has no suffix in Name
	goal *goal
}

// goal is what a value, or its ratio, is to be. Missing it fails nothing: a
// machine with other work on it misses it easily.
type goal struct {
	bound   float64
	atLeast bool
	ofRatio bool
}

func (g *goal) met(r result) bool {
	v := r.Value
	if g.ofRatio {
		v = r.Ratio
	}
	if g.atLeast {
		return v >= g.bound
	}
	return v <= g.bound
}

// numbers are for bench.json: {"at_most": 100}, {"ratio_at_least": 4}.
func (g *goal) numbers() map[string]float64 {
	if g == nil {
		return nil
	}
	name := "at_most"
	if g.atLeast {
		name = "at_least"
	}
	if g.ofRatio {
		name = "ratio_" + name
	}
	return map[string]float64{name: g.bound}
}

func (g *goal) String() string {
	sign, kind := "<=", ""
	if g.atLeast {
		sign = ">="
	}
	if g.ofRatio {
		kind = "x"
	}
	return sign + strconv.FormatFloat(g.bound, 'g', 4, 64) + kind
}

// compare makes the results of one measure: the guard's first, then those of
// the others in order. Who has no value is left out.
func compare(name, unit, reference string, g *goal, values map[string]float64, order []string) []result {
	var all []result
	for _, of := range order {
		v, ok := values[of]
		if !ok || math.IsNaN(v) {
			continue
		}
		r := result{Name: name, Value: round(v), Unit: unit, of: of}
		if of != theGuard {
			r.Name += "/" + of
		} else {
			r.goal = g
		}
		if base := values[reference]; base > 0 {
			r.Reference, r.Ratio = reference, round(v/base)
		}
		all = append(all, r)
	}
	return all
}

// round keeps four digits: no measurement here is better.
func round(v float64) float64 {
	r, _ := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 4, 64), 64) // what FormatFloat writes
	return r
}

// number writes four digits without an exponent.
func number(v float64) string { return strconv.FormatFloat(round(v), 'f', -1, 64) }

// printTable writes the results in less than 80 columns, those of the others
// indented below the guard's.
func printTable(w io.Writer, all []result) {
	const row = "%-25s %7s %-5s %-14s %7s %8s %3s"
	line := func(cells ...any) { fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf(row, cells...), " ")) }
	if len(all) == 0 {
		return
	}
	line("name", "value", "unit", "reference", "ratio", "goal", "met")
	for _, r := range all {
		name, ratio, goal, met := r.Name, "", "", ""
		if r.of != "" && r.of != theGuard {
			name = "  " + r.of
		}
		if r.Ratio != 0 {
			ratio = strconv.FormatFloat(r.Ratio, 'f', 3, 64)
		}
		if r.goal != nil {
			goal, met = r.goal.String(), "no"
			if r.goal.met(r) {
				met = "yes"
			}
		}
		line(name, number(r.Value), r.Unit, r.Reference, ratio, goal, met)
	}
}

func writeJSON(path string, all []result) error {
	type line struct {
		result
		Goal map[string]float64 `json:"goal,omitempty"`
	}
	lines := make([]line, len(all))
	for i, r := range all {
		lines[i] = line{r, r.goal.numbers()}
	}
	b, err := json.MarshalIndent(lines, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
