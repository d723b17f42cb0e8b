package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"relayguard/cmd/internal/config"
	"relayguard/limitstore/redis"
	"relayguard/limitstore/sqlite"
	"relayguard/policy/limit"
)

// budgets is the store that the configuration names, with what a daemon does
// with one beside charging it.
type budgets struct {
	limit.Store
	limit.Keeper
	kind   string
	run    func(context.Context)
	sweep  func(now time.Time)
	status func() storeStatus
	close  func() error
	whole  limit.Keeper // all there is: an error while Redis is away, where Keeper is this relay's own budgets

	probe  func(ctx context.Context) error                        // nil: there is nothing to wait for; else asks whether it is there
	client goredis.UniversalClient                                // nil: no other relay shares it
	secret func(ctx context.Context, mine []byte) ([]byte, error) // likewise
}

// storeStatus is how the store does.
type storeStatus struct {
	Kind      string    `json:"kind"` // "sqlite", "memory" or "redis"
	OK        bool      `json:"ok"`
	Text      string    `json:"text,omitempty"` // why not
	Buckets   int       `json:"buckets"`        // in this daemon's memory
	Forgotten uint64    `json:"buckets_forgotten"`
	Away      bool      `json:"away,omitempty"` // Redis is: this relay goes by its own budgets
	Since     time.Time `json:"since,omitzero"`
	Share     float64   `json:"share,omitempty"`     // of each limit that it allows meanwhile
	Fallbacks int64     `json:"fallbacks,omitempty"` // steps decided without Redis since the start
	Unsure    int64     `json:"unsure,omitempty"`    // steps that Redis may have taken without saying so
	Pending   int       `json:"pending,omitempty"`   // budgets to be brought up to date when it is back
}

// statusNow is how it does.
func (b *budgets) statusNow() storeStatus {
	s := b.status()
	s.Kind = b.kind
	return s
}

func memoryOptions(c *config.Config) limit.MemoryOptions {
	return limit.MemoryOptions{Buckets: c.Store.MaxBuckets, DistinctExact: c.Store.DistinctExact, KnownPerAccount: c.Store.KnownPerAccount, Known: c.Store.Known}
}

// limitsFile is where budgets are kept, beside the journal.
func limitsFile(c *config.Config) string {
	return filepath.Join(filepath.Dir(c.Journal.Directory), "limits.db")
}

// openStore opens the store. A Redis that is away is no error: each relay goes on
// by itself until it is there.
func openStore(ctx context.Context, c *config.Config, log *slog.Logger) (*budgets, error) {
	switch c.Store.Kind {
	case "memory":
		return memoryBudgets(limit.NewMemoryOf(memoryOptions(c))), nil
	case "redis":
		if c.Sign.Node != "" {
			return nodeBudgets(ctx, c, log)
		}
		return redisBudgets(ctx, c, log)
	}
	s, err := sqlite.Open(ctx, sqlite.Options{Path: limitsFile(c), Memory: memoryOptions(c), Log: log})
	if err != nil {
		return nil, err
	}
	return &budgets{
		Store: s, Keeper: s, whole: s, kind: "sqlite", run: func(context.Context) {}, close: s.Close,
		sweep: func(now time.Time) { s.Sweep(now) },
		status: func() storeStatus {
			ok, text := s.Health()
			return storeStatus{OK: ok, Text: text, Buckets: s.Len(), Forgotten: s.Evicted()}
		},
	}, nil
}

// memoryBudgets are gone with the process.
func memoryBudgets(m *limit.Memory) *budgets {
	return &budgets{
		Store: m, Keeper: m, whole: m, kind: "memory", run: func(context.Context) {}, close: func() error { return nil },
		sweep:  func(now time.Time) { m.Sweep(now) },
		status: func() storeStatus { return storeStatus{OK: true, Buckets: m.Len(), Forgotten: m.Evicted()} },
	}
}

// nodeBudgets are a web node's, which asks no limits: Redis has the relay's orders
// for it, and nothing of its own.
func nodeBudgets(ctx context.Context, c *config.Config, log *slog.Logger) (*budgets, error) {
	remote, err := openRedis(ctx, c, log)
	if err != nil {
		return nil, err
	}
	b := memoryBudgets(limit.NewMemoryOf(limit.MemoryOptions{}))
	b.client, b.close = remote.Client(), remote.Close
	return b, nil
}

