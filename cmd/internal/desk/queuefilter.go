package desk

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"relayguard/journal"
	"relayguard/mta"
	"relayguard/policy/address"
	"relayguard/policy/origin"
)

// chooses reports whether the filter leaves anything out, beyond a queue or an
// instance: all of a queue is everything.
func (f *QueueFilter) chooses() bool {
	return len(f.IDs) > 0 || f.ofOrigin() || f.MailFrom != "" || f.Domain != "" || f.Error != "" || f.HeldBy != "" ||
		f.OlderThan != 0 || f.NewerThan != 0 || f.MinSize != 0 || f.MaxSize != 0
}

// ofOrigin reports whether the journal must be asked what the filter chooses.
func (f *QueueFilter) ofOrigin() bool {
	return f.Account != "" || f.Login != "" || f.LocalUser != "" || f.Site != "" || f.Plugin != "" || f.Template != "" || f.Rule != ""
}

func (f *QueueFilter) check() error {
	queues := []string{"", "hold", "deferred", "active", "incoming", "maildrop"}
	if !slices.Contains(queues, f.Queue) {
		return fmt.Errorf("%w: there is no queue %q, want hold, deferred, active, incoming or maildrop", ErrUsage, f.Queue)
	}
	if !slices.Contains([]string{"", byUs, byAdmin, byOther}, f.HeldBy) {
		return fmt.Errorf("%w: held by %q, want %s, %s or %s", ErrUsage, f.HeldBy, byUs, byAdmin, byOther)
	}
	return nil
}

// sieve is a filter made ready.
type sieve struct {
	f        *QueueFilter
	of       journal.HoldQuery // what f says of the origin
	accounts []string          // all of which must be it
	ids      map[string]bool   // queue ids and ids of decisions; true: it chose something
	queueIDs map[string]bool   // under which messages of ids are to be looked for; nil: no id chooses
	from     string
	domain   string
	why      string
	after    time.Time // arrival; zero: any
	before   time.Time
}

// newSieve asks the journal under which queue ids messages are that are named by
// their decisions.
func (d *Desk) newSieve(ctx context.Context, now time.Time, f *QueueFilter) (*sieve, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	s := &sieve{f: f, of: journal.HoldQuery{Account: f.Account, Site: f.Site, Plugin: f.Plugin, Template: f.Template}, before: f.Before,
		from: strings.TrimSuffix(strings.TrimPrefix(f.MailFrom, "<"), ">"), domain: address.Domain(f.Domain), why: strings.ToLower(f.Error)}
	narrow(&s.of)
	for kind, name := range map[origin.Kind]string{origin.KindLogin: f.Login, origin.KindLocalUser: f.LocalUser} {
		if name != "" {
			s.accounts = append(s.accounts, string(kind)+":"+name)
		}
	}
	if s.of.Account != "" {
		s.accounts = append(s.accounts, s.of.Account)
	}
	if f.NewerThan != 0 {
		s.after = now.Add(-f.NewerThan)
	}
	if old := now.Add(-f.OlderThan); f.OlderThan != 0 && (s.before.IsZero() || old.Before(s.before)) {
		s.before = old
	}
	return s, s.resolve(ctx, d.Journal)
}

func (s *sieve) resolve(ctx context.Context, j Journal) error {
	if len(s.f.IDs) == 0 {
		return nil
	}
	s.ids, s.queueIDs = make(map[string]bool, len(s.f.IDs)), make(map[string]bool, len(s.f.IDs))
	for _, id := range s.f.IDs {
		s.ids[id], s.queueIDs[id] = false, true
	}
	for part := range slices.Chunk(s.f.IDs, maxIDs) {
		known, err := j.Known(ctx, part)
		if err != nil {
			return nil // queue ids are found without; scan tells that there is no journal
		}
		for _, k := range known {
			if _, named := s.ids[k.DecisionID]; named && k.QueueID != "" {
				s.queueIDs[k.QueueID] = true
			}
		}
	}
	return nil
}

// unknown are the ids that chose nothing.
func (s *sieve) unknown() (ids []string) {
	for _, id := range s.f.IDs {
		if !s.ids[id] {
			ids = append(ids, id)
		}
	}
	return ids
}

// passes judges by what the queue says alone.
func (s *sieve) passes(q *mta.QueueFile) bool {
	f := s.f
	switch {
	case s.queueIDs != nil && !s.queueIDs[q.ID],
		f.Queue != "" && q.Queue != f.Queue,
		f.Instance != "" && q.Instance != f.Instance,
		f.MailFrom != "" && q.Sender != s.from,
		f.HeldBy != "" && q.Queue != "hold",
		q.Size < f.MinSize,
		f.MaxSize != 0 && q.Size > f.MaxSize,
		!s.after.IsZero() && q.Arrival.Before(s.after),
		!s.before.IsZero() && !q.Arrival.Before(s.before):
		return false
	}
	return s.domain == "" || slices.ContainsFunc(q.Recipients, func(to string) bool { return domainOf(to) == s.domain })
}

// keeps judges by what is known of it besides.
func (s *sieve) keeps(m *Queued) bool {
	f := s.f
	switch {
	case s.why != "" && !strings.Contains(strings.ToLower(m.Error), s.why),
		f.HeldBy != "" && m.HeldBy != f.HeldBy,
		f.Rule != "" && m.Rule != f.Rule,
		s.of.Site != "" && m.Site != s.of.Site,
		s.of.Plugin != "" && m.Plugin != s.of.Plugin,
		s.of.Template != "" && m.Template != s.of.Template:
		return false
	}
	for _, a := range s.accounts {
		if m.Account != a && !(a == unknownAccount && m.Account == "") {
			return false
		}
	}
	if s.ids == nil {
		return true
	}
	named := false
	for _, id := range []string{m.QueueID, m.ID} {
		if _, is := s.ids[id]; is && id != "" {
			s.ids[id], named = true, true
		}
	}
	return named
}

// domainOf is a recipient's domain, "" if it has none.
func domainOf(to string) string {
	if i := strings.LastIndexByte(to, '@'); i >= 0 {
		return address.Domain(to[i+1:])
	}
	return ""
}
