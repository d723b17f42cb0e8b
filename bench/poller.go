package main

import (
	"encoding/binary"
	"fmt"
	"syscall"
	"time"
	"unsafe"
)

// The generator drives its connections from an epoll loop of its own: with Go's
// scheduler between each read and write it would cost more than the milter
// that it measures.

// poller waits for any of many descriptors.
type poller struct {
	fd     int
	events []syscall.EpollEvent
}

func newPoller() (*poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create: %w", err)
	}
	return &poller{fd: fd, events: make([]syscall.EpollEvent, 256)}, nil
}

// add watches fd for reading; wait returns tag for it.
func (p *poller) add(fd, tag int) error {
	ev := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(tag)}
	if err := syscall.EpollCtl(p.fd, syscall.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// wait gives the events of at most timeout.
func (p *poller) wait(timeout time.Duration) ([]syscall.EpollEvent, error) {
	n, err := syscall.EpollWait(p.fd, p.events, int(timeout.Milliseconds()))
	switch {
	case err == syscall.EINTR:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("epoll_wait: %w", err)
	}
	return p.events[:n], nil
}

func (p *poller) close() { syscall.Close(p.fd) }

// connect opens a non-blocking connection to a Unix socket.
func connect(path string) (int, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	for {
		// It waits while the milter's backlog is full.
		if err = syscall.Connect(fd, &syscall.SockaddrUnix{Name: path}); err != syscall.EINTR {
			break
		}
	}
	if err == nil {
		err = syscall.SetNonblock(fd, true)
	}
	if err != nil {
		syscall.Close(fd)
		return -1, fmt.Errorf("connect to %s: %w", path, err)
	}
	return fd, nil
}

// write sends all of b. A descriptor that takes no more is waited for: the
// milter reads what it is sent.
func write(fd int, b []byte) error {
	for len(b) > 0 {
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		switch errno {
		case 0:
			b = b[n:]
		case syscall.EINTR:
		case syscall.EAGAIN:
			time.Sleep(50 * time.Microsecond)
		default:
			return fmt.Errorf("write: %w", errno)
		}
	}
	return nil
}

// read fills b with what has arrived; 0 if there is nothing.
func read(fd int, b []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
		return 0, nil
	case errno != 0:
		return 0, fmt.Errorf("read: %w", errno)
	case n == 0:
		return 0, fmt.Errorf("the milter closed the connection")
	}
	return int(n), nil
}

// ticker is a timerfd: a clock that epoll can wait for, finer than its
// milliseconds.
type ticker struct{ fd int }

const clockMonotonic = 1

// newTicker ticks every period from now on.
func newTicker(period time.Duration) (ticker, error) {
	fd, _, errno := syscall.RawSyscall(syscall.SYS_TIMERFD_CREATE, clockMonotonic, syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if errno != 0 {
		return ticker{}, fmt.Errorf("timerfd_create: %w", errno)
	}
	every := syscall.NsecToTimespec(period.Nanoseconds())
	spec := [2]syscall.Timespec{every, every}
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_TIMERFD_SETTIME, fd, 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0); errno != 0 {
		syscall.Close(int(fd))
		return ticker{}, fmt.Errorf("timerfd_settime: %w", errno)
	}
	return ticker{int(fd)}, nil
}

// ticks is the number of ticks since the last call.
func (t ticker) ticks() int {
	var b [8]byte
	if n, err := read(t.fd, b[:]); err != nil || n != len(b) {
		return 0
	}
	return int(binary.NativeEndian.Uint64(b[:]))
}

func (t ticker) close() { syscall.Close(t.fd) }
