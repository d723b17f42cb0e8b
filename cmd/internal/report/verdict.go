package report

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"relayguard/rbl"
)

// maxHost bounds the server's name.
const maxHost = 100

// maxNamed is how many reasons why blocklists are not known are named at the top.
const maxNamed = 3

// verdict is the report in one line: whether we are listed.
type verdict struct {
	tone Tone
	line line
}

// Tone is that of the headline and the subject, and so of an exit status: ToneAct if
// one of our addresses or domains is listed; ToneLook if it may be, or its network is;
// ToneUnknown if nobody can tell, of one of them or for want of a list that matters;
// ToneNote if all is clean but for lists that matter and are not asked; else ToneGood.
// It is about blocklists alone: not of mail that is stopped, incidents and what else
// the headline adds.
func (r *Report) Tone() Tone { return r.ruling().tone }

// ruling is a verdict before it is worded.
type ruling struct {
	tone Tone
	key  string
	n    int // what the phrase counts
	all  int
}

// tally is how listings and addresses stand.
type tally struct {
	zones     int // that list us: confirmed, our own address or domain, harmful
	unasked   int // of the listings that count for zones, those of which nothing is heard any more
	wide      int // that list a range or network we are in
	suspected int // sightings that wait for their confirmation
	checked   int
	unknown   int // addresses and domains of which nobody can tell
}

func (r *Report) tally() tally {
	t := tally{checked: len(r.Addresses)}
	zones, wide := map[string]bool{}, map[string]bool{}
	for _, l := range r.Listings {
		switch {
		case l.Severity == rbl.Info, l.Dropped:
		case l.Scope.Wide():
			if l.Confirmed {
				wide[l.Zone] = true
			}
		case !l.Confirmed:
			t.suspected++
		default:
			zones[l.Zone] = true
			if !l.Unasked.IsZero() {
				t.unasked++
			}
		}
	}
	for zone := range wide {
		if !zones[zone] {
			t.wide++
		}
	}
	t.zones = len(zones)
	for _, a := range r.Addresses {
		switch tone, explained := r.standing(a); {
		case tone == ToneUnknown:
			t.unknown++
		case tone == ToneLook && !explained:
			t.suspected++
		}
	}
	return t
}

// standing is what is known of an address or domain: ToneAct if it is listed, ToneLook
// if lists have it that do not count as that (explained: Listings has them all),
// ToneUnknown, ToneGood. Fewer than half of the answers, or none in the report's time, is
// unknown; a listing is one however few answered, and information is none.
func (r *Report) standing(a Checked) (t Tone, explained bool) {
	zones, harmful := map[string]bool{}, false
	for _, l := range r.Listings {
		if l.Subject != a.Subject || l.Severity == rbl.Info || l.Dropped {
			continue
		}
		if harmful = true; l.Scope.Wide() {
			continue
		}
		if zones[l.Zone] = true; l.Confirmed {
			return ToneAct, true
		}
	}
	explained = a.Listed <= len(zones)
	answered, silent := a.Listed+a.Wide+a.Info+a.Clean, a.Unknown+a.Refused
	switch {
	case a.At.IsZero(), a.At.Before(r.Since), answered == 0, answered < silent:
		return ToneUnknown, explained
	case harmful, !explained:
		return ToneLook, explained
	}
	return ToneGood, true
}

// lacks reports whether something of a section is not known.
func (r *Report) lacks(section string) bool {
	return slices.ContainsFunc(r.Missing, func(m Missing) bool { return m.Section == section })
}

// silentZones are how many lists nobody could believe, of those that are asked.
func (r *Report) silentZones() int { return max(r.Zones.Asked-r.Zones.Healthy, 0) }

// troubled are the lists that matter and are not asked, or cannot be believed (blind),
// the worst first. Without one of them "clean" says little: many receivers ask it.
func (r *Report) troubled() (notAsked, blind []ZoneTrouble) {
	for _, z := range r.Zones.Trouble {
		switch {
		case z.Severity < rbl.High, z.State == rbl.Healthy:
		case z.State == rbl.NotAsked:
			notAsked = append(notAsked, z)
		default:
			blind = append(blind, z)
		}
	}
	worst := func(a, b ZoneTrouble) int { return cmp.Compare(b.Severity, a.Severity) }
	slices.SortStableFunc(notAsked, worst)
	slices.SortStableFunc(blind, worst)
	return notAsked, blind
}

