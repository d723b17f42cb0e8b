package report

import (
	"fmt"
	"slices"
	"time"

	"relayguard/rbl"
)

// listing is one listing with its reason, its suspects and the way out.
func (c *composer) listing(l Listing) section {
	s := section{Title: c.w.say("listing", values{"what": c.name(l.Subject), "by": c.name(l.Zone)}), Tone: c.weight(l)}
	s.Chips = append(s.Chips, span{Kind: chip, Tone: s.Tone, Text: c.w.text("severity_"+l.Severity.String(), nil)})
	s.Chips = append(s.Chips, span{Kind: chip, Tone: toneNone, Text: c.w.text("scope_"+l.Scope.String(), nil)})
	if !l.Confirmed {
		s.Chips = append(s.Chips, span{Kind: chip, Tone: toneUnknown, Text: c.w.text("unconfirmed", nil)})
	}
	if !l.Unasked.IsZero() {
		s.Chips = append(s.Chips, span{Kind: chip, Tone: toneUnknown, Text: c.w.text("unasked", nil)})
	}
	s.Blocks = append(s.Blocks, paragraph(c.since(l.Since)))
	means := c.w.say("means", values{"means": c.saying(l.Means), "code": c.name(l.Code)})
	if l.Operator != "" {
		means = append(means, c.w.say("operator", values{"operator": c.name(l.Operator)})...)
	}
	s.Blocks = append(s.Blocks, paragraph(means))
	for _, reason := range l.Reasons[:min(len(l.Reasons), c.cuts.Reasons)] {
		s.Blocks = append(s.Blocks, paragraph(c.w.say("says", values{"reason": c.saying(reason)})))
	}
	if l.Scope.Wide() {
		s.Blocks = append(s.Blocks, paragraph(c.w.say("wide_"+l.Scope.String(), nil)))
	}
	if !l.Unasked.IsZero() {
		s.Blocks = append(s.Blocks, list([]item{{Tone: toneUnknown, Label: c.label(toneUnknown), Line: c.w.say("unasked_since", values{"when": c.moment(l.Unasked)})}}))
	}
	if l.Severity == rbl.Info {
		s.Blocks = append(s.Blocks, paragraph(c.w.say("info_only", nil)))
		return s
	}
	if !l.Confirmed {
		s.Blocks = append(s.Blocks, paragraph(c.w.say("unconfirmed_note", nil)))
		return s
	}
	s.Blocks = append(s.Blocks, c.suspects(l)...)
	return c.wayOut(s, l)
}

// weight is how much a listing matters.
func (c *composer) weight(l Listing) tone {
	switch {
	case l.Severity == rbl.Info:
		return toneNotice
	case !l.Confirmed, l.Scope.Wide():
		return toneLook
	}
	return toneAct
}

// suspects are who stood out in the hours before.
func (c *composer) suspects(l Listing) []block {
	switch {
	case len(l.Suspects) == 0 && l.Searched:
		return []block{paragraph(c.w.say("suspects_none", nil))}
	case len(l.Suspects) == 0 && c.lacks(SectionCause):
		return []block{c.unknown("suspects_unknown")}
	case len(l.Suspects) == 0:
		return nil
	}
	shown, left := some(c, l.Suspects)
	caption := c.w.text("suspects", nil)
	if first := l.Suspects[0]; first.To.After(first.From) && !first.From.IsZero() {
		caption = c.w.text("suspects_time", values{"from": c.moment(first.From), "to": c.moment(first.To)})
	}
	t := &table{Caption: caption, Columns: []string{c.w.text("column_who", nil), c.w.text("column_recipients", nil), c.w.text("column_usual", nil)}}
	for _, x := range shown {
		t.Rows = append(t.Rows, row{
			Cells: []line{{c.name(x.Name)}, line{}.text(grouped(x.Recipients)), c.usual(x.Usual)},
			Under: c.standsOut(x),
		})
	}
	return append([]block{{Table: t}}, c.more(left, "relayguard report --json")...)
}

// usual is a usual number; "not known" if it is negative.
func (c *composer) usual(n int64) line {
	if n < 0 || c.lacks(SectionUsual) {
		return line{{Kind: quiet, Text: c.w.text("not_known_short", nil)}}
	}
	return line{}.text(grouped(n))
}

