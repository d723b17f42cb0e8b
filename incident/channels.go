package incident

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Channel brings an alert to somebody.
type Channel interface {
	// Name is for logs and counts: "syslog".
	Name() string
	// Deliver returns by ctx's end. It is called by one goroutine at a time.
	Deliver(ctx context.Context, a Alert) error
}

// ChannelsOptions are what Channels are made with; the zero value is the
// default.
type ChannelsOptions struct {
	Queue   int           // alerts that wait for each channel; default 100, beyond it they are counted
	PerHour int           // deliveries by each channel in any hour; default 30, at least 2
	Timeout time.Duration // of one delivery; default 15 s
	Close   time.Duration // how long Close waits for what is queued; default 5 s
	Log     *slog.Logger  // nil: nowhere
}

const (
	firstPause  = 30 * time.Second // after a failure; doubles
	longestStop = 10 * time.Minute
	maxTries    = 3           // of one alert
	logEvery    = time.Minute // about failures of one channel
	window      = time.Hour   // of PerHour
)

// Channels hand alerts to each channel, every one at its own pace. Safe for
// concurrent use. Close it: that closes channels that are io.Closers, too.
//
// Two alerts of one incident that wait become one, as do two notices of one
// topic. When a channel has had its
// number for the hour, its last one says so, an hour's silence follows, and then
// one alert tells how many were kept back.
type Channels struct{ lanes []*lane }

// NewChannels starts to deliver to the channels.
func NewChannels(o ChannelsOptions, channels ...Channel) *Channels {
	o.Queue = cmp.Or(max(o.Queue, 0), 100)
	o.PerHour = max(cmp.Or(o.PerHour, 30), 2)
	o.Timeout = cmp.Or(o.Timeout, 15*time.Second)
	o.Close = cmp.Or(o.Close, 5*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c := &Channels{}
	for _, ch := range channels {
		l := &lane{
			channel: ch, opts: o,
			log:  o.Log.With(slog.String("channel", ch.Name())),
			kick: make(chan struct{}, 1), ending: make(chan struct{}), ended: make(chan struct{}),
		}
		l.ctx, l.cancel = context.WithCancel(context.Background())
		c.lanes = append(c.lanes, l)
		go l.run()
	}
	return c
}

// Send queues an alert for every channel. It never waits.
func (c *Channels) Send(a Alert) {
	a.Incident.Notes = nil
	w := waiting{alert: a}
	w.alert.Done = nil
	if a.Done == nil {
		for _, l := range c.lanes {
			l.put(w)
		}
		return
	}
	all := c.receiving()
	if len(all) == 0 {
		a.Done(false)
		return
	}
	r := &receipt{done: a.Done, lanes: len(all)}
	for _, l := range c.lanes {
		w.receipts = nil
		if slices.Contains(all, l) {
			w.receipts = []*receipt{r}
		}
		l.put(w)
	}
}

// receiving are the channels whose delivery counts: this machine's own log only if
// there is no other, for it takes everything and wakes nobody.
func (c *Channels) receiving() []*lane {
	others := slices.DeleteFunc(slices.Clone(c.lanes), func(l *lane) bool {
		_, own := l.channel.(*Syslog)
		return own
	})
	if len(others) == 0 {
		return c.lanes
	}
	return others
}

// Close delivers what is queued, but waits for it no longer than
// ChannelsOptions.Close, and a second for deliveries to give up.
func (c *Channels) Close() {
	for _, l := range c.lanes {
		l.end()
	}
	timer := time.NewTimer(c.closeTime())
	defer timer.Stop()
	for _, l := range c.lanes {
		select {
		case <-l.ended:
			continue
		case <-timer.C:
		}
		break
	}
	for _, l := range c.lanes {
		l.cancel()
	}
	last := time.NewTimer(time.Second)
	defer last.Stop()
	for _, l := range c.lanes {
		select {
		case <-l.ended:
			continue
		case <-last.C:
		}
		break
	}
}

func (c *Channels) closeTime() time.Duration {
	if len(c.lanes) == 0 {
		return 0
	}
	return c.lanes[0].opts.Close
}

// ChannelCounts are what became of alerts since the start.
type ChannelCounts struct {
	Name      string
	Waiting   int
	Delivered int64
	Failed    int64  // attempts
	Joined    int64  // became one with an alert that waited
	Kept      int64  // not delivered: rate limit, full queue, or failed too often
	LastError string // of the last attempt; "" if that went well
}

// Counts tells of each channel how it does.
func (c *Channels) Counts() []ChannelCounts {
	all := make([]ChannelCounts, len(c.lanes))
	for i, l := range c.lanes {
		l.mu.Lock()
		all[i] = l.counts
		all[i].Name, all[i].Waiting = l.channel.Name(), len(l.queue)
		l.mu.Unlock()
	}
	return all
}

// lane is one channel with its queue.
type lane struct {
	channel Channel
	opts    ChannelsOptions
	log     *slog.Logger
	ctx     context.Context // of deliveries
	cancel  context.CancelFunc
	kick    chan struct{}
	once    sync.Once
	ending  chan struct{}
	ended   chan struct{}

	mu     sync.Mutex
	queue  []waiting
	closed bool
	kept   int64 // since the admin was last told of any
	counts ChannelCounts

	// The goroutine's own.
	sent     []time.Time // deliveries of the last hour
	silent   time.Time   // until when nothing is sent, for the rate
	telling  int64       // of those kept back, that are being told now
	pause    time.Duration
	paused   time.Time // until when nothing is tried, after a failure
	logged   time.Time
	unlogged int64 // failures since
}

// waiting is an alert in a queue, and those who want to know what becomes of it or of
// what it took the place of.
type waiting struct {
	alert    Alert
	tries    int
	receipts []*receipt
}

func (w *waiting) delivered() {
	for _, r := range w.receipts {
		r.delivered()
	}
}

func (w *waiting) gaveUp() {
	for _, r := range w.receipts {
		r.gaveUp()
	}
}

// receipt tells once what became of an alert.
type receipt struct {
	mu    sync.Mutex
	done  func(delivered bool) // nil: it was told
	lanes int                  // that may yet deliver it
}

func (r *receipt) delivered() { r.settle(true) }

// gaveUp is one channel less.
func (r *receipt) gaveUp() { r.settle(false) }

func (r *receipt) settle(delivered bool) {
	r.mu.Lock()
	r.lanes--
	done := r.done
	if !delivered && r.lanes > 0 {
		done = nil
	}
	if done != nil {
		r.done = nil
	}
	r.mu.Unlock()
	if done != nil {
		done(delivered)
	}
}

func (l *lane) end() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.once.Do(func() { close(l.ending) })
}