func (r *Report) ruling() ruling {
	t := r.tally()
	notAsked, blind := r.troubled()
	switch {
	case t.zones > 0:
		return ruling{ToneAct, "listed", t.zones, 0}
	case r.lacks(SectionBlocklists), t.checked == 0, t.unknown == t.checked:
		return ruling{ToneUnknown, "unknown", 0, 0}
	case t.unknown > 0:
		return ruling{ToneUnknown, "part_unknown", t.unknown, t.checked}
	case t.suspected > 0:
		return ruling{ToneLook, "suspected", t.suspected, 0}
	case r.lacks(SectionAddresses):
		return ruling{ToneUnknown, "addresses_unknown", 0, 0}
	case len(blind) > 0:
		return ruling{ToneUnknown, "blind", r.Zones.Healthy, 0}
	case t.wide > 0:
		return ruling{ToneLook, "wide", t.wide, 0}
	case len(notAsked) > 0:
		return ruling{ToneNote, "not_asked", r.Zones.Healthy, 0}
	case r.silentZones() > 0:
		return ruling{ToneGood, "clean_part", r.Zones.Healthy, 0}
	}
	return ruling{ToneGood, "clean", 0, 0}
}

func (c *composer) verdict() verdict {
	x := c.r.ruling()
	notAsked, blind := c.r.troubled()
	v := values{"n": x.n, "all": x.all, "silent": c.r.silentZones()}
	switch x.key {
	case "blind":
		v["zones"], v["state"] = c.zonesNamed(blind), c.translated("state", blind[0].State.String())
	case "not_asked":
		key := "verdict_clean_where"
		if c.r.silentZones() > 0 {
			key = "verdict_clean_part"
		}
		l := c.w.say(key, v).text(c.w.text("title_joint", nil))
		return verdict{x.tone, append(l, c.notAsked(notAsked)...)}
	}
	return verdict{x.tone, c.w.say("verdict_"+x.key, v)}
}

// zonesNamed is the worst of some lists, and how many more there are.
func (c *composer) zonesNamed(all []ZoneTrouble) line {
	if len(all) == 1 {
		return line{c.name(all[0].Zone)}
	}
	return c.w.say("zones_named", values{"zone": c.name(all[0].Zone), "n": len(all) - 1})
}

// notAsked says that some lists are not asked.
func (c *composer) notAsked(all []ZoneTrouble) line {
	return c.w.say("not_asked", values{"zones": c.zonesNamed(all), "n": len(all)})
}

// title is the verdict with the server, and what else cannot wait.
func (c *composer) title(v verdict) string {
	says := []string{}
	if c.r.Stopped != nil {
		says = append(says, c.w.text("title_stopped", nil))
	}
	says = append(says, v.line.String())
	if n := c.openIncidents(); n > 0 {
		says = append(says, c.w.text("title_incidents", values{"n": n}))
	}
	return c.w.text("title", values{"host": clean(c.r.Host, maxHost), "says": strings.Join(says, c.w.text("title_joint", nil)), "date": c.date(c.r.Made)})
}

func (c *composer) openIncidents() (n int) {
	for _, i := range c.r.Incidents {
		if i.Closed.IsZero() {
			n++
		}
	}
	return n
}

// notes are what the verdict leaves out.
func (c *composer) notes(v verdict) []item {
	var notes []item
	say := func(t Tone, key string, v values) {
		notes = append(notes, item{Tone: t, Label: c.label(t), Line: c.w.say(key, v)})
	}
	if s := c.r.Stopped; s != nil {
		notes = append(notes, item{
			Tone: ToneAct, Label: c.label(ToneAct), Command: "relayguard start",
			Line: c.w.say("note_stopped", values{"since": c.since(s.Since), "why": c.name(s.Why)}),
		})
	}
	named := 0
	for _, m := range c.r.Missing { // the check that does not run, above all
		if named < maxNamed && m.Section == SectionBlocklists {
			named++
			say(ToneUnknown, "missing_item", values{"section": c.translated("section", m.Section), "why": c.saying(m.Why)})
		}
	}
	t := c.r.tally()
	ruling := c.r.ruling()
	if t.zones > 0 {
		if t.unasked > 0 {
			say(ToneUnknown, "note_unasked", values{"n": t.unasked})
		}
		if t.unknown > 0 {
			say(ToneUnknown, "note_part_unknown", values{"n": t.unknown, "all": t.checked})
		}
		if t.suspected > 0 {
			say(ToneLook, "note_suspected", values{"n": t.suspected})
		}
	}
	if t.wide > 0 && ruling.key != "wide" {
		say(ToneNote, "note_wide", values{"n": t.wide})
	}
	if t.unknown < max(t.checked, 1) { // else it is all that is told
		notAsked, blind := c.r.troubled()
		n := c.r.silentZones()
		switch {
		case len(blind) > 0 && ruling.key != "blind":
			say(ToneUnknown, "note_blind", values{"n": max(n, len(blind)), "all": max(c.r.Zones.Asked, len(blind)), "zones": c.zonesNamed(blind)})
		case n > len(blind) && v.tone != ToneGood && ruling.key != "not_asked":
			say(ToneUnknown, "note_silent", values{"n": n, "all": c.r.Zones.Asked})
		}
		if len(notAsked) > 0 && ruling.key != "not_asked" {
			all := capital(c.notAsked(notAsked)).text(c.w.text("stop", nil))
			notes = append(notes, item{Tone: ToneNote, Label: c.label(ToneNote), Line: all})
		}
	}
	if n := c.openIncidents(); n > 0 {
		say(ToneLook, "note_incidents", values{"n": n})
	}
	if c.r.Phase != "" && c.r.Phase != "enforce" {
		notes = append(notes, item{Tone: ToneNote, Label: c.label(ToneNote), Line: line{c.translated("phase", c.r.Phase)}})
	}
	if c.firstDay() {
		say(ToneNote, "note_first_day", nil)
	}
	return notes
}

