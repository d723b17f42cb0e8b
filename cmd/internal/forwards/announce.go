package forwards

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"relayguard/cmd/internal/render"
	"relayguard/forward"
	"relayguard/forward/ledger"
)

// Announcement is what somebody is told of at once.
type Announcement struct {
	Topic  string // of two that wait for one topic the later is told
	Text   string // one line
	Urgent bool
	Detail Detail
}

// Detail is an announcement for programs. Texts are escaped.
type Detail struct {
	Kind     string   `json:"kind"`
	Count    int      `json:"count"`
	Names    []string `json:"names,omitempty"`    // of what is about no one rule
	Forwards []About  `json:"forwards,omitempty"` // at most maxShown
}

// About is one rule in a Detail.
type About struct {
	ID        string    `json:"id"`
	Owner     string    `json:"owner"`
	Target    string    `json:"target"`
	Mechanism string    `json:"mechanism"`
	Verdict   string    `json:"verdict"`
	Mode      string    `json:"mode"`
	Source    string    `json:"source"`
	Line      int       `json:"line,omitempty"`
	Chain     []string  `json:"chain"`
	Classes   []string  `json:"classes"`
	Writer    string    `json:"writer"`
	Differs   string    `json:"differs,omitempty"`
	Since     time.Time `json:"since"`
	By        string    `json:"by,omitempty"` // who approved or revoked
	Reason    string    `json:"reason,omitempty"`
	Until     time.Time `json:"until,omitzero"`
}

const (
	mostSingly = 10  // of more, so many that matter most
	singly     = 5   // so many alerts of one kind are told one by one; more are told as one
	maxShown   = 100 // rules in one detail
	maxValue   = 120 // octets of a value in a text
)

// Announce says what of some events is to be told at once, what matters most first.
// However many rules change together, it is a handful of announcements; one of the
// server, of an important owner or one that differs from its source is told singly
// among any number of others.
func Announce(events []ledger.Event) []Announcement {
	var all []Announcement
	kinds := map[string][]ledger.Event{}
	var order []string
	told := map[string]bool{}
	for _, e := range events {
		if e.Action != ledger.Alert {
			continue
		}
		if special, ok := serverEvent(e); ok {
			all = append(all, special)
			continue
		}
		// A row of a panel is seen in its table and in the mail server's map: one rule.
		if same := strings.Join([]string{e.Kind, e.Entry.Owner, e.Entry.Target, string(e.Entry.Mode)}, "\x00"); e.Entry.Direct() && e.Kind == ledger.Appeared {
			if told[same] {
				continue
			}
			told[same] = true
		}
		if len(kinds[e.Kind]) == 0 {
			order = append(order, e.Kind)
		}
		kinds[e.Kind] = append(kinds[e.Kind], e)
	}
	for _, kind := range order {
		of := kinds[kind]
		slices.SortStableFunc(of, func(a, b ledger.Event) int { return weight(&b.Entry) - weight(&a.Entry) })
		if len(of) <= singly {
			for _, e := range of {
				all = append(all, one(e))
			}
			continue
		}
		n := 0
		for n < mostSingly && weight(&of[n].Entry) > 0 && n < len(of)-1 {
			all = append(all, one(of[n]))
			n++
		}
		if rest := of[n:]; len(rest) == 1 {
			all = append(all, one(rest[0]))
		} else {
			all = append(all, many(kind, rest))
		}
	}
	return all
}

// weight is how much a rule matters among others that alert.
func weight(e *ledger.Entry) int {
	for i, class := range []ledger.Class{ledger.Important, ledger.Server, ledger.Differs, ledger.Traffic} {
		if slices.Contains(e.Classes, class) {
			return 4 - i
		}
	}
	return 0
}