// standsOut says by what a suspect does.
func (c *composer) standsOut(x Suspect) []line {
	numbers := line{c.translated("kind", x.Kind)}
	add := func(key string, v values) {
		numbers = append(append(numbers, span{Text: c.w.text("joint", nil)}), c.w.say(key, v)...)
	}
	if x.Share > 0 && x.Share <= 1 {
		add("share", values{"percent": percent(int64(x.Share*10000), 10000)})
	}
	if x.FirstTime > 0 {
		add("first_time", values{"n": x.FirstTime})
	}
	if x.Bounced > 0 {
		add("bounced", values{"n": x.Bounced})
	}
	if x.Stopped > 0 {
		add("stopped", values{"n": x.Stopped})
	}
	if x.Released > 0 {
		add("released", values{"n": x.Released})
	}
	lines := []line{numbers}
	if x.Tightened != "" && c.w.has("tightened_"+x.Tightened) {
		lines = append(lines, c.w.say("tightened_"+x.Tightened, nil))
	}
	return lines
}

// wayOut are the steps until a listing is over, in the order that works: who asks
// before it has stopped is listed again, and some lists then wait longer.
func (c *composer) wayOut(s section, l Listing) section {
	v := values{"what": c.name(l.Subject), "by": c.name(l.Zone)}
	var items []item
	step := func(key string, more values) *item {
		for k, value := range more {
			v[k] = value
		}
		items = append(items, item{Line: c.w.say(key, v)})
		return &items[len(items)-1]
	}
	switch {
	case l.Scope.Wide():
		step("way_wide", nil)
	case len(l.Suspects) > 0 && l.Suspects[0].Command != "":
		i := step("way_stop_suspect", values{"who": c.name(l.Suspects[0].Name)})
		i.Command, i.Under = c.command(l.Suspects[0].Command)
	default:
		step("way_stop", nil)
	}
	if !l.Scope.Wide() {
		step("way_prove", nil)
	}
	if l.Waits != "" {
		step("way_first", values{"first": c.saying(l.Waits)})
	}
	link := linkTo(l.Removal.URL)
	ways, tried := l.Removal.How, 0
	for _, how := range ways[:min(len(ways), 6)] {
		key := "way_" + how
		if !c.w.has(key) {
			continue
		}
		if how == "expires" && l.Removal.Expires > 0 {
			key = "way_expires_after"
		}
		i := step(key, values{"time": c.lasting(l.Removal.Expires)})
		if tried++; tried > 1 {
			i.Line = c.w.say("way_else", values{"way": i.Line})
		}
		if link != "" && !slices.Contains([]string{"expires", "none", "fix"}, how) {
			i.URL, link = link, ""
		}
	}
	if tried == 0 {
		step("way_not_known", nil)
	}
	if l.Removal.Expires > 0 && !slices.Contains(ways, "expires") {
		step("way_expires_after", values{"time": c.lasting(l.Removal.Expires)})
	}
	if link != "" {
		step("way_look", nil).URL = link
	}
	s.Blocks = append(s.Blocks, paragraph(line{{Kind: strong, Text: c.w.text("way", nil)}}), block{Items: items, Ordered: true})
	if l.Removal.Paid != "" {
		s.Blocks = append(s.Blocks, paragraph(c.w.say("way_paid", nil)))
	}
	return s
}

// over are listings that ended in the day.
func (c *composer) over() *section {
	if len(c.r.Ended) == 0 {
		return nil
	}
	shown, left := some(c, c.r.Ended)
	var items []item
	for _, l := range shown {
		v := values{"what": c.name(l.Subject), "by": c.name(l.Zone), "when": c.moment(l.Ended)}
		key := "ended"
		if length := l.Ended.Sub(l.Since); !l.Since.IsZero() && length > 0 {
			key, v["time"] = "ended_after", c.lasting(length)
		}
		items = append(items, item{Tone: toneGood, Label: c.label(toneGood), Line: c.w.say(key, v)})
	}
	return &section{Title: c.w.say("ended_title", nil), Blocks: append([]block{list(items)}, c.more(left, "relayguard rbl history")...)}
}

