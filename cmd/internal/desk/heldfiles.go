package desk

import (
	"context"
	"time"

	"relayguard/journal"
	"relayguard/mta"
)

// heldFiles are what one look found in the hold queue, without recipients: there may
// be 100,000, of 1,000 recipients each.
type heldFiles struct {
	all     []*heldFile
	first   map[string]*heldFile // by queue id; instances may have the same
	partial bool                 // and there are some that could not be read
}

type heldFile struct {
	instance, id, sender string
	arrival              int64 // Unix seconds
	size                 int64
	recipients           int
	domains              map[string]int // not to be changed: it is many messages'
	next                 *heldFile      // another with the same id
	ours                 bool           // it has a hold
}

// heldQueue looks at the hold queue. Wanted, unless it is nil, are the ids of which
// what is found is kept.
func (d *Desk) heldQueue(ctx context.Context, wanted map[string]bool) (*heldFiles, error) {
	defer d.timeLook()()
	out, names := newHeldFiles(), newOnce(maxForeign)
	err := d.Queue.List(ctx, func(q mta.QueueFile) error {
		if q.Queue == "hold" && (wanted == nil || wanted[q.ID]) {
			out.add(&heldFile{instance: names.of(q.Instance), id: q.ID, sender: names.of(q.Sender), arrival: q.Arrival.Unix(), size: q.Size,
				recipients: recipientsOf(&q), domains: names.set(fewDomains(domains(q.Recipients)))})
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

func newHeldFiles() *heldFiles { return &heldFiles{first: map[string]*heldFile{}} }

func (l *heldFiles) add(f *heldFile) {
	for same := l.first[f.id]; same != nil; same = same.next {
		if same.instance == f.instance { // seen twice in one scan: the later counts
			f.next = same.next
			*same = *f
			return
		}
	}
	f.next = l.first[f.id]
	l.first[f.id] = f
	l.all = append(l.all, f)
}

// of is the file of a hold; nil: it is not there. Other reports that other messages
// have its id. Of several that may be it, of several instances, that with its sender
// is.
func (l *heldFiles) of(h *journal.Hold) (f *heldFile, other bool) {
	is := func(q mta.QueueFile) bool { return matches(*h, q) }
	f, other = l.find(h.QueueID, is)
	if f == nil || l.first[h.QueueID].next == nil {
		return f, other
	}
	if same, _ := l.find(h.QueueID, func(q mta.QueueFile) bool {
		return is(q) && mta.Target{ID: q.ID, Sender: h.MailFrom, Arrival: q.Arrival}.Matches(q)
	}); same != nil {
		f = same
	}
	return f, other
}

func (l *heldFiles) ofTarget(t mta.Target) *heldFile {
	f, _ := l.find(t.ID, func(q mta.QueueFile) bool {
		return t.Matches(q) && (t.Instance == "" || t.Instance == q.Instance)
	})
	return f
}

func (l *heldFiles) find(id string, is func(mta.QueueFile) bool) (f *heldFile, other bool) {
	if l == nil {
		return nil, false
	}
	for f := l.first[id]; f != nil; f = f.next {
		if is(f.file()) {
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
