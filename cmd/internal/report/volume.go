package report

// mail is the volume by verdict, and who sent most of it.
func (c *composer) mail() *section {
	s := &section{Title: c.w.say("mail", nil)}
	if c.lacks(SectionMail) {
		s.Blocks = []block{c.unknown("mail_unknown")}
		return s
	}
	m := c.r.Mail
	if c.cuts.Charts {
		s.Blocks = append(s.Blocks, c.volumes(m.Days)...)
	}
	s.Blocks = append(s.Blocks, block{Table: c.verdicts()})
	if m.Usual == nil || c.lacks(SectionUsual) {
		s.Blocks = append(s.Blocks, paragraph(line{{Kind: quiet, Text: c.w.text("usual_later", nil)}}))
	}
	switch whole := m.Sent + m.Bounced + m.Deferred; {
	case c.lacks(SectionDeliveries):
		s.Blocks = append(s.Blocks, c.unknown("deliveries_unknown"))
	case whole == 0:
		s.Blocks = append(s.Blocks, paragraph(c.w.say("deliveries_none", nil)))
	default:
		s.Blocks = append(s.Blocks, paragraph(c.w.say("deliveries", values{"sent": m.Sent, "bounced": m.Bounced, "percent": percent(m.Bounced, m.Sent+m.Bounced), "deferred": m.Deferred})))
	}
	if m.Unseen > 0 {
		s.Blocks = append(s.Blocks, list([]item{{Tone: ToneUnknown, Label: c.label(ToneUnknown), Line: c.w.say("unseen", values{"n": m.Unseen})}}))
	}
	if t, left := c.senders("senders", c.r.Senders); t != nil {
		s.Parts = append(s.Parts, section{Title: c.w.say("senders", nil), Blocks: append([]block{{Table: t}}, c.more(left, "relayguard origins list")...)})
	}
	if t, left := c.senders("plugins", c.r.Plugins); t != nil {
		s.Parts = append(s.Parts, section{Title: c.w.say("plugins", nil), Blocks: append([]block{{Table: t}}, c.more(left, "relayguard origins list --by plugin")...)})
	}
	return s
}

// verdicts is the table of what became of the mail.
func (c *composer) verdicts() *table {
	m := c.r.Mail
	t := &table{Caption: c.w.text("verdicts", nil), Columns: []string{c.w.text("column_verdict", nil), c.w.text("column_recipients", nil), c.w.text("column_usual", nil)}}
	for _, x := range []struct {
		key string
		of  func(Verdicts) int64
	}{
		{"accepted", func(v Verdicts) int64 { return v.Accepted }},
		{"told", func(v Verdicts) int64 { return v.Told }},
		{"held", func(v Verdicts) int64 { return v.Held }},
		{"deferred", func(v Verdicts) int64 { return v.Deferred }},
		{"rejected", func(v Verdicts) int64 { return v.Rejected }},
	} {
		n, usual := x.of(m.Total), int64(-1)
		if m.Usual != nil {
			usual = x.of(*m.Usual)
		}
		r := row{Cells: []line{c.w.say("verdict_word_"+x.key, nil), line{}.text(grouped(n)), c.usual(usual)}}
		if x.key == "told" {
			if n == 0 && usual <= 0 {
				continue
			}
			r.Under = []line{c.w.say("told_means", nil)}
		}
		if outstanding(n, usual) && !c.lacks(SectionUsual) {
			r.Tone = ToneLook
		}
		t.Rows = append(t.Rows, r)
	}
	return t
}

// senders is who sent most, against what is usual; nil if nobody did.
func (c *composer) senders(key string, all []Sender) (*table, int) {
	if len(all) == 0 {
		return nil, 0
	}
	shown, left := some(c, all)
	t := &table{Caption: c.w.text(key+"_caption", nil), Columns: []string{c.w.text("column_who", nil), c.w.text("column_recipients", nil), c.w.text("column_usual", nil)}}
	for _, x := range shown {
		r := row{Cells: []line{{c.name(x.Name)}, line{}.text(grouped(x.Recipients)), c.usual(x.Usual)}}
		if outstanding(x.Recipients, x.Usual) && !c.lacks(SectionUsual) {
			r.Tone = ToneLook
		}
		under := line{c.translated("kind", x.Kind)}
		if r.Tone == ToneLook {
			under = append(under, span{Text: c.w.text("joint", nil)}, span{Kind: strong, Text: c.w.text("outstanding", nil)})
		}
		if x.Stopped > 0 {
			under = append(append(under, span{Text: c.w.text("joint", nil)}), c.w.say("stopped", values{"n": x.Stopped})...)
		}
		switch {
		case x.Bounced < 0 && !c.lacks(SectionDeliveries):
			under = append(append(under, span{Text: c.w.text("joint", nil)}), c.w.say("bounced_unknown", nil)...)
		case x.Bounced > 0:
			under = append(append(under, span{Text: c.w.text("joint", nil)}), c.w.say("bounced", values{"n": x.Bounced})...)
		}
		r.Under = []line{under}
		t.Rows = append(t.Rows, r)
	}
	return t, left
}
