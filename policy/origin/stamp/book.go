package stamp

import (
	"crypto/hmac"
	"fmt"
	"strings"
	"time"
)

// How far a stamp's time may be from now. A message waits in the queue of the
// host that sent it; clocks of one host differ little.
const (
	siteLife   = 24 * time.Hour
	mostFuture = 10 * time.Minute
)

// Book verifies stamps. The zero value knows no sites. Safe for concurrent use.
type Book struct {
	sites   map[string]*entrySite // by key id
	roots   map[string]root       // by directory
	replays *Replays
}

// root is whose a directory is.
type root struct {
	name string
	uid  int
}

// entrySite is a site with what is needed of it for each message.
type entrySite struct {
	Site
	scope string // its part of the replays
}

// NewBook makes a book of the registered sites. Replays is what it remembers of
// stamps that it has seen, and outlives it; nil: memory of its own. It returns
// every error found, joined.
func NewBook(sites []Site, replays *Replays) (*Book, error) {
	if replays == nil {
		replays = NewReplays(0)
	}
	if err := checkSites(sites); err != nil {
		return nil, err
	}
	b := &Book{sites: make(map[string]*entrySite, len(sites)), roots: map[string]root{}, replays: replays}
	for _, s := range sites {
		b.sites[s.KeyID] = &entrySite{s, "site " + s.KeyID}
		if s.Root != "" {
			b.roots[s.Root] = root{s.Name, s.UID}
		}
	}
	return b, nil
}

// Verify believes one of the fields, the first that can be believed of the first
// eight, or says why none: one of the errors of this package, of the field that
// came furthest. Fields are as they arrived, folded or not. A stamp that is
// believed counts as used.
func (b *Book) Verify(now time.Time, fields []string, m *Mail) (Stamp, error) {
	return b.first(now, fields, m, b.replays.take)
}

// Read is Verify of a message that is still to come: no stamp counts as used by
// it. A message whose Digest is not known is another than all that came before.
func (b *Book) Read(now time.Time, fields []string, m *Mail) (Stamp, error) {
	return b.first(now, fields, m, b.replays.wouldTake)
}

func (b *Book) first(now time.Time, fields []string, m *Mail, take func(time.Time, sighting) bool) (Stamp, error) {
	why := ErrNone
	for _, field := range fields[:min(len(fields), mostFields)] {
		s, err := b.verify(now, field, m, take)
		if err == nil {
			return s, nil
		}
		why = further(why, err)
	}
	return Stamp{}, why
}

func (b *Book) verify(now time.Time, field string, m *Mail, take func(time.Time, sighting) bool) (Stamp, error) {
	var c claim
	if !c.read(field) {
		return Stamp{}, ErrForm
	}
	site, ok := b.sites[c.key]
	if !ok {
		return Stamp{}, ErrKey
	}
	if !hmac.Equal(mac(site.Key, siteContext, c.signed), c.mac[:]) {
		return Stamp{}, fmt.Errorf("%w: site %s", ErrSignature, site.Name)
	}
	if !site.sent(m) {
		return Stamp{}, fmt.Errorf("%w: site %s is uid %d, login %q; the message is from uid %d, login %q", ErrAccount, site.Name, site.UID, site.Login, m.UID, m.Login)
	}
	if err := checkTime(now, c.time, siteLife); err != nil {
		return Stamp{}, fmt.Errorf("%w: site %s", err, site.Name)
	}
	if recipientsDigest(m.RcptTo) != c.recipients {
		return Stamp{}, fmt.Errorf("%w: site %s, %d recipients", ErrRecipients, site.Name, len(m.RcptTo))
	}
	if subjectDigest(m.Subject) != c.subject {
		return Stamp{}, fmt.Errorf("%w: site %s", ErrSubject, site.Name)
	}
	s, ok := c.stamp(site.Name)
	if !ok {
		return Stamp{}, fmt.Errorf("%w: names of site %s", ErrForm, site.Name)
	}
	if !take(now, sighting{scope: site.scope, life: siteLife, time: c.time, uses: []use{c.nonce}, digest: m.Digest}) {
		return Stamp{}, fmt.Errorf("%w: site %s", ErrReplay, site.Name)
	}
	return s, nil
}

// sent reports whether the message came from the site's account: its uid where
// the kernel tells one, else its login.
func (s *entrySite) sent(m *Mail) bool {
	if s.UID >= 0 && m.UID >= 0 {
		return s.UID == m.UID
	}
	return s.Login != "" && strings.EqualFold(s.Login, m.Login)
}

func checkTime(now time.Time, at int64, life time.Duration) error {
	if age := now.Sub(unix(at)); age > life || age < -mostFuture {
		return fmt.Errorf("%w: signed %s, now %s", ErrTime, unix(at).Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

func unix(at int64) time.Time { return time.Unix(at, 0).UTC() }

// RootOf is the site of a Unix account in whose directory dir lies, of several the
// innermost; none if that is another account's. dir is absolute and without links,
// "." and "..".
func (b *Book) RootOf(uid int, dir string) (site string, ok bool) {
	for dir != "" && len(b.roots) > 0 {
		if s, ok := b.roots[dir]; ok {
			if s.uid != uid {
				return "", false
			}
			return s.name, true
		}
		dir = dir[:max(strings.LastIndexByte(dir, '/'), 0)]
	}
	return "", false
}
