package wire

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"time"

	"relayguard/forward"
)

// parser takes a frame apart. After the first fault everything is zero.
type parser struct {
	b   []byte
	err error
}

func (p *parser) fail(why string) {
	if p.err == nil {
		p.err = fmt.Errorf("%w: %s", ErrForm, why)
	}
	p.b = nil
}

// end is the fault, or that something is left over.
func (p *parser) end() error {
	if p.err == nil && len(p.b) > 0 {
		p.fail("more than is known")
	}
	return p.err
}

func (p *parser) octet(most byte) byte {
	if len(p.b) == 0 {
		p.fail("cut short")
		return 0
	}
	c := p.b[0]
	p.b = p.b[1:]
	if c > most {
		p.fail("an unknown value")
		return 0
	}
	return c
}

func (p *parser) uint(most uint64) uint64 {
	n, size := binary.Uvarint(p.b)
	if size <= 0 || n > most {
		p.fail("a number")
		return 0
	}
	p.b = p.b[size:]
	return n
}

func (p *parser) int() int64 {
	n, size := binary.Varint(p.b)
	if size <= 0 {
		p.fail("a number")
		return 0
	}
	p.b = p.b[size:]
	return n
}

// count is how many things follow: at most so many, and each takes an octet at
// least.
func (p *parser) count(most int) int { return int(p.uint(uint64(min(most, len(p.b))))) }

func (p *parser) text() string {
	size := p.count(MaxFrame)
	s := string(p.b[:min(size, len(p.b))])
	if len(s) < size {
		p.fail("a text that is cut short")
		return ""
	}
	p.b = p.b[size:]
	return s
}

func (p *parser) texts() []string { return several(p, MaxPaths, p.text) }

// several reads a count and so many things.
func several[T any](p *parser, most int, one func() T) []T {
	var all []T
	for range p.count(most) {
		if p.err != nil {
			return nil
		}
		all = append(all, one())
	}
	return all
}

func (p *parser) time() time.Time {
	sec, nsec := p.int(), p.uint(1<<32-1)
	if nsec == 1<<32-1 {
		return time.Time{}
	}
	return time.Unix(sec, int64(nsec))
}

func (p *parser) info() forward.Info {
	i := forward.Info{Name: p.text()}
	if i.Name == "" {
		return i
	}
	i.Size = p.int()
	i.Mode = fs.FileMode(p.uint(1<<32 - 1))
	i.UID, i.GID = int(p.uint(1<<32-1)), int(p.uint(1<<32-1))
	i.Inode, i.Dev, i.Links = p.uint(1<<64-1), p.uint(1<<64-1), p.uint(1<<64-1)
	i.MTime, i.CTime = p.time(), p.time()
	return i
}

func (p *parser) change() forward.Change {
	c := forward.Change{Path: p.text(), Lost: p.octet(1) == 1}
	c.Writer.UID, c.Writer.LoginUID, c.Writer.PID = int(p.int()), int(p.int()), int(p.int())
	c.Writer.Process = p.text()
	c.Time = p.time()
	return c
}
