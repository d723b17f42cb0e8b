package share

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"relayguard/cmd/internal/switches"
)

const (
	// maxEntries bounds what is read of the hash: all that relays may put there.
	maxEntries = 200_000
	maxOctets  = 256 << 20
	// maxAhead is how far ahead of Redis's clock an entry may be dated.
	maxAhead = time.Minute
	// perPut is how many entries one script call writes.
	perPut = 50
	// sureWithin is how long asking for the time may take to tell it.
	sureWithin = time.Second
	// maxTold bounds how many entries that are none are told apart.
	maxTold = 1000
)

// exchange merges what Redis has, if that or the file is new.
func (s *Share) exchange(ctx context.Context, pending bool) error {
	version, at, err := s.look(ctx)
	if err != nil {
		return err
	}
	if !pending && version != "" && version == s.version {
		return nil
	}
	there, err := s.read(ctx, at)
	if err != nil {
		return err
	}
	if err := s.merge(at, there); err != nil {
		s.o.Log.Error("switches of other relays", "error", err) // they are in force
	}
	if s.o.Node {
		s.version = version
		return nil
	}
	if err := s.clean(ctx, at, there); err != nil {
		return err
	}
	if version, err = s.send(ctx, at, version, there); err != nil {
		return err
	}
	s.version = version
	return nil
}

// look asks for the version and the time, and by the way how far Redis's clock is
// from ours.
func (s *Share) look(ctx context.Context) (version string, at time.Time, err error) {
	before := s.o.Now()
	a, err := answerOf(s.run(ctx, look, []string{s.token}).Result())
	if err != nil {
		return "", at, fmt.Errorf("ask Redis for the version of switches: %w", err)
	}
	took := s.o.Now().Sub(before)
	at = time.Unix(a.number(0), a.number(1)*1000).UTC()
	if at.Year() < 2000 {
		return "", at, fmt.Errorf("ask Redis for the time: %w", errAnswer)
	}
	if took < sureWithin {
		s.mu.Lock()
		s.offset = at.Sub(before.Add(took / 2))
		s.health.Offset = s.offset
		s.mu.Unlock()
	}
	return a.text(2), at, nil
}

// Probe asks Redis as a web node does, and changes nothing.
func Probe(ctx context.Context, client goredis.UniversalClient, prefix string) error {
	s := &Share{o: Options{Client: client, Node: true, Now: time.Now}, token: tokenOf(prefix)}
	_, _, err := s.look(ctx)
	return err
}

// entry is what the hash has under one name.
type entry struct {
	switches.Entry
	raw  string
	none bool // it is no entry
}

// read reads the hash.
func (s *Share) read(ctx context.Context, at time.Time) (map[string]entry, error) {
	all := map[string]entry{}
	refused, octets := 0, 0
	for cursor := "0"; ; {
		a, err := answerOf(s.run(ctx, page, []string{s.hash}, cursor, switches.MaxEntry).Result())
		if err != nil {
			return nil, fmt.Errorf("read switches from Redis: %w", err)
		}
		list := a.list(1)
		for i := 0; i+1 < len(list); i += 2 {
			name, raw := list.text(i), list.text(i+1)
			e, err := decode(name, raw, at)
			if err != nil {
				refused++
				s.refuse(name, err)
			}
			all[name] = entry{e, raw, err != nil}
			if octets += len(name) + len(raw); octets > maxOctets || len(all) > maxEntries {
				return nil, fmt.Errorf("read switches from Redis: %s has more than %d entries or %d octets; delete it, the relays fill it again", s.hash, maxEntries, maxOctets)
			}
		}
		if cursor = a.text(0); cursor == "0" || cursor == "" {
			break
		}
	}
	s.mu.Lock()
	s.health.Refused = refused
	s.mu.Unlock()
	return all, nil
}

