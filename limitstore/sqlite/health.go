package sqlite

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// lagging is how far behind the file may be before Health says so.
const lagging = 2 * time.Second

// health is what Health tells.
type health struct {
	mu      sync.Mutex
	cause   error // nothing is written
	since   time.Time
	power   error     // the disk was not told to write
	broken  string    // what became of a broken file
	current time.Time // when the file last had all of memory
	ahead   string    // which counters have seen a time that is not yet
}

// Health says whether all that changes is soon in the file, and what is or was
// the matter, for an admin; "fine" if nothing was.
func (s *Store) Health() (ok bool, text string) {
	h := &s.health
	h.mu.Lock()
	defer h.mu.Unlock()
	var parts []string
	if h.cause != nil {
		parts = append(parts, fmt.Sprintf("counters are not written to %s since %s, they are kept in memory: %s",
			s.options.Path, h.since.Format(time.RFC3339), oneLine(h.cause)))
	} else if behind := time.Since(h.current); !h.current.IsZero() && behind > max(lagging, 4*s.options.Every) {
		parts = append(parts, fmt.Sprintf("%s is %s behind: more counters change than can be written", s.options.Path, behind.Round(time.Second)))
	}
	if h.power != nil {
		parts = append(parts, "counters may not survive a power failure: "+oneLine(h.power))
	}
	ok = len(parts) == 0
	if h.broken != "" {
		parts = append(parts, h.broken)
	}
	if h.ahead != "" {
		parts = append(parts, h.ahead)
	}
	if len(parts) == 0 {
		return true, "fine"
	}
	return ok, strings.Join(parts, "; ")
}

// fail returns whether it is news.
func (h *health) fail(err error) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	news := h.cause == nil
	if news {
		h.since = time.Now()
	}
	h.cause = err
	return news
}

// heal returns whether it is news.
func (h *health) heal() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	news := h.cause != nil
	h.cause = nil
	return news
}

func (h *health) error() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cause
}

// unsafe returns whether it is bad news.
func (h *health) unsafe(err error) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	news := err != nil && h.power == nil
	h.power = err
	return news
}

func (h *health) upToDate() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.current = time.Now()
}

func (h *health) reset(text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.broken = text
}

// tellAhead tells of counters that a clock which was wrong has left in the future.
func (s *Store) tellAhead() {
	text, a := "", s.memory.Ahead()
	if a.Buckets > 0 {
		text = fmt.Sprintf("the clock was wrong once: %d counters do not go down before its time comes, the last on %s (%s); for each such account: relayguard limits reset ACCOUNT",
			a.Buckets, a.Until.Format(time.DateOnly), a.Key)
	}
	h := &s.health
	h.mu.Lock()
	news := text != "" && h.ahead == ""
	h.ahead = text
	h.mu.Unlock()
	if news {
		s.log.Error("counters are in the future: a clock was wrong once, and they do not go down before that time; see relayguard limits reset ACCOUNT",
			"counters", a.Buckets, "until", a.Until, "one", a.Key.String())
	}
}

// oneLine is an error's text; several that were joined stand behind each other.
func oneLine(err error) string {
	return strings.ReplaceAll(errors.Join(err).Error(), "\n", "; ")
}
