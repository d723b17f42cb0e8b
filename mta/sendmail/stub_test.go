package sendmail_test

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// guardStub stands for the guard: a milter that says yes, or refuses each recipient,
// and remembers what it was shown.
type guardStub struct {
	refuses bool
	says    atomic.Pointer[string] // to MAIL, in place of "go on"

	mu   sync.Mutex
	seen []string // "connect", "mail <a@b>", "rcpt <c@d>", "end"
}

// startGuardStub listens on a Unix socket until the test ends.
func startGuardStub(t *testing.T, path string, refuses bool) *guardStub {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	m := &guardStub{refuses: refuses}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go m.serve(c)
		}
	}()
	return m
}

func (m *guardStub) note(what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen = append(m.seen, what)
}

func (m *guardStub) saw(what string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.seen {
		if strings.HasPrefix(s, what) {
			return true
		}
	}
	return false
}

func (m *guardStub) serve(c net.Conn) {
	defer c.Close()
	for {
		var head [5]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[:4])-1)
		if _, err := io.ReadFull(c, body); err != nil {
			return
		}
		answer := "c"
		switch head[4] {
		case 'O':
			answer = "O" + string([]byte{0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0})
		case 'C':
			m.note("connect")
		case 'M':
			m.note("mail " + strings.TrimRight(string(body), "\x00"))
			if says := m.says.Load(); says != nil {
				answer = *says
			}
		case 'R':
			m.note("rcpt " + strings.TrimRight(string(body), "\x00"))
			if m.refuses {
				answer = "y550 5.7.1 AUTH first\x00"
			}
		case 'E':
			m.note("end")
		case 'A', 'D':
			continue
		case 'Q':
			return
		}
		frame := binary.BigEndian.AppendUint32(nil, uint32(len(answer)))
		if _, err := c.Write(append(frame, answer...)); err != nil {
			return
		}
	}
}
