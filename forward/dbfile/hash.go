package dbfile

import (
	"fmt"
	"math/bits"
)

// Items of a hash page.
const (
	hashKeyData   = 1
	hashDuplicate = 2 // several values on the page
	hashOffPage   = 3
	hashOffDup    = 4 // several values in a tree of their own

	hashSub = 0x02 // a flag of the meta page: databases within
)

// readHash walks all buckets and their chains: whatever a lookup can find.
func (b *berkeley) readHash() error {
	if flags := b.order.u32(b.data, 48); flags&hashSub != 0 {
		return fmt.Errorf("a Berkeley DB hash with flags %#x, which Postfix never makes", flags)
	}
	maxBucket := b.order.u32(b.data, 72)
	if maxBucket >= b.pages {
		return fmt.Errorf("damaged or cut: %d buckets on %d pages", uint64(maxBucket)+1, b.pages)
	}
	for bucket := uint32(0); bucket <= maxBucket; bucket++ {
		// BUCKET_TO_PAGE: buckets are added in groups that double in size.
		number := bucket + b.order.u32(b.data, 96+4*bits.Len32(bucket))
		for first := true; first || number != 0; first = false {
			p, err := b.open(number)
			if err != nil {
				return err
			}
			if p.kind == pageInvalid && first {
				break // a bucket that never had anything
			}
			if err := p.hashEntries(); err != nil {
				return err
			}
			number = p.next
		}
	}
	return nil
}

func (p page) hashEntries() error {
	if p.kind != pageHash && p.kind != pageHashUnsorted {
		return fmt.Errorf("damaged: page %d of type %d in a bucket", p.number, p.kind)
	}
	if p.entries%2 != 0 {
		return fmt.Errorf("damaged: page %d has a key without a value", p.number)
	}
	for i := 0; i < p.entries; i += 2 {
		key, err := p.hashItem(i)
		if err != nil {
			return err
		}
		if err := p.hashValues(key, i+1); err != nil {
			return err
		}
	}
	return nil
}

// rawHashItem returns an item with its type. Items grow down from the page's
// end, so each ends where the one before it begins.
func (p page) rawHashItem(i int) (byte, string, error) {
	end := p.b.size
	if i > 0 {
		end = p.offset(i - 1)
	}
	at := p.offset(i)
	item, err := p.bytes(at, end-at)
	if err != nil || item == "" {
		return 0, "", fmt.Errorf("damaged: page %d, item %d", p.number, i)
	}
	return item[0], item[1:], nil
}

// hashItem returns a key or a single value.
func (p page) hashItem(i int) (string, error) {
	kind, item, err := p.rawHashItem(i)
	switch {
	case err != nil:
		return "", err
	case kind == hashKeyData:
		return item, nil
	case kind == hashOffPage && len(item) == 11:
		return p.b.overflow(p.number32(item[3:]), p.number32(item[7:]))
	}
	return "", fmt.Errorf("damaged: page %d, item %d of type %d", p.number, i, kind)
}

func (p page) number32(s string) uint32 { return p.b.order.u32(s, 0) }
func (p page) number16(s string) int    { return p.b.order.u16(s, 0) }

// hashValues adds the value of a key, or its values.
func (p page) hashValues(key string, i int) error {
	kind, item, err := p.rawHashItem(i)
	if err != nil {
		return err
	}
	switch {
	case kind == hashOffDup && len(item) == 7:
		return p.b.walk(p.number32(item[3:]), 0, key, true)
	case kind != hashDuplicate:
		value, err := p.hashItem(i)
		if err != nil {
			return err
		}
		return p.b.out.add(key, value)
	}
	for len(item) > 0 { // length, value, length again
		if len(item) < 4 || len(item) < 4+p.number16(item) {
			return fmt.Errorf("damaged: page %d, item %d of several values", p.number, i)
		}
		n := p.number16(item)
		if err := p.b.out.add(key, item[2:2+n]); err != nil {
			return err
		}
		item = item[4+n:]
	}
	return nil
}
