package template

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// What is saved: the mark, a check of the key, records, a record of zeros, and
// CRC-32C of all before it. Numbers are little-endian.
const (
	fileMark   = "relayguard templates 1\n"
	recordSize = 8 + 4 + 4 + 2 + 1 + 1 + history + 4*8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Save writes on which days parts were sent, and to how many; not to whom, and
// not what was seen only. It takes 73 octets for each part. Others may use the
// memory meanwhile: what they change may be in it or not.
func (m *Memory) Save(w io.Writer) error {
	sum := crc32.New(castagnoli)
	out := bufio.NewWriter(io.MultiWriter(w, sum))
	out.WriteString(fileMark)
	out.Write(binary.LittleEndian.AppendUint64(nil, m.check()))
	var room []byte
	for i := range m.shards {
		for j, more := 0, true; more; j++ {
			room, more = m.shards[i].append(room[:0], j)
			out.Write(room)
		}
	}
	out.Write(make([]byte, recordSize))
	if err := out.Flush(); err != nil {
		return fmt.Errorf("save templates: %w", err)
	}
	if _, err := w.Write(binary.LittleEndian.AppendUint32(nil, sum.Sum32())); err != nil {
		return fmt.Errorf("save templates: %w", err)
	}
	return nil
}

// append appends the records of a set; more tells whether there is a next one.
func (sh *shard) append(to []byte, i int) (records []byte, more bool) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	more = i+1 < len(sh.sets)
	se := sh.sets[i]
	if se == nil {
		return to, more
	}
	for way, key := range se.keys {
		if p := &se.parts[way]; key != 0 && (p.sent != (recipients{}) || p.days > 0) {
			to = p.append(to, key)
		}
	}
	return to, more
}

// ErrKey says that templates were saved with another key.
var ErrKey = errors.New("saved with another key")

// Load takes what Save wrote instead of what is remembered. If that is not whole,
// it is an error, and the memory stays as it is. A smaller memory keeps what is
// worth most.
func (m *Memory) Load(r io.Reader) error {
	loaded, err := m.load(r)
	if err != nil {
		return fmt.Errorf("load templates: %w", err)
	}
	for i := range m.shards {
		m.shards[i].mu.Lock()
		m.shards[i].sets = loaded.shards[i].sets
		m.shards[i].mu.Unlock()
	}
	return nil
}

func (m *Memory) load(r io.Reader) (*Memory, error) {
	in := bufio.NewReader(r)
	sum := crc32.New(castagnoli)
	head := make([]byte, len(fileMark)+8)
	if _, err := io.ReadFull(in, head); err != nil {
		return nil, fmt.Errorf("its beginning: %w", err)
	}
	sum.Write(head)
	if string(head[:len(fileMark)]) != fileMark {
		return nil, fmt.Errorf("it begins with %.40q, want %q", head, fileMark)
	}
	if binary.LittleEndian.Uint64(head[len(fileMark):]) != m.check() {
		return nil, ErrKey
	}
	loaded := m.empty()
	var record, none [recordSize]byte
	for n := 1; ; n++ {
		if _, err := io.ReadFull(in, record[:]); err != nil {
			return nil, fmt.Errorf("record %d: %w", n, err)
		}
		sum.Write(record[:])
		if bytes.Equal(record[:], none[:]) {
			break
		}
		if err := loaded.take(record[:]); err != nil {
			return nil, fmt.Errorf("record %d: %w", n, err)
		}
	}
	var end [4]byte
	if _, err := io.ReadFull(in, end[:]); err != nil {
		return nil, fmt.Errorf("its checksum: %w", err)
	}
	if got := binary.LittleEndian.Uint32(end[:]); got != sum.Sum32() {
		return nil, fmt.Errorf("checksum %08x, want %08x: it is damaged", got, sum.Sum32())
	}
	return loaded, nil
}

// empty is a memory like m of nothing.
func (m *Memory) empty() *Memory {
	e := &Memory{keys: m.keys, days: m.days, shards: make([]shard, len(m.shards))}
	for i := range e.shards {
		m.shards[i].mu.Lock()
		n := len(m.shards[i].sets)
		m.shards[i].mu.Unlock()
		e.shards[i].sets = make([]*set, n)
	}
	return e
}

func (m *Memory) check() uint64 { return sip(m.keys.domain[domainCheck], []byte(fileMark)) }

func (p *part) append(to []byte, key uint64) []byte {
	to = binary.LittleEndian.AppendUint64(to, key)
	to = binary.LittleEndian.AppendUint32(to, p.sender)
	to = binary.LittleEndian.AppendUint32(to, p.last)
	to = binary.LittleEndian.AppendUint16(to, p.day)
	to = append(to, p.kind, p.wary)
	to = append(to, p.before[:]...)
	for _, w := range p.sent {
		to = binary.LittleEndian.AppendUint64(to, w)
	}
	return to
}

// take puts a record in a memory that is nobody else's yet.
func (m *Memory) take(b []byte) error {
	key := binary.LittleEndian.Uint64(b)
	read := part{
		sender: binary.LittleEndian.Uint32(b[8:]),
		last:   binary.LittleEndian.Uint32(b[12:]),
		day:    binary.LittleEndian.Uint16(b[16:]),
		kind:   b[18],
		wary:   min(b[19], maxDays),
		before: [history]uint8(b[20:]),
	}
	for i := range read.sent {
		read.sent[i] = binary.LittleEndian.Uint64(b[20+history+8*i:])
	}
	switch {
	case key == 0:
		return errors.New("a part without a key")
	case read.kind > aHost:
		return fmt.Errorf("a part of kind %d, want at most %d", read.kind, aHost)
	case read.last > maxHour:
		return fmt.Errorf("a part that was seen in hour %d, want at most %d", read.last, maxHour)
	}
	read.sum(m.days)
	*m.shard(key).set(key).get(moment{read.last, read.day}, key, read.sender, read.kind) = read
	return nil
}
