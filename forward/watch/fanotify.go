package watch

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// fanotify is a group that is told of whole file systems. It needs
// CAP_SYS_ADMIN, and Linux 5.9.
type fanotify struct {
	fd    int
	marks map[uint64]fsMark // by device
	buf   []byte
}

type fsMark struct {
	fsid [8]byte
	err  error
}

// fanMask is what may change what a path says. FAN_MODIFY is for a writer that
// never closes its file; FAN_ATTRIB tells of new links, too.
const fanMask = unix.FAN_CREATE | unix.FAN_DELETE | unix.FAN_MOVED_FROM | unix.FAN_MOVED_TO |
	unix.FAN_CLOSE_WRITE | unix.FAN_MODIFY | unix.FAN_ATTRIB | unix.FAN_ONDIR

const fanBuffer = 256 << 10

func openFanotify() (*fanotify, error) {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK|unix.FAN_REPORT_DFID_NAME|unix.FAN_REPORT_FID, unix.O_RDONLY|unix.O_LARGEFILE|unix.O_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("begin fanotify(7), which needs CAP_SYS_ADMIN and Linux 5.9: %w", err)
	}
	f := &fanotify{fd: fd, marks: map[uint64]fsMark{}, buf: make([]byte, fanBuffer)}
	if err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_DELETE|unix.FAN_ONDIR, unix.AT_FDCWD, "/"); errors.Is(err, unix.EPERM) {
		unix.Close(fd) // without rights a group has no file systems
		return nil, fmt.Errorf("watch a file system by fanotify(7), which needs CAP_SYS_ADMIN: %w", err)
	}
	return f, nil
}

// mark has the kernel tell of the file system of a path, once, and returns what
// events call that.
func (f *fanotify) mark(at string, st *unix.Stat_t) ([8]byte, error) {
	dev := uint64(st.Dev)
	m, known := f.marks[dev]
	if known {
		return m.fsid, m.err
	}
	var fs unix.Statfs_t
	m.err = unix.Statfs(at, &fs)
	if m.err == nil {
		binary.NativeEndian.PutUint32(m.fsid[:4], uint32(fs.Fsid.Val[0]))
		binary.NativeEndian.PutUint32(m.fsid[4:], uint32(fs.Fsid.Val[1]))
		m.err = unix.FanotifyMark(f.fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM|unix.FAN_MARK_DONT_FOLLOW, fanMask, unix.AT_FDCWD, at)
	}
	switch m.err {
	case unix.ENOENT, unix.ELOOP, unix.ENOTDIR: // it has gone meanwhile: nothing is known of the device
		return m.fsid, m.err
	}
	f.marks[dev] = m
	return m.fsid, m.err
}

// atHandleFID asks for a handle that names a file and need not open it
// (AT_HANDLE_FID, Linux 6.5), which more file systems have.
const atHandleFID = 0x200

// handleOf is a file's handle in the form of fanKey; empty: it has none.
func handleOf(at string, fsid [8]byte) string {
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, at, 0)
	if err == unix.EOPNOTSUPP {
		h, _, err = unix.NameToHandleAt(unix.AT_FDCWD, at, atHandleFID)
	}
	if err != nil {
		return ""
	}
	b := h.Bytes()
	key := make([]byte, 0, len(fsid)+8+len(b))
	key = append(key, fsid[:]...)
	key = binary.NativeEndian.AppendUint32(key, uint32(len(b)))
	key = binary.NativeEndian.AppendUint32(key, uint32(h.Type()))
	return string(append(key, b...))
}

// fanEvent is one event, in the reader's buffer.
type fanEvent struct {
	mask uint64
	pid  int
	dir  []byte // of the directory: file system and handle as in struct fanotify_event_info_fid
	name []byte // in it; empty or ".": the directory itself
	self []byte // of the thing itself, where the kernel says it
}

var errEvent = errors.New("fanotify: an event of a form that is not known")

// parseFan calls fn for each event in what was read. Records of kinds that are
// not known are passed over.
func parseFan(b []byte, fn func(fanEvent)) error {
	for len(b) > 0 {
		if len(b) < unix.FAN_EVENT_METADATA_LEN {
			return errEvent
		}
		size := int(binary.NativeEndian.Uint32(b))
		head := int(binary.NativeEndian.Uint16(b[6:]))
		if b[4] != unix.FANOTIFY_METADATA_VERSION || head < unix.FAN_EVENT_METADATA_LEN || size < head || size > len(b) {
			return errEvent
		}
		e := fanEvent{mask: binary.NativeEndian.Uint64(b[8:]), pid: int(int32(binary.NativeEndian.Uint32(b[20:])))}
		if err := e.records(b[head:size]); err != nil {
			return err
		}
		fn(e)
		b = b[size:]
	}
	return nil
}

// records reads what follows an event's head: struct fanotify_event_info_header.
func (e *fanEvent) records(b []byte) error {
	const head, fid = 4, 4 + 8 + 8 // octets before the fid; before its handle
	for len(b) >= head {
		kind, size := b[0], int(binary.NativeEndian.Uint16(b[2:]))
		if size < head || size > len(b) {
			return errEvent
		}
		record := b[:size]
		b = b[size:]
		switch kind {
		case unix.FAN_EVENT_INFO_TYPE_FID, unix.FAN_EVENT_INFO_TYPE_DFID, unix.FAN_EVENT_INFO_TYPE_DFID_NAME:
		default:
			continue
		}
		if len(record) < fid {
			return errEvent
		}
		end := fid + int(binary.NativeEndian.Uint32(record[head+8:]))
		if end < fid || end > len(record) {
			return errEvent
		}
		switch kind {
		case unix.FAN_EVENT_INFO_TYPE_FID:
			e.self = record[head:end]
		default:
			e.dir, e.name = record[head:end], cString(record[end:])
		}
	}
	return nil
}

func cString(b []byte) []byte {
	for n, c := range b {
		if c == 0 {
			return b[:n]
		}
	}
	return b
}

// readFanotify takes what is in the queue, at most a buffer of it.
func (w *Watcher) readFanotify() (more bool, err error) {
	n, err := unix.Read(w.fan.fd, w.fan.buf)
	switch {
	case err == unix.EAGAIN:
		return false, nil
	case err == unix.EINTR:
		return true, nil
	case err != nil:
		return false, fmt.Errorf("read from fanotify(7): %w", err)
	case n <= 0:
		return false, nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	who := writers{}
	return true, parseFan(w.fan.buf[:n], func(e fanEvent) { w.heed(e, who) })
}

// heed is one event's effect.
func (w *Watcher) heed(e fanEvent, who writers) {
	if e.mask&unix.FAN_Q_OVERFLOW != 0 {
		w.lost("the queue of fanotify(7) was full")
		return
	}
	what := happening{
		structural: e.mask&(unix.FAN_CREATE|unix.FAN_DELETE|unix.FAN_MOVED_FROM|unix.FAN_MOVED_TO) != 0,
		dir:        e.mask&unix.FAN_ONDIR != 0,
		by:         func() writer { return who.of(e.pid) },
	}
	first := w.trie.dirs[string(e.dir)]
	if first != nil {
		w.happened(first, string(e.name), what)
	}
	if e.self != nil && !what.dir {
		w.written(w.trie.things[string(e.self)], what)
	}
}
