// Package watch tells which of some paths changed, as soon as they do, and who
// did it where the kernel can tell: by fanotify(7), which sees whole file systems
// and needs rights, or by inotify(7) on each directory. What stands in a file,
// and what is to be read again, is others' matter.
//
// A path need not exist. It changes, too, when a directory or symbolic link on the
// way to it does, and when its file is written through another hard link or from
// another mount namespace (fanotify knows files by their handles, not names).
//
// The trap: no watch sees everything. Writes through mmap(2) make no event, those
// of another machine on a network file system neither, and a queue overflows
// (Change.Lost). So everything is to be read again at intervals all the same;
// Blind says what is known not to be seen.
package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"relayguard/forward"
)

// Methods.
const (
	Fanotify = "fanotify"
	Inotify  = "inotify"
	None     = "none"
)

// Options say how to watch.
type Options struct {
	Log    *slog.Logger // nil: nowhere
	Method string       // empty: the best that is permitted
	// Pending is how many changes may wait for the one who is told; more are
	// told as lost. 0: 50,000.
	Pending int
}

// Watcher watches some paths. Its methods are safe for concurrent use.
type Watcher struct {
	log     *slog.Logger
	method  string
	fan     *fanotify // nil: not that method
	ino     *inotify  // nil: there is none
	mounts  *mountTable
	wake    int // eventfd
	pending *pending

	mu    sync.Mutex
	trie  *trie
	round uint64 // of looking at what is there
	set   uint64 // counts what Watch was given
	blind *blindness

	once sync.Once
}

const defaultPending = 50_000

// New makes a watcher that watches nothing yet. If the best method is not
// permitted the next one is taken; a method that was asked for is an error then.
func New(o Options) (*Watcher, error) {
	w := &Watcher{log: o.Log, wake: -1, trie: newTrie(), blind: newBlindness()}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	if o.Pending <= 0 {
		o.Pending = defaultPending
	}
	w.pending = newPending(o.Pending)
	if err := w.open(o.Method); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

func (w *Watcher) open(method string) (err error) {
	if w.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("make an eventfd: %w", err)
	}
	w.method = method
	switch method {
	case None:
		return nil
	case "", Fanotify:
		w.fan, err = openFanotify()
		if err != nil && method == Fanotify {
			return err
		}
		if err == nil {
			w.method = Fanotify
		}
	case Inotify:
	default:
		return fmt.Errorf("watch: got method %q, want %q, %q, %q or nothing", method, Fanotify, Inotify, None)
	}
	w.ino, err = openInotify()
	if err != nil && w.fan == nil {
		return err
	}
	if w.fan == nil {
		w.method = Inotify
	}
	w.mounts, err = openMounts()
	return err
}

// Method is how it watches: Fanotify, Inotify or None.
func (w *Watcher) Method() string { return w.method }

// Blind says, for people, what cannot be watched and why; empty: nothing that is
// known of.
func (w *Watcher) Blind() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.blind.list()
}

// Watch replaces what is watched. A path that ends with "/" stands for whatever
// lies below it; any other that is a directory for that and the names in it. When
// it returns every change from then on is told. Paths are absolute.
func (w *Watcher) Watch(paths []string) error {
	var wrong []error
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.method == None {
		return nil
	}
	w.mounts.load()
	if w.trie.root.key == "" {
		w.look(w.trie.root)
	}
	w.set++
	for _, p := range paths {
		if !strings.HasPrefix(p, "/") || strings.IndexByte(p, 0) >= 0 {
			wrong = append(wrong, fmt.Errorf("watch %q: want an absolute path", p))
			continue
		}
		p, tree := path.Clean(p), strings.HasSuffix(p, "/")
		w.want(p, tree && p != "/") // an account's home may be "/": nobody means the whole disk
	}
	for p, n := range w.trie.wanted {
		if n.set != w.set {
			w.unwant(p, n)
		}
	}
	w.mounts.changedFor(w.trie)
	return errors.Join(wrong...)
}

