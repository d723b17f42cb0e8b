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
	all     []heldFile
	first   map[string]int32 // index in all by queue id; instances may have the same
	partial bool             // and there are some that could not be read
}

type heldFile struct {
	instance, id, sender string
	arrival              int64 // Unix seconds
	size                 int64
	recipients           int
	domains              map[string]int // not to be changed: it is many messages'
	next                 int32          // index of another with the same id, from 1 on; 0: none
	ours                 bool           // it has a hold
}

// heldQueue looks at the hold queue. Wanted, unless it is nil, are the ids of which
// what is found is kept.
func (d *Desk) heldQueue(ctx context.Context, wanted map[string]bool) (*heldFiles, error) {
	out, names := &heldFiles{first: map[string]int32{}}, newOnce()
	err := d.Queue.List(ctx, func(q mta.QueueFile) error {
		if q.Queue == "hold" && (wanted == nil || wanted[q.ID]) {
			out.add(heldFile{instance: names.of(q.Instance), id: q.ID, sender: names.of(q.Sender), arrival: q.Arrival.Unix(), size: q.Size,
				recipients: recipientsOf(&q), domains: names.domains(q.Recipients)})
		}
		return nil
	})
	out.partial = isPartial(err)
	return out, d.skipped(err)
}

func (l *heldFiles) add(f heldFile) {
	l.all = append(l.all, f)
	if i, twin := l.first[f.id]; twin {
		if same := &l.all[i]; same.instance == f.instance { // seen twice in one scan: the later counts
			f.next = same.next
			*same, l.all = f, l.all[:len(l.all)-1]
			return
		}
		l.all[len(l.all)-1].next = i + 1
	}
	l.first[f.id] = int32(len(l.all) - 1)
}

// of is the file of a hold; nil: it is not there. Other reports that other messages
// have its id. Of several that may be it, of several instances, that with its sender
// is.
func (l *heldFiles) of(h *journal.Hold) (f *heldFile, other bool) {
	is := func(q mta.QueueFile) bool { return matches(*h, q) }
	f, other = l.find(h.QueueID, is)
	if f == nil || f.next == 0 {
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
	i, there := l.first[id]
	for there {
		f := &l.all[i]
		if is(f.file()) {
			return f, true
		}
		i, there = f.next-1, f.next > 0
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
