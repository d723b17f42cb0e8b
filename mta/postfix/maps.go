package postfix

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// ErrSlow says that a table did not answer by the context's deadline, or that
// too many questions wait for it already. What to do then is configuration.
var ErrSlow = errors.New("lookup table does not answer in time")

// MapsConfig says which tables to read, and how.
type MapsConfig struct {
	Tools     Tools
	ConfigDir string // of the Postfix instance; empty: its default
	Tables    string // as smtpd_sender_login_maps has it: "hash:/etc/postfix/logins, ldap:/etc/postfix/ldap.cf"

	Delimiters string                   // recipient_delimiter: "+"; empty: no extensions
	IsLocal    func(domain string) bool // is it in $myorigin or $mydestination? nil: never. Gets lower case.

	Log *slog.Logger

	timing *mapsTiming // tests are in a hurry
}

// mapsTiming and the bounds below are fixed by design: an answer may be wrong
// for so long, and a table may cost so much.
type mapsTiming struct {
	found, missing time.Duration // how long an answer is good
	refused        time.Duration // how long a key that failed alone is not asked for again
	stale          time.Duration // how long one is used when the table cannot be asked any more
	settle         time.Duration // a file that changes is read when it has been quiet so long
	poll           time.Duration // files are looked at so often, where inotify says nothing (NFS)
	forkGap        time.Duration // between two runs of postmap for one table
	query          time.Duration // one run of postmap -q
	failFirst      time.Duration // pause after a failure, doubled each time
	failMost       time.Duration
}

var defaultTiming = mapsTiming{
	found: 5 * time.Minute, missing: 30 * time.Second, refused: 30 * time.Second, stale: time.Hour,
	settle: 200 * time.Millisecond, poll: 10 * time.Second,
	forkGap: 100 * time.Millisecond, query: 10 * time.Second,
	failFirst: time.Second, failMost: 30 * time.Second,
}

const (
	maxListing = 64 << 20 // octets of one listed table; a larger one is asked instead
	maxFound   = 50_000   // cached answers of one asked table
	maxMissing = 20_000   // kept apart, so that invented addresses cannot push out real ones
	maxRefused = 2_000    // keys that failed alone
	maxQueue   = 2_000    // questions waiting for one table
	maxBatch   = 500      // questions in one run of postmap
)

// source answers for one table.
type source interface {
	// lookup returns the value of key, by ctx's deadline.
	lookup(ctx context.Context, key string) (value string, found bool, err error)
	// peek tells what lookup would say without waiting, if that is known.
	peek(key string) (found, known bool)
	// ahead says which keys lookup will be asked for next: together they cost
	// what one does.
	ahead(keys []string)
	state() TableState
}

// Maps answers which logins own a sender address, from Postfix's lookup
// tables. Tables that can be listed are held in memory and read again when
// their files change; others are asked through postmap in the background and
// their answers kept for 5 minutes, "not found" for 30 seconds. Nothing is
// forked by a lookup itself. Safe for concurrent use. Close it.
type Maps struct {
	config  MapsConfig
	tables  []mapsTable
	life    context.Context
	stop    context.CancelFunc
	workers sync.WaitGroup
}

type mapsTable struct {
	source
	fixed bool // asked with parts of an address too
}

// asks reports whether the table is asked for the key of that place.
func (t mapsTable) asks(place int) bool { return place == 0 || t.fixed }

// TableState tells how a table is read and how that goes.
type TableState struct {
	Table   string
	Listed  bool      // held in memory; else asked
	Entries int       // held, or answers cached
	Read    time.Time // of the last success; zero: never
	Err     error     // of the last try; nil if that went well
}

