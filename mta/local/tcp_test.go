package local

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func connect(t *testing.T, listen, dial string) (local, remote netip.AddrPort, client, server net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		t.Skipf("listen on %s: %v", listen, err)
	}
	t.Cleanup(func() { ln.Close() })
	port := ln.Addr().(*net.TCPAddr).Port
	client, err = net.Dial("tcp", net.JoinHostPort(dial, strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	server, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return server.LocalAddr().(*net.TCPAddr).AddrPort(), server.RemoteAddr().(*net.TCPAddr).AddrPort(), client, server
}

// awaitEnd returns when the other side's end of the stream has arrived.
func awaitEnd(t *testing.T, server net.Conn) {
	t.Helper()
	server.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := server.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("got %d octets, %v, want the end of the stream", n, err)
	}
}

func TestTCPOwnerIsTheOtherEnd(t *testing.T) {
	for name, c := range map[string]struct{ listen, dial string }{
		"IPv4":                   {"127.0.0.1:0", "127.0.0.1"},
		"IPv4 to an IPv6 socket": {"[::]:0", "127.0.0.1"},
		"IPv6":                   {"[::1]:0", "::1"},
	} {
		t.Run(name, func(t *testing.T) {
			local, remote, _, _ := connect(t, c.listen, c.dial)
			uid, ok, err := TCPOwner(local, remote)
			if err != nil || !ok || uid != os.Getuid() {
				t.Fatalf("got %d, %v, %v, want our uid %d", uid, ok, err, os.Getuid())
			}
			mapped := netip.AddrPortFrom(netip.AddrFrom16(remote.Addr().As16()), remote.Port())
			if uid, ok, err = TCPOwner(local, mapped); err != nil || !ok || uid != os.Getuid() {
				t.Fatalf("mapped: got %d, %v, %v", uid, ok, err)
			}
		})
	}
}

// A daemon that listens everywhere may not know which of the machine's addresses a
// client came in by.
func TestTCPOwnerOfAnyAddress(t *testing.T) {
	for name, c := range map[string]struct{ listen, dial, any string }{
		"IPv4":                   {"0.0.0.0:0", "127.0.0.5", "0.0.0.0"},
		"IPv4 to an IPv6 socket": {"[::]:0", "127.0.0.1", "::"},
		"IPv6":                   {"[::]:0", "::1", "::"},
	} {
		local, remote, _, _ := connect(t, c.listen, c.dial)
		everywhere := netip.AddrPortFrom(netip.MustParseAddr(c.any), local.Port())
		if uid, ok, err := TCPOwner(everywhere, remote); err != nil || !ok || uid != os.Getuid() {
			t.Errorf("%s: got %d, %v, %v, want our uid %d", name, uid, ok, err, os.Getuid())
		}
		another := netip.AddrPortFrom(everywhere.Addr(), local.Port()^1)
		if uid, ok, err := TCPOwner(another, remote); ok || err != nil {
			t.Errorf("%s, another port: got %d, %v, %v", name, uid, ok, err)
		}
	}
}

// Two processes may have the same port at two addresses of the daemon's: then it is
// not known whose a connection is.
func TestTCPOwnerOfAnyAddressMustBeOne(t *testing.T) {
	line := func(daemon string, uid int) string {
		return "  1: 0100007F:1000 " + daemon + " 01 00000000:00000000 00:00000000 00000000  " + strconv.Itoa(uid) + "        0 77 1 0000000000000000 20 4 0 10 -1\n"
	}
	for _, c := range []struct {
		table string
		want  owner
	}{
		{line("0100007F:0019", 33) + line("0100007F:001A", 34), owner{uid: 33, known: true}},
		{line("0100007F:0019", 33) + line("0500007F:0019", 33), owner{uid: 33, known: true}},
		{line("0100007F:0019", 33) + line("0500007F:0019", 34), owner{uid: 34, known: true, several: true}},
	} {
		var found owner
		wanted := row{client: []byte("0100007F:1000"), daemon: []byte("00000000:0019"), anywhere: true}
		if err := found.read(strings.NewReader(c.table), wanted); err != nil || found != c.want {
			t.Errorf("%s: %+v, %v, want %+v", c.table, found, err, c.want)
		}
	}
}

