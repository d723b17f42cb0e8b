package report

import "relayguard/cmd/internal/render"

// held is what waits.
func (c *composer) held() *section {
	s := &section{Title: c.w.say("held", nil)}
	if c.lacks(SectionHeld) {
		s.Blocks = []block{c.unknown("held_unknown")}
		return s
	}
	h := c.r.Held
	switch {
	case h.Messages == 0:
		s.Blocks = append(s.Blocks, paragraph(c.w.say("held_none", nil)))
	case h.Oldest.IsZero():
		s.Blocks = append(s.Blocks, paragraph(c.w.say("held_some", values{"n": h.Messages, "size": render.Bytes(h.Bytes)})))
	default:
		s.Blocks = append(s.Blocks, paragraph(c.w.say("held_oldest", values{"n": h.Messages, "size": render.Bytes(h.Bytes), "ago": c.ago(h.Oldest), "when": c.moment(h.Oldest)})))
	}
	if h.Foreign > 0 {
		s.Blocks = append(s.Blocks, paragraph(c.w.say("held_foreign", values{"n": h.Foreign})))
	}
	if h.Released > 0 || h.Deleted > 0 {
		s.Blocks = append(s.Blocks, paragraph(c.w.say("held_gone", values{"released": h.Released, "deleted": h.Deleted})))
	}
	if len(h.By) == 0 {
		return s
	}
	shown, left := some(c, h.By)
	t := &table{Caption: c.w.text("held_caption", nil), Columns: []string{c.w.text("column_account", nil), c.w.text("column_messages", nil), c.w.text("column_oldest", nil)}}
	for _, x := range shown {
		oldest := line{{Kind: quiet, Text: c.w.text("not_known_short", nil)}}
		if !x.Oldest.IsZero() {
			oldest = line{}.text(c.ago(x.Oldest))
		}
		t.Rows = append(t.Rows, row{
			Cells: []line{{c.name(x.Account)}, line{}.text(grouped(x.Messages)), oldest},
			Under: []line{c.w.say("held_rule", values{"rule": c.name(x.Rule)})},
		})
	}
	s.Blocks = append(s.Blocks, block{Table: t})
	s.Blocks = append(s.Blocks, c.more(left, "relayguard held list")...)
	return s
}

// incidents are those that are open, and those of the day; nil if there are none.
func (c *composer) incidents() *section {
	if len(c.r.Incidents) == 0 && !c.lacks(SectionIncidents) {
		return nil
	}
	s := &section{Title: c.w.say("incidents", nil)}
	if c.lacks(SectionIncidents) {
		s.Blocks = append(s.Blocks, c.unknown("incidents_unknown"))
	}
	shown, left := some(c, c.r.Incidents)
	var items []item
	for _, x := range shown {
		i := item{Tone: ToneLook, Label: c.w.text("incident_open", nil), Line: c.w.say("incident", values{"id": c.name(x.ID), "origin": c.name(x.Origin), "cause": c.name(x.Cause)})}
		i.Under = []line{c.w.say("incident_stops", values{"stops": x.Stops, "recipients": x.Recipients})}
		if x.Closed.IsZero() {
			i.Under = append(i.Under, c.since(x.Opened))
		} else {
			i.Tone, i.Label = ToneGood, c.w.text("incident_closed", nil)
			i.Under = append(i.Under, c.w.say("from_to", values{"from": c.moment(x.Opened), "to": c.moment(x.Closed)}))
		}
		items = append(items, i)
	}
	if len(items) > 0 {
		s.Blocks = append(s.Blocks, list(items))
	}
	s.Blocks = append(s.Blocks, c.more(left, "relayguard incident list")...)
	return s
}

// suspended are the suspensions in force; nil if there are none.
func (c *composer) suspended() *section {
	if len(c.r.Suspended) == 0 && !c.lacks(SectionSuspensions) {
		return nil
	}
	s := &section{Title: c.w.say("suspended", nil)}
	if c.lacks(SectionSuspensions) {
		s.Blocks = append(s.Blocks, c.unknown("suspended_unknown"))
	}
	shown, left := some(c, c.r.Suspended)
	var items []item
	for _, x := range shown {
		i := item{Line: line{c.name(x.Name)}}
		if x.Reason != "" {
			i.Under = append(i.Under, c.w.say("suspended_reason", values{"reason": span{Kind: named, Text: clean(x.Reason, c.cuts.Quote)}}))
		}
		by := c.w.say("suspended_by", values{"by": c.name(x.By), "since": c.since(x.Since)})
		if x.Until.IsZero() {
			by = append(by, c.w.say("suspended_open", nil)...)
		} else {
			by = append(by, c.w.say("suspended_until", values{"until": c.moment(x.Until)})...)
		}
		i.Under = append(i.Under, by)
		items = append(items, i)
	}
	if len(items) > 0 {
		s.Blocks = append(s.Blocks, list(items))
	}
	s.Blocks = append(s.Blocks, c.more(left, "relayguard status")...)
	return s
}

