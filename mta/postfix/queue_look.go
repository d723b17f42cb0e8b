package postfix

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"relayguard/mta"
)

// partSize is how many messages one postsuper(1) is given: few enough to be done
// in a fraction of a second, so many that its start does not matter.
const partSize = 1000

// inParts calls fn with the targets, each once, a part after the other, until ctx
// ends or fn's error, which says that nothing was done of that part. What was not
// reached is Failed. With an error of the first part there are no results.
func inParts(ctx context.Context, targets []mta.Target, fn func([]mta.Target) ([]mta.Result, error)) ([]mta.Result, error) {
	unique := make([]mta.Target, 0, len(targets))
	at := make([]int, len(targets))
	seen := make(map[mta.Target]int, len(targets))
	for n, t := range targets {
		place, again := seen[t]
		if !again {
			place = len(unique)
			seen[t] = place
			unique = append(unique, t)
		}
		at[n] = place
	}
	done := make([]mta.Result, 0, len(unique))
	var caveat error // a hundred parts may all say the same
	for part := range slices.Chunk(unique, partSize) {
		err := ctx.Err()
		var results []mta.Result
		if err == nil || len(done) == 0 {
			results, err = fn(part)
		}
		if results == nil {
			if len(done) == 0 {
				return nil, err
			}
			for _, t := range part {
				results = append(results, mta.Result{ID: t.ID, Err: err})
			}
		} else if err != nil {
			caveat = firstOf(caveat, err)
		}
		done = append(done, results...)
	}
	results := make([]mta.Result, len(targets))
	for n := range targets {
		results[n] = done[at[n]]
	}
	return results, caveat
}

func firstOf(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

// look is what there is of some targets.
type look map[string][]sighting

// sighting is a message in the queue. Its Sender and Arrival are as postqueue -j
// prints them; of the recipients nothing is kept.
type sighting struct {
	mta.QueueFile
	senders []string  // all forms of it
	due     time.Time // when it may next be tried
	inode   uint64
	err     error // it cannot be read: is it the one that is meant?
}

func (s sighting) is(t mta.Target) bool {
	for _, s.QueueFile.Sender = range s.senders {
		if t.Matches(s.QueueFile) {
			return true
		}
	}
	return false
}

// look opens the queue files that have a target's id, in these queues, and reads
// arrival and sender in them: as much as postqueue -j would tell, for 50 µs each
// however long the queue is. What is on its way moves from incoming to active to
// deferred to active; so that it is not missed active is looked at again.
func (i *Instance) look(targets []mta.Target, queues []string) (look, error) {
	s, err := i.openSpool()
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if slices.Contains(queues, "deferred") && slices.Contains(queues, "active") {
		queues = append(slices.Clone(queues), "active")
	}
	found := make(look, len(targets))
	for _, t := range targets {
		if _, before := found[t.ID]; before || !ValidQueueID(t.ID) {
			continue
		}
		for _, queue := range queues {
			if slices.ContainsFunc(found[t.ID], func(f sighting) bool { return f.Queue == queue }) {
				continue
			}
			if f, there := i.sight(s, queue, t.ID); there {
				found[t.ID] = append(found[t.ID], f)
			}
		}
	}
	return found, nil
}

// sight reads one queue file; false if there is none.
func (i *Instance) sight(s *spool, queue, id string) (sighting, bool) {
	f, file := i.sightFile(s, queue, id)
	if file != nil {
		file.Close()
	}
	return f, file != nil || f.err != nil
}

// sightFile reads one queue file and returns it; nil if there is none, or none
// that can be read.
func (i *Instance) sightFile(s *spool, queue, id string) (sighting, *os.File) {
	f := sighting{QueueFile: mta.QueueFile{Instance: i.Name, Queue: queue, ID: id}}
	file, st, err := s.open(queue, id)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	var e envelope
	if err == nil {
		if e, err = readEnvelope(file, false); err != nil {
			file.Close()
			err = fmt.Errorf("read %s: %w", file.Name(), err)
		}
	}
	if err != nil {
		f.err = err
		return f, nil
	}
	f.due, f.inode = time.Unix(st.Mtim.Unix()), st.Ino
	if f.Arrival = e.arrival; e.arrival.IsZero() {
		f.Arrival = f.due.Truncate(time.Second).UTC()
	}
	if f.Size = e.size; e.size < 0 {
		f.Size = st.Size
	}
	f.senders = i.senders(e.sender)
	f.Sender = f.senders[0]
	return f, file
}

// find returns the target's file in one of the queues; if there is none, Gone,
// Changed or, with an error, Failed. Another instance's is Gone.
func (l look) find(t mta.Target, queues []string) (sighting, mta.Fate, error) {
	fate, err := mta.Gone, error(nil)
	for _, f := range l[t.ID] {
		switch {
		case !slices.Contains(queues, f.Queue) || t.Instance != "" && t.Instance != f.Instance:
		case f.err != nil:
			fate, err = mta.Failed, f.err
		case f.is(t):
			return f, mta.Done, nil
		case fate == mta.Gone:
			fate = mta.Changed
		}
	}
	return sighting{}, fate, err
}

// judge prepares the results; those that are left to do are Failed for now, and
// their ids are returned, each once.
func (l look) judge(targets []mta.Target, queues []string) (results []mta.Result, ids []string) {
	results = make([]mta.Result, len(targets))
	seen := make(map[string]bool, len(targets))
	for n, t := range targets {
		r := &results[n]
		r.ID = t.ID
		if !ValidQueueID(t.ID) {
			r.Err = fmt.Errorf("got queue id %q: not one of Postfix's", clip(t.ID))
			continue
		}
		if _, r.Fate, r.Err = l.find(t, queues); r.Fate != mta.Done {
			continue
		}
		r.Fate, r.Err = mta.Failed, errPending
		if !seen[t.ID] {
			seen[t.ID] = true
			ids = append(ids, t.ID)
		}
	}
	return results, ids
}

// errPending marks what judge left to do.
var errPending = errors.New("not yet tried")
