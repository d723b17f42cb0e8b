package report

import (
	"strings"
	"time"

	"relayguard/rbl"
)

// maxHost bounds the server's name.
const maxHost = 100

// verdict is the report in one line: whether we are listed.
type verdict struct {
	tone tone
	line line
}

// tally is how listings and addresses stand.
type tally struct {
	zones     int // that list us: confirmed, our own address or domain, harmful
	wide      int // that list a range or network we are in
	suspected int // sightings that wait for their confirmation
	checked   int
	unknown   int // addresses and domains of which nobody can tell
	names     map[string]bool
}

func (c *composer) tally() tally {
	t := tally{checked: len(c.r.Addresses), names: map[string]bool{}}
	zones, wide := map[string]bool{}, map[string]bool{}
	for _, l := range c.r.Listings {
		switch {
		case l.Severity == rbl.Info:
		case !l.Confirmed:
			t.suspected++
		case l.Scope.Wide():
			wide[l.Zone] = true
		default:
			zones[l.Zone] = true
			t.names[l.Subject] = true
		}
	}
	for zone := range wide {
		if !zones[zone] {
			t.wide++
		}
	}
	t.zones = len(zones)
	for _, a := range c.r.Addresses {
		switch tone, explained := c.standing(a); {
		case tone == toneUnknown:
			t.unknown++
		case tone == toneLook && !explained:
			t.suspected++
		}
	}
	return t
}

// standing is what is known of an address or domain: toneAct if it is listed, toneLook
// if lists have it that do not count as that (explained: Listings has them all),
// toneUnknown, toneGood. Fewer than half of the answers, or none in the report's time, is
// unknown; a listing is one however few answered, and information is none.
func (c *composer) standing(a Checked) (t tone, explained bool) {
	zones, harmful := map[string]bool{}, false
	for _, l := range c.r.Listings {
		if l.Subject != a.Subject {
			continue
		}
		zones[l.Zone] = true
		if l.Severity == rbl.Info {
			continue
		}
		if harmful = true; l.Confirmed && !l.Scope.Wide() {
			return toneAct, true
		}
	}
	explained = a.Listed <= len(zones)
	answered, silent := a.Listed+a.Clean, a.Unknown+a.Refused
	switch {
	case a.At.IsZero(), a.At.Before(c.r.Since), answered == 0, answered < silent:
		return toneUnknown, explained
	case harmful, !explained:
		return toneLook, explained
	}
	return toneGood, true
}

// silentZones are how many lists nobody could believe, of those that are asked.
func (c *composer) silentZones() int { return max(c.r.Zones.Asked-c.r.Zones.Healthy, 0) }