// forwards are the forwarding rules that point outside.
func (c *composer) forwards() *section {
	s := &section{Title: c.w.say("forwards", nil)}
	f := c.r.Forwards
	switch {
	case c.lacks(SectionForwards):
		s.Blocks = []block{c.unknown("forwards_unknown")}
		return s
	case !f.Watched && f.Known == 0 && len(f.New) == 0:
		s.Blocks = []block{c.unknown("forwards_unwatched")}
		return s
	}
	s.Blocks = append(s.Blocks, paragraph(c.w.say("forwards_known", values{"n": f.Known})))
	var notes []item
	if !f.Watched {
		notes = append(notes, item{Tone: ToneUnknown, Label: c.label(ToneUnknown), Line: c.w.say("forwards_not_watched_now", nil)})
	}
	if f.Due > 0 {
		notes = append(notes, item{Tone: ToneLook, Label: c.label(ToneLook), Line: c.w.say("forwards_due", values{"n": f.Due}), Command: "relayguard forwards list --due"})
	}
	if f.Unreviewed > 0 {
		notes = append(notes, item{Tone: ToneNote, Label: c.label(ToneNote), Line: c.w.say("forwards_unreviewed", values{"n": f.Unreviewed})})
	}
	if len(notes) > 0 {
		s.Blocks = append(s.Blocks, list(notes))
	}
	shown, left := some(c, f.New)
	var items []item
	for _, x := range shown {
		i := item{Tone: ToneNote, Label: c.w.text("forward_new", nil), Line: c.w.say("forward", values{"owner": c.name(x.Owner), "target": c.name(x.Target)})}
		if x.Due {
			i.Tone, i.Label = ToneLook, c.w.text("forward_due", nil)
		}
		i.Under = []line{c.w.say("forward_how", values{"id": c.name(x.ID), "mechanism": c.name(x.Mechanism), "when": c.moment(x.Since)})}
		items = append(items, i)
	}
	if len(items) > 0 {
		s.Parts = append(s.Parts, section{Title: c.w.say("forwards_new", nil), Blocks: append([]block{list(items)}, c.more(left+max(f.More, 0), "relayguard forwards list")...)})
	}
	return s
}

// guard is when the guard itself was not well, and when nobody could tell what went
// by forwarding rules.
func (c *composer) guard() *section {
	s := &section{Title: c.w.say("guard", nil)}
	spans := func(all []Span, key string) {
		shown, left := some(c, all)
		var items []item
		for _, x := range shown {
			i := item{Tone: ToneLook, Label: c.w.text("span_"+key, nil), Line: line{c.name(x.What)}}
			if key == "gap" {
				i.Tone = ToneUnknown
			}
			if x.Why != "" {
				i.Under = append(i.Under, line{c.saying(x.Why)})
			}
			if x.Until.IsZero() {
				i.Under = append(i.Under, append(c.since(x.Since), c.w.say("still", nil)...))
			} else {
				i.Under = append(i.Under, c.w.say("from_to", values{"from": c.moment(x.Since), "to": c.moment(x.Until)}))
			}
			items = append(items, i)
		}
		if len(items) > 0 {
			s.Blocks = append(s.Blocks, list(items))
		}
		s.Blocks = append(s.Blocks, c.more(left, "relayguard report --json")...)
	}
	if c.lacks(SectionGuard) {
		s.Blocks = append(s.Blocks, c.unknown("guard_unknown"))
	}
	spans(c.r.Degraded, "degraded")
	if c.lacks(SectionGaps) {
		s.Blocks = append(s.Blocks, c.unknown("gaps_unknown"))
	}
	spans(c.r.Gaps, "gap")
	if len(s.Blocks) == 0 {
		s.Blocks = []block{paragraph(c.w.say("guard_well", nil))}
	}
	return s
}
