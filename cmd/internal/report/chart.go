package report

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// chart is a picture of a few bars, as paths of whole numbers in a box: it stretches
// to whatever width there is. What it shows is said in words, too: mail programs leave
// pictures out, and not everybody sees them.
type chart struct {
	ID      string
	Class   string // "days", "bars"
	Title   string // for who does not see it
	Width   int
	Height  int
	Usual   int // height of the line of what is usual; 0: none
	Paths   []path
	Caption line
	Text    string // for a terminal; "": none
}

// path is all bars of one sort.
type path struct{ Class, D string }

// bar is the path of a rectangle that stands at the bottom of a box.
func bar(x, width, height, box int) string {
	return fmt.Sprintf("M%d %dv%dh%dv-%dz", x, box-height, height, width, height)
}

// Bars are pitch wide with the gap between them.
const (
	pitch    = 10
	barWidth = 8
)

// Days that are shown one by one, and from how many on weeks are.
const (
	dailyBars  = 28
	weeklyFrom = 100
	mostDays   = 366
)

func (c *composer) newChart(class, title string, bars, height int) *chart {
	c.charts++
	return &chart{ID: "c" + strconv.Itoa(c.charts), Class: class, Title: title, Width: bars * pitch, Height: height}
}

// strip is what the lists said of an address by day, or by week where there are
// many days: tall for listed, middle and hollow for not known, low for clean. nil: there
// are not two days to show.
func (c *composer) strip(a Checked) *chart {
	by := map[int]string{}
	last, first := 0, 0
	for _, d := range a.Days {
		if d.State == "" || d.Day.IsZero() {
			continue
		}
		n := dayNumber(d.Day)
		if len(by) == 0 || n < first {
			first = n
		}
		if len(by) == 0 || n > last {
			last = n
		}
		by[n] = worst([]DayState{{State: by[n]}, d})
	}
	if len(by) < 2 {
		return nil
	}
	first = max(first, last-mostDays+1)
	unit := 1
	if last-first+1 > weeklyFrom {
		unit = 7
	}
	cells := (last-first)/unit + 1
	bars := max(cells, dailyBars)
	const height = 24
	d := map[string]*strings.Builder{"listed": {}, "unknown": {}, "clean": {}}
	count := map[string]int{}
	var text strings.Builder
	for i := range cells {
		var days []DayState
		for n := last - (cells-i)*unit + 1; n <= last-(cells-1-i)*unit; n++ {
			if n >= first && by[n] != "" {
				count[by[n]]++
				days = append(days, DayState{State: by[n]})
			}
		}
		state := worst(days)
		text.WriteString(map[string]string{"listed": "#", "unknown": "?", "clean": ".", "": " "}[state])
		if b := d[state]; b != nil {
			tall := map[string]int{"listed": height, "unknown": 14, "clean": 5}[state]
			b.WriteString(bar((bars-cells+i)*pitch+1, barWidth, tall, height))
		}
	}
	v := values{"from": c.dateNumber(first), "to": c.dateNumber(last), "listed": count["listed"], "unknown": count["unknown"], "clean": count["clean"], "none": last - first + 1 - count["listed"] - count["unknown"] - count["clean"]}
	ch := c.newChart("days", c.w.text("strip_title", values{"what": clean(a.Subject, 60)}), bars, height)
	ch.Text = text.String()
	ch.Caption = c.w.say("strip_caption", v)
	if unit > 1 {
		ch.Caption = append(ch.Caption, c.w.say("strip_weeks", nil)...)
	}
	for _, state := range []string{"listed", "unknown", "clean"} {
		if d[state].Len() > 0 {
			ch.Paths = append(ch.Paths, path{state, d[state].String()})
		}
	}
	return ch
}

func (c *composer) dateNumber(n int) string {
	y, m, d := time.Unix(int64(n)*86400, 0).UTC().Date()
	return c.date(time.Date(y, m, d, 12, 0, 0, 0, c.r.Made.Location()))
}

// point is a bar's value; one that is not known has none.
type point struct {
	value int64
	known bool
	day   int // its last
}

