package report

import (
	"slices"

	"relayguard/rbl"
)

// listing is one listing with its reason, its suspects and the way out.
func (c *composer) listing(l Listing) section {
	s := section{Title: c.w.say("listing", values{"what": c.name(l.Subject), "by": c.name(l.Zone)}), Tone: c.weight(l)}
	s.Chips = append(s.Chips, span{Kind: chip, Tone: s.Tone, Text: c.w.text("severity_"+l.Severity.String(), nil)})
	s.Chips = append(s.Chips, span{Kind: chip, Tone: ToneNone, Text: c.w.text("scope_"+l.Scope.String(), nil)})
	if !l.Confirmed {
		s.Chips = append(s.Chips, span{Kind: chip, Tone: ToneUnknown, Text: c.w.text("unconfirmed", nil)})
	}
	switch {
	case l.Dropped:
		s.Chips = append(s.Chips, span{Kind: chip, Tone: ToneUnknown, Text: c.w.text("dropped", nil)})
	case !l.Unasked.IsZero():
		s.Chips = append(s.Chips, span{Kind: chip, Tone: ToneUnknown, Text: c.w.text("unasked", nil)})
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
	if !l.Unasked.IsZero() && !l.Dropped {
		s.Blocks = append(s.Blocks, list([]item{{Tone: ToneUnknown, Label: c.label(ToneUnknown), Line: c.w.say("unasked_since", values{"when": c.moment(l.Unasked)})}}))
	}
	if l.Severity == rbl.Info {
		s.Blocks = append(s.Blocks, paragraph(c.w.say("info_only", nil)))
		return s
	}
	if l.Dropped {
		s.Blocks = append(s.Blocks, list([]item{{Tone: ToneUnknown, Label: c.label(ToneUnknown), Line: c.w.say("dropped_note", nil)}}))
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
func (c *composer) weight(l Listing) Tone {
	switch {
	case l.Severity == rbl.Info, l.Dropped:
		return ToneNote
	case !l.Confirmed, l.Scope.Wide():
		return ToneLook
	}
	return ToneAct
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
	page := pageAt(l.Removal.URL)
	none := webPage{}
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
		if !slices.Contains([]string{"expires", "none", "fix"}, how) {
			i.URL, i.Page, page = page.link, page.text, none
		}
	}
	if tried == 0 {
		step("way_not_known", nil)
	}
	if l.Removal.Expires > 0 && !slices.Contains(ways, "expires") {
		step("way_expires_after", values{"time": c.lasting(l.Removal.Expires)})
	}
	if page != none {
		i := step("way_look", nil)
		i.URL, i.Page = page.link, page.text
	}
	s.Blocks = append(s.Blocks, paragraph(line{{Kind: strong, Text: c.w.text("way", nil)}}), block{Items: items, Ordered: true})
	if l.Removal.Paid != "" {
		s.Blocks = append(s.Blocks, paragraph(c.w.say("way_paid", nil)))
	}
	return s
}

// over are listings that ended in the day, and those that nobody checks any more.
func (c *composer) over() *section {
	if len(c.r.Ended) == 0 {
		return nil
	}
	shown, left := some(c, c.r.Ended)
	var items []item
	for _, l := range shown {
		v := values{"what": c.name(l.Subject), "by": c.name(l.Zone), "when": c.moment(l.Ended)}
		i := item{Tone: ToneGood, Label: c.label(ToneGood)}
		key := "ended"
		if length := l.Ended.Sub(l.Since); !l.Since.IsZero() && length > 0 {
			key, v["time"] = "ended_after", c.lasting(length)
		}
		if l.Dropped {
			key = "ended_dropped"
		}
		if l.Dropped || l.Severity == rbl.Info { // nothing got better by it
			i.Tone, i.Label = ToneNote, c.label(ToneNote)
		}
		i.Line = c.w.say(key, v)
		items = append(items, i)
	}
	return &section{Title: c.w.say("ended_title", nil), Blocks: append([]block{list(items)}, c.more(left, "relayguard rbl history")...)}
}
