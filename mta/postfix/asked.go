package postfix

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// asked is a table that can only be asked key by key (LDAP, SQL, regexp...).
// Lookups take answers from a cache; what is not there waits in a queue that
// one worker puts to postmap, many keys a run.
type asked struct {
	table  Table
	tools  Tools
	dir    string
	log    *slog.Logger
	timing *mapsTiming

	mu       sync.Mutex
	found    lru // kept apart from missing: see maxMissing
	missing  lru
	waiting  map[string]*question
	queue    []*question // first come, first asked
	failing  error       // of the last run
	failedTo time.Time   // until then postmap is not run again
	read     time.Time

	wake chan struct{}
	life context.Context // of the Maps
}

// question is one key on its way; its answer is set before done is closed.
type question struct {
	key    string
	done   chan struct{}
	answer answer
	err    error
}

type answer struct {
	value string
	found bool
	at    time.Time
}

func newAsked(t Table, m *Maps) *asked {
	a := &asked{
		table: t, tools: m.config.Tools, dir: m.config.ConfigDir, log: m.config.Log, timing: m.config.timing,
		found: newLRU(maxFound), missing: newLRU(maxMissing),
		waiting: map[string]*question{},
		wake:    make(chan struct{}, 1),
		life:    m.life,
	}
	m.workers.Go(a.work)
	return a
}

func (a *asked) state() TableState {
	a.mu.Lock()
	defer a.mu.Unlock()
	return TableState{Table: a.table.String(), Entries: a.found.len() + a.missing.len(), Read: a.read, Err: a.failing}
}

func (a *asked) lookup(ctx context.Context, key string, soon []string) (string, bool, error) {
	now := time.Now()
	a.mu.Lock()
	known, have := a.cached(key)
	age := now.Sub(known.at)
	if have && age < a.goodFor(known) {
		if known.found && age > a.goodFor(known)*3/4 {
			a.ask(key) // before anybody has to wait for it
		}
		a.mu.Unlock()
		return known.value, known.found, nil
	}
	if now.Before(a.failedTo) {
		err := a.failing
		a.mu.Unlock()
		return a.orStale(known, have, age, err)
	}
	q := a.ask(key)
	for _, next := range soon {
		if k, have := a.cached(next); !have || now.Sub(k.at) >= a.goodFor(k) {
			a.ask(next)
		}
	}
	a.mu.Unlock()
	if q == nil {
		return a.orStale(known, have, age, fmt.Errorf("lookup table %s: %w: %d questions wait", a.table, ErrSlow, maxQueue))
	}
	select {
	case <-q.done:
	case <-ctx.Done():
		return "", false, fmt.Errorf("lookup table %s: %w: %w", a.table, ErrSlow, ctx.Err())
	case <-a.life.Done():
		return "", false, fmt.Errorf("lookup table %s: %w: closed", a.table, ErrSlow)
	}
	if q.err != nil {
		return a.orStale(known, have, age, q.err)
	}
	return q.answer.value, q.answer.found, nil
}

// orStale prefers an old answer to none: a directory server that is down must
// not stop everybody's mail.
func (a *asked) orStale(known answer, have bool, age time.Duration, err error) (string, bool, error) {
	if have && known.found && age < a.timing.stale {
		return known.value, true, nil
	}
	return "", false, err
}

func (a *asked) goodFor(k answer) time.Duration {
	if k.found {
		return a.timing.found
	}
	return a.timing.missing
}

// cached looks up an answer of any age. The caller holds mu.
func (a *asked) cached(key string) (answer, bool) {
	if k, ok := a.found.get(key); ok {
		return k, true
	}
	return a.missing.get(key)
}

// ask queues a key, or joins who asked for it before; nil if the queue is
// full. The caller holds mu.
func (a *asked) ask(key string) *question {
	if q, ok := a.waiting[key]; ok {
		return q
	}
	if len(a.waiting) >= maxQueue {
		return nil
	}
	q := &question{key: key, done: make(chan struct{})}
	a.waiting[key] = q
	a.queue = append(a.queue, q)
	select {
	case a.wake <- struct{}{}:
	default:
	}
	return q
}

