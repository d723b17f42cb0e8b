package database

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"relayguard/forward"
)

// https://www.sqlite.org/fileformat2.html, sections 1.3, 3 and 4.
const (
	sqliteHeader  = 100
	walHeader     = 32
	walFrame      = 24
	walMagic      = 0x377f0682
	journalMagic  = "\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
	sqliteMagic   = "SQLite format 3\x00"
	imageAttempts = 5
)

// sqliteImage reads a database file with its write-ahead log as they were at one
// moment: what changed meanwhile is read again.
func (d *Databases) sqliteImage(ctx context.Context, file string) ([]byte, error) {
	for range imageAttempts {
		before, err := d.host.Files.LstatAll(ctx, []string{file, file + "-wal"})
		if err != nil {
			return nil, err
		}
		image, _, err := d.host.Files.Read(ctx, file, forward.ReadOptions{})
		if err != nil {
			return nil, err
		}
		wal, _, err := d.host.Files.Read(ctx, file+"-wal", forward.ReadOptions{})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		journal, _, err := d.host.Files.Read(ctx, file+"-journal", forward.ReadOptions{})
		if err == nil && bytes.HasPrefix(journal, []byte(journalMagic)) {
			if !d.host.Live() {
				return nil, errors.New("a transaction was not finished (-journal); let SQLite roll it back on a copy")
			}
			continue
		}
		after, err := d.host.Files.LstatAll(ctx, []string{file, file + "-wal"})
		if err != nil {
			return nil, err
		}
		if before[0] != after[0] || len(before) > 1 && before[1] != after[1] {
			continue
		}
		return applyWAL(image, wal)
	}
	return nil, errors.New("it changed at each attempt to read it")
}

// applyWAL puts the committed pages of a write-ahead log into a database image.
func applyWAL(image, wal []byte) ([]byte, error) {
	if len(image) == 0 {
		return nil, errors.New("the file is empty")
	}
	if len(image) < sqliteHeader || string(image[:16]) != sqliteMagic {
		return nil, errors.New("it is no SQLite database")
	}
	if image[18] != 2 && image[19] != 2 {
		return image, nil
	}
	image = bytes.Clone(image)
	frames, size, err := committed(image, wal)
	if err != nil {
		return nil, err
	}
	for page, at := range frames {
		if page > size {
			continue
		}
		from := (page - 1) * pageSize(image)
		if need := from + pageSize(image); need > len(image) {
			image = append(image, make([]byte, need-len(image))...)
		}
		copy(image[from:], wal[at:at+pageSize(image)])
	}
	if size > 0 {
		image = image[:min(len(image), size*pageSize(image))]
	}
	image[18], image[19] = 1, 1 // in memory there is no log
	return image, nil
}

func pageSize(image []byte) int {
	n := int(binary.BigEndian.Uint16(image[16:]))
	if n == 1 {
		return 1 << 16
	}
	return n
}

// committed finds where in the log the last committed form of each page is, and
// how many pages the database then has; 0: nothing is in the log.
func committed(image, wal []byte) (frames map[int]int, pages int, err error) {
	frames = map[int]int{}
	if len(wal) < walHeader {
		return frames, 0, nil
	}
	magic, size := binary.BigEndian.Uint32(wal), int(binary.BigEndian.Uint32(wal[8:]))
	if magic&^1 != walMagic || size != pageSize(image) {
		return nil, 0, fmt.Errorf("its -wal is not of this database")
	}
	var order binary.ByteOrder = binary.LittleEndian
	if magic&1 == 1 {
		order = binary.BigEndian
	}
	s0, s1 := walSum(order, wal[:24], 0, 0)
	if s0 != binary.BigEndian.Uint32(wal[24:]) || s1 != binary.BigEndian.Uint32(wal[28:]) {
		return frames, 0, nil // SQLite takes such a log for empty
	}
	pending := map[int]int{}
	for at := walHeader; at+walFrame+size <= len(wal); at += walFrame + size {
		head := wal[at : at+walFrame]
		if !bytes.Equal(head[8:16], wal[16:24]) {
			break // salts: of an older round
		}
		s0, s1 = walSum(order, head[:8], s0, s1)
		s0, s1 = walSum(order, wal[at+walFrame:at+walFrame+size], s0, s1)
		if s0 != binary.BigEndian.Uint32(head[16:]) || s1 != binary.BigEndian.Uint32(head[20:]) {
			break
		}
		page, commit := int(binary.BigEndian.Uint32(head)), int(binary.BigEndian.Uint32(head[4:]))
		if page == 0 || page > forward.MaxFile/size+len(wal)/size {
			break // more than both files could hold
		}
		pending[page] = at + walFrame
		if commit == 0 {
			continue
		}
		for p, where := range pending {
			frames[p] = where
		}
		clear(pending)
		pages = commit
	}
	return frames, pages, nil
}

func walSum(order binary.ByteOrder, b []byte, s0, s1 uint32) (uint32, uint32) {
	for ; len(b) >= 8; b = b[8:] {
		s0 += order.Uint32(b) + s1
		s1 += order.Uint32(b[4:]) + s0
	}
	return s0, s1
}
