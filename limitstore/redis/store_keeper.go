package redis

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"relayguard/policy/limit"
)

const (
	page  = 200              // keys looked at in one round trip
	leave = 10 * time.Second // for each, at least: nobody's mail waits for it
	spare = 10 * time.Minute // that Redis keeps things longer: clocks differ, and replay has its own
)

// node is a client of the one Redis that has all keys, and waits longer.
func (s *Store) node(ctx context.Context) (*goredis.Client, error) {
	c, ok := s.client.(*goredis.Client)
	if cluster, is := s.client.(*goredis.ClusterClient); is {
		var err error
		if c, err = cluster.MasterForKey(ctx, s.prefix); err != nil {
			return nil, away("find the node of a Redis Cluster", err)
		}
		ok = true
	}
	if !ok {
		return nil, fmt.Errorf("speak to Redis: no way with a %T", s.client)
	}
	return c.WithTimeout(max(leave, s.options.Timeout)), nil
}

// Each is limit.Keeper's: what is shared and what is this relay's own. What is
// no bucket is left out, and logged.
func (s *Store) Each(ctx context.Context, fn func(limit.Entry) error) error {
	client, err := s.node(ctx)
	if err != nil {
		return err
	}
	seed, seen := maphash.MakeSeed(), map[uint64]struct{}{} // SCAN may name a key twice
	for cursor := uint64(0); ; {
		keys, next, err := client.Scan(ctx, cursor, s.prefix+"*", page).Result()
		if err != nil {
			return away("list the buckets in Redis", err)
		}
		for _, key := range keys {
			hash := maphash.String(seed, key)
			if _, twice := seen[hash]; twice {
				continue
			}
			e, err := s.entry(ctx, client, key)
			if err != nil {
				return err
			}
			if e == (limit.Entry{}) {
				continue
			}
			seen[hash] = struct{}{}
			if err := fn(e); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return ctx.Err()
		}
	}
}

// entry is what is under a key, nothing if that is not an entry's.
func (s *Store) entry(ctx context.Context, client *goredis.Client, key string) (e limit.Entry, err error) {
	if k, ok := s.parseBucketKey(key); ok {
		e.State, err = s.state(ctx, client, k, key)
	} else if account, ok := s.parseAccountKey(key); ok {
		e.Known, err = s.known(ctx, client, account, key)
	}
	switch {
	case errors.Is(err, goredis.Nil): // it has expired just now
		return limit.Entry{}, nil
	case errors.Is(err, ErrAway), errors.Is(err, ErrUnsure):
		return limit.Entry{}, err
	case err != nil:
		s.options.Log.Warn("left out what is no bucket", "key", key, "error", err)
		return limit.Entry{}, nil
	}
	return e, nil
}

func (s *Store) state(ctx context.Context, client *goredis.Client, k limit.Key, key string) (*limit.State, error) {
	text, err := client.Get(ctx, key).Result()
	switch {
	case errors.Is(err, goredis.Nil):
		return nil, err
	case err != nil:
		return nil, away(fmt.Sprintf("read bucket %q in Redis", k), err)
	}
	var items []limit.DistinctItem
	if len(text) > kindAt && text[kindAt] == kindItems {
		zs, err := client.ZRangeWithScores(ctx, string(s.itemsKey(nil, k)), 0, -1).Result()
		if err != nil {
			return nil, away(fmt.Sprintf("read the items of bucket %q in Redis", k), err)
		}
		for _, z := range zs {
			item, ok := itemOf(z.Member)
			last, ok2 := timeOf(z.Score)
			if !ok || !ok2 {
				return nil, fmt.Errorf("items of bucket %q: %w", k, errState)
			}
			items = append(items, limit.DistinctItem{Item: item, Last: last})
		}
	}
	return stateOf(k, text, items)
}

