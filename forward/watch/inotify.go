package watch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"relayguard/forward"
)

// inotify watches directory by directory; it does not tell who changed what.
type inotify struct {
	fd  int
	buf []byte
}

const inoMask = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_CLOSE_WRITE |
	unix.IN_MODIFY | unix.IN_ATTRIB | unix.IN_ONLYDIR | unix.IN_EXCL_UNLINK

func openInotify() (*inotify, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("begin inotify(7): %w", inotifyError(err))
	}
	return &inotify{fd: fd, buf: make([]byte, 64<<10)}, nil
}

// inoKey names a directory by its watch descriptor. No key of fanotify is as
// short.
func inoKey(wd int32) string { return "i" + strconv.Itoa(int(wd)) }

// add watches a directory.
func (i *inotify) add(at string) (string, error) {
	wd, err := unix.InotifyAddWatch(i.fd, at, inoMask)
	if err != nil {
		return "", err
	}
	return inoKey(int32(wd)), nil
}

// forget ends the watch of a key, if it is one of ours.
func (i *inotify) forget(key string) {
	if len(key) < 2 || len(key) > 11 || key[0] != 'i' {
		return
	}
	if wd, err := strconv.Atoi(key[1:]); err == nil {
		unix.InotifyRmWatch(i.fd, uint32(wd))
	}
}

// inotifyError names the limit that was met.
func inotifyError(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("more directories than fs.inotify.max_user_watches allows: %w", err)
	case errors.Is(err, unix.EMFILE):
		return fmt.Errorf("more watchers than fs.inotify.max_user_instances allows: %w", err)
	}
	return err
}

func inotifyProblem(err error) string { return inotifyError(err).Error() }

// inoEvent is one event, in the reader's buffer.
type inoEvent struct {
	wd   int32
	mask uint32
	name []byte
}

// parseIno calls fn for each event in what was read.
func parseIno(b []byte, fn func(inoEvent)) error {
	for len(b) > 0 {
		if len(b) < unix.SizeofInotifyEvent {
			return errors.New("inotify: an event of a form that is not known")
		}
		size := uint64(binary.NativeEndian.Uint32(b[12:])) + unix.SizeofInotifyEvent
		if size > uint64(len(b)) {
			return errors.New("inotify: an event that is cut short")
		}
		fn(inoEvent{int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:]), cString(b[unix.SizeofInotifyEvent:size])})
		b = b[size:]
	}
	return nil
}

// readInotify takes what is in the queue, at most a buffer of it.
func (w *Watcher) readInotify() (more bool, err error) {
	n, err := unix.Read(w.ino.fd, w.ino.buf)
	switch {
	case err == unix.EAGAIN:
		return false, nil
	case err == unix.EINTR:
		return true, nil
	case err != nil:
		return false, fmt.Errorf("read from inotify(7): %w", err)
	case n <= 0:
		return false, nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return true, parseIno(w.ino.buf[:n], w.heedIno)
}

func (w *Watcher) heedIno(e inoEvent) {
	switch {
	case e.mask&unix.IN_Q_OVERFLOW != 0:
		w.lost("the queue of inotify(7) was full")
		return
	case e.mask&(unix.IN_IGNORED|unix.IN_UNMOUNT) != 0:
		return // the directory above or the mount table tells
	}
	first := w.trie.dirs[inoKey(e.wd)]
	if first == nil {
		return
	}
	w.happened(first, string(e.name), happening{
		structural: e.mask&(unix.IN_CREATE|unix.IN_DELETE|unix.IN_MOVED_FROM|unix.IN_MOVED_TO) != 0,
		dir:        e.mask&unix.IN_ISDIR != 0,
		by:         func() writer { return forward.UnknownWriter },
	})
}
