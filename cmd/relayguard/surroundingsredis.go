package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/share"
	"relayguard/limitstore/redis"
	"relayguard/mta"
	"relayguard/policy/limit"
)

const (
	redisWait  = 3 * time.Second // for each answer: the mail path waits for redis.timeout only
	redisPings = 5               // of which the fastest counts: the first one connects
	clocksOff  = 5 * time.Second // Redis's clock and this machine's: more is a fault of one of them
)

// alone is what a Redis that the daemon cannot use does.
const alone = "this relay goes by its own budgets, at redis.share of each limit, and shares no orders: all relays together may pass more than a limit has"

// redis looks at the Redis that relays share.
func (s surroundings) redis(ctx context.Context) []mta.Finding {
	if s.config.Store.Kind != config.StoreRedis {
		return nil
	}
	all := s.redisAccess()
	patient := *s.config
	patient.Redis.Timeout = redisWait
	store, err := openRedis(ctx, &patient, slog.New(slog.DiscardHandler))
	switch {
	case errors.Is(err, fs.ErrPermission) && !isRoot(): // the password is nobody else's business
		return all
	case err != nil:
		return append(all, redisFinding("redis-file", mta.Critical, "redis", err.Error(), "the daemon does not start", "mend the file, or take the key out of the configuration"))
	}
	defer store.Close()
	if s.config.Sign.Node != "" {
		if f := redisOrders(ctx, store, &s.config.Redis); f != nil {
			all = append(all, *f)
		}
		return all
	}
	if f := redisServes(ctx, store, &s.config.Redis); f != nil {
		f.Where = strings.Join(s.config.Redis.Addresses, ", ")
		return append(all, *f)
	}
	return append(all, redisHealth(ctx, store, &s.config.Redis)...)
}

// redisOrders is a finding if a web node cannot read the relay's orders.
func redisOrders(ctx context.Context, store *redis.Store, r *config.Redis) *mta.Finding {
	ctx, cancel := context.WithTimeout(ctx, redisWait)
	defer cancel()
	err := store.Ping(ctx)
	remedy := "start Redis, or mend redis.addresses, its password or the network between"
	if err == nil {
		err = share.Probe(ctx, store.Client(), r.Prefix)
		remedy = fmt.Sprintf("let the node's user read them: ACL SETUSER ... resetkeys %%R~{%[1]s}:switches* resetchannels &{%[1]s}:switches -@all +@connection +eval_ro +evalsha_ro +get +hscan +time +subscribe +unsubscribe", r.Prefix)
	}
	if err == nil {
		return nil
	}
	f := redisFinding("redis-orders", mta.Warning, strings.Join(r.Addresses, ", "), "the relay's orders cannot be read: "+err.Error(),
		"this web node holds what it knew last to be shut, and nothing else; the relay stops the mail", remedy)
	return &f
}

func redisFinding(id string, severity mta.Severity, where, what, why, remedy string) mta.Finding {
	return mta.Finding{ID: id, Severity: severity, Where: where, What: what, Why: why, Remedy: remedy}
}

// redisAccess is who else may get at it, and whether the daemon may.
func (s surroundings) redisAccess() (all []mta.Finding) {
	r := &s.config.Redis
	if away := r.Remote(); len(away) > 0 && (!r.TLS || r.PasswordFile == "") {
		missing := "without TLS"
		switch {
		case r.PasswordFile == "" && !r.TLS:
			missing = "without TLS and without a password"
		case r.PasswordFile == "":
			missing = "without a password"
		}
		all = append(all, redisFinding("redis-open", mta.Warning, strings.Join(away, ", "), "Redis on another machine is spoken to "+missing,
			"who can reach it or listens on the way can lift every limit and suspend every account, on all relays", "set redis.tls and redis.password_file; on Redis: tls-port, and requirepass or an ACL user"))
	}
	for _, file := range []struct {
		key, path string
		secret    bool
	}{{"redis.password_file", r.PasswordFile, true}, {"redis.sentinel_password_file", r.SentinelPasswordFile, true}, {"redis.items_key_file", r.ItemsKeyFile, true}, {"redis.ca_file", r.CAFile, false}} {
		info, err := os.Stat(file.path)
		if file.path == "" || err != nil { // who opens it says so
			continue
		}
		switch {
		case s.account != nil && !s.account.may(reading, file.path):
			all = append(all, redisFinding("redis-file", mta.Critical, file.path, fmt.Sprintf("the daemon's account %s may not read %s", s.account.Username, file.key),
				"the daemon does not start", fmt.Sprintf("chgrp %s %s; chmod 0640 %s", s.account.Username, file.path, file.path)))
		case file.secret && info.Mode().Perm()&0o007 != 0:
			all = append(all, redisFinding("redis-secret-open", mta.Warning, file.path, fmt.Sprintf("%s is open to others: mode %04o", file.key, info.Mode().Perm()),
				"who has the password can lift every limit; who has the key can tell whether somebody was written to", "chmod o= "+file.path))
		}
	}
	return all
}

