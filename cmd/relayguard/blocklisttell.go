package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"relayguard/incident"
	"relayguard/rbl"
	"relayguard/rbl/history"
)

// tellPatience is how long tell waits for a channel. One that hangs, or that has had its
// number for the hour, may take longer: tell is called again.
const tellPatience = 20 * time.Second

var (
	errTelling = errors.New("no channel of alerts has delivered them yet")
	errUntold  = errors.New("no channel of alerts could deliver them")
)

// listingsTold is what became of events between calls of tell.
type listingsTold struct {
	sent  map[int64]*telling // by event
	lost  map[int64]int      // how often all channels gave up
	acted map[int64]bool     // limits were tightened, or need not be
}

// telling is one alert that was handed to the channels.
type telling struct {
	over      chan struct{}
	delivered bool // once over
}

// lost reports whether all channels have given it up.
func (t *telling) lost() bool {
	select {
	case <-t.over:
		return !t.delivered
	default:
		return false
	}
}

// tell hands events on to the admin; nil: one channel at least has delivered them, for
// what channels have is lost with the process. Called again with events that still
// wait, it does not send them twice. Without any channel the log is all there is.
func (b *blocklistWatch) tell(ctx context.Context, events []history.Event) error {
	c := b.state.config.Load()
	var fresh, unacted []history.Event
	for _, e := range events {
		switch t := b.told.sent[e.ID]; {
		case b.told.lost[e.ID] >= mostLost: // given up
		case t == nil:
			fresh = append(fresh, e)
		case t.lost():
			b.told.lost[e.ID]++
			if b.told.lost[e.ID] < mostLost {
				fresh = append(fresh, e)
				break
			}
			b.state.log.Error("nobody could be told of a change on blocklists: it is in the report, and in relayguard rbl status", "event", string(e.Kind), "tries", mostLost)
			delete(b.told.sent, e.ID)
		}
		if !b.told.acted[e.ID] {
			unacted = append(unacted, e)
		}
	}
	for _, a := range listingAlerts(fresh, c.RBL.Alert) {
		b.state.log.Warn("blocklists", "text", a.text)
		b.send(&a)
	}
	b.tighten(ctx, time.Now(), unacted)
	for _, e := range events {
		b.told.acted[e.ID] = true
	}
	if err := b.delivered(ctx, events); err != nil {
		return err
	}
	for _, e := range events {
		delete(b.told.sent, e.ID)
		delete(b.told.acted, e.ID)
		delete(b.told.lost, e.ID)
	}
	return nil
}

// mostLost is how often an event is handed to channels that all give up: one that
// delivers and then says that it did not would be told for ever.
const mostLost = 5

// send hands an alert to the channels.
func (b *blocklistWatch) send(a *listingAlert) {
	if len(b.state.channels.Counts()) == 0 {
		return // logged: more cannot be done
	}
	alert := incident.NewNotice(a.events[0].At, a.topic(), a.text)
	if a.urgent {
		alert.Event = incident.Warning
	}
	alert.Detail = a.detail()
	t := &telling{over: make(chan struct{})}
	alert.Done = func(delivered bool) {
		t.delivered = delivered
		close(t.over)
	}
	for _, e := range a.events {
		b.told.sent[e.ID] = t
	}
	b.state.channels.Send(alert)
}

// delivered waits a while for what was sent.
func (b *blocklistWatch) delivered(ctx context.Context, events []history.Event) error {
	ctx, cancel := context.WithTimeout(ctx, tellPatience)
	defer cancel()
	var err error
	for _, e := range events {
		t := b.told.sent[e.ID]
		if t == nil {
			continue
		}
		select {
		case <-t.over:
		case <-ctx.Done():
		}
		select {
		case <-t.over:
			if !t.delivered {
				err = cmp.Or(err, errUntold)
			}
		default:
			err = errTelling
		}
	}
	return err
}

// listingAlert is one alert about all that happened of a kind at once: a number for the
// hour of its own for each listing would take those of mail's abuse away.
type listingAlert struct {
	kind   history.EventKind
	events []history.Event // the worst first
	text   string
	urgent bool
}

