package redis

import (
	"crypto/sha1"
	_ "embed"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"time"

	"relayguard/policy/limit"
)

//go:embed script.lua
var script string

//go:embed resume.lua
var resume string

// digest is what Redis calls the script.
var digest = func() string {
	sum := sha1.Sum([]byte(script))
	return hex.EncodeToString(sum[:])
}()

// What a step does.
const (
	doSpend = 1 + iota
	doPeek
	doAdd
)

// request is one step as the script reads it, with the keys that it needs: a
// number of a key is its place in keys until the batch is known.
//
//	step:    op B, now I7, charges I2, id's key I2, twins B, account's key I2
//	account: first seen's key I2, most I4, items I4, items
//	charge:  windows B, abuse B, tells B, unit B, key I2, amount I7, shape,
//	         windows times (count I7, soft B)
//	         Distinct: items' key I2, most I4, items I4, items
//	         FirstTime: items I4, items
//	shape:   kind B (2: counts items), windows B, windows times seconds I4
//
// Integers are little-endian; items 8 octets, big-endian. Key 0 is none.
type request struct {
	keys  []string
	step  []byte
	refs  []int // where numbers of keys are in step
	names []byte
	ends  []int // of keys in names
	twins bool
	wait  chan struct{}
	reply string
	err   error
}

func (r *request) reset() {
	r.keys, r.step, r.refs, r.names, r.ends = r.keys[:0], r.step[:0], r.refs[:0], r.names[:0], r.ends[:0]
	r.reply, r.err, r.twins = "", nil, false
}

// encode makes the request for a step that is in order.
func (s *Store) encode(r *request, op byte, now time.Time, step *limit.Step) {
	r.reset()
	r.step = append(r.step, op)
	r.step = append56(r.step, micros(now))
	r.step = binary.LittleEndian.AppendUint16(r.step, uint16(len(step.Charges)))
	if step.ID != "" && op != doPeek {
		r.key(s.idKey(r.names, step.ID))
	} else {
		r.step = append(r.step, 0, 0)
	}
	twins := len(r.step)
	r.step = append(r.step, 0)
	if step.Known.Account != "" {
		s.encodeKnown(r, &step.Known)
	} else {
		r.step = append(r.step, 0, 0)
	}
	for i := range step.Charges {
		s.encodeCharge(r, &step.Charges[i])
	}
	r.name()
	r.findTwins(len(step.Charges))
	if r.twins {
		r.step[twins] = 1
	}
}

func (s *Store) encodeKnown(r *request, k *limit.Known) {
	r.key(s.accountKey(r.names, lastSeen, k.Account))
	r.key(s.accountKey(r.names, firstSeen, k.Account))
	r.step = binary.LittleEndian.AppendUint32(r.step, uint32(s.options.KnownPerAccount))
	r.items(k.Items)
}

func (s *Store) encodeCharge(r *request, c *limit.Charge) {
	r.step = append(r.step, byte(len(c.Windows)), flag(c.Kind == limit.Abuse), flag(c.Tells), byte(c.Counts))
	r.key(s.bucketKey(r.names, c.Key))
	r.step = append56(r.step, c.Amount)
	r.step = appendShape(r.step, c.Counts == limit.Distinct, c.Windows)
	for i := range c.Windows {
		r.step = append56(r.step, c.Windows[i].Count)
		r.step = append(r.step, flag(c.Windows[i].Soft))
	}
	switch c.Counts {
	case limit.Distinct:
		r.key(s.itemsKey(r.names, c.Key))
		r.step = binary.LittleEndian.AppendUint32(r.step, uint32(s.options.DistinctExact))
		r.items(c.Items)
	case limit.FirstTime:
		r.items(c.Items)
	}
}

// key notes the key that was appended to names, and refers to it.
func (r *request) key(names []byte) {
	r.names, r.ends, r.refs = names, append(r.ends, len(names)), append(r.refs, len(r.step))
	r.step = binary.LittleEndian.AppendUint16(r.step, uint16(len(r.ends)))
}

func (r *request) items(items []limit.Item) {
	r.step = binary.LittleEndian.AppendUint32(r.step, uint32(len(items)))
	for _, i := range items {
		r.step = binary.BigEndian.AppendUint64(r.step, uint64(i))
	}
}

// name makes keys of names, in one piece of memory.
func (r *request) name() {
	all, from := string(r.names), 0
	for _, end := range r.ends {
		r.keys, from = append(r.keys, all[from:end]), end
	}
}

// findTwins has all references to one key say the same number.
func (r *request) findTwins(charges int) {
	if len(r.keys) > 16 {
		seen := make(map[string]int, len(r.keys))
		for i, key := range r.keys {
			if first, ok := seen[key]; ok {
				r.refer(i, first)
			} else {
				seen[key] = i
			}
		}
		return
	}
	for i, key := range r.keys {
		if first := slices.Index(r.keys[:i], key); first >= 0 {
			r.refer(i, first)
		}
	}
}

func (r *request) refer(ref, key int) {
	binary.LittleEndian.PutUint16(r.step[r.refs[ref]:], uint16(key+1))
	r.twins = true
}

func appendShape(to []byte, distinct bool, windows []limit.Window) []byte {
	to = append(to, 1+flag(distinct), byte(len(windows)))
	for i := range windows {
		to = binary.LittleEndian.AppendUint32(to, uint32(windows[i].Length/time.Second))
	}
	return to
}

func append56(to []byte, n int64) []byte {
	return append(to, byte(n), byte(n>>8), byte(n>>16), byte(n>>24), byte(n>>32), byte(n>>40), byte(n>>48))
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// micros is limit's clock: it begins in 1970 and ends in 2255.
func micros(t time.Time) int64 {
	switch s := t.Unix(); {
	case s < 0:
		return 0
	case s > limit.MaxCount/1_000_000:
		return limit.MaxCount
	}
	return min(t.UnixMicro(), limit.MaxCount)
}