// blocklists are our listings, then what the lists say of each address, how the
// lists themselves are, the neighbourhood, and what receivers look at beside them.
func (c *composer) blocklists() *section {
	s := &section{Title: c.w.say("blocklists", nil)}
	if c.lacks(SectionBlocklists) {
		s.Blocks = append(s.Blocks, c.unknown("blocklists_unknown"))
	}
	shown, left := some(c, c.r.Listings)
	for _, l := range shown {
		s.Parts = append(s.Parts, c.listing(l))
	}
	if left > 0 {
		s.Parts = append(s.Parts, section{Title: c.w.say("listings_more", values{"n": left}), Blocks: c.more(left, "relayguard rbl status")})
	}
	for _, part := range []*section{c.over(), c.addresses(), c.zones(), c.neighbours(), c.sender()} {
		if part != nil {
			s.Parts = append(s.Parts, *part)
		}
	}
	return s
}

// addresses are what is checked, and what the lists said of it.
func (c *composer) addresses() *section {
	s := &section{Title: c.w.say("addresses", nil)}
	if len(c.r.Addresses) == 0 {
		s.Blocks = []block{c.unknown("addresses_none")}
		return s
	}
	shown, left := some(c, c.r.Addresses)
	var items []item
	charted := 0
	for _, a := range shown {
		i := item{Line: line{{Kind: named, Text: clean(a.Subject, c.cuts.Name)}}}
		i.Tone, _ = c.standing(a)
		i.Label = c.w.text("standing_"+string(i.Tone), nil)
		switch {
		case a.At.IsZero():
			i.Under = append(i.Under, c.w.say("never_checked", nil))
		case a.At.Before(c.r.Since):
			i.Under = append(i.Under, c.w.say("not_checked_since", values{"when": c.moment(a.At)}))
		default:
			i.Under = append(i.Under, c.w.say("answers", values{"listed": a.Listed, "clean": a.Clean, "unknown": a.Unknown, "refused": a.Refused, "when": c.moment(a.At)}))
		}
		if a.How != "" {
			i.Under = append(i.Under, c.w.say("known_by", values{"how": c.saying(a.How)}))
		}
		if charted < c.cuts.Strips {
			if i.Chart = c.strip(a); i.Chart != nil {
				charted++
			}
		}
		items = append(items, i)
	}
	s.Blocks = append([]block{list(items)}, c.more(left, "relayguard rbl status")...)
	if charted > 0 {
		s.Blocks = append(s.Blocks, paragraph(line{{Kind: quiet, Text: c.w.text("strip_legend", nil)}}))
	}
	if c.lacks(SectionHistory) {
		s.Blocks = append(s.Blocks, c.unknown("history_unknown"))
	}
	return s
}

// zones are how the lists are.
func (c *composer) zones() *section {
	z := c.r.Zones
	s := &section{Title: c.w.say("lists", nil)}
	if z.Asked == 0 && len(z.Trouble) == 0 {
		s.Blocks = []block{c.unknown("lists_none")}
		return s
	}
	s.Blocks = append(s.Blocks, paragraph(c.w.say("lists_well", values{"n": z.Healthy, "all": z.Asked})))
	if z.Resolver != "" {
		s.Blocks = append(s.Blocks, paragraph(c.w.say("queries", values{"n": z.Queries, "resolver": c.name(z.Resolver)})))
	}
	var items []item
	if z.Warning != "" {
		items = append(items, item{Tone: toneLook, Label: c.label(toneLook), Line: line{c.saying(z.Warning)}})
	}
	shown, left := some(c, z.Trouble)
	for _, t := range shown {
		i := item{Tone: toneUnknown, Label: c.w.text("state_"+t.State.String(), nil), Line: line{{Kind: named, Text: clean(t.Zone, c.cuts.Name)}}}
		switch t.State {
		case rbl.NotAsked:
			i.Tone = toneNotice
		case rbl.Wild, rbl.Parked:
			i.Tone = toneLook
		}
		i.Under = []line{c.w.say("state_means_"+t.State.String(), nil)}
		var seen line
		if !t.Since.IsZero() && t.State != rbl.NotAsked {
			seen = c.since(t.Since)
		}
		if t.Why != "" {
			if len(seen) > 0 {
				seen = seen.text(": ")
			}
			seen = append(seen, c.saying(t.Why))
		}
		if len(seen) > 0 {
			i.Under = append(i.Under, seen)
		}
		items = append(items, i)
	}
	if len(items) > 0 {
		s.Blocks = append(s.Blocks, list(items))
	}
	s.Blocks = append(s.Blocks, c.more(left, "relayguard rbl zones --all")...)
	return s
}