// decode reads one entry of the hash, which anyone may have written.
func decode(name, raw string, at time.Time) (switches.Entry, error) {
	e, err := switches.Decode([]byte(raw))
	switch {
	case err != nil:
		return e, err
	case nameOf(e.What) != name:
		return e, errors.New("it is about something else than its name says")
	case e.Changed.After(at.Add(maxAhead)):
		return e, fmt.Errorf("it is dated %s, which is yet to come", e.Changed.Format(time.RFC3339))
	}
	return e, nil
}

// nameOf is the name of an entry in the hash: a JSON list, which can be read and
// is clear.
func nameOf(what switches.What) string {
	name, _ := json.Marshal([]string{string(what.Kind), string(what.Subject), what.Value, what.Rule})
	return string(name)
}

// refuse tells of an entry that is none, once.
func (s *Share) refuse(name string, err error) {
	name = fmt.Sprintf("%.200q", name)
	if s.told[name] || len(s.told) >= maxTold {
		return
	}
	s.told[name] = true
	s.o.Log.Warn("a switch in Redis is ignored: another version's, or forged", "name", name, "error", err)
}

// merge puts what is newer there into force here.
func (s *Share) merge(at time.Time, there map[string]entry) error {
	var entries []switches.Entry
	for _, e := range there {
		if !e.none && s.shares(e.What) {
			entries = append(entries, e.Entry)
		}
	}
	if _, err := s.o.File.Redate(at.Add(maxAhead), at); err != nil {
		s.o.Log.Error("switches that were dated by a wrong clock", "error", err)
	}
	m, err := s.o.File.Merge(at, entries)
	s.mu.Lock()
	s.health.Over = m.Over
	s.mu.Unlock()
	s.arrived(at, m)
	return err
}

// send writes what Redis does not have, or has older. It returns the version that
// this relay has then seen.
func (s *Share) send(ctx context.Context, at time.Time, version string, there map[string]entry) (string, error) {
	var args []any
	flush := func() error {
		if len(args) == 0 {
			return nil
		}
		token := s.o.Relay + " " + rand.Text() // who wrote last, for whoever looks
		a, err := answerOf(put.Run(ctx, s.o.Client, []string{s.hash, s.token}, append([]any{token, s.channel}, args...)...).Result())
		if err != nil {
			return fmt.Errorf("write switches to Redis: %w", err)
		}
		args = args[:0]
		switch {
		case a.number(0) == 0: // another relay was faster; its token is another
		case a.text(1) == version:
			version = token
		default:
			version = "" // something came between: it is yet to be read
		}
		return nil
	}
	for _, e := range s.o.File.Entries() {
		name := nameOf(e.What)
		is, known := there[name]
		if !s.shares(e.What) || stale(&e, at) || known && !is.none && !e.Supersedes(&is.Entry) {
			continue
		}
		broken := ""
		if is.none {
			broken = is.raw
		}
		args = append(args, name, string(e.Encode()), broken)
		if len(args) >= 3*perPut {
			if err := flush(); err != nil {
				return "", err
			}
		}
	}
	return version, flush()
}

// stale reports whether an entry is not worth keeping in Redis any more.
func stale(e *switches.Entry, at time.Time) bool {
	if e.Switch == nil {
		return at.Sub(e.Changed) > switches.KeepGone
	}
	return e.Switch.Over(at.Add(-switches.KeepGone))
}

// clean drops entries that are stale.
func (s *Share) clean(ctx context.Context, at time.Time, there map[string]entry) error {
	var args []any
	for name, e := range there {
		if !e.none && stale(&e.Entry, at) {
			args = append(args, name, e.raw)
		}
		if len(args) >= 2*perPut {
			break // the others another time
		}
	}
	if len(args) == 0 {
		return nil
	}
	if err := drop.Run(ctx, s.o.Client, []string{s.hash}, args...).Err(); err != nil {
		return fmt.Errorf("drop old switches from Redis: %w", err)
	}
	return nil
}