// OpenMaps reads the tables that can be listed, by ctx's deadline, and follows
// them. Only a table that cannot be named is an error: one that cannot be read
// now is tried again, and asking it gives its error until then.
func OpenMaps(ctx context.Context, config MapsConfig) (*Maps, error) {
	tables, err := ParseTables(config.Tables)
	if err != nil {
		return nil, fmt.Errorf("open lookup tables: %w", err)
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.timing == nil {
		config.timing = &defaultTiming
	}
	life, stop := context.WithCancel(context.Background())
	m := &Maps{config: config, life: life, stop: stop}
	var listings []*listing
	for _, t := range tables {
		one := mapsTable{fixed: !t.matchesPatterns()}
		switch {
		case t.Type == "static":
			one.source = newStatic(t)
		case t.direct().listable():
			l := newListing(t, m)
			l.load(ctx)
			listings = append(listings, l)
			one.source = l
		default:
			one.source = newAsked(t, m)
		}
		m.tables = append(m.tables, one)
	}
	if len(listings) > 0 {
		m.workers.Go(func() { m.follow(listings) })
	}
	return m, nil
}

// Close ends the background work; lookups that wait return ErrSlow.
func (m *Maps) Close() {
	m.stop()
	m.workers.Wait()
}

// Owners returns the logins that may use each of some sender addresses, in
// lower case: result i is that of addresses[i]. It is empty and not nil when
// every table said that nobody owns the address, and nil when that is not known:
// a table did not answer in time, failed, or refused a key of it. The order of the questions is Postfix's: user+ext@domain, user@domain, then for
// $myorigin and $mydestination user+ext and user, then @domain. As in Postfix, a
// table that fails ends the search: what it would have said is not known.
//
// All addresses are asked for at once, so many cost the time of one. The error
// concerns addresses[0] alone, without which the others are of no use.
func (m *Maps) Owners(ctx context.Context, addresses []string) ([][]string, error) {
	isLocal := m.config.IsLocal
	if isLocal == nil {
		isLocal = func(string) bool { return false }
	}
	keys := make([][]string, len(addresses))
	for i, address := range addresses {
		keys[i] = keysOf(address, m.config.Delimiters, isLocal)
	}
	m.ahead(keys)
	owners := make([][]string, len(addresses))
	var first error
	for i := range addresses {
		logins, err := m.find(ctx, keys[i])
		if err != nil && i == 0 {
			first = fmt.Errorf("look up owner of %q: %w", addresses[i], err)
		}
		owners[i] = logins
	}
	return owners, first
}

// ahead hands all keys whose answer is not known to the tables that must be
// asked, in one go.
func (m *Maps) ahead(keys [][]string) {
	unknown := make([][]string, len(m.tables))
	for _, of := range keys {
		n := m.known(of)
		for i, key := range of {
			if i < n {
				continue
			}
			for j, t := range m.tables {
				if t.asks(i) {
					unknown[j] = append(unknown[j], key)
				}
			}
		}
	}
	for j, t := range m.tables {
		if len(unknown[j]) > 0 {
			t.ahead(unknown[j])
		}
	}
}

// known is how many keys of an address need not be asked for: all of them when
// a table in memory answers.
func (m *Maps) known(keys []string) int {
	for i, key := range keys {
		for _, t := range m.tables {
			if !t.asks(i) {
				continue
			}
			switch found, known := t.peek(key); {
			case !known:
				return i
			case found:
				return len(keys)
			}
		}
	}
	return len(keys)
}

// find asks for one address; no owners are an empty slice.
func (m *Maps) find(ctx context.Context, keys []string) ([]string, error) {
	for i, key := range keys {
		for _, t := range m.tables {
			if !t.asks(i) {
				continue
			}
			value, found, err := t.lookup(ctx, key)
			if err != nil {
				return nil, err
			}
			if found {
				return splitLogins(value), nil
			}
		}
	}
	return []string{}, nil
}

// Tables tells how each table is read, in order.
func (m *Maps) Tables() []TableState {
	states := make([]TableState, len(m.tables))
	for i, t := range m.tables {
		states[i] = t.state()
	}
	return states
}

// follow reads listed tables again when their files change.
func (m *Maps) follow(listings []*listing) {
	events := make(<-chan fsnotify.Event)
	faults := make(<-chan error)
	if watcher, err := fsnotify.NewWatcher(); err != nil {
		m.config.Log.Warn("lookup tables are polled, not watched", "err", err)
	} else {
		defer watcher.Close()
		events, faults = watcher.Events, watcher.Errors
		watchDirs(watcher, listings)
	}
	poll := time.NewTicker(m.config.timing.poll)
	defer poll.Stop()
	var settled <-chan time.Time
	for {
		select {
		case <-m.life.Done():
			return
		case event, ok := <-events:
			if !ok {
				events = nil
			} else if settled == nil && concerns(event.Name, listings) {
				settled = time.After(m.config.timing.settle)
			}
			continue
		case _, ok := <-faults: // an overflow: the poll finds what was missed
			if !ok {
				faults = nil
			}
			continue
		case <-settled:
			settled = nil
		case <-poll.C:
		}
		for _, l := range listings {
			l.refresh(m.life)
		}
	}
}

// watchDirs watches the directories, since a table is replaced by rename. One
// that cannot be watched is polled.
func watchDirs(watcher *fsnotify.Watcher, listings []*listing) {
	for _, l := range listings {
		for _, file := range l.files {
			_ = watcher.Add(filepath.Dir(file))
		}
	}
}

func concerns(name string, listings []*listing) bool {
	for _, l := range listings {
		for _, file := range l.files {
			if filepath.Clean(file) == filepath.Clean(name) {
				return true
			}
		}
	}
	return false
}

// static answers every question alike: static:value, DATABASE_README.
type static struct {
	table Table
	value string
}

func newStatic(t Table) static {
	value, _ := inBraces(t.Name)
	return static{t, value}
}

func (s static) lookup(context.Context, string) (string, bool, error) { return s.value, true, nil }
func (s static) peek(string) (found, known bool)                      { return true, true }
func (s static) ahead([]string)                                       {}
func (s static) state() TableState {
	return TableState{Table: s.table.String(), Listed: true, Entries: 1}
}