// neighbours are the addresses around ours: apart, for we can do little about them.
func (c *composer) neighbours() *section {
	s := &section{Title: c.w.say("neighbours", nil)}
	n := c.r.Neighbours
	switch {
	case c.lacks(SectionNeighbours):
		s.Blocks = []block{c.unknown("neighbours_unknown")}
		return s
	case n == nil:
		return nil
	}
	s.Blocks = append(s.Blocks, paragraph(c.w.say("neighbours_about", values{"when": c.moment(n.At)})))
	if len(n.Ranges) == 0 {
		return s
	}
	t := &table{Caption: c.w.text("neighbours_caption", nil), Columns: []string{c.w.text("column_range", nil), c.w.text("column_listed", nil), c.w.text("column_before", nil)}}
	shown, left := some(c, n.Ranges)
	for _, x := range shown {
		r := row{Cells: []line{
			{{Kind: named, Text: x.Prefix.String()}},
			c.w.say("of", values{"n": x.Listed, "all": x.Asked}),
			c.before(x.Before),
		}, Under: []line{{c.name(x.Zone)}}}
		if x.Unknown > 0 {
			r.Under = append(r.Under, c.w.say("neighbours_silent", values{"n": x.Unknown}))
		}
		if x.Before >= 0 && x.Listed > x.Before {
			r.Tone = toneLook
		}
		t.Rows = append(t.Rows, r)
	}
	s.Blocks = append(s.Blocks, block{Table: t})
	s.Blocks = append(s.Blocks, c.more(left, "relayguard report --json")...)
	return s
}

func (c *composer) before(n int) line {
	if n < 0 {
		return line{{Kind: quiet, Text: c.w.text("not_known_short", nil)}}
	}
	return line{}.text(fmt.Sprint(n))
}

// sender is what receivers look at beside the lists. What is well is a number.
func (c *composer) sender() *section {
	s := &section{Title: c.w.say("sender", nil)}
	if c.lacks(SectionSender) {
		s.Blocks = append(s.Blocks, c.unknown("sender_unknown"))
	}
	var odd []Fact
	well := 0
	for _, state := range []string{"wrong", "unknown"} {
		for _, f := range c.r.Sender {
			if f.State == state {
				odd = append(odd, f)
			}
		}
	}
	for _, f := range c.r.Sender {
		if f.State == "ok" {
			well++
		} else if f.State != "wrong" && f.State != "unknown" {
			odd = append(odd, f)
		}
	}
	shown, left := some(c, odd)
	var items []item
	for _, f := range shown {
		i := item{Tone: toneUnknown, Label: c.label(toneUnknown), Line: c.w.say("fact", values{"check": c.translated("check", f.Check), "what": c.name(f.Subject)})}
		if f.State == "wrong" {
			i.Tone, i.Label = toneLook, c.w.text("label_wrong", nil)
		}
		if f.Found != "" {
			i.Under = append(i.Under, c.w.say("found", values{"found": c.saying(f.Found)}))
		}
		if f.Wanted != "" {
			i.Under = append(i.Under, c.w.say("wanted", values{"wanted": c.saying(f.Wanted)}))
		}
		if !f.Since.IsZero() {
			i.Under = append(i.Under, c.since(f.Since))
		}
		items = append(items, i)
	}
	if len(items) > 0 {
		s.Blocks = append(s.Blocks, list(items))
	}
	s.Blocks = append(s.Blocks, c.more(left, "relayguard report --json")...)
	switch {
	case well > 0 && len(odd) == 0:
		s.Blocks = append(s.Blocks, paragraph(c.w.say("facts_well", values{"n": well})))
	case well > 0:
		s.Blocks = append(s.Blocks, paragraph(c.w.say("facts_others", values{"n": well})))
	case len(odd) == 0 && !c.lacks(SectionSender):
		s.Blocks = append(s.Blocks, c.unknown("sender_none"))
	}
	return s
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

// dayNumber counts days by the calendar, so that one of 23 or 25 hours is one.
func (c *composer) dayNumber(t time.Time) int {
	t = c.in(t)
	return int(time.Date(t.Year(), t.Month(), t.Day(), 12, 0, 0, 0, time.UTC).Unix() / 86400)
}
