package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/policy/limit"
)

// onRedis is the configuration of a relay whose Redis is not there.
func onRedis(t *testing.T, keyFile string) *config.Config {
	t.Helper()
	c := config.Default()
	c.Journal.Directory = filepath.Join(t.TempDir(), "journal")
	c.Store.Kind, c.Redis.Addresses, c.Redis.ItemsKeyFile = config.StoreRedis, []string{"127.0.0.1:1"}, keyFile
	return c
}

func write(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "items.key")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Relays with the same key file have the same digests without Redis, which is
// neither asked for a key nor given one.
func TestItemsKeyFile(t *testing.T) {
	secret := strings.Repeat("0123456789abcdef", 2)
	digest := func(key string) limit.Item {
		t.Helper()
		c := onRedis(t, write(t, key))
		i, err := openItems(c)
		if err != nil {
			t.Fatal(err)
		}
		b, err := openStore(t.Context(), c, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer b.close()
		if b.secret != nil {
			t.Error("redis is asked for a key")
		}
		before := i.of("hanako@example.net")
		if err := i.share(t.Context(), func(context.Context, []byte) ([]byte, error) { return bytes.Repeat([]byte("x"), itemKeySize), nil }); err != nil {
			t.Error(err)
		}
		if i.of("hanako@example.net") != before {
			t.Error("another key than that of the file")
		}
		if _, err := os.Stat(filepath.Join(filepath.Dir(c.Journal.Directory), "items.key")); err == nil {
			t.Error("the key was kept elsewhere, too")
		}
		return before
	}
	one := digest(secret)
	if digest(secret) != one || digest(secret+"\n") != one {
		t.Error("one key, two digests")
	}
	if digest(secret+"0") == one {
		t.Error("two keys, one digest")
	}
}

// Without a usable file the daemon does not start: it would know nobody, and
// tell Redis so.
func TestItemsKeyFileThatIsNone(t *testing.T) {
	for name, c := range map[string]struct{ path, says string }{
		"missing": {filepath.Join(t.TempDir(), "no.key"), "no such file"},
		"short":   {write(t, strings.Repeat("x", 31)), "31 octets, want at least 32"},
		"empty":   {write(t, ""), "0 octets"},
	} {
		if _, err := openStore(t.Context(), onRedis(t, c.path), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "redis.items_key_file") || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if i, err := openItems(onRedis(t, c.path)); err == nil || i.of("a@example.net") == i.of("b@example.net") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// While Redis is away a restart gives nobody a fresh share, shuts nothing and
// opens nothing.
func TestOwnBudgetsOutliveARestart(t *testing.T) {
	c, now := onRedis(t, ""), time.Now()
	c.Redis.Share = 50
	step := limit.Step{Charges: []limit.Charge{{Key: limit.Key{Limit: "login-volume", Value: "login:taro@example.jp"}, Kind: limit.Volume, Counts: limit.Recipients,
		Windows: []limit.Window{{Count: 10, Length: time.Hour}}, Amount: 1}}}
	passed := 0
	for range 4 {
		b, err := openStore(t.Context(), c, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			var out limit.Outcome
			if err := b.Spend(t.Context(), now, &step, &out); err != nil {
				t.Fatal(err)
			}
			if out.Taken {
				passed++
			}
		}
		if s := b.statusNow(); !s.Away || s.OK || s.Buckets != 1 {
			t.Errorf("%+v", s)
		}
		found := 0
		if err := b.Each(t.Context(), func(limit.Entry) error { found++; return nil }); err != nil || found != 1 {
			t.Errorf("%d budgets, %v", found, err)
		}
		if err := b.whole.Each(t.Context(), func(limit.Entry) error { return nil }); err == nil {
			t.Error("this relay's budgets pass for all there are")
		}
		_ = b.close() // redis is not there
	}
	if passed != 5 {
		t.Errorf("%d passed in four lives, want the share of 10", passed)
	}
}
