package render

import (
	"fmt"
	"time"
)

// Ago is how long before now t was: "40s", "3m", "2h", "5d", in whole units and
// rounded down; "in 3m" for the future, rounded to the nearest, so that a term of
// 2h is not shown as 1h a moment later; "never" for the zero time.
func Ago(now, t time.Time) string {
	switch d := now.Sub(t); {
	case t.IsZero():
		return "never"
	case d <= -time.Second:
		return "in " + largest(nearest(-d))
	default:
		return largest(max(d, 0))
	}
}

// nearest rounds to the unit that largest will show.
func nearest(d time.Duration) time.Duration {
	for _, unit := range []time.Duration{time.Second, time.Minute, time.Hour} {
		if rounded := d.Round(unit); rounded < 60*unit {
			return rounded
		}
	}
	return d.Round(24 * time.Hour)
}

func largest(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

// Duration is d in its two largest units: "2d4h", "1h30m", "45s", "250ms".
func Duration(d time.Duration) string {
	if d < 0 {
		if d = -d; d < 0 { // the one that has no opposite
			d--
		}
		return "-" + Duration(d)
	}
	if d < time.Second {
		return d.Truncate(time.Microsecond).String()
	}
	units := []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}}
	for i, u := range units {
		if d < u.length {
			continue
		}
		s := fmt.Sprintf("%d%s", d/u.length, u.name)
		if i+1 < len(units) {
			if rest := d % u.length / units[i+1].length; rest > 0 {
				s += fmt.Sprintf("%d%s", rest, units[i+1].name)
			}
		}
		return s
	}
	return ""
}

// Bytes is a size with one decimal below ten: "812 B", "1.5 kB", "200 MB"; a kB
// is 1,000 B, as in the configuration.
func Bytes(n int64) string {
	if n < 0 {
		return fmt.Sprintf("%d B", n)
	}
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n), 0
	for v >= 999.5 && unit < len("kMGTPE") {
		v /= 1000
		unit++
	}
	name := "kMGTPE"[unit-1 : unit]
	if v < 9.95 {
		return fmt.Sprintf("%.1f %sB", v, name)
	}
	return fmt.Sprintf("%.0f %sB", v, name)
}
