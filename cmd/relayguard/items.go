package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"relayguard/cmd/internal/config"
	"relayguard/policy/address"
	"relayguard/policy/limit"
)

// items makes keyed digests of recipients, so that whom an account writes to can
// be counted and remembered without anybody's address. The relays that share a
// Redis share the key, too: it is in redis.items_key_file of each, or they agree
// on one through Redis and keep it in a file. Safe for concurrent use.
type items struct {
	path  string // "": the key is an admin's, and stays as it is
	key   atomic.Pointer[[]byte]
	hands atomic.Pointer[sync.Pool] // of hashes under the key
}

const itemKeySize = 32

// openItems reads the key, or makes one.
func openItems(c *config.Config) (*items, error) {
	if c.Store.Kind == config.StoreRedis && c.Redis.ItemsKeyFile != "" {
		i := &items{}
		key, err := itemsKeyIn(c.Redis.ItemsKeyFile)
		if err != nil { // who opens the store does not go on
			rand.Read(key)
		}
		i.use(key)
		return i, err
	}
	i := &items{path: filepath.Join(filepath.Dir(c.Journal.Directory), "items.key")}
	key, err := os.ReadFile(i.path)
	if err == nil && len(key) == itemKeySize {
		i.use(key)
		return i, nil
	}
	unread := err != nil && !errors.Is(err, fs.ErrNotExist) // and cannot be read: the next start may be able to
	if err == nil {
		err = fmt.Errorf("%s: found %d octets, want %d", i.path, len(key), itemKeySize)
	} else if !unread {
		err = nil
	}
	key = make([]byte, itemKeySize)
	rand.Read(key) // never an error
	i.use(key)
	if unread {
		return i, err
	}
	return i, errors.Join(err, i.save(key))
}

// itemsKeyIn reads a key that an admin made. The line's end is none of it: editors
// add one. With an error there is room for a key.
func itemsKeyIn(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	switch {
	case err != nil:
		err = fmt.Errorf("redis.items_key_file: %w", err)
	case len(text) < itemKeySize:
		err = fmt.Errorf("redis.items_key_file: %s has %d octets, want at least %d; openssl rand -hex %d makes them", path, len(text), itemKeySize, itemKeySize)
	default:
		return bytes.TrimRight(text, "\r\n"), nil
	}
	return make([]byte, itemKeySize), err
}

func (i *items) use(key []byte) {
	i.key.Store(&key)
	i.hands.Store(&sync.Pool{New: func() any { return hmac.New(sha256.New, key) }})
}

func (i *items) save(key []byte) error {
	temporary := i.path + ".new"
	if err := os.WriteFile(temporary, key, 0o600); err != nil {
		return fmt.Errorf("keep the key of recipients' digests: %w", err)
	}
	return os.Rename(temporary, i.path)
}

// share agrees with the other relays on one key. Until it was done their
// memories of recipients are apart.
func (i *items) share(ctx context.Context, secret func(context.Context, []byte) ([]byte, error)) error {
	if i.path == "" {
		return nil
	}
	key, err := secret(ctx, *i.key.Load())
	switch {
	case err != nil:
		return err
	case len(key) != itemKeySize:
		return fmt.Errorf("the relays' key of recipients' digests has %d octets, want %d", len(key), itemKeySize)
	case hmac.Equal(key, *i.key.Load()):
		return nil
	}
	i.use(key)
	return i.save(key)
}

// of is a recipient's digest. Upper and lower case are one.
func (i *items) of(rcptTo string) limit.Item {
	if a, ok := address.Parse(rcptTo); ok {
		rcptTo = a.Local + "@" + a.Domain
	}
	pool := i.hands.Load()
	h := pool.Get().(hash.Hash)
	defer pool.Put(h)
	h.Reset()
	h.Write([]byte(strings.ToLower(rcptTo)))
	var sum [sha256.Size]byte
	return limit.Item(binary.LittleEndian.Uint64(h.Sum(sum[:0])))
}
