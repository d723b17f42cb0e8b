package sieve

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A compiled script (.svbin) is a header, an index of blocks, and the blocks:
// 0 says of which script it is, 1 names its extensions, 2 is the program. It has
// the byte order of the machine that wrote it; this reads little endian. Known
// are the major versions 2 (Pigeonhole 0.5, Dovecot 2.3) and 3 (Dovecot 2.4).
const (
	binaryMagic      = 0xcafebabe
	binaryIndexEntry = 16
	binaryBlockHead  = 8
	maxBinaryBlocks  = 2000
	maxExtensions    = 240 // an extension's number is one octet
	blockExtensions  = 1
	blockMain        = 2
)

// IsBinary reports whether a file is a compiled script.
func IsBinary(data []byte) bool {
	return len(data) >= 4 && (binary.LittleEndian.Uint32(data) == binaryMagic || binary.BigEndian.Uint32(data) == binaryMagic)
}

var errCut = errors.New("it ends too early")

// compiled is a compiled script taken apart.
type compiled struct {
	blocks     [][]byte
	extensions []binaryExtension
	includes   []binaryInclude
}

type binaryExtension struct {
	name  string
	block int // of its own data; 0: none
}

// binaryInclude is one included script: its program is a block, too.
type binaryInclude struct {
	name   string
	global bool
	block  int // 0: it was not there
}

func readBinary(data []byte) (*compiled, error) {
	if len(data) < 20 || binary.LittleEndian.Uint32(data) != binaryMagic {
		return nil, errors.New("header is of another byte order or cut")
	}
	if major := binary.LittleEndian.Uint16(data[4:]); major != 2 && major != 3 {
		return nil, fmt.Errorf("its version %d is not known", major)
	}
	count, head := int(binary.LittleEndian.Uint32(data[8:])), int(binary.LittleEndian.Uint32(data[12:]))
	if count > maxBinaryBlocks || head < 16 || head > len(data) || head+count*binaryIndexEntry > len(data) {
		return nil, errCut
	}
	b := &compiled{blocks: make([][]byte, count)}
	for i := range count {
		entry := data[head+i*binaryIndexEntry:]
		size, offset := int64(binary.LittleEndian.Uint32(entry[4:])), int64(binary.LittleEndian.Uint32(entry[8:]))
		if offset+binaryBlockHead+size > int64(len(data)) {
			return nil, errCut
		}
		b.blocks[i] = data[offset+binaryBlockHead : offset+binaryBlockHead+size]
	}
	if count <= blockMain {
		return nil, errors.New("it has no program")
	}
	if err := b.readExtensions(); err != nil {
		return nil, fmt.Errorf("extensions: %w", err)
	}
	return b, b.readIncludes()
}

func (b *compiled) readExtensions() error {
	c := cursor{data: b.blocks[blockExtensions]}
	count := c.unsigned()
	if count > maxExtensions {
		return errCut
	}
	for range count {
		e := binaryExtension{name: c.text()}
		c.unsigned() // version
		e.block = c.unsigned()
		b.extensions = append(b.extensions, e)
	}
	return c.err
}

// readIncludes reads the block of the extension include.
func (b *compiled) readIncludes() error {
	for _, e := range b.extensions {
		if e.name != "include" || e.block <= 0 || e.block >= len(b.blocks) {
			continue
		}
		c := cursor{data: b.blocks[e.block]}
		count := c.unsigned()
		if count > maxIncludes {
			return errors.New("more includes than are followed")
		}
		for range count {
			inc := binaryInclude{block: c.unsigned()}
			inc.global = c.octet() == 1
			inc.name = c.text()
			c.octet()    // flags
			c.text()     // of its metadata: driver
			c.unsigned() // version
			c.text()     // location
			if inc.block >= len(b.blocks) {
				return errCut
			}
			b.includes = append(b.includes, inc)
		}
		return c.err
	}
	return nil
}

func (b *compiled) extension(i int) (string, bool) {
	if i < 0 || i >= len(b.extensions) {
		return "", false
	}
	return b.extensions[i].name, true
}

// cursor reads a block. After a fault it reads zeros; err says what it was.
type cursor struct {
	data []byte
	at   int
	err  error
}

func (c *cursor) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

func (c *cursor) octet() int {
	if c.err != nil || c.at >= len(c.data) {
		c.fail(errCut)
		return 0
	}
	c.at++
	return int(c.data[c.at-1])
}

// unsigned is a number of seven bits an octet, the highest first.
func (c *cursor) unsigned() int {
	n := uint64(0)
	for range 10 {
		o := c.octet()
		n = n<<7 | uint64(o&0x7f)
		if o&0x80 == 0 {
			break
		}
	}
	if n > 1<<31 {
		c.fail(errors.New("a number is too large"))
		return 0
	}
	return int(n)
}

// number is one that may be larger; its value is nobody's concern.
func (c *cursor) number() {
	for range 10 {
		if c.octet()&0x80 == 0 {
			return
		}
	}
	c.fail(errors.New("a number is too long"))
}

// offset is four octets, the highest first; what it is relative to is where it
// begins.
func (c *cursor) offset() int {
	if c.err != nil || c.at+4 > len(c.data) {
		c.fail(errCut)
		return 0
	}
	c.at += 4
	return int(binary.BigEndian.Uint32(c.data[c.at-4:]))
}

// text is a length, that many octets, and NUL.
func (c *cursor) text() string {
	n := c.unsigned()
	if c.err != nil || n >= len(c.data)-c.at || c.data[c.at+n] != 0 {
		c.fail(errCut)
		return ""
	}
	c.at += n + 1
	return string(c.data[c.at-n-1 : c.at-1])
}