func (s *Store) known(ctx context.Context, client *goredis.Client, account, key string) (*limit.KnownState, error) {
	k := &limit.KnownState{Account: account}
	var lasts, firsts *goredis.ZSliceCmd
	_, err := client.TxPipelined(ctx, func(p goredis.Pipeliner) error {
		lasts = p.ZRangeWithScores(ctx, key, 0, -1)
		firsts = p.ZRangeWithScores(ctx, string(s.accountKey(nil, firstSeen, account)), 0, -1)
		return nil
	})
	if err != nil {
		return nil, away(fmt.Sprintf("read whom %q knows in Redis", account), err)
	}
	since := make(map[string]int64, len(firsts.Val()))
	for _, z := range firsts.Val() {
		member, _ := z.Member.(string)
		since[member], _ = timeOf(z.Score)
	}
	for _, z := range lasts.Val() {
		item, ok := itemOf(z.Member)
		last, ok2 := timeOf(z.Score)
		if !ok || !ok2 {
			return nil, fmt.Errorf("whom %q knows: %w", account, errState)
		}
		k.Items = append(k.Items, limit.KnownItem{Item: item, Since: since[z.Member.(string)], Last: last})
	}
	return k, k.Check()
}

// Put is limit.Keeper's.
func (s *Store) Put(ctx context.Context, e limit.Entry) error {
	if err := e.Check(); err != nil {
		return err
	}
	client, err := s.node(ctx)
	if err != nil {
		return err
	}
	_, err = client.TxPipelined(ctx, func(p goredis.Pipeliner) error {
		if e.State != nil {
			s.putState(ctx, p, e.State)
		} else {
			s.putKnown(ctx, p, e.Known)
		}
		return nil
	})
	if err != nil {
		return away("put a bucket into Redis", err)
	}
	return nil
}

func (s *Store) putState(ctx context.Context, p goredis.Pipeliner, st *limit.State) {
	bucket, items := string(s.bucketKey(nil, st.Key)), string(s.itemsKey(nil, st.Key))
	p.Del(ctx, bucket, items)
	if st.Gone() {
		return
	}
	ttl := time.Duration(0) // for ever
	if st.Latched.IsZero() {
		longest := time.Duration(0)
		for _, w := range st.Windows {
			longest = max(longest, w.Length)
		}
		ttl = keep(st.Newest(), longest+longest/16)
	}
	p.Set(ctx, bucket, bucketOf(st), ttl)
	if st.Distinct == nil {
		return
	}
	var zs []goredis.Z
	for _, i := range st.Distinct.Items {
		zs = append(zs, goredis.Z{Score: float64(i.Last), Member: memberOf(i.Item)})
	}
	add(ctx, p, items, zs)
	if ttl > 0 {
		p.PExpire(ctx, items, ttl)
	}
}

func (s *Store) putKnown(ctx context.Context, p goredis.Pipeliner, k *limit.KnownState) {
	last, first := string(s.accountKey(nil, lastSeen, k.Account)), string(s.accountKey(nil, firstSeen, k.Account))
	p.Del(ctx, last, first)
	if len(k.Items) == 0 {
		return
	}
	var lasts, firsts []goredis.Z
	for _, i := range k.Items[max(0, len(k.Items)-s.options.KnownPerAccount):] {
		lasts = append(lasts, goredis.Z{Score: float64(i.Last), Member: memberOf(i.Item)})
		firsts = append(firsts, goredis.Z{Score: float64(i.Since), Member: memberOf(i.Item)})
	}
	add(ctx, p, last, lasts)
	add(ctx, p, first, firsts)
	ttl := keep(time.UnixMicro(k.Items[len(k.Items)-1].Last), limit.KnownTerm)
	p.PExpire(ctx, last, ttl)
	p.PExpire(ctx, first, ttl)
}

func add(ctx context.Context, p goredis.Pipeliner, key string, zs []goredis.Z) {
	for ; len(zs) > 0; zs = zs[min(1000, len(zs)):] {
		p.ZAdd(ctx, key, zs[:min(1000, len(zs))]...)
	}
}

// keep is how long Redis keeps what makes a difference for so long after newest.
func keep(newest time.Time, length time.Duration) time.Duration {
	return max(time.Until(newest), 0).Round(time.Millisecond) + length + spare
}
