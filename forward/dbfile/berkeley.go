package dbfile

import (
	"errors"
	"fmt"
)

// Berkeley DB 4.2 to 5.3 and 6 (Debian's Postfix: 5.3), after its dbinc/db_page.h:
// a meta page, then pages of one size; all numbers in the byte order of the
// machine that made it.
const (
	magicHash  = 0x061561
	magicBtree = 0x053162

	berkeleyHeader = 26 // octets before the index of a page

	pageInvalid      = 0
	pageHashUnsorted = 2
	pageInternal     = 3 // of a btree
	pageNumbered     = 4 // of a tree of one key's values, in the order of their coming
	pageLeaf         = 5
	pageNumberedLeaf = 6
	pageOverflow     = 7
	pageHashMeta     = 8
	pageBtreeMeta    = 9
	pageDupLeaf      = 12
	pageHash         = 13
)

// berkeley is a file of it.
type berkeley struct {
	data  string
	order order
	size  int // of a page
	pages uint32
	seen  []bool // pages visited: each belongs to one place
	out   collector
}

func isBerkeley(data string) bool {
	_, _, ok := berkeleyMagic(data)
	return ok
}

func berkeleyMagic(data string) (order, uint32, bool) {
	if len(data) < 512 {
		return little, 0, false
	}
	for _, order := range []order{little, big} {
		if magic := order.u32(data, 12); magic == magicHash || magic == magicBtree {
			return order, magic, true
		}
	}
	return little, 0, false
}

func readBerkeley(data string) ([]Entry, error) {
	order, magic, _ := berkeleyMagic(data)
	b := &berkeley{data: data, order: order, out: newCollector(data)}
	version, size := b.order.u32(b.data, 16), b.order.u32(b.data, 20)
	switch {
	case size < 512 || size > 64<<10 || size&(size-1) != 0:
		return nil, fmt.Errorf("damaged: pages of %d octets", size)
	case data[24] != 0:
		return nil, errors.New("encrypted Berkeley DB")
	case data[26]&1 != 0:
		return nil, errors.New("Berkeley DB with checksums on its pages, which Postfix never makes")
	case b.order.u32(b.data, 36) != 0:
		return nil, errors.New("Berkeley DB in several partitions")
	}
	b.size, b.pages = int(size), uint32(len(data)/int(size))
	b.seen = make([]bool, b.pages)
	var err error
	switch {
	case magic == magicHash && version >= 7 && version <= 10 && data[25] == pageHashMeta:
		err = b.readHash()
	case magic == magicBtree && version >= 8 && version <= 10 && data[25] == pageBtreeMeta:
		err = b.readBtree()
	default:
		err = fmt.Errorf("Berkeley DB version %d, page type %d is not known", version, data[25])
	}
	return b.out.entries, err
}

// page is one page of the file.
type page struct {
	b       *berkeley
	number  uint32
	start   int // its offset in the file
	kind    byte
	entries int
	next    uint32
}

// open returns a page that was not used yet.
func (b *berkeley) open(number uint32) (page, error) {
	if number >= b.pages {
		return page{}, fmt.Errorf("damaged or cut: page %d of %d", number, b.pages)
	}
	if b.seen[number] {
		return page{}, fmt.Errorf("damaged: page %d is used twice", number)
	}
	b.seen[number] = true
	start := int(number) * b.size
	p := page{
		b: b, number: number, start: start,
		kind: b.data[start+25], entries: b.order.u16(b.data, start+20), next: b.order.u32(b.data, start+16),
	}
	if p.kind != pageOverflow && p.kind != pageInvalid && berkeleyHeader+2*p.entries > b.size {
		return page{}, fmt.Errorf("damaged: page %d has %d entries", number, p.entries)
	}
	return p, nil
}

// offset of an item within its page.
func (p page) offset(i int) int { return p.b.order.u16(p.b.data, p.start+berkeleyHeader+2*i) }

// bytes returns part of a page.
func (p page) bytes(from, length int) (string, error) {
	if from < berkeleyHeader+2*p.entries || length < 0 || from+length > p.b.size {
		return "", fmt.Errorf("damaged: page %d, %d octets at %d", p.number, length, from)
	}
	return p.b.data[p.start+from : p.start+from+length], nil
}

// overflow reads what did not fit on its page.
func (b *berkeley) overflow(number, length uint32) (string, error) {
	if int64(length) > int64(len(b.data)) {
		return "", fmt.Errorf("damaged: an item of %d octets in a file of %d", length, len(b.data))
	}
	if err := b.out.spend(int(length)); err != nil {
		return "", err
	}
	item := make([]byte, 0, length)
	for number != 0 && len(item) < int(length) {
		if number >= b.pages {
			return "", fmt.Errorf("damaged or cut: overflow page %d of %d", number, b.pages)
		}
		start := int(number) * b.size
		if b.data[start+25] != pageOverflow {
			return "", fmt.Errorf("damaged: page %d is no overflow page", number)
		}
		// Its share of the item stands where others have the offset of free
		// space. Pages may be shared: the budget bounds a circle.
		n := b.order.u16(b.data, start+22)
		if n == 0 || berkeleyHeader+n > b.size {
			return "", fmt.Errorf("damaged: overflow page %d holds %d octets", number, n)
		}
		item = append(item, b.data[start+berkeleyHeader:start+berkeleyHeader+n]...)
		number = b.order.u32(b.data, start+16)
	}
	if len(item) != int(length) {
		return "", fmt.Errorf("damaged: an overflow item has %d octets of %d", len(item), length)
	}
	return string(item), nil
}
