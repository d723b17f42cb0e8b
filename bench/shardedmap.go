package main

import (
	"hash/maphash"
	"sync"
	"time"
)

// shardedMap is what a store in memory is compared with: the least that counts
// by key, safe for concurrent use. No window, no refusal, no step of several.
type shardedMap struct {
	seed   maphash.Seed
	shards [64]struct {
		mu sync.Mutex
		of map[string]counted
	}
}

type counted struct{ last, count int64 }

func newShardedMap(keys int) *shardedMap {
	m := &shardedMap{seed: maphash.MakeSeed()}
	for i := range m.shards {
		m.shards[i].of = make(map[string]counted, keys/len(m.shards))
	}
	for i := range keys {
		m.add(rawKey(keyOf(i)), 0)
	}
	return m
}

func (m *shardedMap) add(key string, now int64) {
	s := &m.shards[maphash.String(m.seed, key)%uint64(len(m.shards))]
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.of[key]
	s.of[key] = counted{now, c.count + 1}
}

// counting are workers that count the traffic's steps.
func (m *shardedMap) counting(t *traffic) func() worker {
	return func() worker {
		began := time.Now()
		return func(i int) error {
			now := began.Add(time.Duration(i) * time.Microsecond).UnixMicro()
			for _, key := range t.raw[i%len(t.raw)] {
				m.add(key, now)
			}
			return nil
		}
	}
}
