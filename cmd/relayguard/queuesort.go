package main

import (
	"bytes"
	"cmp"
	"slices"

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
	shelf desk.Shelf
	order []sorted
	told  *progress
}

// sorted is a message's place in the order.
type sorted struct {
	n      int64
	text   desk.Text
	number int32 // on the shelf
}

func (s *queueSorter) message(m *desk.Queued) error {
	key := s.by(m)
	s.order = append(s.order, sorted{key.n, s.shelf.Keep(key.text), int32(s.shelf.Len())})
	s.shelf.Add(m)
	if s.limit > 0 && len(s.order) >= 2*s.limit+1000 { // what is beyond is let go now and then
		s.cut()
	}
	s.told.set(counted(len(s.order), "message") + " so far; sorted once all are known")
	return nil
}

func (s *queueSorter) compare(a, b sorted) int {
	if c := cmp.Compare(a.n, b.n); c != 0 || a.text == b.text {
		return c
	}
	return bytes.Compare(s.shelf.Kept(a.text), s.shelf.Kept(b.text))
}

func (s *queueSorter) cut() {
	slices.SortStableFunc(s.order, s.compare)
	if s.limit == 0 || len(s.order) <= s.limit {
		return
	}
	all, first := s.shelf, s.order[:s.limit]
	s.shelf = desk.Shelf{}
	for i, p := range first {
		m := all.At(int(p.number))
		first[i].text, first[i].number = s.shelf.Keep(string(all.Kept(p.text))), int32(i)
		s.shelf.Add(&m)
	}
	s.order = first
}

func (s *queueSorter) end(e *desk.QueueEnd) error {
	s.told.stop()
	s.cut()
	for _, p := range s.order {
		m := s.shelf.At(int(p.number))
		if err := s.to.message(&m); err != nil {
			return err
		}
	}
	return s.to.end(e)
}