// want puts a path into the trie and looks at what is new on the way to it. Of a
// path that is named both ways the tree counts.
func (w *Watcher) want(p string, tree bool) {
	n := w.trie.wanted[p]
	if n != nil {
		again := n.set == w.set
		n.set = w.set
		switch {
		case tree && !n.tree:
			n.tree = true
			w.look(n)
		case n.tree && !tree && !again:
			w.fell(n)
		}
		return
	}
	n, fresh := w.trie.insert(p)
	if n == nil {
		w.blind.add("too many paths", p)
		return
	}
	n.wanted, n.tree, n.set = true, tree, w.set
	w.trie.wanted[p] = n
	switch {
	case fresh != nil:
		w.look(fresh)
	case tree, n.fid == "":
		w.look(n)
	}
}

// fell makes a tree a path like others.
func (w *Watcher) fell(n *node) {
	n.tree = false
	if !n.auto {
		w.dropAuto(n)
	}
}

func (w *Watcher) unwant(p string, n *node) {
	delete(w.trie.wanted, p)
	n.wanted = false
	if n.tree {
		w.fell(n)
	}
	w.prune(n)
}

// Run tells fn of each change until ctx ends; it then closes the watcher and
// returns nil. It may be called once. fn may take its time: what happens
// meanwhile waits, and of one path and writer once.
func (w *Watcher) Run(ctx context.Context, fn func(forward.Change)) error {
	defer w.Close()
	if w.method == None {
		<-ctx.Done()
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		unix.Write(w.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	})
	defer stop()
	var teller sync.WaitGroup
	teller.Go(func() { w.pending.tell(ctx, fn) })
	err := w.loop(ctx)
	cancel()
	teller.Wait()
	return err
}

// loop waits for the kernel.
func (w *Watcher) loop(ctx context.Context) error {
	fds := []unix.PollFd{{Fd: int32(w.wake), Events: unix.POLLIN}, {Fd: int32(w.mounts.fd), Events: unix.POLLPRI}}
	if w.fan != nil {
		fds = append(fds, unix.PollFd{Fd: int32(w.fan.fd), Events: unix.POLLIN})
	}
	if w.ino != nil {
		fds = append(fds, unix.PollFd{Fd: int32(w.ino.fd), Events: unix.POLLIN})
	}
	for ctx.Err() == nil {
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for changes: %w", err)
		}
		if ctx.Err() != nil {
			return nil
		}
		if fds[1].Revents != 0 {
			w.remounted()
		}
		for _, p := range fds[2:] {
			if p.Revents == 0 {
				continue
			}
			if err := w.drain(int(p.Fd)); err != nil {
				return err
			}
		}
		if w.mounts.stale.Load() {
			w.remounted()
		}
	}
	return nil
}

// drain takes what one source has.
func (w *Watcher) drain(fd int) error {
	read := (*Watcher).readInotify
	if w.fan != nil && fd == w.fan.fd {
		read = (*Watcher).readFanotify
	}
	for {
		more, err := read(w)
		if err != nil || !more {
			return err
		}
	}
}

// lost tells that something was missed, after looking at everything anew.
func (w *Watcher) lost(why string) {
	w.log.Warn("changes were missed", "why", why)
	w.look(w.trie.root)
	w.pending.lose()
}

// remounted looks at everything anew if a mount on the way to a path changed.
func (w *Watcher) remounted() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mounts.stale.Store(false)
	if w.mounts.load() && w.mounts.changedFor(w.trie) {
		if w.fan != nil {
			clear(w.fan.marks) // a device's number may be another's now
		}
		w.lost("a file system was mounted or unmounted on the way to a path")
	}
}

// Close ends it. Only one that is not run needs it.
func (w *Watcher) Close() error {
	w.once.Do(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.wake >= 0 {
			unix.Close(w.wake)
		}
		if w.fan != nil {
			unix.Close(w.fan.fd)
		}
		if w.ino != nil {
			unix.Close(w.ino.fd)
		}
		if w.mounts != nil {
			unix.Close(w.mounts.fd)
		}
	})
	return nil
}

// report puts a change of a path among those that are to be told.
func (w *Watcher) report(n *node, by forward.Writer) {
	w.pending.add(forward.Change{Path: n.path(), Writer: by, Time: time.Now()})
}