// redisServes is a finding if Redis is not there, not in time, or does not do
// what the mail path asks of it. It only asks: nothing is charged.
func redisServes(ctx context.Context, store *redis.Store, r *config.Redis) *mta.Finding {
	fastest := time.Duration(1<<63 - 1)
	for range redisPings {
		began := time.Now()
		if err := store.Ping(ctx); err != nil {
			f := redisFinding("redis-away", mta.Warning, "", err.Error(), alone, "start Redis, or mend redis.addresses, its password or the network between")
			return &f
		}
		fastest = min(fastest, time.Since(began))
	}
	if fastest > r.Timeout {
		f := redisFinding("redis-slow", mta.Warning, "", fmt.Sprintf("the fastest of %d answers took %s, redis.timeout is %s", redisPings, fastest.Round(time.Millisecond), r.Timeout),
			alone, "a Redis that is nearer, or a longer redis.timeout")
		return &f
	}
	step := limit.Step{Charges: []limit.Charge{{Key: limit.Key{Limit: "check", Value: "check"}, Kind: limit.Volume, Counts: limit.Recipients, Windows: []limit.Window{{Count: 1, Length: time.Hour}}, Amount: 1}}}
	if err := store.Peek(ctx, time.Now(), &step, new(limit.Outcome)); err != nil {
		f := redisFinding("redis-script", mta.Warning, "", "Redis answers, but not to the script that counts: "+err.Error(), alone,
			fmt.Sprintf("Redis 6.2 or newer, a master that may be written to, and a user that may: ACL SETUSER relayguard ... ~{%[1]s}:* &{%[1]s}:* +@all -@admin -@dangerous +info", r.Prefix))
		return &f
	}
	return nil
}

// redisHealth is what may lose budgets of a Redis that serves.
func redisHealth(ctx context.Context, store *redis.Store, r *config.Redis) (all []mta.Finding) {
	ctx, cancel := context.WithTimeout(ctx, redisWait)
	defer cancel()
	where := strings.Join(r.Addresses, ", ")
	began := time.Now()
	if at, err := store.Time(ctx); err == nil {
		all = append(all, redisClock(at.Sub(began.Add(time.Since(began)/2)), where)...)
	}
	node, err := redisNode(ctx, store.Client(), r.Prefix)
	var info map[string]string
	if err == nil {
		info, err = redisInfo(ctx, node)
	}
	if err != nil {
		return append(all, redisFinding("redis-info", mta.Info, where, "Redis does not tell its settings: "+err.Error(), "it is not known whether it forgets budgets", "let the user do INFO"))
	}
	if v := info["redis_version"]; older(v, 6, 2) {
		all = append(all, redisFinding("redis-version", mta.Warning, where, "Redis is version "+v, "relayguard is made for 6.2 and newer", "a newer Redis; Debian 12 has 7.0"))
	}
	if p := info["maxmemory_policy"]; p != "noeviction" && p != "" {
		all = append(all, redisFinding("redis-evicts", mta.Warning, where, fmt.Sprintf("maxmemory-policy is %s, maxmemory %s", p, info["maxmemory"]),
			"when its memory is full Redis forgets budgets: who was counted there begins at zero", "maxmemory-policy noeviction in redis.conf; CONFIG SET maxmemory-policy noeviction"))
	}
	if r.ItemsKeyFile == "" {
		all = append(all, redisFinding("redis-items-key", mta.Info, where, "the key of recipients' digests is in Redis, beside the digests",
			"who can read Redis, a replica or a copy of its file can find out whether an address is among those an account wrote to",
			"one key on all relays, from openssl rand -hex 32, named in redis.items_key_file; restart them, then DEL the key that ends in :secret; recipients are first-time ones once more"))
	}
	if save, err := node.ConfigGet(ctx, "save").Result(); err == nil && save["save"] == "" && info["aof_enabled"] == "0" {
		all = append(all, redisFinding("redis-memory", mta.Info, where, "Redis keeps nothing on disk: appendonly is off, and there are no snapshots",
			"after its restart everybody has a fresh budget, and shut limits are open", "appendonly yes in redis.conf, which loses a second at most"))
	}
	return all
}

// redisClock judges by how much Redis's clock is ahead of this machine's.
func redisClock(ahead time.Duration, where string) []mta.Finding {
	if ahead.Abs() <= clocksOff {
		return nil
	}
	than := "ahead of"
	if ahead < 0 {
		than = "behind"
	}
	return []mta.Finding{redisFinding("redis-clock", mta.Warning, where, fmt.Sprintf("Redis's clock is %s %s this machine's", ahead.Abs().Round(time.Second), than),
		"limits hold all the same, by Redis's clock; but one of the two is wrong, and with it what logs and decisions say, or when orders end", "time synchronisation on both machines: chrony, systemd-timesyncd")}
}

// redisNode is the server that has the keys.
func redisNode(ctx context.Context, client goredis.UniversalClient, prefix string) (goredis.Cmdable, error) {
	if c, ok := client.(*goredis.ClusterClient); ok {
		return c.MasterForKey(ctx, "{"+prefix+"}")
	}
	return client, nil
}

// redisInfo is what INFO says, by field.
func redisInfo(ctx context.Context, node goredis.Cmdable) (map[string]string, error) {
	text, err := node.Info(ctx).Result()
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for line := range strings.Lines(text) {
		if field, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			all[field] = value
		}
	}
	return all, nil
}

// older reports whether a version "7.0.15" is before major.minor. One that is
// none is not.
func older(version string, major, minor int) bool {
	first, rest, _ := strings.Cut(version, ".")
	second, _, _ := strings.Cut(rest, ".")
	a, err := strconv.Atoi(first)
	b, _ := strconv.Atoi(second)
	return err == nil && (a < major || a == major && b < minor)
}
