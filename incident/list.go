package incident

import (
	"slices"
	"strings"
	"time"

	"relayguard/policy"
)

// Load puts saved incidents back after a restart; nobody is alerted again of
// what was told. Call it once, before the first Observe. Those that do not fit
// (a second one of the same origin and cause, more than MaxOpen) are closed at
// the next Tick.
func (b *Book) Load(saved []Incident) {
	saved = slices.Clone(saved)
	slices.SortFunc(saved, func(x, y Incident) int { return y.Updated.Compare(x.Updated) })
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, i := range saved {
		i.Notes = slices.Clone(i.Notes[:min(len(i.Notes), maxNotes)])
		i.Buckets = slices.Clone(i.Buckets[:min(len(i.Buckets), maxBuckets)])
		i.Others, i.Details = slices.Clone(i.Others[:min(len(i.Others), maxAccounts)]), i.Details.loaded()
		e := &entry{Incident: i, quiet: b.opts.Quiet, saved: i.Updated}
		for range min(i.Reopened, 32) {
			e.quiet = min(2*e.quiet, max(b.opts.Grace, b.opts.Quiet))
		}
		e.toldStops, e.toldRecipients = i.Stops, i.Recipients
		if !i.Alerted.IsZero() {
			e.told = Updated
		}
		if !i.Open() {
			e.told = Closed
		}
		k := key{i.Origin, i.Cause}
		switch _, twice := b.entries[k]; {
		case twice || i.Open() && b.open >= b.opts.MaxOpen && i.Origin != OriginOthers:
			if i.Open() {
				e.Closed, e.told = e.Updated, Closed
				e.note(e.Updated, "closed after a restart: no room for it")
				b.mark(e)
			}
			continue
		case i.Open() && i.Origin != OriginOthers:
			b.open++
		}
		b.entries[k] = e
		for _, account := range e.Accounts() {
			b.index(account, e)
		}
		if i.Open() && e.told == "" {
			b.mark(e) // it was saved, but nobody was told
		}
	}
	b.trim()
}

// Open are the incidents that go on, the latest stop first.
func (b *Book) Open() []Incident {
	return b.list(func(e *entry) bool { return e.Open() })
}

// All lists the open incidents and those closed not long ago, as Open does.
func (b *Book) All() []Incident { return b.list(func(*entry) bool { return true }) }

func (b *Book) list(wanted func(*entry) bool) []Incident {
	b.mu.Lock()
	all := make([]Incident, 0, b.open+1)
	for _, e := range b.entries {
		if wanted(e) {
			all = append(all, e.copy())
		}
	}
	b.mu.Unlock()
	slices.SortFunc(all, func(x, y Incident) int {
		if c := y.Updated.Compare(x.Updated); c != 0 {
			return c
		}
		return strings.Compare(y.ID, x.ID)
	})
	return all
}

// Abused reports whether an incident of abuse of the account is open, or of a site
// or plugin that sends as it: of one of the causes that Options.Abuses names.
func (b *Book) Abused(account string) bool {
	if b.opts.Abuses == nil {
		return false
	}
	causes := b.opts.Abuses()
	b.mu.Lock()
	defer b.mu.Unlock()
	for e := range b.accounts[name(account)] {
		if e.abuse(causes) {
			return true
		}
	}
	return false
}

// Mail is a message of an account as which many send.
type Mail struct {
	Account  string
	Site     string   // proven; empty: not known
	Template string   // what its text looks like
	Buckets  []string // values of all that it is charged to
}

// MailOf is the message that waits.
func MailOf(w *policy.Waits) Mail {
	m := Mail{Account: w.Origin.Name(), Template: w.Origin.Template.Value}
	if w.Origin.Site.Proven() {
		m.Site = w.Origin.Site.Value
	}
	for _, c := range w.Charges {
		m.Buckets = append(m.Buckets, c.Value)
	}
	return m
}

// AbusedMail is Abused for a message of an account as which many send: whether an
// incident of abuse is open of its site, of its text, or of what it is charged to.
// Another site's trouble is not its own.
func (b *Book) AbusedMail(m Mail) bool {
	if b.opts.Abuses == nil {
		return false
	}
	causes := b.opts.Abuses()
	b.mu.Lock()
	defer b.mu.Unlock()
	for e := range b.accounts[name(m.Account)] {
		if e.abuse(causes) && e.touches(&m) {
			return true
		}
	}
	return false
}

// touches reports whether an incident is about a message of one of its accounts.
func (e *entry) touches(m *Mail) bool {
	site, template := "", ""
	if e.Details != nil {
		site, template = e.Details.Site, e.Details.Template
	}
	if of, _ := SiteOf(e.Origin); of != "" {
		site = of
	}
	switch {
	case m.Site != "" && m.Site == site, m.Template != "" && m.Template == template && (m.Site == "" || site == ""):
		return true
	case !slices.Contains(e.Accounts(), e.Origin): // of a site, a plugin or a text
		return slices.Contains(m.Buckets, e.Origin)
	}
	return len(e.Buckets) == 0 || len(e.Buckets) == maxBuckets || // not all may be known
		slices.ContainsFunc(e.Buckets, func(bucket string) bool { return slices.Contains(m.Buckets, bucket) })
}

// abuse reports whether it is open and of one of these causes.
func (e *entry) abuse(causes []string) bool {
	return e.Open() && slices.ContainsFunc(causes, func(cause string) bool { return e.Cause == name(cause) })
}

// ShutBuckets are the buckets that the open incidents of abuse of the account
// name: those that a limit of abuse may have shut for it.
func (b *Book) ShutBuckets(account string) (buckets []string) {
	if b.opts.Abuses == nil {
		return nil
	}
	causes := b.opts.Abuses()
	b.mu.Lock()
	defer b.mu.Unlock()
	for e := range b.accounts[name(account)] {
		if e.abuse(causes) {
			buckets = append(buckets, e.Buckets...)
		}
	}
	slices.Sort(buckets)
	return slices.Compact(buckets)
}

// Find is an incident that is open or in its grace.
func (b *Book) Find(id string) (Incident, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.entries {
		if e.ID == id {
			return e.copy(), true
		}
	}
	return Incident{}, false
}

// Note writes into the time line of an incident that is open or in its grace,
// and reports whether there is one.
func (b *Book) Note(now time.Time, id, text string) bool {
	return b.noteAll(now, text, func(e *entry) bool { return e.ID == id }) > 0
}

// NoteOrigin writes into the time lines of all open incidents that concern an
// account, a site or a plugin, what an admin did about it: "suspended login:a by root:
// password stolen". It reports how many there are.
func (b *Book) NoteOrigin(now time.Time, origin, text string) int {
	origin = name(origin)
	return b.noteAll(now, text, func(e *entry) bool { return e.Open() && e.Concerns(origin) })
}

func (b *Book) noteAll(now time.Time, text string, of func(*entry) bool) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, e := range b.entries {
		if of(e) {
			e.note(now, strings.Clone(text))
			e.dirty, e.saved = true, time.Time{} // at the next Tick
			n++
		}
	}
	return n
}

// Size is how much a Book keeps.
type Size struct {
	Open, Closed int
	Pending      int   // origins below the threshold of their rule
	Lost         int64 // stops below a threshold that were counted together, for want of room
}

// Size tells how much is kept.
func (b *Book) Size() Size {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := Size{Pending: len(b.pending), Lost: b.lost}
	for _, e := range b.entries {
		if e.Open() {
			s.Open++
		} else {
			s.Closed++
		}
	}
	return s
}
