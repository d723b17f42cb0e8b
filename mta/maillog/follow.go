package maillog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Options say what is followed and from where. One of Path and Journal is set.
type Options struct {
	// Path is the log file: /var/log/mail.log, or Postfix's maillog_file.
	// Rotated files beside it are found by name: PATH.1, PATH-20261122,
	// PATH.20261122-083836, each also with .gz. It need not exist yet.
	Path string
	// Journal follows the systemd journal (facility mail) instead.
	Journal bool
	// Journalctl is the program; empty: journalctl.
	Journalctl string
	// UIDs are the Unix accounts whose journal entries are believed: root and
	// Postfix's own. Empty: all, so that any local user can add events.
	UIDs []int

	// Checkpoint is the Position to go on from, as stored by the caller.
	// Empty: a first start, at From.
	Checkpoint string
	// From is where a first start begins. Zero: at the end, so that history
	// is not replayed.
	From time.Time

	// Once ends Run with nil when all that the files hold by then is read. For
	// files only; set From, or nothing is. A fault is an error then.
	Once bool

	// Gap is told of lines that may be lost, from within Run. Each is logged
	// too. Nil: logged only.
	Gap func(Gap)
	// Log takes what is degraded. Nil: discarded.
	Log *slog.Logger
	// Now is the clock for years and gaps; nil: time.Now.
	Now func() time.Time
	// Zone is the zone of times in the traditional form; nil: time.Local.
	Zone *time.Location
	// Poll is how often the file is looked at when no change is told; zero:
	// two seconds.
	Poll time.Duration
}

// Follower reads a log for as long as Run runs. Position and Counts may be
// asked at any time, by any goroutine.
type Follower struct {
	o    Options
	pos  Position // where Run goes on; only Run's
	from time.Time
	gap  *Gap // found, not told yet
	last []Event

	mu     sync.Mutex
	told   Position
	counts Counts
}

// Counts are totals since New.
type Counts struct {
	Lines      int64 // complete lines or entries read
	Events     int64 // handed over
	Unreadable int64 // events of that kind
	Foreign    int64 // lines in no form that is known, or of a UID that is not believed
	Long       int64 // lines beyond MaxLine, skipped
	Gaps       int64
}

const defaultPoll = 2 * time.Second

// New checks the options. Nothing is opened before Run.
func New(o Options) (*Follower, error) {
	if o.Journal == (o.Path != "") {
		return nil, errors.New("follow the mail log: want either a path or the journal")
	}
	if o.Journal && o.Once {
		return nil, errors.New("follow the mail log: a journal is not read once, only files are")
	}
	if o.Path != "" {
		path, err := filepath.Abs(o.Path)
		if err != nil {
			return nil, fmt.Errorf("follow the mail log %s: %w", o.Path, err)
		}
		o.Path = path
	}
	pos, err := ParsePosition(o.Checkpoint)
	if err != nil {
		return nil, err
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Zone == nil {
		o.Zone = time.Local
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Journalctl == "" {
		o.Journalctl = "journalctl"
	}
	if o.Poll <= 0 {
		o.Poll = defaultPoll
	}
	f := &Follower{o: o, pos: pos, from: o.From, told: pos}
	if pos != (Position{}) {
		f.from = time.Time{}
		if o.Journal != (pos.cursor != "") && (pos.head != "" || pos.inode != 0 || pos.cursor != "") {
			f.lose("the checkpoint is of another source")
			f.pos = Position{At: pos.At}
		}
	}
	return f, nil
}

// Run hands events over, one at a time and in order, each with the position
// after it, until ctx ends or fn returns an error, which it returns. It does
// not end because a log cannot be read: it waits and says so. An event whose fn
// failed comes again with the next Run. Run is called by one goroutine at a time.
func (f *Follower) Run(ctx context.Context, fn func(Event, Position) error) error {
	if f.o.Journal {
		return f.runJournal(ctx, fn)
	}
	return f.runFile(ctx, fn)
}

// Position is the place up to which everything was handed over and fn
// returned. It moves on over lines of no interest too, so storing it now and
// then, also while no event comes, saves reading them again.
func (f *Follower) Position() Position {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.told
}

// Counts returns the totals.
func (f *Follower) Counts() Counts {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts
}

func (f *Follower) count(change func(*Counts)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.counts)
}

// reach moves the position on. While lines before from are passed over it is
// not to be stored: after a restart they would count.
func (f *Follower) reach(p Position) {
	f.pos = p
	if f.from.IsZero() {
		f.publish(p)
	}
}

// publish makes a position the one that Position returns.
func (f *Follower) publish(p Position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pos, f.told = p, p
}

// line deals with a complete line that ends at p.
func (f *Follower) line(l Line, p Position, fn func(Event, Position) error) error {
	f.count(func(c *Counts) { c.Lines++ })
	p.At = l.Time.Truncate(time.Microsecond)
	if l.Time.Before(f.from.Truncate(time.Second)) { // lines may be dated to the second only
		f.reach(p)
		return nil
	}
	f.from = time.Time{} // reached; clocks may be set back
	f.tellGap(l.Time)
	all := Events(l)
	if l.Tag == "" { // "last message repeated 3 times"
		all = slices.Clone(f.last)
		for i := range all {
			all[i].Time, all[i].Count = l.Time, l.Count
		}
	}
	f.last = all
	for i, e := range all {
		at := p
		if i < len(all)-1 && f.pos != (Position{}) { // all of a line are handed over before it is behind
			at = f.pos
		}
		if err := fn(e, at); err != nil {
			return err
		}
		f.count(func(c *Counts) {
			c.Events++
			if e.Kind == Unreadable {
				c.Unreadable++
			}
		})
	}
	f.reach(p)
	return nil
}

// lose notes that lines after the position may be lost.
func (f *Follower) lose(why string) {
	if f.gap == nil {
		f.gap = &Gap{From: f.pos.At, Why: why}
	}
}

// tellGap tells of a gap that ends now.
func (f *Follower) tellGap(to time.Time) {
	if f.gap == nil {
		return
	}
	gap := *f.gap
	gap.To, f.gap = to, nil
	if gap.To.Before(gap.From) {
		gap.To = gap.From
	}
	f.count(func(c *Counts) { c.Gaps++ })
	f.o.Log.Warn("lines of the mail log may be lost", "from", gap.From, "to", gap.To, "why", gap.Why)
	if f.o.Gap != nil {
		f.o.Gap(gap)
	}
}
