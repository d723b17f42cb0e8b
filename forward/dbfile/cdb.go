package dbfile

import (
	"cmp"
	"fmt"
	"slices"
)

// CDB (cr.yp.to/cdb/cdb.txt): 256 pairs (position, slots) of hash tables, then
// records, then the tables, whose slots are (hash, position of a record). It has
// no magic: a file is one if all its tables lie behind the records in it.
const (
	cdbHeader = 2048
	cdbTables = 256
)

func cdbPair(data string, at int) (uint32, uint32) {
	return little.u32(data, at), little.u32(data, at+4)
}

func isCDB(data string) bool {
	if len(data) < cdbHeader {
		return false
	}
	for i, total := 0, uint64(0); i < cdbTables; i++ {
		position, slots := cdbPair(data, 8*i)
		if total += 8 * uint64(slots); total > uint64(len(data)) { // tables upon each other
			return false
		}
		if position < cdbHeader || uint64(position)+8*uint64(slots) > uint64(len(data)) {
			return false
		}
	}
	return true
}

// readCDB lists the records that the hash tables point to, in the order of the
// file: cdb_find takes the first of a key. A record that no slot points to is
// never found by a lookup, and one that points into the middle of another is.
func readCDB(data string) ([]Entry, error) {
	var positions []uint32
	for i := range cdbTables {
		position, slots := cdbPair(data, 8*i)
		for s := range int(slots) {
			if _, record := cdbPair(data, int(position)+8*s); record != 0 {
				positions = append(positions, record)
			}
		}
	}
	slices.SortFunc(positions, func(a, b uint32) int { return cmp.Compare(a, b) })
	out := newCollector(data)
	for _, at := range slices.Compact(positions) {
		if uint64(at)+8 > uint64(len(data)) {
			return out.entries, fmt.Errorf("damaged or cut: a record at %d", at)
		}
		keyLen, valueLen := cdbPair(data, int(at))
		key := uint64(at) + 8
		value := key + uint64(keyLen)
		if value+uint64(valueLen) > uint64(len(data)) {
			return out.entries, fmt.Errorf("damaged or cut: a record of %d and %d octets at %d", keyLen, valueLen, at)
		}
		if err := out.add(data[key:value], data[value:value+uint64(valueLen)]); err != nil {
			return out.entries, err
		}
	}
	return out.entries, nil
}
