package desk

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"

	"relayguard/journal"
	"relayguard/mta"
)

// heldFiles are what one look found in the hold queue, without recipients: there may
// be 100,000, of 1,000 recipients each. Marked are those that have a hold.
type heldFiles struct {
	idShelf
	partial bool // and there are some that could not be read
}

type heldFile struct {
	instance, id, sender string
	arrival              int64 // Unix seconds
	size                 int64
	recipients           int
	domains              map[string]int
	number               int // in heldFiles
}

// heldQueue looks at the hold queue. Wanted, unless it is nil, are the ids of which
// what is found is kept.
func (d *Desk) heldQueue(ctx context.Context, wanted map[string]bool) (*heldFiles, error) {
	return d.heldQueueOf(ctx, func(id string) bool { return wanted == nil || wanted[id] })
}

func (d *Desk) heldQueueOf(ctx context.Context, wanted func(id string) bool) (*heldFiles, error) {
	defer d.timeLook()()
	out := newHeldFiles()
	err := d.Queue.List(ctx, func(q mta.QueueFile) error {
		if q.Queue == "hold" && wanted(q.ID) {
			out.add(&heldFile{instance: q.Instance, id: q.ID, sender: q.Sender, arrival: q.Arrival.Unix(), size: q.Size,
				recipients: recipientsOf(&q), domains: fewDomains(domains(q.Recipients))})
		}
		return nil
	})
	out.partial = isPartial(err)
	return out, d.skipped(err)
}

// timeLook begins to measure a look at the queue, and returns what ends it.
func (d *Desk) timeLook() (over func()) {
	clock := d.Clock
	if clock == nil {
		clock = time.Now
	}
	begun := clock()
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.looking = clock().Sub(begun)
	}
}

func newHeldFiles() *heldFiles {
	return &heldFiles{idShelf: idShelf{Shelf: Shelf{MostDomains: mostDomains}}}
}

func (l *heldFiles) add(f *heldFile) {
	l.put(&Queued{Instance: f.instance, QueueID: f.id, MailFrom: f.sender, Arrival: f.arrived(), Size: f.size, Recipients: f.recipients, Domains: f.domains})
}

func (l *heldFiles) file(n int) *heldFile {
	m := l.At(n)
	return &heldFile{instance: m.Instance, id: m.QueueID, sender: m.MailFrom, arrival: m.Arrival.Unix(), size: m.Size, recipients: m.Recipients, domains: m.Domains, number: n}
}

// unmarked are the numbers of those that have no hold, in the order of their ids.
func (l *heldFiles) unmarked() (numbers []int32) {
	for n, has := range l.marks {
		if !has {
			numbers = append(numbers, int32(n))
		}
	}
	slices.SortFunc(numbers, func(a, b int32) int {
		return cmp.Or(bytes.Compare(l.id(int(a)), l.id(int(b))), cmp.Compare(a, b))
	})
	return numbers
}

func (l *heldFiles) some(numbers []int32) (files []*heldFile) {
	for _, n := range numbers {
		files = append(files, l.file(int(n)))
	}
	return files
}

// of is the file of a hold; nil: it is not there. Other reports that other messages
// have its id. Of several that may be it, of several instances, that with its sender
// is.
func (l *heldFiles) of(h *journal.Hold) (f *heldFile, other bool) {
	is := func(q mta.QueueFile) bool { return matches(*h, q) }
	f, other = l.search(h.QueueID, is)
	if f == nil || l.count(h.QueueID) == 1 {
		return f, other
	}
	if same, _ := l.search(h.QueueID, func(q mta.QueueFile) bool {
		return is(q) && mta.Target{ID: q.ID, Sender: h.MailFrom, Arrival: q.Arrival}.Matches(q)
	}); same != nil {
		f = same
	}
	return f, other
}

func (l *heldFiles) ofTarget(t mta.Target) *heldFile {
	f, _ := l.search(t.ID, func(q mta.QueueFile) bool {
		return t.Matches(q) && (t.Instance == "" || t.Instance == q.Instance)
	})
	return f
}

func (l *heldFiles) search(id string, is func(mta.QueueFile) bool) (f *heldFile, other bool) {
	if l == nil {
		return nil, false
	}
	for n := range l.withID(id) {
		if f := l.file(n); is(f.file()) {
			return f, other
		}
		other = true
	}
	return nil, other
}

func (f *heldFile) arrived() time.Time {
	if f == nil {
		return time.Time{}
	}
	return time.Unix(f.arrival, 0).UTC()
}

// file is the message as the queue told it, without recipients.
func (f *heldFile) file() mta.QueueFile {
	return mta.QueueFile{Instance: f.instance, Queue: "hold", ID: f.id, Arrival: f.arrived(), Size: f.size, Sender: f.sender}
}

func (f *heldFile) target() mta.Target {
	return mta.Target{Instance: f.instance, ID: f.id, Sender: f.sender, Arrival: f.arrived(), Exact: true}
}

// foreign is a message that somebody else holds, as it is shown.
func (f *heldFile) foreign() Held {
	return Held{Instance: f.instance, QueueID: f.id, MailFrom: f.sender, Arrival: f.arrived(), HeldAt: f.arrived(), Size: f.size,
		Recipients: f.recipients, Domains: f.domains, State: string(journal.StateHeld), HeldBy: byOther}
}

// recipientsOf counts recipients; -1: the MTA did not.
func recipientsOf(q *mta.QueueFile) int {
	if q.More < 0 {
		return -1
	}
	return len(q.Recipients) + q.More
}