func (c *composer) label(t Tone) string { return c.w.text("label_"+string(t), nil) }

// firstDay reports whether there is no day before to compare with.
func (c *composer) firstDay() bool { return c.r.First.IsZero() || !c.r.First.Before(c.r.Since) }

// period says what time the report is about, by the day on which it was made.
func (c *composer) period() line {
	v := values{"day": c.day(c.r.Made), "time": c.lasting(c.r.Until.Sub(c.r.Since)), "until": c.moment(c.r.Until), "zone": c.zone()}
	l := c.w.say("period", v)
	if late := c.r.Made.Sub(c.r.Until); late >= time.Minute || late <= -time.Minute {
		l = append(l, c.w.say("period_made", values{"made": c.moment(c.r.Made)})...)
	}
	return l
}

// tiles are the figures of the head.
func (c *composer) tiles(v verdict) []tile {
	label := func(key string) string { return c.w.text(key, nil) }
	unknown := func(key string) tile {
		return tile{Label: label(key), Value: c.w.say("not_known", nil), Tone: ToneUnknown}
	}
	lists := tile{Label: label("tile_lists"), Value: c.w.say("tile_"+string(v.tone), values{"n": c.r.tally().zones}), Tone: v.tone}
	if c.r.Zones.Asked > 0 {
		lists.Under = c.w.say("tile_answered", values{"n": c.r.Zones.Healthy, "all": c.r.Zones.Asked})
	}
	passed, stopped, held := unknown("tile_passed"), unknown("tile_stopped"), unknown("tile_held")
	if !c.lacks(SectionMail) {
		number := func(key string, of func(Verdicts) int64) tile {
			n := of(c.r.Mail.Total)
			t := tile{Label: label(key), Value: c.w.say("tile_number", values{"n": n}), Under: c.w.say("tile_recipients", nil), Tone: ToneNone}
			if u := c.r.Mail.Usual; u != nil && !c.lacks(SectionUsual) {
				t.Under = c.w.say("tile_usually", values{"n": of(*u)})
				if outstanding(n, of(*u)) {
					t.Tone = ToneLook
				}
			}
			return t
		}
		passed = number("tile_passed", func(v Verdicts) int64 { return v.Accepted })
		stopped = number("tile_stopped", Verdicts.stopped)
	}
	if !c.lacks(SectionHeld) {
		held = tile{Label: label("tile_held"), Value: c.w.say("tile_waiting", values{"n": c.r.Held.Messages}), Under: c.w.say("tile_messages", nil), Tone: ToneNone}
		if c.r.Held.Messages > 0 && !c.r.Held.Oldest.IsZero() {
			held.Under = c.w.say("tile_oldest", values{"ago": c.ago(c.r.Held.Oldest)})
		}
	}
	return []tile{lists, passed, stopped, held}
}

func (v Verdicts) stopped() int64 { return v.Held + v.Deferred + v.Rejected }

// outstanding reports whether a number stands out from its usual: three times as
// much, and enough not to be chance.
func outstanding(n, usual int64) bool { return usual >= 0 && n >= 50 && n/3 >= usual }

// foot says where there is more.
func (c *composer) foot() []line {
	command := func(s string) span { return span{Kind: code, Text: s} }
	return []line{
		c.w.say("foot_more", values{"command": command("relayguard report --json")}),
		c.w.say("foot_version", values{"version": clean(c.r.Version, 40), "host": span{Kind: named, Text: clean(c.r.Host, maxHost)}}),
		c.w.say("foot_names", nil),
	}
}