func TestTCPOwnerOfAnotherAccount(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to become another account")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).Port
	cmd := exec.Command("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/"+strconv.Itoa(port)+"; read -u 3 x")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65533, Gid: 65533}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	uid, ok, err := TCPOwner(server.LocalAddr().(*net.TCPAddr).AddrPort(), server.RemoteAddr().(*net.TCPAddr).AddrPort())
	if err != nil || !ok || uid != 65533 {
		t.Fatalf("got %d, %v, %v, want 65533", uid, ok, err)
	}
}

// Linux lists a socket that its process closed with uid 0: it must not pass
// for root's.
func TestTCPOwnerOfClosedSocketIsNobody(t *testing.T) {
	local, remote, client, server := connect(t, "127.0.0.1:0", "127.0.0.1")
	client.Close()
	awaitEnd(t, server)
	if uid, ok, err := TCPOwner(local, remote); ok || err != nil {
		t.Fatalf("got %d, %v, %v, want no owner", uid, ok, err)
	}
}

func TestTCPOwnerAfterShutdown(t *testing.T) {
	local, remote, client, server := connect(t, "127.0.0.1:0", "127.0.0.1")
	client.(*net.TCPConn).CloseWrite()
	awaitEnd(t, server)
	if uid, ok, err := TCPOwner(local, remote); !ok || err != nil || uid != os.Getuid() {
		t.Fatalf("got %d, %v, %v, want our uid", uid, ok, err)
	}
}

func TestTCPOwnerElsewhere(t *testing.T) {
	uid, ok, err := TCPOwner(netip.MustParseAddrPort("192.0.2.1:25"), netip.MustParseAddrPort("198.51.100.7:4711"))
	if ok || err != nil {
		t.Fatalf("got %d, %v, %v", uid, ok, err)
	}
	if _, _, err := TCPOwner(netip.MustParseAddrPort("192.0.2.1:25"), netip.MustParseAddrPort("[2001:db8::1]:4711")); err == nil {
		t.Fatal("two families passed for one connection")
	}
}

func TestFindRowAcrossReads(t *testing.T) {
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	var table strings.Builder
	table.WriteString(head)
	for i := range 5000 {
		table.WriteString("   0: 0100007F:" + strings.ToUpper(strconv.FormatInt(0x1000+int64(i), 16)) + " 0100007F:0019 01 00000000:00000000 00:00000000 00000000  " + strconv.Itoa(i) + "        0 " + strconv.Itoa(i+9) + " 1 0000000000000000 20 4 0 10 -1\n")
	}
	for _, port := range []int{0, 1, 777, 4999} {
		var found owner
		wanted := row{client: []byte("0100007F:" + strings.ToUpper(strconv.FormatInt(0x1000+int64(port), 16))), daemon: []byte("0100007F:0019")}
		if err := found.read(strings.NewReader(table.String()), wanted); err != nil || found != (owner{uid: port, known: true}) {
			t.Errorf("row %d: got %+v, %v", port, found, err)
		}
	}
	if allocs := testing.AllocsPerRun(20, func() {
		new(owner).read(strings.NewReader(table.String()), row{client: []byte("0100007F:FFFF"), daemon: []byte("0100007F:0019")})
	}); allocs > 4 {
		t.Errorf("%v allocations to read 5000 rows", allocs)
	}
}

func FuzzFindRow(f *testing.F) {
	f.Add([]byte("  1: 0100007F:1000 0100007F:0019 01 0:0 0:0 0  77 0 99 1\n"))
	f.Add([]byte("  1: 0100007F:1000 0100007F:0019\n"))
	f.Add([]byte("  1: 0100007F:1000 0100007F:0019 06 0:0 0:0 0 0 0 0 3\n"))
	f.Add([]byte("\n\n: \n"))
	f.Fuzz(func(t *testing.T, table []byte) {
		for _, anywhere := range []bool{false, true} {
			var found owner
			found.read(bytes.NewReader(table), row{client: []byte("0100007F:1000"), daemon: []byte("0100007F:0019"), anywhere: anywhere})
			if found.known && (found.uid < 0 || !bytes.Contains(table, []byte(": 0100007F:1000 ")) || !bytes.Contains(table, []byte(":0019"))) {
				t.Fatalf("%+v from %q", found, table)
			}
		}
	})
}