// serverEvent announces what is about no one rule.
func serverEvent(e ledger.Event) (Announcement, bool) {
	a := Announcement{Topic: "forwards " + e.Kind, Urgent: true, Detail: Detail{Kind: e.Kind, Count: e.Count}}
	for _, name := range e.Names {
		a.Detail.Names = append(a.Detail.Names, render.Escape(name))
	}
	switch e.Kind {
	case ledger.Baseline:
		a.Urgent = false
		a.Text = fmt.Sprintf("baseline of forwarding rules made: %d that do not end inside, none reviewed yet; see: relayguard forwards list", e.Count)
		if e.Why != "" {
			a.Text = fmt.Sprintf("%s was read for the first time: %d forwarding rules there are taken as existing; see: relayguard forwards list", short(e.Why), e.Count)
		}
	case ledger.Broken:
		a.Text = "the ledger of forwarding rules was changed by somebody else: " + short(e.Why) + "; what was approved in or after it counts no more"
	case ledger.Widened:
		a.Topic += fmt.Sprintf(" %x", fnv32(e.Why))
		a.Text = fmt.Sprintf("what counts as our own has changed in %d places: %s; rules that lead there are judged by it", e.Count, bound(render.Escape(e.Why), 400))
	case ledger.Crowded:
		a.Topic += " " + short(e.Entry.Owner)
		a.Text = render.Escape(bound(e.Why, 300))
	case Blind:
		a.Topic += fmt.Sprintf(" %x", fnv32(strings.Join(e.Names, " ")))
		a.Text = fmt.Sprintf("%d places of forwarding rules cannot be read any more, such as %s; what is planted there is not seen; relayguard forwards list --json has them under watch.gaps", e.Count, short(first(e.Names)))
	case Due:
		a.Text = fmt.Sprintf("%d forwarding rules that alerted are not approved yet: relayguard forwards list --due", e.Count)
	default:
		return Announcement{}, false
	}
	return a, true
}

func first(all []string) string {
	if len(all) == 0 {
		return "one"
	}
	return all[0]
}

// fnv32 tells texts apart.
func fnv32(s string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(s))
	return h.Sum32()
}

// verbs say what happened to a rule.
var verbs = map[string]string{
	ledger.Appeared: "new", ledger.Returned: "back", ledger.Changed: "changed", ledger.Vanished: "gone", ledger.Granted: "approved",
	ledger.Revoked: "no longer approved", ledger.Expired: "its approval is over",
}

func one(e ledger.Event) Announcement {
	var b strings.Builder
	f := &e.Entry
	fmt.Fprintf(&b, "forwarding rule %s %s: mail of %s %s %s (%s, %s) in %s", forward.ShortID(f.ID), verbs[e.Kind], short(ownerName(&f.Finding)), goes(&f.Finding), short(f.Target), f.Mechanism, f.Mode, short(place(&f.Finding)))
	if f.Verdict != forward.Outside {
		fmt.Fprintf(&b, "; %s", f.Verdict)
	}
	if f.Differs != "" {
		fmt.Fprintf(&b, "; source and what runs differ: %s", short(f.Differs))
	}
	switch e.Kind {
	case ledger.Granted:
		fmt.Fprintf(&b, "; by %s: %s", short(f.Approval.By), short(f.Approval.Reason))
		if !f.Approval.Until.IsZero() {
			fmt.Fprintf(&b, ", until %s", f.Approval.Until.UTC().Format("2006-01-02 15:04Z"))
		}
	case ledger.Revoked:
		fmt.Fprintf(&b, "; by %s", short(e.Why))
	case ledger.Appeared, ledger.Changed, ledger.Returned:
		fmt.Fprintf(&b, "; written by %s; because: %s", WriterName(f.Writer), classNames(f.Classes))
	}
	fmt.Fprintf(&b, "; relayguard forwards show %s", forward.ShortID(f.ID))
	return Announcement{Topic: "forward " + f.ID, Text: b.String(), Urgent: e.Kind != ledger.Vanished, Detail: Detail{Kind: e.Kind, Count: 1, Forwards: []About{AboutOf(e)}}}
}

