package report

import (
	"strconv"

	"relayguard/cmd/internal/render"
)

// changes are what was not so the day before.
func (c *composer) changes() *section {
	s := &section{Title: c.w.say("changes", nil)}
	if c.lacks(SectionChanges) {
		s.Blocks = append(s.Blocks, c.unknown("changes_unknown"))
	}
	shown, left := some(c, c.r.Changes)
	var items []item
	for _, change := range shown {
		t := toneOf(change.Level)
		if t == ToneGood && change.Kind == ChangeDropped { // nothing got better by it
			t = ToneNote
		}
		i := item{Tone: t, Label: c.label(t), Line: c.change(change)}
		if !change.At.IsZero() {
			i.Line = append(i.Line.text(" "), span{Kind: when, Text: "(" + c.moment(change.At) + ")"})
		}
		items = append(items, i)
	}
	switch {
	case len(items) > 0:
		s.Blocks = append(s.Blocks, list(items))
	case c.firstDay():
		s.Blocks = append(s.Blocks, paragraph(c.w.say("changes_first", nil)))
	case !c.lacks(SectionChanges) && len(c.r.Missing) > 0:
		s.Blocks = append(s.Blocks, paragraph(c.w.say("changes_none_known", nil)))
	case !c.lacks(SectionChanges):
		s.Blocks = append(s.Blocks, paragraph(c.w.say("changes_none", nil)))
	}
	s.Blocks = append(s.Blocks, c.more(left, "relayguard report --json")...)
	return s
}

// change makes a sentence. One of a kind that there is no sentence for is told all
// the same.
func (c *composer) change(x Change) line {
	v := values{"what": c.name(x.What), "by": c.name(x.By), "text": c.saying(x.Text), "n": x.Count}
	key := "change_" + x.Kind
	switch x.Kind {
	case ChangeZone:
		v["text"] = c.translated("state", x.Text)
	case ChangeSender, ChangeSenderWell:
		v["by"] = c.translated("check", x.By)
	case ChangeVolume:
		if usual, err := strconv.ParseInt(x.Text, 10, 64); err != nil || usual < 0 {
			key = "change_volume_new"
		} else {
			v["text"] = grouped(usual)
		}
	case ChangeForward, ChangeIncident, ChangeSuspended:
		v["text"] = c.name(x.Text)
	}
	if x.Text == "" && c.w.has(key+"_bare") {
		key += "_bare"
	}
	if !c.w.has(key) {
		key = "change_other"
		v["kind"] = c.name(x.Kind)
	}
	return c.w.say(key, v)
}

// steps are what an admin can do.
func (c *composer) steps() *section {
	s := &section{Title: c.w.say("steps", nil)}
	if len(c.r.Steps) == 0 {
		key := "steps_none"
		if c.r.Tone() == ToneUnknown {
			key = "steps_none_known"
		}
		s.Blocks = []block{paragraph(c.w.say(key, nil))}
		return s
	}
	shown, left := some(c, c.r.Steps)
	var items []item
	for _, step := range shown {
		items = append(items, c.step(step))
	}
	s.Blocks = append([]block{{Items: items, Ordered: true}}, c.more(left, "relayguard report --json")...)
	return s
}

func (c *composer) step(x Step) item {
	v := values{"what": c.name(x.What), "by": c.name(x.By), "text": c.saying(x.Text)}
	page := pageAt(x.URL)
	i := item{URL: page.link, Page: page.text}
	i.Command, i.Under = c.command(x.Command)
	key, explained := "step_"+x.Kind, false
	switch x.Kind {
	case StepRemoval:
		key, explained = "step_removal_"+x.Text, true
		if !c.w.has(key) {
			key = "step_removal"
		}
	case StepZone:
		v["by"] = c.translated("state", x.By)
		if c.w.has("step_zone_" + x.By) {
			key += "_" + x.By
		}
	case StepProve:
		if x.By == BySuspect {
			key += "_" + x.By
		}
	case StepSender:
		v["by"] = c.translated("check", x.By)
	}
	if x.What == "" && c.w.has(key+"_all") {
		key += "_all"
	}
	if !c.w.has(key) {
		key = "step_other"
		v["kind"] = c.name(x.Kind)
	}
	i.Line = c.w.say(key, v)
	if x.Text != "" && !explained {
		i.Under = append(i.Under, line{c.saying(x.Text)})
	}
	return i
}

// maxCommand bounds a command. One is never cut: half of it would do something else.
const maxCommand = 500

// command is a command as it can be copied, or a remark that there is one.
func (c *composer) command(s string) (string, []line) {
	switch {
	case s == "":
		return "", nil
	case len(s) > maxCommand || len(s) > 4*c.cuts.Name, render.Escape(s) != s:
		return "", []line{c.w.say("command_elsewhere", values{"command": span{Kind: code, Text: "relayguard report --json"}})}
	}
	return s, nil
}

// missing is what could not be known; nil if there is nothing.
func (c *composer) missing() *section {
	if len(c.r.Missing) == 0 {
		return nil
	}
	shown, left := some(c, c.r.Missing)
	var items []item
	for _, m := range shown {
		items = append(items, item{
			Tone: ToneUnknown, Label: c.label(ToneUnknown),
			Line: c.w.say("missing_item", values{"section": c.translated("section", m.Section), "why": c.saying(m.Why)}),
		})
	}
	return &section{
		Title: c.w.say("missing", nil), Tone: ToneUnknown,
		Blocks: append([]block{list(items)}, c.more(left, "relayguard report --json")...),
	}
}
