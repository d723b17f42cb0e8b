package limit

import (
	"slices"
	"sync"
)

// shard is one part of a Memory. Buckets are found by the hash of their key,
// which takes half of the room that the key would; the one key in ten billions
// whose hash another has is among the twins.
type shard struct {
	mu       sync.Mutex
	buckets  map[uint64]*bucket
	twins    map[Key]*bucket
	dirty    []*bucket        // changed since they were last told, as long as they say so
	gone     map[Key]struct{} // reset, likewise
	oldest   []candidate      // for eviction, the oldest last
	accounts map[string]*account
	changed  map[*account]struct{} // since they were last told
	idle     []idler               // to forget some, the most idle last
}

func (s *shard) find(hash uint64, key Key) *bucket {
	if b := s.buckets[hash]; b.is(key) {
		return b
	}
	if len(s.twins) == 0 {
		return nil
	}
	return s.twins[key]
}

func (s *shard) insert(hash uint64, b *bucket) {
	if s.buckets[hash] != nil {
		s.twins[b.key()] = b
	} else {
		s.buckets[hash] = b
	}
	if len(s.gone) > 0 {
		delete(s.gone, b.key()) // its new state tells it
	}
}

func (s *shard) len() int { return len(s.buckets) + len(s.twins) }

// all calls fn for every bucket, which it may remove, until it returns false.
func (s *shard) all(fn func(hash uint64, b *bucket) bool) {
	for hash, b := range s.buckets {
		if !fn(hash, b) {
			return
		}
	}
	for _, b := range s.twins {
		if !fn(0, b) { // remove finds it by its key
			return
		}
	}
}

// mark has the bucket told by the next Dirty.
func (s *shard) mark(b *bucket) {
	if b.dirty {
		return
	}
	b.dirty = true
	if s.dirty = append(s.dirty, b); len(s.dirty) > 2*s.len()+breath { // nobody asks, and many have left
		s.dirty = slices.DeleteFunc(s.dirty, func(b *bucket) bool { return !b.dirty })
	}
}

// remove forgets a bucket. What expired or was evicted is not told.
func (s *shard) remove(hash uint64, key Key) {
	b := s.find(hash, key)
	if b == nil {
		return
	}
	if s.buckets[hash] == b {
		delete(s.buckets, hash)
	} else {
		delete(s.twins, key)
	}
	b.dirty = false
}
