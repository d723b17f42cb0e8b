package postfix

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// asked is a table that can only be asked key by key (LDAP, SQL, regexp...).
// Lookups take answers from a cache; what is not there waits in a queue that
// one worker puts to postmap, many keys a run.
//
// postmap ends at the first key that the database refuses (a collation that
// does not fit, a syntax error), and says nothing of the others. So a batch that
// fails is asked again in parts, until the key stands alone that fails; the
// table as a whole fails only when different keys do in a row. What came
// meanwhile is asked in turn with those parts, and of one sender's odd keys no
// more are asked once two were refused: nobody waits for another one's.
type asked struct {
	table  Table
	tools  Tools
	dir    string
	log    *slog.Logger
	timing *mapsTiming

	mu       sync.Mutex
	found    lru // kept apart from missing: see maxMissing
	missing  lru
	refused  lru // keys that failed alone
	waiting  map[string]*question
	queue    []*question // first come, first asked
	failing  error       // of the last run
	failedTo time.Time   // until then postmap is not run again
	read     time.Time

	// Used by the worker only.
	parts    [][]*question // of batches that failed; the last is asked next
	partNext bool          // what came since had its turn
	began    time.Time     // of the last run
	sound    time.Time     // when it last gave a value
	alone    int           // keys that failed alone, none that was answered between
	pause    time.Duration // after the last failure of the table
	down     bool          // it fails as a whole, and that was logged
	oddToLog time.Time     // until then no refused key is logged again
	oddApart time.Time     // until then odd keys are not put together with plain ones

	wake chan struct{}
	life context.Context // of the Maps
}

// question is one key on its way; its answer is set before done is closed.
type question struct {
	key    string
	sender *sender
	done   chan struct{}
	answer answer
	err    error
}

// sender is who the keys of one call of ahead are asked for. Used by the worker
// only.
type sender struct {
	refused int   // of its keys
	err     error // of the last one
}

// maxRefusedOf is after how many refused keys a sender's odd ones are not asked any
// more: they are forms of one address, with the same odd character in them.
const maxRefusedOf = 2

type answer struct {
	value string
	found bool
	err   error // the key was refused
	at    time.Time
}