// redisBudgets are shared with other relays. This relay's own, for when Redis is
// away, are in the file that it would have alone, so that a restart does not
// empty them.
func redisBudgets(ctx context.Context, c *config.Config, log *slog.Logger) (*budgets, error) {
	remote, err := openRedis(ctx, c, log)
	if err != nil {
		return nil, err
	}
	own, err := sqlite.Open(ctx, sqlite.Options{Path: limitsFile(c), Memory: memoryOptions(c), Log: log})
	if err != nil {
		return nil, errors.Join(err, remote.Close())
	}
	share := float64(c.Redis.Share) / 100
	s := redis.NewShared(redis.SharedOptions{Store: remote, Share: share, Own: own, Timeout: c.Redis.Timeout, Log: log})
	b := &budgets{
		Store: s, Keeper: s, whole: s.Whole(), kind: "redis", run: s.Run, sweep: func(time.Time) {}, // it sweeps its own
		probe: s.Probe, client: remote.Client(), secret: remote.Secret,
		close: func() error { return errors.Join(s.Close(), remote.Close(), own.Close()) },
		status: func() storeStatus {
			h := s.Health()
			ok, text := own.Health()
			if h.Away {
				ok, text = false, h.Why
			}
			return storeStatus{OK: ok, Text: text, Buckets: own.Len(), Forgotten: h.Evicted, Away: h.Away, Since: h.Since, Share: share, Fallbacks: h.Fallbacks, Unsure: h.Unsure, Pending: h.Pending}
		},
	}
	if c.Redis.ItemsKeyFile != "" {
		b.secret = nil // the key is never in Redis
	}
	return b, nil
}

// openRedis makes the store without waiting for Redis.
func openRedis(ctx context.Context, c *config.Config, log *slog.Logger) (*redis.Store, error) {
	o, err := redisOptions(c, log)
	if err != nil {
		return nil, err
	}
	s, err := redis.Open(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	return s, nil
}

// redisOptions are those of the configuration; secrets are in files.
func redisOptions(c *config.Config, log *slog.Logger) (o redis.Options, err error) {
	r := &c.Redis
	o = redis.Options{Mode: r.Mode, Addresses: r.Addresses, Master: r.Master, User: r.User, Database: r.Database, Prefix: r.Prefix, Timeout: r.Timeout,
		DistinctExact: c.Store.DistinctExact, KnownPerAccount: c.Store.KnownPerAccount, Log: log}
	var errs [4]error
	o.Password, errs[0] = secretIn("redis.password_file", r.PasswordFile)
	o.SentinelPassword, errs[1] = secretIn("redis.sentinel_password_file", r.SentinelPasswordFile)
	if r.LocalUsers == "own" {
		o.Own = relayName(c)
	}
	if r.TLS {
		o.TLS, errs[2] = redisTLS(r.CAFile)
	}
	if r.ItemsKeyFile != "" {
		_, errs[3] = itemsKeyIn(r.ItemsKeyFile)
	}
	return o, errors.Join(errs[:]...)
}

// relayName is this relay's name among those that share a Redis.
func relayName(c *config.Config) string {
	if c.Redis.Relay != "" {
		return c.Redis.Relay
	}
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return name
}

// secretIn reads a secret from the first line of a file; "" names none.
func secretIn(key, path string) (string, error) {
	if path == "" {
		return "", nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", key, err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	if first = strings.TrimSpace(first); first == "" {
		return "", fmt.Errorf("%s: %s has nothing in its first line", key, path)
	}
	return first, nil
}

func redisTLS(caFile string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile == "" {
		return c, nil
	}
	text, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("redis.ca_file: %w", err)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("redis.ca_file: %s has no certificate", caFile)
	}
	return c, nil
}

// line says what is not as it should be; empty if all is.
func (s *storeStatus) line(now time.Time) string {
	var parts []string
	switch {
	case s.Away:
		parts = append(parts, fmt.Sprintf("Redis is away since %s, this relay goes by its own budgets, at %g %% of each limit: %s", shortTime(now, s.Since), 100*s.Share, s.Text))
	case !s.OK && s.Kind == "redis":
		parts = append(parts, "what this relay counts for the time when Redis is away may not outlive a restart: "+s.Text)
	case !s.OK:
		parts = append(parts, "what is counted may not outlive a restart: "+s.Text)
	case s.Text != "" && s.Text != "fine": // a broken file was put aside
		parts = append(parts, s.Text)
	}
	if s.Pending > 0 {
		parts = append(parts, counted(s.Pending, "budget")+" to be brought up to date in Redis")
	}
	if s.Forgotten > 0 {
		parts = append(parts, fmt.Sprintf("%s forgotten before their time, for want of room: who was counted there begins at zero (store.max_buckets)", counted(int64(s.Forgotten), "budget")))
	}
	return strings.Join(parts, "; ")
}
