// Package dbfile reads the compiled forms of lookup tables, as postmap(1),
// postalias(1), makemap(8) and newaliases(1) write them, without their
// libraries: Berkeley DB hash and btree (.db), LMDB (.lmdb), CDB (.cdb). What the
// entries mean, and whether the text beside them says the same, is left to
// forward/tables.
//
// The trap: what lies in the file is not what the mail server finds. Pages that
// were freed still hold the entries that were deleted, so every format is
// walked from its root, as its library does, and never searched for strings;
// and a value ends at its first NUL, for Postfix copies it as a C string.
package dbfile

import (
	"errors"
	"fmt"
	"strings"
)

// Entry is one key and its value, without the NUL that Postfix adds. A key that
// was stored with values more than once is as many entries.
type Entry struct{ Key, Value string }

// ErrFormat says that a file is none of the formats that are known here.
var ErrFormat = errors.New("neither Berkeley DB hash or btree, nor LMDB, nor CDB")

// Bounds of what is read. A sound file stays far below them: they stop one that
// was made to have a page read over and over.
const (
	maxEntries = 20_000_000
	maxDepth   = 64 // of a tree; LMDB's own bound is 32, Berkeley DB's 255, and 4 are a lot
	maxSpread  = 4  // what is copied out of overflow pages, in sizes of the file
)

// Read lists a compiled table; the format is told by its content, and name is
// for errors only. The order is that of the file. Entries share one copy of data.
// A file that is damaged, cut, or of another format (ErrFormat) is an error,
// with the entries read so far. Safe for concurrent use.
func Read(name string, data []byte) ([]Entry, error) {
	var entries []Entry
	var err error
	switch text := string(data); {
	case isBerkeley(text):
		entries, err = readBerkeley(text)
	case isLMDB(text):
		entries, err = readLMDB(text)
	case isCDB(text):
		entries, err = readCDB(text)
	default:
		err = ErrFormat
	}
	if err != nil {
		return entries, fmt.Errorf("read compiled table %s: %w", name, err)
	}
	return entries, nil
}

// collector gathers entries and keeps the bounds.
type collector struct {
	entries []Entry
	budget  int // octets that may still be copied
}

func newCollector(data string) collector {
	const usual = 64 // octets of the file for each entry, about, where there are many
	return collector{entries: make([]Entry, 0, min(len(data)/usual, maxEntries)), budget: maxSpread * (len(data) + 1)}
}

func (c *collector) add(key, value string) error {
	if len(c.entries) >= maxEntries {
		return fmt.Errorf("more than %d entries", maxEntries)
	}
	key = strings.TrimSuffix(key, "\x00")
	if i := strings.IndexByte(value, 0); i >= 0 {
		value = value[:i]
	}
	c.entries = append(c.entries, Entry{key, value})
	return nil
}

// spend takes n octets from what may be copied.
func (c *collector) spend(n int) error {
	if c.budget -= n; c.budget < 0 {
		return errors.New("damaged: overflow pages are used more than once")
	}
	return nil
}
