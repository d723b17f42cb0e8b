package redis

import (
	"context"
	"crypto/sha1"
	_ "embed"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"

	"relayguard/policy/limit"
)

//go:embed script.lua
var hot string

//go:embed cold.lua
var cold string

var script = strings.Replace(hot, "-- cold.lua\n", cold, 1)

//go:embed resume.lua
var resume string

// digest is what Redis calls the script.
var digest = func() string {
	sum := sha1.Sum([]byte(script))
	return hex.EncodeToString(sum[:])
}()

// lastOctets are those of heads of buckets with so many windows, as GETRANGE
// counts them.
var lastOctets = func() (texts [limit.MaxWindows + 1]string) {
	for n := range texts {
		texts[n] = strconv.Itoa(headSize(n) - 1)
	}
	return texts
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
//	step:    op B, may be hot B, charges I2, id's key I2, account's key I2, now I7,
//	         size of what charges begin with I4, of the rest I4,
//	         the charges' beginnings, twins B, known, the charges' rest
//	begin:   key I2, amount I7, size B, head's last octet in digits, size B, limits
//	limits:  kind B (2: counts items), windows B, windows times seconds I4,
//	         windows times count I7
//	known:   if there is an account: first seen's key I2, most I4, items I4, items
//	rest:    abuse B, tells B, unit B, windows times soft B
//	         Distinct: items' key I2, most I4, items I4, items
//	         FirstTime: items I4, items
//
// Integers are little-endian; items 8 octets, big-endian. Key 0 is none.
type request struct {
	keys  []string
	step  []byte
	refs  []int // where numbers of keys are in step
	names []byte
	ends  []int // of keys in names
	twins bool
	ctx   context.Context // of who waits
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
	r.step = append(r.step, op, 0)
	r.step = binary.LittleEndian.AppendUint16(r.step, uint16(len(step.Charges)))
	if step.ID != "" && op != doPeek {
		r.key(s.idKey(r.names, step.ID))
	} else {
		r.step = append(r.step, 0, 0)
	}
	if step.Known.Account != "" {
		r.key(s.accountKey(r.names, lastSeen, step.Known.Account))
	} else {
		r.step = append(r.step, 0, 0)
	}
	r.step = append56(r.step, micros(now))
	sizes := len(r.step)
	r.step = append(r.step, 0, 0, 0, 0, 0, 0, 0, 0)
	for i := range step.Charges {
		s.encodeBegin(r, &step.Charges[i])
	}
	rest := len(r.step)
	r.step = append(r.step, 0)
	if k := &step.Known; k.Account != "" {
		r.key(s.accountKey(r.names, firstSeen, k.Account))
		r.step = binary.LittleEndian.AppendUint32(r.step, uint32(s.options.KnownPerAccount))
		r.items(k.Items)
	}
	for i := range step.Charges {
		s.encodeRest(r, &step.Charges[i])
	}
	binary.LittleEndian.PutUint32(r.step[sizes:], uint32(rest-sizes-8))
	binary.LittleEndian.PutUint32(r.step[sizes+4:], uint32(len(r.step)-rest))
	r.name()
	r.findTwins()
	r.step[rest] = flag(r.twins)
	r.step[1] = flag(!r.twins && op != doAdd && !slices.ContainsFunc(step.Charges, func(c limit.Charge) bool { return c.Counts > limit.Bytes }))
}

func (s *Store) encodeBegin(r *request, c *limit.Charge) {
	r.key(s.bucketKey(r.names, c.Key))
	r.step = append56(r.step, c.Amount)
	last := lastOctets[len(c.Windows)]
	r.step = append(append(r.step, byte(len(last))), last...)
	r.step = append(r.step, byte(limitsSize(len(c.Windows))))
	r.step = append(r.step, kindCells+flag(c.Counts == limit.Distinct), byte(len(c.Windows)))
	for i := range c.Windows {
		r.step = binary.LittleEndian.AppendUint32(r.step, uint32(c.Windows[i].Length/time.Second))
	}
	for i := range c.Windows {
		r.step = append56(r.step, c.Windows[i].Count)
	}
}

func (s *Store) encodeRest(r *request, c *limit.Charge) {
	r.step = append(r.step, flag(c.Kind == limit.Abuse), flag(c.Tells), byte(c.Counts))
	for i := range c.Windows {
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
func (r *request) findTwins() {
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