// volumes are charts of the mail by day, and by week where a good part of a year is
// known.
func (c *composer) volumes(days []DayMail) []block {
	known := map[int]Verdicts{}
	first := 0
	for _, d := range days {
		if d.Day.IsZero() {
			continue
		}
		n := dayNumber(d.Day)
		if len(known) == 0 || n < first {
			first = n
		}
		known[n] = d.Verdicts
	}
	last := dayNumber(c.in(c.r.Since))
	if len(known) < 2 || first >= last {
		return nil
	}
	first = max(first, last-mostDays+1)
	daily := func(of func(Verdicts) int64) []point {
		var all []point
		for n := max(first, last-dailyBars+1); n <= last; n++ {
			v, ok := known[n]
			all = append(all, point{of(v), ok, n})
		}
		return all
	}
	usual := func(of func(Verdicts) int64) int64 {
		if c.r.Mail.Usual == nil || c.lacks(SectionUsual) {
			return -1
		}
		return of(*c.r.Mail.Usual)
	}
	accepted := func(v Verdicts) int64 { return v.Accepted }
	var blocks []block
	add := func(ch *chart) {
		if ch != nil {
			blocks = append(blocks, block{Chart: ch})
		}
	}
	add(c.bars("accepted", daily(accepted), usual(accepted)))
	add(c.bars("stopped", daily(Verdicts.stopped), usual(Verdicts.stopped)))
	if last-first+1 > 2*dailyBars {
		var weeks []point
		for end := last; end-6 >= first; end -= 7 { // whole weeks
			w, n := point{day: end}, int64(0)
			for d := end; d > end-7; d-- {
				if v, ok := known[d]; ok {
					w.value, w.known = w.value+v.Accepted, true
					n++
				}
			}
			if n > 0 {
				w.value /= n
			}
			weeks = append([]point{w}, weeks...)
		}
		add(c.bars("weeks", weeks, -1))
	}
	return blocks
}

// bars is a chart of numbers; the last is the report's own day or week. nil: none is
// known.
func (c *composer) bars(key string, points []point, usual int64) *chart {
	const height = 60
	top, most := max(usual, 1), 0
	unknown := 0
	for i, p := range points {
		if !p.known {
			unknown++
			continue
		}
		top = max(top, p.value)
		if !points[most].known || p.value > points[most].value {
			most = i
		}
	}
	if unknown == len(points) {
		return nil
	}
	scale := func(n int64) int { return int(float64(n) / float64(top) * height) }
	bars := max(len(points), dailyBars)
	var before, now, gaps strings.Builder
	for i, p := range points {
		x := (bars-len(points)+i)*pitch + 1
		switch {
		case !p.known:
			gaps.WriteString(bar(x, barWidth, 4, height))
		case i == len(points)-1:
			now.WriteString(bar(x, barWidth, max(scale(max(p.value, 0)), 1), height))
		default:
			before.WriteString(bar(x, barWidth, max(scale(max(p.value, 0)), 1), height))
		}
	}
	ch := c.newChart("bars", c.w.text("chart_"+key, nil), bars, height)
	if usual > 0 {
		ch.Usual = max(height-scale(usual), 1)
	}
	for _, p := range []path{{"before", before.String()}, {"now", now.String()}, {"unknown", gaps.String()}} {
		if p.D != "" {
			ch.Paths = append(ch.Paths, p)
		}
	}
	ch.Caption = c.w.say("chart_caption", values{
		"what": span{Kind: strong, Text: c.w.text("chart_"+key, nil)}, "from": c.dateNumber(points[0].day), "to": c.dateNumber(points[len(points)-1].day),
		"most": grouped(points[most].value), "when": c.dateNumber(points[most].day),
	})
	if usual > 0 {
		ch.Caption = append(ch.Caption, c.w.say("chart_usual", values{"n": usual})...)
	}
	if unknown > 0 {
		ch.Caption = append(ch.Caption, c.w.say("chart_gaps", values{"n": unknown})...)
	}
	return ch
}

// worst is the state of several days that matters most; "" if none was checked.
func worst(days []DayState) string {
	for _, state := range []string{"listed", "unknown", "clean"} {
		for _, d := range days {
			if d.State == state {
				return state
			}
		}
	}
	return ""
}
