package cases

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The tests run in a network name space of their own, where the loopback
// interface has further addresses: clients come from there for real, beside a
// mail server without XCLIENT, too. Nothing in it reaches any other machine.

const insideVar = "RELAYGUARD_CASES_INSIDE"

// clientAddresses are those that clients may come from.
var clientAddresses = []netip.Addr{
	netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("198.51.100.8"), // trusted, where a case says so
	netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("203.0.113.8"), // strangers
	netip.MustParseAddr("2001:db8:77::7"), netip.MustParseAddr("2001:db8::7"),
}

// runInside runs this program once more inside and returns its exit status.
func runInside() (int, error) {
	runtime.LockOSThread() // Pdeathsig goes by the thread
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideVar+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 1, fmt.Errorf("run the tests in a network name space of their own: %w", err)
	}
	return 0, nil
}

// openNetwork brings the loopback interface up and gives it its addresses.
func openNetwork() error {
	v4, err4 := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	v6, err6 := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err := errors.Join(err4, err6); err != nil {
		return fmt.Errorf("set the loopback interface up: %w", err)
	}
	defer unix.Close(v4)
	defer unix.Close(v6)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	err = unix.IoctlIfreq(v4, unix.SIOCSIFFLAGS, lo)
	for i, ip := range clientAddresses {
		if ip.Is4() {
			err = errors.Join(err, addAddress(v4, fmt.Sprintf("lo:%d", i), ip))
		} else {
			err = errors.Join(err, addAddress6(v6, ip))
		}
	}
	if err != nil {
		return fmt.Errorf("set the loopback interface up: %w", err)
	}
	return nil
}

func addAddress(socket int, label string, ip netip.Addr) error {
	alias, err := unix.NewIfreq(label)
	if err != nil {
		return err
	}
	if err := alias.SetInet4Addr(ip.AsSlice()); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFADDR, alias); err != nil {
		return err
	}
	if err := alias.SetInet4Addr([]byte{255, 255, 255, 255}); err != nil {
		return err
	}
	return unix.IoctlIfreq(socket, unix.SIOCSIFNETMASK, alias)
}

// addAddress6 has the one interface of a new name space take an address: struct
// in6_ifreq of linux/ipv6.h.
func addAddress6(socket int, ip netip.Addr) error {
	request := struct {
		addr      [16]byte
		prefixLen uint32
		index     int32
	}{ip.As16(), 128, 1}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(socket), unix.SIOCSIFADDR, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return fmt.Errorf("address %s: %w", ip, errno)
	}
	return nil
}