func many(kind string, of []ledger.Event) Announcement {
	targets := map[string]int{}
	var order []string
	d := Detail{Kind: kind, Count: len(of)}
	for _, e := range of {
		if targets[e.Entry.Target] == 0 {
			order = append(order, e.Entry.Target)
		}
		targets[e.Entry.Target]++
		if len(d.Forwards) < maxShown {
			d.Forwards = append(d.Forwards, AboutOf(e))
		}
	}
	slices.SortStableFunc(order, func(a, b string) int { return targets[b] - targets[a] })
	var parts []string
	for _, target := range order[:min(3, len(order))] {
		parts = append(parts, fmt.Sprintf("%d to %s", targets[target], short(target)))
	}
	text := fmt.Sprintf("%d forwarding rules %s: %s", len(of), verbs[kind], strings.Join(parts, ", "))
	if len(order) > 3 {
		text += fmt.Sprintf(" and %d other targets", len(order)-3)
	}
	return Announcement{Topic: fmt.Sprintf("forwards %s %x", kind, fnv32(of[0].Entry.ID)), Text: text + "; relayguard forwards list --due", Urgent: kind != ledger.Vanished, Detail: d}
}

// Line is an event for people, on one line.
func Line(e ledger.Event) string {
	if a, ok := serverEvent(e); ok {
		return a.Text
	}
	return one(e).Text
}

// AboutOf is what an event is about, for programs.
func AboutOf(e ledger.Event) About {
	f := &e.Entry
	a := About{ID: f.ID, Owner: render.Escape(f.Owner), Target: render.Escape(f.Target), Mechanism: string(f.Mechanism), Verdict: string(f.Verdict), Mode: string(f.Mode),
		Source: render.Escape(f.Source), Line: f.Line, Writer: WriterName(f.Writer), Differs: render.Escape(f.Differs), Since: f.Since}
	for _, o := range f.Chain {
		a.Chain = append(a.Chain, render.Escape(o))
	}
	for _, c := range f.Classes {
		a.Classes = append(a.Classes, string(c))
	}
	if f.Approval != nil {
		a.By, a.Reason, a.Until = render.Escape(f.Approval.By), render.Escape(f.Approval.Reason), f.Approval.Until
	}
	if e.Kind == ledger.Revoked {
		a.By = render.Escape(e.Why)
	}
	return a
}

// WriterName is a writer for people: "uid 33 (/usr/sbin/apache2), logged in as
// uid 1000", or "unknown".
func WriterName(w forward.Writer) string {
	if !w.Known() {
		return "unknown"
	}
	s := fmt.Sprintf("uid %d", w.UID)
	if w.Process != "" {
		s += " (" + short(w.Process) + ")"
	}
	if w.LoginUID != forward.NoUID && w.LoginUID != w.UID {
		s += fmt.Sprintf(", logged in as uid %d", w.LoginUID)
	}
	return s
}

func ownerName(f *forward.Finding) string {
	switch {
	case f.Owner == forward.Everybody:
		return "everybody"
	case f.Sender:
		return f.Owner + " (as sender)"
	}
	return f.Owner
}

// goes says how mail gets to the target.
func goes(f *forward.Finding) string {
	switch f.Mode {
	case forward.Copy:
		return "is copied to"
	}
	return "goes to"
}

func place(f *forward.Finding) string {
	if f.Line > 0 {
		return fmt.Sprintf("%s:%d", f.Source, f.Line)
	}
	return f.Source
}

func classNames(all []ledger.Class) string {
	names := make([]string, len(all))
	for i, c := range all {
		names[i] = string(c)
	}
	return strings.Join(names, ", ")
}

// short makes a value harmless and cuts it.
func short(s string) string { return bound(render.Escape(s), maxValue) }

// bound cuts a text.
func bound(s string, most int) string {
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && s[cut]&0xc0 == 0x80 {
		cut--
	}
	return s[:cut] + "..."
}
