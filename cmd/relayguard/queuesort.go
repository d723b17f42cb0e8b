package main

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"relayguard/cmd/internal/desk"
)

// sortKey is what messages are put in order by: the number first.
type sortKey struct {
	n    int64
	text string
}

// queueOrders are the columns that a list can be sorted by: the oldest, the
// largest, those with most recipients first.
var queueOrders = map[string]func(*desk.Queued) sortKey{
	"age":        func(m *desk.Queued) sortKey { return sortKey{n: m.Arrival.UnixMicro()} },
	"size":       func(m *desk.Queued) sortKey { return sortKey{n: -m.Size} },
	"recipients": func(m *desk.Queued) sortKey { return sortKey{n: -int64(uint32(m.Recipients))} }, // -1 is more than all
	"queue":      func(m *desk.Queued) sortKey { return sortKey{text: whichQueue(m)} },
	"account":    func(m *desk.Queued) sortKey { return sortKey{text: m.Account} },
	"sender":     func(m *desk.Queued) sortKey { return sortKey{text: m.MailFrom} },
	"domain":     func(m *desk.Queued) sortKey { return sortKey{text: mainDomain(m.Domains)} },
	"error":      func(m *desk.Queued) sortKey { return sortKey{text: m.Error} },
}

// queueSorter keeps messages, packed, until it knows all.
type queueSorter struct {
	to    queueWriter
	by    func(*desk.Queued) sortKey
	limit int // 0: all
	all   []packed
	told  *progress
}

type packed struct {
	key  sortKey
	text []byte // JSON
}

func (a packed) compare(b packed) int {
	return cmp.Or(cmp.Compare(a.key.n, b.key.n), strings.Compare(a.key.text, b.key.text))
}

func (s *queueSorter) message(m *desk.Queued) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	key := s.by(m)
	key.text = strings.Clone(key.text)
	s.all = append(s.all, packed{key, text})
	if s.limit > 0 && len(s.all) >= 2*s.limit+1000 { // what is beyond is let go now and then
		s.cut()
	}
	s.told.set(counted(len(s.all), "message") + " so far; sorted once all are known")
	return nil
}

func (s *queueSorter) cut() {
	slices.SortStableFunc(s.all, packed.compare)
	if s.limit > 0 && len(s.all) > s.limit {
		clear(s.all[s.limit:])
		s.all = s.all[:s.limit]
	}
}

func (s *queueSorter) end(e *desk.QueueEnd) error {
	s.told.stop()
	s.cut()
	for i := range s.all {
		var m desk.Queued
		if err := json.Unmarshal(s.all[i].text, &m); err != nil {
			return err
		}
		if err := s.to.message(&m); err != nil {
			return err
		}
	}
	return s.to.end(e)
}
