package journal

import "sync"

// entry is one line in a queue, or the place of lines that were dropped.
type entry struct {
	length int32
	gone   int32 // how many lines were here; 0: one that still is
	class  class
}

func (e entry) lines() int32 { return max(1, e.gone) }

// pending is a run of lines that wait to be written, oldest first.
type pending struct {
	buf     []byte
	entries []entry
}

// bound is how much of one class may wait.
type bound struct {
	records int
	bytes   int64
}

// queue holds what is not yet in the log. It never waits for a disk: writers
// take what is in it. Safe for concurrent use.
type queue struct {
	bounds [classes]bound

	mu      sync.Mutex
	waiting pending
	spare   pending // of the last take, emptied: its memory is used again
	// used counts also what was taken and is not yet settled.
	used  [classes]bound
	added uint64 // lines ever added
}

// add puts a record at the end. It returns the number of lines added so far;
// ok is false if the class has no room, or the record could not be encoded.
func (q *queue) add(r Record) (n uint64, ok bool, err error) {
	c := r.class()
	q.mu.Lock()
	defer q.mu.Unlock()
	if used, most := q.used[c], q.bounds[c]; used.records >= most.records || used.bytes >= most.bytes {
		return q.added, false, nil
	}
	start := len(q.waiting.buf)
	buf, err := appendLine(q.waiting.buf, r)
	q.waiting.buf = buf
	if err != nil {
		return q.added, false, err
	}
	length := len(buf) - start
	q.waiting.entries = append(q.waiting.entries, entry{length: int32(length), class: c})
	q.used[c].records++
	q.used[c].bytes += int64(length)
	q.added++
	return q.added, true, nil
}

// take hands over all that waits. used is the memory of an earlier take that
// the caller is through with.
func (q *queue) take(used pending) pending {
	q.mu.Lock()
	defer q.mu.Unlock()
	if cap(used.buf) <= maxSpare && cap(used.entries) <= maxSpare/16 {
		q.spare = pending{used.buf[:0], used.entries[:0]}
	} else {
		q.spare = pending{}
	}
	taken := q.waiting
	q.waiting, q.spare = q.spare, pending{}
	return taken
}

// maxSpare bounds, in octets, the memory that is kept for further use.
const maxSpare = 4 << 20

// settle frees the room of lines that were taken and are written or dropped.
func (q *queue) settle(entries []entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, e := range entries {
		if e.gone > 0 {
			continue
		}
		q.used[e.class].records--
		q.used[e.class].bytes -= int64(e.length)
	}
}

// length is how many records, and octets, wait in all.
func (q *queue) length() (records int, bytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, u := range q.used {
		records += u.records
		bytes += u.bytes
	}
	return records, bytes
}

// holds reports whether there are unsettled lines of the class.
func (q *queue) holds(c class) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.used[c].records > 0
}

// large reports whether so much waits that it should be written at once.
func (q *queue) large() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting.buf) >= flushBytes
}