func (c *composer) verdict() verdict {
	t := c.tally()
	switch {
	case t.zones > 0:
		return verdict{toneAct, c.w.say("verdict_listed", values{"n": t.zones})}
	case c.lacks(SectionBlocklists), t.checked == 0, t.unknown == t.checked:
		return verdict{toneUnknown, c.w.say("verdict_unknown", nil)}
	case t.unknown > 0:
		return verdict{toneUnknown, c.w.say("verdict_part_unknown", values{"n": t.unknown, "all": t.checked})}
	case t.suspected > 0:
		return verdict{toneLook, c.w.say("verdict_suspected", values{"n": t.suspected})}
	case t.wide > 0:
		return verdict{toneLook, c.w.say("verdict_wide", values{"n": t.wide})}
	case c.lacks(SectionAddresses):
		return verdict{toneUnknown, c.w.say("verdict_addresses_unknown", nil)}
	case c.silentZones() > 0:
		return verdict{toneGood, c.w.say("verdict_clean_part", values{"n": c.r.Zones.Healthy, "silent": c.silentZones()})}
	}
	return verdict{toneGood, c.w.say("verdict_clean", nil)}
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
	return c.w.text("title", values{"host": clean(c.r.Host, maxHost), "says": strings.Join(says, c.w.text("title_joint", nil)), "date": c.date(c.r.Since)})
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
	var all []item
	say := func(t tone, key string, v values) {
		all = append(all, item{Tone: t, Label: c.label(t), Line: c.w.say(key, v)})
	}
	if s := c.r.Stopped; s != nil {
		all = append(all, item{
			Tone: toneAct, Label: c.label(toneAct), Command: "relayguard start",
			Line: c.w.say("note_stopped", values{"since": c.since(s.Since), "why": c.name(s.Why)}),
		})
	}
	t := c.tally()
	if t.zones > 0 {
		if t.unknown > 0 {
			say(toneUnknown, "note_part_unknown", values{"n": t.unknown, "all": t.checked})
		}
		if t.suspected > 0 {
			say(toneLook, "note_suspected", values{"n": t.suspected})
		}
	}
	if t.wide > 0 && v.tone != toneLook {
		say(toneNotice, "note_wide", values{"n": t.wide})
	}
	if n := c.silentZones(); n > 0 && v.tone != toneGood && t.unknown < max(t.checked, 1) {
		say(toneUnknown, "note_silent", values{"n": n, "all": c.r.Zones.Asked})
	}
	if n := c.openIncidents(); n > 0 {
		say(toneLook, "note_incidents", values{"n": n})
	}
	if c.r.Phase != "" && c.r.Phase != "enforce" {
		all = append(all, item{Tone: toneNotice, Label: c.label(toneNotice), Line: line{c.translated("phase", c.r.Phase)}})
	}
	if c.firstDay() {
		say(toneNotice, "note_first_day", nil)
	}
	return all
}

func (c *composer) label(t tone) string { return c.w.text("label_"+string(t), nil) }

// firstDay reports whether there is no day before to compare with.
func (c *composer) firstDay() bool { return c.r.First.IsZero() || !c.r.First.Before(c.r.Since) }

// period says what time the report is about, and when it was made.
func (c *composer) period() line {
	since, until := c.in(c.r.Since), c.in(c.r.Until)
	midnight := func(t time.Time) bool { return t.Format("15:04:05") == "00:00:00" }
	made := c.moment(c.r.Made)
	if midnight(since) && since.AddDate(0, 0, 1).Equal(until) {
		return c.w.say("period_day", values{"day": c.day(since), "made": made, "zone": c.zone()})
	}
	return c.w.say("period", values{"since": c.moment(since), "until": c.moment(until), "made": made, "zone": c.zone()})
}

// tiles are the figures of the head.
func (c *composer) tiles(v verdict) []tile {
	label := func(key string) string { return c.w.text(key, nil) }
	unknown := func(key string) tile {
		return tile{Label: label(key), Value: c.w.say("not_known", nil), Tone: toneUnknown}
	}
	lists := tile{Label: label("tile_lists"), Value: c.w.say("tile_"+string(v.tone), values{"n": c.tally().zones}), Tone: v.tone}
	if c.r.Zones.Asked > 0 {
		lists.Under = c.w.say("tile_answered", values{"n": c.r.Zones.Healthy, "all": c.r.Zones.Asked})
	}
	passed, stopped, held := unknown("tile_passed"), unknown("tile_stopped"), unknown("tile_held")
	if !c.lacks(SectionMail) {
		number := func(key string, of func(Verdicts) int64) tile {
			n := of(c.r.Mail.Total)
			t := tile{Label: label(key), Value: c.w.say("tile_number", values{"n": n}), Under: c.w.say("tile_recipients", nil), Tone: toneNone}
			if u := c.r.Mail.Usual; u != nil && !c.lacks(SectionUsual) {
				t.Under = c.w.say("tile_usually", values{"n": of(*u)})
				if outstanding(n, of(*u)) {
					t.Tone = toneLook
				}
			}
			return t
		}
		passed = number("tile_passed", func(v Verdicts) int64 { return v.Accepted })
		stopped = number("tile_stopped", Verdicts.stopped)
	}
	if !c.lacks(SectionHeld) {
		held = tile{Label: label("tile_held"), Value: c.w.say("tile_waiting", values{"n": c.r.Held.Messages}), Under: c.w.say("tile_messages", nil), Tone: toneNone}
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
