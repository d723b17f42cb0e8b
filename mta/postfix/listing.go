package postfix

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// listing is a table held in memory, as postmap -s lists it. What was read
// last stays when the table cannot be read any more.
type listing struct {
	table Table // as configured
	inner Table // without proxy:
	files []string

	tools  Tools
	dir    string
	log    *slog.Logger
	timing *mapsTiming

	contents atomic.Pointer[contents]

	// Used by one goroutine at a time: OpenMaps, then follow.
	stamp string
	again time.Time // after a failure: not before
	pause time.Duration
	asker *asked // once the table had to be asked
	maps  *Maps
}

// contents are never changed once stored.
type contents struct {
	entries map[string]string
	read    time.Time
	err     error  // of the last try
	ask     *asked // set: too large, or only proxymap may read it, so each key is asked for
}

func newListing(t Table, m *Maps) *listing {
	l := &listing{
		table: t, inner: t.direct(),
		tools: m.config.Tools, dir: m.config.ConfigDir, log: m.config.Log, timing: m.config.timing,
		maps: m,
	}
	l.files = l.inner.files()
	l.contents.Store(&contents{err: fmt.Errorf("lookup table %s: not read yet", t)})
	return l
}

func (l *listing) lookup(ctx context.Context, key string) (string, bool, error) {
	c := l.contents.Load()
	if c.ask != nil {
		return c.ask.lookup(ctx, key)
	}
	if c.entries == nil {
		return "", false, c.err
	}
	value, found := c.entries[key]
	return value, found, nil
}

func (l *listing) peek(key string) (found, known bool) {
	c := l.contents.Load()
	if c.ask != nil {
		return c.ask.peek(key)
	}
	_, found = c.entries[key]
	return found, true
}

func (l *listing) ahead(keys []string) {
	if c := l.contents.Load(); c.ask != nil {
		c.ask.ahead(keys)
	}
}

func (l *listing) state() TableState {
	c := l.contents.Load()
	if c.ask != nil {
		return c.ask.state() // that it cannot be listed is no fault then
	}
	return TableState{Table: l.table.String(), Listed: true, Entries: len(c.entries), Read: c.read, Err: c.err}
}

// refresh reads the table if its files are others than those read last, or if
// the last try failed some time ago.
func (l *listing) refresh(ctx context.Context) {
	failed := l.contents.Load().err != nil
	if stampOf(l.files) == l.stamp && (!failed || time.Now().Before(l.again)) {
		return
	}
	l.load(ctx)
}

func (l *listing) load(ctx context.Context) {
	old := l.contents.Load()
	l.stamp = stampOf(l.files) // before reading: what changes meanwhile is read again
	entries, err := l.read(ctx)
	if err == nil {
		if old.err != nil && !old.read.IsZero() {
			l.log.Info("lookup table read again", "table", l.table.String(), "entries", len(entries))
		}
		l.pause = 0
		l.contents.Store(&contents{entries: entries, read: time.Now()})
		return
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return
	}
	next := &contents{entries: old.entries, read: old.read, err: err}
	if errors.Is(err, errTooMuch) || l.table.Type == "proxy" && mayNotRead(l.files) { // but proxymap may
		if l.asker == nil {
			l.asker = newAsked(l.table, l.maps)
		}
		next.entries, next.ask = nil, l.asker
	}
	if old.err == nil || old.err.Error() != err.Error() {
		l.log.Warn("lookup table not read", "table", l.table.String(), "err", err,
			"entries_kept", len(next.entries), "asked_instead", next.ask != nil)
	}
	l.pause = min(max(2*l.pause, l.timing.failFirst), l.timing.failMost)
	l.again = time.Now().Add(l.pause)
	l.contents.Store(next)
}

func (l *listing) read(ctx context.Context) (map[string]string, error) {
	s, err := l.tools.run(ctx, nil, maxListing, "postmap", l.tools.inDir(l.dir, "-s", l.inner.String())...)
	if err != nil {
		return nil, err
	}
	return parseListing(string(s.stdout)), nil
}

// inDir puts the configuration directory in front of a tool's arguments.
func (t Tools) inDir(dir string, args ...string) []string {
	if dir == "" {
		return args
	}
	return append([]string{"-c", dir}, args...)
}

// parseListing reads "key TAB value" lines. The strings share the text's
// memory. A line without a tab is the rest of a value and no key of its own.
func parseListing(text string) map[string]string {
	entries := make(map[string]string, strings.Count(text, "\n"))
	for line := range strings.Lines(text) {
		key, value, found := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if found && key != "" {
			entries[key] = value
		}
	}
	return entries
}

func mayNotRead(files []string) bool {
	return slices.ContainsFunc(files, func(file string) bool { return errors.Is(unix.Access(file, unix.R_OK), fs.ErrPermission) })
}

// stampOf tells one state of some files from another; a missing file has one
// too.
func stampOf(files []string) string {
	var b strings.Builder
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			b.WriteString("-;")
			continue
		}
		fmt.Fprintf(&b, "%d.%d", info.Size(), info.ModTime().UnixNano())
		if sys, ok := info.Sys().(*syscall.Stat_t); ok {
			fmt.Fprintf(&b, ".%d.%d.%d", sys.Ino, sys.Ctim.Sec, sys.Ctim.Nsec)
		}
		b.WriteByte(';')
	}
	return b.String()
}
