package report

import (
	"fmt"

	"relayguard/rbl"
)

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
		i.Tone, _ = c.r.standing(a)
		i.Label = c.w.text("standing_"+string(i.Tone), nil)
		switch {
		case a.At.IsZero():
			i.Under = append(i.Under, c.w.say("never_checked", nil))
		case a.At.Before(c.r.Since):
			i.Under = append(i.Under, c.w.say("not_checked_since", values{"when": c.moment(a.At)}))
		default:
			i.Under = append(i.Under, c.w.say("answers", values{"listed": a.Listed, "clean": a.Clean, "unknown": a.Unknown, "refused": a.Refused, "when": c.moment(a.At)}))
			if a.Wide > 0 {
				i.Under = append(i.Under, c.w.say("answers_wide", values{"n": a.Wide}))
			}
			if a.Info > 0 {
				i.Under = append(i.Under, c.w.say("answers_info", values{"n": a.Info}))
			}
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
		items = append(items, item{Tone: ToneLook, Label: c.label(ToneLook), Line: line{c.saying(z.Warning)}})
	}
	shown, left := some(c, z.Trouble)
	for _, t := range shown {
		i := item{Tone: ToneUnknown, Label: c.w.text("state_"+t.State.String(), nil), Line: line{{Kind: named, Text: clean(t.Zone, c.cuts.Name)}}}
		switch t.State {
		case rbl.NotAsked:
			i.Tone = ToneNote
		case rbl.Wild, rbl.Parked:
			i.Tone = ToneLook
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
			r.Tone = ToneLook
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
		i := item{Tone: ToneUnknown, Label: c.label(ToneUnknown), Line: c.w.say("fact", values{"check": c.translated("check", f.Check), "what": c.name(f.Subject)})}
		if f.State == "wrong" {
			i.Tone, i.Label = ToneLook, c.w.text("label_wrong", nil)
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
