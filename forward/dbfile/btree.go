package dbfile

import "fmt"

// Items of a btree page; deleted is set on one that waits for its cursor.
const (
	treeKeyData   = 1
	treeDuplicate = 2 // several values in a tree of their own
	treeOverflow  = 3
	treeDeleted   = 0x80
)

// Flags of a btree's meta page whose content reads otherwise.
const (
	btreeRecno      = 0x02 // no keys
	btreeSub        = 0x20 // databases within
	btreeCompressed = 0x80
)

func (b *berkeley) readBtree() error {
	if flags := b.order.u32(b.data, 48); flags&(btreeRecno|btreeSub|btreeCompressed) != 0 {
		return fmt.Errorf("a Berkeley DB btree with flags %#x, which Postfix never makes", flags)
	}
	return b.walk(b.order.u32(b.data, 88), 0, "", false)
}

// walk visits a tree from one of its pages downwards. With duplicates, it is
// the tree of one key's values.
func (b *berkeley) walk(number uint32, depth int, key string, duplicates bool) error {
	if depth > maxDepth {
		return fmt.Errorf("damaged: a tree more than %d pages deep", maxDepth)
	}
	p, err := b.open(number)
	if err != nil {
		return err
	}
	switch {
	case p.kind == pageInternal:
		return p.children(4, depth, key, duplicates) // length, type, unused, page
	case p.kind == pageNumbered && duplicates:
		return p.children(0, depth, key, duplicates) // page, number of records
	case p.kind == pageLeaf && !duplicates:
		return p.leafEntries()
	case (p.kind == pageDupLeaf || p.kind == pageNumberedLeaf) && duplicates:
		return p.duplicateValues(key)
	}
	return fmt.Errorf("damaged: page %d of type %d in a tree", number, p.kind)
}

// children visits the pages below; their number stands at an offset of the item.
func (p page) children(at, depth int, key string, duplicates bool) error {
	for i := range p.entries {
		item, err := p.bytes(p.offset(i), 8)
		if err != nil {
			return err
		}
		if err := p.b.walk(p.number32(item[at:]), depth+1, key, duplicates); err != nil {
			return err
		}
	}
	return nil
}

func (p page) leafEntries() error {
	if p.entries%2 != 0 {
		return fmt.Errorf("damaged: page %d has a key without a value", p.number)
	}
	key, at := "", -1
	for i := 0; i < p.entries; i += 2 {
		if p.offset(i) != at { // values of one key share the key
			var err error
			at = p.offset(i)
			if key, _, err = p.treeItem(i); err != nil {
				return err
			}
		}
		if err := p.treeValues(key, i+1); err != nil {
			return err
		}
	}
	return nil
}

func (p page) treeValues(key string, i int) error {
	head, err := p.bytes(p.offset(i), 3)
	if err != nil {
		return err
	}
	if head[2] == treeDuplicate {
		item, err := p.bytes(p.offset(i), 12)
		if err != nil {
			return err
		}
		return p.b.walk(p.number32(item[4:]), 0, key, true)
	}
	value, deleted, err := p.treeItem(i)
	if err != nil || deleted {
		return err
	}
	return p.b.out.add(key, value)
}

func (p page) duplicateValues(key string) error {
	for i := range p.entries {
		value, deleted, err := p.treeItem(i)
		if err != nil {
			return err
		}
		if deleted {
			continue
		}
		if err := p.b.out.add(key, value); err != nil {
			return err
		}
	}
	return nil
}

// treeItem returns a key or value, and whether it is deleted.
func (p page) treeItem(i int) (string, bool, error) {
	at := p.offset(i)
	head, err := p.bytes(at, 3) // length, type
	if err != nil {
		return "", false, err
	}
	deleted := head[2]&treeDeleted != 0
	switch head[2] &^ treeDeleted {
	case treeKeyData:
		item, err := p.bytes(at+3, p.number16(head))
		return item, deleted, err
	case treeOverflow:
		item, err := p.bytes(at, 12) // unused, type, unused, page, length
		if err != nil || deleted {
			return "", deleted, err
		}
		text, err := p.b.overflow(p.number32(item[4:]), p.number32(item[8:]))
		return text, false, err
	}
	return "", false, fmt.Errorf("damaged: page %d, item %d of type %d", p.number, i, head[2])
}