func newAsked(t Table, m *Maps) *asked {
	a := &asked{
		table: t, tools: m.config.Tools, dir: m.config.ConfigDir, log: m.config.Log, timing: m.config.timing,
		found: newLRU(maxFound), missing: newLRU(maxMissing), refused: newLRU(maxRefused),
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

func (a *asked) lookup(ctx context.Context, key string) (string, bool, error) {
	now := time.Now()
	a.mu.Lock()
	known, have := a.cached(key)
	age := now.Sub(known.at)
	if have && age < a.goodFor(known) {
		if known.found && age > a.goodFor(known)*3/4 {
			a.ask(key, &sender{}) // before anybody has to wait for it
		}
		a.mu.Unlock()
		return known.value, known.found, nil
	}
	if err := a.refuses(key, now); err != nil {
		a.mu.Unlock()
		return a.orStale(known, have, age, err)
	}
	q := a.ask(key, &sender{})
	a.mu.Unlock()
	if q == nil {
		return a.orStale(known, have, age, fmt.Errorf("lookup table %s: %w: %d questions wait", a.table, ErrSlow, maxQueue))
	}
	if err := a.wait(ctx, q); err != nil {
		return a.orStale(known, have, age, err)
	}
	if q.err != nil {
		return a.orStale(known, have, age, q.err)
	}
	return q.answer.value, q.answer.found, nil
}

// wait prefers an answer that is there to a deadline that is over.
func (a *asked) wait(ctx context.Context, q *question) error {
	select {
	case <-q.done:
		return nil
	default:
	}
	select {
	case <-q.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("lookup table %s: %w: %w", a.table, ErrSlow, ctx.Err())
	case <-a.life.Done():
		return fmt.Errorf("lookup table %s: %w: closed", a.table, ErrSlow)
	}
}

func (a *asked) peek(key string) (found, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	k, have := a.cached(key)
	return k.found, have && time.Since(k.at) < a.goodFor(k)
}

// ahead queues all the keys before the worker takes any of them.
func (a *asked) ahead(keys []string) {
	now, of := time.Now(), &sender{}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, key := range keys {
		if k, have := a.cached(key); have && now.Sub(k.at) < a.goodFor(k) || a.refuses(key, now) != nil {
			continue
		}
		a.ask(key, of)
	}
}

// refuses returns the error of a table that fails now, or fails for that key.
// The caller holds mu.
func (a *asked) refuses(key string, now time.Time) error {
	if now.Before(a.failedTo) {
		return a.failing
	}
	if k, ok := a.refused.get(key); ok && now.Sub(k.at) < a.timing.refused {
		return k.err
	}
	return nil
}

// orStale prefers an old answer to none: a directory server that is down or slow
// must not stop everybody's mail.
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
func (a *asked) ask(key string, of *sender) *question {
	if q, ok := a.waiting[key]; ok {
		return q
	}
	if len(a.waiting) >= maxQueue {
		return nil
	}
	q := &question{key: key, sender: of, done: make(chan struct{})}
	a.waiting[key] = q
	a.queue = append(a.queue, q)
	select {
	case a.wake <- struct{}{}:
	default:
	}
	return q
}

// work runs postmap for what waits.
func (a *asked) work() {
	for {
		select {
		case <-a.life.Done():
			return
		case <-a.wake:
		}
		for batch := a.next(); len(batch) > 0 && a.life.Err() == nil; batch = a.next() {
			a.resolve(batch)
		}
	}
}

// next is the batch to put now: in turn what came since, and a part of one that
// failed. Not empty while anything waits.
func (a *asked) next() []*question {
	for len(a.parts) > 0 && a.partNext {
		last := len(a.parts) - 1
		part := a.withoutRefused(a.parts[last])
		a.parts = a.parts[:last]
		if len(part) > 0 {
			a.partNext = false
			return part
		}
	}
	batch := a.take()
	if len(batch) > 0 && (len(a.parts) > 0 || time.Now().Before(a.oddApart)) {
		plain, odd := byPlain(batch)
		if batch = plain; len(odd) > 0 {
			a.parts = slices.Insert(a.parts, 0, odd)
		}
	}
	a.partNext = true
	if len(batch) == 0 && len(a.parts) > 0 {
		return a.next()
	}
	return batch
}

// withoutRefused takes from a part the odd keys of senders that had enough of
// them refused. They count as refused too, or the next message would ask them.
func (a *asked) withoutRefused(part []*question) []*question {
	return slices.DeleteFunc(slices.Clone(part), func(q *question) bool {
		if q.sender.refused < maxRefusedOf || isPlain(q.key) {
			return false
		}
		a.refuse(q, q.sender.err)
		return true
	})
}

// resolve puts a batch, whose questions then end or come back as parts.
func (a *asked) resolve(batch []*question) {
	if err := a.pausing(); err != nil { // what came before said that the table fails
		a.end(batch, err)
		return
	}
	err := a.put(batch)
	switch {
	case a.life.Err() != nil:
		return
	case err == nil:
		a.alone = 0
		a.answered(batch)
		return
	case len(batch) == 1:
		a.alone++
	}
	fails := a.fails(batch)
	switch {
	case a.life.Err() != nil:
	case fails:
		a.failed(batch, err)
	case len(batch) == 1:
		a.refuse(batch[0], err)
	default:
		first, second := a.split(batch)
		a.parts = append(a.parts, second, first)
	}
}

// fails tells a table that fails from one that refuses a key: one that fails
// does not even answer for a key that it had a value for. Where there is no such
// key, a second one that fails alone says so.
func (a *asked) fails(batch []*question) bool {
	if a.alone < 2 && !a.sound.IsZero() && time.Since(a.sound) < a.timing.failFirst {
		return false
	}
	a.mu.Lock()
	key, had := a.found.newest()
	a.mu.Unlock()
	switch {
	case !had:
		return a.alone > 1
	case len(batch) == 1 && batch[0].key == key: // then by another one's
		return a.alone > 1
	}
	if a.put([]*question{{key: key}}) != nil {
		return true
	}
	a.sound, a.alone = time.Now(), 0
	return false
}

// split cuts a batch that failed. Keys that a database may well refuse go apart
// from the others; a table that never answered is first asked for one key alone,
// since it may be none at all.
func (a *asked) split(batch []*question) (first, second []*question) {
	first, second = byPlain(batch)
	if len(first) > 0 && len(second) > 0 {
		return first, second
	}
	middle := len(batch) / 2
	if a.state().Read.IsZero() {
		middle = 1
	}
	return batch[:middle], batch[middle:]
}

func byPlain(batch []*question) (plain, odd []*question) {
	for _, q := range batch {
		if isPlain(q.key) {
			plain = append(plain, q)
		} else {
			odd = append(odd, q)
		}
	}
	return plain, odd
}

// isPlain reports keys of the characters that most addresses are of.
func isPlain(key string) bool {
	return !strings.ContainsFunc(key, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune("@.-_+=", r))
	})
}

