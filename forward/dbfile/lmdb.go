package dbfile

import (
	"errors"
	"fmt"
)

// LMDB 0.9 as 64-bit little-endian machines write it, after its mdb.c: two meta
// pages, of which the one with the later transaction counts, then a copy-on-write
// B+ tree. What a transaction dropped is on pages that the root does not reach.
const (
	lmdbMagic  = 0xBEEFC0DE
	lmdbHeader = 16 // octets before the index of a page

	lmdbBranch   = 0x01
	lmdbLeaf     = 0x02
	lmdbOverflow = 0x04
	lmdbMeta     = 0x08
	lmdbKinds    = 0x2f // and LEAF2, which tables of this sort have none of

	lmdbBig     = 0x01 // the value is on overflow pages
	lmdbSub     = 0x02 // the value is a database of its own
	lmdbDup     = 0x04 // the value is several
	lmdbNoPage  = ^uint64(0)
	lmdbMetaLen = 16 + 24 + 2*48 + 16
)

type lmdb struct {
	data  string
	size  int
	pages uint64
	seen  []bool
	out   collector
}

func isLMDB(data string) bool {
	return len(data) >= lmdbMetaLen && little.u32(data, 16) == lmdbMagic
}

func (l *lmdb) u16(at int) int    { return little.u16(l.data, at) }
func (l *lmdb) u32(at int) uint32 { return little.u32(l.data, at) }
func (l *lmdb) u64(at int) uint64 { return uint64(l.u32(at)) | uint64(l.u32(at+4))<<32 }

func readLMDB(data string) ([]Entry, error) {
	l := &lmdb{data: data, out: newCollector(data)}
	size := l.u32(40) // md_pad of the free list holds it
	if size < 256 || size > 64<<10 || size&(size-1) != 0 {
		return nil, fmt.Errorf("damaged, or from a 32-bit machine: pages of %d octets", size)
	}
	l.size, l.pages = int(size), uint64(len(data))/uint64(size)
	l.seen = make([]bool, l.pages)
	meta, newest := -1, uint64(0)
	if l.pages < 2 {
		return nil, errors.New("cut: one page only")
	}
	for i := range 2 {
		at := i * l.size
		if l.u32(at+16) != lmdbMagic || l.u16(at+10)&lmdbMeta == 0 {
			continue
		}
		if version := l.u32(at + 20); version != 1 {
			return nil, fmt.Errorf("data of LMDB version %d is not known", version)
		}
		if txn := l.u64(at + 144); meta < 0 || txn > newest {
			meta, newest = at, txn
		}
	}
	if meta < 0 {
		return nil, errors.New("damaged: no meta page")
	}
	main := meta + 40 + 48 // the free list, then the main database
	if flags := l.u16(main + 4); flags != 0 {
		return nil, fmt.Errorf("an LMDB database with flags %#x, which Postfix never makes", flags)
	}
	root := l.u64(main + 40)
	if root == lmdbNoPage {
		return nil, nil
	}
	err := l.walk(root, 0)
	return l.out.entries, err
}

func (l *lmdb) walk(number uint64, depth int) error {
	switch {
	case depth > maxDepth:
		return fmt.Errorf("damaged: a tree more than %d pages deep", maxDepth)
	case number >= l.pages:
		return fmt.Errorf("damaged or cut: page %d of %d", number, l.pages)
	case l.seen[number]:
		return fmt.Errorf("damaged: page %d is used twice", number)
	}
	l.seen[number] = true
	start := int(number) * l.size // below the file's size
	lower := l.u16(start + 12)
	kind := l.u16(start+10) & lmdbKinds
	if lower < lmdbHeader || lower > l.size || kind != lmdbBranch && kind != lmdbLeaf {
		return fmt.Errorf("damaged: page %d of type %#x", number, kind)
	}
	for at := start + lmdbHeader; at+2 <= start+lower; at += 2 {
		node := l.u16(at)
		if node < lower || node+8 > l.size {
			return fmt.Errorf("damaged: page %d, a node at %d", number, node)
		}
		var err error
		if kind == lmdbLeaf {
			err = l.leaf(start, node)
		} else { // 48 bits of page number
			err = l.walk(uint64(l.u32(start+node))|uint64(l.u16(start+node+4))<<32, depth+1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// leaf adds the entry of a node: length, flags, length of the key, key, value.
func (l *lmdb) leaf(start, node int) error {
	length, flags, keyLen := int(l.u32(start+node)), l.u16(start+node+4), l.u16(start+node+6)
	from, end := start+node+8, start+l.size
	if flags&(lmdbSub|lmdbDup) != 0 {
		return errors.New("an LMDB database within the database, which Postfix never makes")
	}
	if from+keyLen > end {
		return fmt.Errorf("damaged: a key of %d octets at %d", keyLen, from)
	}
	key := l.data[from : from+keyLen]
	from += keyLen
	if flags&lmdbBig == 0 {
		if length < 0 || length > end-from {
			return fmt.Errorf("damaged: a value of %d octets at %d", length, from)
		}
		return l.out.add(key, l.data[from:from+length])
	}
	if from+8 > end {
		return fmt.Errorf("damaged: a value on another page at %d", from)
	}
	number := l.u64(from)
	if number >= l.pages {
		return fmt.Errorf("damaged or cut: overflow page %d of %d", number, l.pages)
	}
	from = int(number)*l.size + lmdbHeader // below the file's size
	if l.u16(from-6)&lmdbOverflow == 0 || length < 0 || length > len(l.data)-from {
		return fmt.Errorf("damaged: overflow page %d for %d octets", number, length)
	}
	return l.out.add(key, l.data[from:from+length])
}
