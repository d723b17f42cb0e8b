// Package holds knows how much mail is held and for whom, so that holding cannot
// fill the disk. Whose a message is, policy.RoomName says: an account's, or of one
// that many share a site's or a text's. The queue itself is the truth; Set puts the
// counts right whenever it was looked at.
//
// The trap: a sender may write as many texts as he likes. So all of them together
// have half of the server's room at most.
package holds

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"relayguard/policy"
)

// Caps bound what is held.
type Caps struct {
	OriginMessages int64
	OriginBytes    int64
	ServerMessages int64
	MinFree        int64 // octets free on the queue's file system
	MinFreeInodes  int64
}

// Total is what is held under one name.
type Total struct{ Messages, Bytes int64 }

// Room counts holds against their caps. It implements policy.HoldRoom. Safe for
// concurrent use, never waits for the disk: Look does.
type Room struct {
	caps atomic.Pointer[Caps]

	mu       sync.Mutex
	accounts map[string]Total
	all      Total
	texts    int64 // messages of rooms of texts
	disk     bool  // true: the disk takes no more
	watches  []*Watch
}

// NewRoom makes an empty room.
func NewRoom(c Caps) *Room {
	r := &Room{accounts: map[string]Total{}}
	r.caps.Store(&c)
	return r
}

// SetCaps puts other caps into force.
func (r *Room) SetCaps(c Caps) { r.caps.Store(&c) }

// Full reports whether nothing more of the account may be held. Nothing is held of
// "": it tells whether there is room at all.
func (r *Room) Full(account string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.full(account)
}

func (r *Room) full(account string) bool {
	c, t := r.caps.Load(), r.accounts[account]
	if ofText(account) && r.texts >= max(c.ServerMessages/2, 1) {
		return true
	}
	return r.disk || r.all.Messages >= c.ServerMessages || t.Messages >= c.OriginMessages || t.Bytes >= c.OriginBytes
}

func ofText(name string) bool { return strings.HasPrefix(name, policy.TextRoom) }

// Take reports whether one more message of the account may be held, and counts
// it. The last that is held may be larger than the octets that are left: else
// one that is larger than the cap could only be refused for ever.
func (r *Room) Take(account string, size int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full(account) {
		return false
	}
	r.add(account, 1, size)
	for _, w := range r.watches {
		t := w.taken[account]
		w.taken[account] = Total{t.Messages + 1, t.Bytes + size}
	}
	return true
}

// Add counts a message that is held whether there is room or not.
func (r *Room) Add(account string, size int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.add(account, 1, size)
}

// Give takes a Take back: the message is not held after all. One that was not
// counted is no error.
func (r *Room) Give(account string, size int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.watches {
		if t := w.taken[account]; t.Messages > 0 { // else it was taken before
			w.taken[account] = Total{t.Messages - 1, t.Bytes - size}
		}
	}
	r.remove(account, size)
}

// Remove counts a message that is no longer held. One that was not counted, as it
// was held before the queue was looked at, is no error.
func (r *Room) Remove(account string, size int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.remove(account, size)
}

func (r *Room) remove(account string, size int64) {
	if r.accounts[account].Messages > 0 {
		r.add(account, -1, -size)
	}
}

func (r *Room) add(account string, messages, bytes int64) {
	was := r.accounts[account]
	t := Total{was.Messages + messages, max(0, was.Bytes+bytes)}
	if t.Messages == 0 {
		t.Bytes = 0
		delete(r.accounts, account)
	} else {
		r.accounts[account] = t
	}
	r.all.Messages += t.Messages - was.Messages // the sum of all accounts, always
	r.all.Bytes += t.Bytes - was.Bytes
	if ofText(account) {
		r.texts += t.Messages - was.Messages
	}
}

// Watch is a look at the queue that goes on. What is taken meanwhile may be in
// neither queue nor journal when they are read: Set adds it. Safe for concurrent use.
type Watch struct {
	room  *Room
	taken map[string]Total // by account
}

// Watch begins a look. Set or End ends it.
func (r *Room) Watch() *Watch {
	w := &Watch{room: r, taken: map[string]Total{}}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watches = append(r.watches, w)
	return w
}

// End ends a look that found nothing out, or that was ended before.
func (w *Watch) End() {
	w.room.mu.Lock()
	defer w.room.mu.Unlock()
	w.end()
}

func (w *Watch) end() {
	w.room.watches = slices.DeleteFunc(w.room.watches, func(o *Watch) bool { return o == w })
}

// Set is Room.Set of what the look found, without what was taken since it began.
func (w *Watch) Set(accounts map[string]Total) {
	w.room.mu.Lock()
	defer w.room.mu.Unlock()
	w.end()
	all := maps.Clone(accounts)
	if all == nil {
		all = map[string]Total{}
	}
	for account, t := range w.taken {
		was := all[account]
		all[account] = Total{max(0, was.Messages) + t.Messages, max(0, was.Bytes) + t.Bytes}
	}
	w.room.set(all)
}

// Set puts the counts right: what is held by account. The map stays the
// caller's.
func (r *Room) Set(accounts map[string]Total) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.set(accounts)
}

func (r *Room) set(accounts map[string]Total) {
	all, sum, texts := make(map[string]Total, len(accounts)), Total{}, int64(0)
	for account, t := range accounts {
		if t.Messages <= 0 {
			continue
		}
		t.Bytes = max(0, t.Bytes)
		all[account] = t
		sum.Messages += t.Messages
		sum.Bytes += t.Bytes
		if ofText(account) {
			texts += t.Messages
		}
	}
	r.accounts, r.all, r.texts = all, sum, texts
}

// Totals tells what is held in all.
func (r *Room) Totals() Total {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all
}

// Look asks the file system that has the queue whether it takes more, and
// reports why it does not and whether that has changed.
func (r *Room) Look(dir string) (full string, changed bool, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return "", false, fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	c := r.caps.Load()
	free, inodes := int64(s.Bavail)*s.Bsize, int64(s.Ffree)
	switch {
	case free < c.MinFree:
		full = fmt.Sprintf("%s has %d octets free, hold.min_free is %d", dir, free, c.MinFree)
	case s.Files > 0 && inodes < c.MinFreeInodes: // some file systems count none
		full = fmt.Sprintf("%s has %d inodes free, hold.min_free_inodes is %d", dir, inodes, c.MinFreeInodes)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	changed = r.disk != (full != "")
	r.disk = full != ""
	return full, changed, nil
}