// work runs postmap for what waits, never more often than forkGap, and less
// often while it fails.
func (a *asked) work() {
	var pause time.Duration
	for {
		select {
		case <-a.life.Done():
			return
		case <-a.wake:
		}
		began := time.Now()
		for batch := a.take(); len(batch) > 0; batch = a.take() {
			err := a.put(batch)
			if a.life.Err() != nil {
				return
			}
			if err == nil {
				pause = 0
			} else {
				pause = min(max(2*pause, a.timing.failFirst), a.timing.failMost)
			}
			a.settle(batch, err, pause)
			gap := a.timing.forkGap - time.Since(began)
			if !a.sleep(max(gap, 0)) {
				return
			}
			began = time.Now()
		}
	}
}

func (a *asked) sleep(d time.Duration) bool {
	if d <= 0 {
		return a.life.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-a.life.Done():
		return false
	}
}

func (a *asked) take() []*question {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := min(len(a.queue), maxBatch)
	batch := a.queue[:n:n]
	if a.queue = a.queue[n:]; len(a.queue) == 0 {
		a.queue = nil
	}
	return batch
}

// put asks one batch of keys and fills in their answers.
func (a *asked) put(batch []*question) error {
	ctx, cancel := context.WithTimeout(a.life, a.timing.query)
	defer cancel()
	var keys strings.Builder
	for _, q := range batch {
		keys.WriteString(q.key)
		keys.WriteByte('\n')
	}
	s, err := a.tools.run(ctx, []byte(keys.String()), maxListing, "postmap", a.tools.inDir(a.dir, "-q", "-", a.table.String())...)
	if err != nil && !nothingFound(err, s) {
		return fmt.Errorf("lookup table %s: %w", a.table, err)
	}
	values, err := parseAnswers(string(s.stdout), batch)
	if err != nil {
		return fmt.Errorf("lookup table %s: %w", a.table, err)
	}
	now := time.Now()
	for _, q := range batch {
		value, found := values[q.key]
		q.answer = answer{value, found, now}
	}
	return nil
}

// nothingFound tells the two meanings of postmap's exit status 1 apart
// (observed, 3.7.11): a failure is said on standard error.
func nothingFound(err error, s said) bool {
	var exit interface{ ExitCode() int }
	return errors.As(err, &exit) && exit.ExitCode() == 1 && !strings.Contains(s.stderr, "fatal:") && !strings.Contains(s.stderr, "error:")
}

// parseAnswers reads "key TAB value" lines, which come in the order of the
// questions, for the keys that were found. Anything else (a value with a line
// end in it could speak for another key) makes the whole batch worthless.
func parseAnswers(text string, batch []*question) (map[string]string, error) {
	values := map[string]string{}
	next := 0
	for line := range strings.Lines(text) {
		key, value, found := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		for next < len(batch) && batch[next].key != key {
			next++
		}
		if !found || next == len(batch) {
			return nil, fmt.Errorf("got answer %.80q, which is to no question; is there a line end in a value?", line)
		}
		values[key] = value
		next++
	}
	return values, nil
}

// settle hands the batch its answers, or its error, and remembers them.
func (a *asked) settle(batch []*question, err error, pause time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err != nil && a.failing == nil:
		a.log.Warn("lookup table does not answer", "table", a.table.String(), "err", err)
	case err == nil && a.failing != nil:
		a.log.Info("lookup table answers again", "table", a.table.String())
	}
	a.failing = err
	if err != nil {
		a.failedTo = time.Now().Add(pause)
		// What waits behind would wait for nothing.
		batch = append(batch, a.queue...)
		a.queue = nil
	} else {
		a.read = time.Now()
	}
	for _, q := range batch {
		delete(a.waiting, q.key)
		q.err = err
		if err == nil {
			a.remember(q.key, q.answer)
		}
		close(q.done)
	}
}

func (a *asked) remember(key string, k answer) {
	if k.found {
		a.missing.remove(key)
		a.found.put(key, k)
		return
	}
	a.found.remove(key)
	a.missing.put(key, k)
}