// topic names what it is about: of two alerts with one topic that wait only one is sent.
func (a *listingAlert) topic() string {
	e, text := a.events[0], "rbl "+string(a.kind)
	if e.Listing != nil {
		text += " " + e.Listing.Zone + " " + e.Listing.Subject.String()
	}
	if e.Health != nil {
		text += " " + e.Health.Zone
	}
	if more := len(a.events) - 1; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// maxDetailed bounds the events in an alert's Detail.
const maxDetailed = 200

// listingDetail is what programs are told.
type listingDetail struct {
	Events []history.Event `json:"events"`
	More   int             `json:"more,omitempty"` // that are left out
}

func (a *listingAlert) detail() listingDetail {
	n := min(len(a.events), maxDetailed)
	return listingDetail{a.events[:n], len(a.events) - n}
}

// listingAlerts are what the admin is told of events: at most one of each kind.
func listingAlerts(events []history.Event, from rbl.Severity) (all []listingAlert) {
	for _, kind := range []history.EventKind{history.Began, history.Over, history.ZoneBad} {
		a := listingAlert{kind: kind, urgent: kind == history.Began}
		for _, e := range events {
			if e.Kind == kind && worthTelling(&e, from) {
				a.events = append(a.events, e)
			}
		}
		if len(a.events) == 0 {
			continue
		}
		if kind == history.ZoneBad {
			a.text = badListsText(a.events)
		} else {
			slices.SortStableFunc(a.events, func(x, y history.Event) int { return cmp.Compare(y.Listing.Hit.Severity, x.Listing.Hit.Severity) })
			a.text = listingsText(kind, a.events)
		}
		all = append(all, a)
	}
	return all
}

// worthTelling reports whether the daily report is not enough. For a range or a whole
// network nobody is woken.
func worthTelling(e *history.Event, from rbl.Severity) bool {
	if e.Kind == history.ZoneBad {
		return e.Health != nil
	}
	return e.Listing != nil && !e.Listing.Hit.Scope.Wide() && e.Listing.Hit.Severity >= from
}

func localTime(t time.Time) string { return t.Local().Format("2006-01-02 15:04 MST") }

// during is when a listing that is over was.
func during(e *history.Event) string {
	ended := e.Listing.Ended
	if ended.IsZero() {
		ended = e.At
	}
	return "from " + localTime(e.Listing.First) + " until " + localTime(ended)
}

// listingsText is about one listing or several, which began or are over.
func listingsText(kind history.EventKind, events []history.Event) string {
	over := kind == history.Over
	l := events[0].Listing
	switch {
	case len(events) == 1 && over:
		return fmt.Sprintf("%s is no longer listed by %s (%s); it was %s", l.Subject, l.Zone, l.Hit.Means, during(&events[0]))
	case len(events) == 1:
		return fmt.Sprintf("%s is listed by %s: %s (%s), first seen %s; see: relayguard report", l.Subject, l.Zone, l.Hit.Means, l.Hit.Severity, localTime(l.First))
	}
	subjects, names := map[rbl.Subject]bool{}, "addresses"
	parts := make([]string, len(events))
	for i := range events {
		l := events[i].Listing
		subjects[l.Subject] = true
		if !l.Subject.Addr.IsValid() {
			names = "addresses and domains"
		}
		about := l.Hit.Means
		if over {
			about = during(&events[i])
		}
		parts[i] = fmt.Sprintf("%s by %s (%s)", cutTo(l.Subject.String(), maxTellName), cutTo(l.Zone, maxTellName), cutTo(about, maxTellName))
	}
	text := fmt.Sprintf("%d of our %s are listed", len(subjects), names)
	switch {
	case len(subjects) == 1 && over:
		text = fmt.Sprintf("%d listings of %s are over", len(events), cutTo(l.Subject.String(), maxTellName))
	case len(subjects) == 1:
		text = fmt.Sprintf("%s is listed for %d reasons", cutTo(l.Subject.String(), maxTellName), len(events))
	case over:
		text = fmt.Sprintf("%d listings of our %s are over", len(events), names)
	}
	return text + ", worst first: " + fewOf(parts) + "; see relayguard rbl status"
}

// badListsText is about lists that are not believed. One is bad for several kinds of
// subjects, mostly.
func badListsText(events []history.Event) string {
	var parts []string
	for i := range events {
		h := events[i].Health
		if part := fmt.Sprintf("%s is %s: %s", cutTo(h.Zone, maxTellName), shownState(h.State), cutTo(h.Why, maxTellName)); !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	if h := events[0].Health; len(parts) == 1 {
		return fmt.Sprintf("the blocklist %s is %s: what it says is not believed until it is well again: %s", h.Zone, shownState(h.State), h.Why)
	}
	return fmt.Sprintf("what %d blocklists say is not believed until they are well again: %s; see relayguard rbl status", len(parts), fewOf(parts))
}

// An alert is one line of at most 700 octets: three parts of three names fit.
const (
	maxTellName  = 60
	maxTellParts = 3
)

// fewOf joins the first parts.
func fewOf(parts []string) string {
	if more := len(parts) - maxTellParts; more > 0 {
		return strings.Join(parts[:maxTellParts], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(parts, ", ")
}

// cutTo bounds a name in octets.
func cutTo(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-3], "") + "..."
}
