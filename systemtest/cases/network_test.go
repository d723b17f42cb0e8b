package cases

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// The tests run in a network name space of their own, whose routes keep further
// addresses in it: clients come from there for real, beside a mail server without
// XCLIENT, too. They are no interface's, so that they are other machines for whoever
// asks; the machine has one address of its own besides. Nothing in it reaches any
// other machine.

const insideVar = "RELAYGUARD_CASES_INSIDE"

// clientAddresses are those that clients may come from.
var clientAddresses = []netip.Addr{
	netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("198.51.100.8"), // trusted, where a case says so
	netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("203.0.113.8"), // strangers
	netip.MustParseAddr("2001:db8:77::7"), netip.MustParseAddr("2001:db8::7"),
}

// ownAddress is the machine's own, beside loopback.
const ownAddress = "203.0.113.9"

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

// openNetwork brings the loopback interface up and has clients' addresses lead there.
func openNetwork() error {
	err := errors.Join(loopbackUp(), os.WriteFile("/proc/sys/net/ipv6/ip_nonlocal_bind", []byte("1"), 0))
	for _, ip := range clientAddresses {
		err = errors.Join(err, keepHere(ip))
	}
	if err != nil {
		return fmt.Errorf("open a network name space: %w", err)
	}
	return nil
}

// loopbackUp gives the loopback interface the machine's own address, too.
func loopbackUp() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, lo); err != nil {
		return err
	}
	alias, err := unix.NewIfreq("lo:0")
	if err != nil {
		return err
	}
	if err := alias.SetInet4Addr(netip.MustParseAddr(ownAddress).AsSlice()); err != nil {
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

// keepHere is "ip route add local IP dev lo": rtnetlink(7).
func keepHere(ip netip.Addr) error {
	const loopback = 1 // the one interface of a new name space
	family, order := byte(unix.AF_INET6), binary.NativeEndian
	if ip.Is4() {
		family = unix.AF_INET
	}
	dst := ip.AsSlice()
	var b []byte
	b = order.AppendUint32(b, 0) // length: below
	b = order.AppendUint16(b, unix.RTM_NEWROUTE)
	b = order.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE)
	b = append(b, make([]byte, 8)...) // number, sender
	b = append(b, family, byte(ip.BitLen()), 0, 0, unix.RT_TABLE_LOCAL, unix.RTPROT_BOOT, unix.RT_SCOPE_HOST, unix.RTN_LOCAL, 0, 0, 0, 0)
	b = order.AppendUint16(b, uint16(unix.SizeofRtAttr+len(dst)))
	b = append(order.AppendUint16(b, unix.RTA_DST), dst...)
	b = order.AppendUint16(b, unix.SizeofRtAttr+4)
	b = order.AppendUint32(order.AppendUint16(b, unix.RTA_OIF), loopback)
	order.PutUint32(b, uint32(len(b)))

	socket, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	if err := unix.Sendto(socket, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("route of %s: %w", ip, err)
	}
	answer := make([]byte, unix.Getpagesize())
	n, _, err := unix.Recvfrom(socket, answer, 0)
	if err == nil && n < unix.NLMSG_HDRLEN+4 {
		err = errors.New("short answer")
	}
	if err == nil {
		if code := int32(order.Uint32(answer[unix.NLMSG_HDRLEN:])); code != 0 {
			err = unix.Errno(-code)
		}
	}
	if err != nil {
		return fmt.Errorf("route of %s: %w", ip, err)
	}
	return nil
}