// pausing is the error of a table that is not to be asked now.
func (a *asked) pausing() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if time.Now().Before(a.failedTo) {
		return a.failing
	}
	return nil
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

// put asks one batch of keys and fills in their answers, not sooner than
// forkGap after the last one.
func (a *asked) put(batch []*question) error {
	if !a.sleep(a.timing.forkGap - time.Since(a.began)) {
		return a.life.Err()
	}
	a.began = time.Now()
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
		q.answer = answer{value: value, found: found, at: now}
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

// answered hands the batch its answers and remembers them.
func (a *asked) answered(batch []*question) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.down {
		a.log.Info("lookup table answers again", "table", a.table.String())
	}
	a.down, a.pause = false, 0
	a.failing, a.read = nil, time.Now()
	for _, q := range batch {
		if q.answer.found {
			a.sound = a.read
		}
		delete(a.waiting, q.key)
		a.refused.remove(q.key)
		a.remember(q.key, q.answer)
		close(q.done)
	}
}

// failed hands the batch the error of the table, and with it all that waits:
// it would wait for nothing.
func (a *asked) failed(batch []*question, err error) {
	a.pause = min(max(2*a.pause, a.timing.failFirst), a.timing.failMost)
	if !a.down {
		a.log.Warn("lookup table does not answer", "table", a.table.String(), "err", err)
	}
	a.down, a.sound = true, time.Time{}
	a.mu.Lock()
	a.failing = err
	a.failedTo = time.Now().Add(a.pause)
	a.refused = newLRU(maxRefused) // it was not their fault
	batch = append(slices.Clone(batch), a.queue...)
	a.queue = nil
	a.mu.Unlock()
	for _, part := range a.parts {
		batch = append(batch, part...)
	}
	a.parts = nil
	a.end(batch, err)
}

// refuse remembers a key that the table fails for alone.
func (a *asked) refuse(q *question, err error) {
	now := time.Now()
	q.sender.refused++
	q.sender.err = err
	a.oddApart = now.Add(a.timing.refused)
	if now.After(a.oddToLog) { // whoever sends chooses the keys
		a.log.Warn("lookup table refuses a key", "table", a.table.String(), "key", q.key, "err", err)
		a.oddToLog = now.Add(time.Minute)
	}
	a.mu.Lock()
	a.failing = err
	a.refused.put(q.key, answer{err: err, at: now})
	a.mu.Unlock()
	a.end([]*question{q}, err)
}

// end hands questions an error.
func (a *asked) end(batch []*question, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, q := range batch {
		delete(a.waiting, q.key)
		q.err = err
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