func (l *lane) put(w waiting) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		w.gaveUp()
		return
	}
	if !l.join(w) {
		if len(l.queue) >= l.opts.Queue {
			l.keep(w)
			return
		}
		l.queue = append(l.queue, w)
	}
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// keep counts alerts that are not delivered. The lock is ours.
func (l *lane) keep(all ...waiting) {
	l.kept += int64(len(all))
	l.counts.Kept += int64(len(all))
	for i := range all {
		all[i].gaveUp()
	}
}

// join makes one of an alert and one about the same that waits.
func (l *lane) join(next waiting) bool {
	a := next.alert
	for i := range l.queue {
		w := &l.queue[i]
		if !w.alert.sameAs(&a) {
			continue
		}
		if w.alert.Event == Opened && a.Event == Updated { // of the opening nobody knows yet
			a.Event = Opened
			a.Text = line(&a.Incident, Opened)
		}
		w.alert = a
		w.receipts = append(w.receipts, next.receipts...)
		l.counts.Joined++
		return true
	}
	return false
}

func (l *lane) run() {
	defer close(l.ended)
	if c, ok := l.channel.(io.Closer); ok {
		defer c.Close()
	}
	defer l.abandon()
	for {
		wait := l.work()
		var timer *time.Timer
		var after <-chan time.Time
		if wait > 0 {
			timer = time.NewTimer(wait)
			after = timer.C
		}
		select {
		case <-l.kick:
		case <-after:
		case <-l.ending:
			l.work()
			return
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

// abandon gives up what is queued when nobody delivers any more.
func (l *lane) abandon() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.queue {
		l.queue[i].gaveUp()
	}
	l.queue = nil
}

// work delivers what may be delivered now, and returns how long to wait for more
// of it; 0: until something comes.
func (l *lane) work() time.Duration {
	for l.ctx.Err() == nil {
		now := time.Now()
		if wait := l.paused.Sub(now); wait > 0 {
			return wait
		}
		w, ok := l.next(now)
		if !ok {
			return max(l.silent.Sub(now), 0)
		}
		l.sent = append(l.sent, now)
		if err := l.deliver(w.alert); err != nil {
			w.tries++
			l.failed(time.Now(), w, err)
			continue
		}
		w.delivered()
		l.pause, l.telling = 0, 0
		l.mu.Lock()
		l.counts.Delivered++
		l.counts.LastError = ""
		l.mu.Unlock()
	}
	return 0
}

// next is what to deliver now, within the rate.
func (l *lane) next(now time.Time) (waiting, bool) {
	for len(l.sent) > 0 && now.Sub(l.sent[0]) >= window {
		l.sent = l.sent[1:]
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Before(l.silent) {
		l.keep(l.queue...)
		l.queue = nil
		return waiting{}, false
	}
	woke := !l.silent.IsZero()
	l.silent = time.Time{}
	switch {
	case l.kept > 0 && (woke || len(l.queue) == 0 && len(l.sent) < l.opts.PerHour-1):
		l.telling, l.kept = l.kept, 0
		return waiting{alert: Alert{Event: More, Time: now.UTC(), Text: fmt.Sprintf("and %d more alerts that were kept back, see: relayguard status", l.telling)}}, true
	case l.kept == 0 && len(l.queue) == 0:
		return waiting{}, false
	case len(l.sent) >= l.opts.PerHour-1:
		l.silent = now.Add(window)
		l.keep(l.queue...)
		l.queue = nil
		return waiting{alert: Alert{Event: More, Time: now.UTC(), Text: fmt.Sprintf("more than %d alerts in an hour: others are kept back until %s, see: relayguard status",
			l.opts.PerHour-1, l.silent.UTC().Format("15:04Z"))}}, true
	}
	w := l.queue[0]
	l.queue = append(l.queue[:0], l.queue[1:]...)
	return w, true
}

func (l *lane) deliver(a Alert) error {
	ctx, cancel := context.WithTimeout(l.ctx, l.opts.Timeout)
	defer cancel()
	return l.channel.Deliver(ctx, a)
}

// failed puts an alert back, unless it has been tried enough, and has the lane
// pause.
func (l *lane) failed(now time.Time, w waiting, err error) {
	a := &w.alert
	l.pause = min(max(2*l.pause, firstPause), longestStop)
	l.paused = now.Add(l.pause)
	text := escape(err.Error(), 300)
	l.mu.Lock()
	l.counts.Failed++
	l.counts.LastError = text
	switch {
	case a.Event == More: // told again with what is kept back meanwhile
		l.kept += l.telling
	case w.tries >= maxTries:
		l.keep(w)
	default:
		l.back(w)
	}
	l.mu.Unlock()
	l.unlogged++
	if l.logged.IsZero() || now.Sub(l.logged) >= logEvery {
		l.log.Error("alert not delivered", slog.String("event", string(a.Event)), slog.String("incident", a.Incident.ID),
			slog.String("error", text), slog.Int64("failures", l.unlogged), slog.Duration("pause", l.pause))
		l.logged, l.unlogged = now, 0
	}
}

// back puts an alert at the head of the queue, or into one with a newer one about the
// same. The lock is ours.
func (l *lane) back(failed waiting) {
	a := &failed.alert
	for i := range l.queue {
		w := &l.queue[i]
		if w.alert.sameAs(a) {
			if a.Event == Opened && w.alert.Event == Updated {
				w.alert.Event = Opened
				w.alert.Text = line(&w.alert.Incident, Opened)
			}
			w.tries = failed.tries
			w.receipts = append(w.receipts, failed.receipts...)
			l.counts.Joined++
			return
		}
	}
	l.queue = append([]waiting{failed}, l.queue...)
}
