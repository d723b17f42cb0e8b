package main

import (
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
// be counted and remembered without anybody's address. The key is in a file; the
// relays that share a Redis share it, too. Safe for concurrent use.
type items struct {
	path  string
	key   atomic.Pointer[[]byte]
	hands atomic.Pointer[sync.Pool] // of hashes under the key
}

const itemKeySize = 32

// openItems reads the key, or makes one.
func openItems(c *config.Config) (*items, error) {
	i := &items{path: filepath.Join(filepath.Dir(c.Journal.Directory), "items.key")}
	key, err := os.ReadFile(i.path)
	if err == nil && len(key) == itemKeySize {
		i.use(key)
		return i, nil
	}
	if err == nil {
		err = fmt.Errorf("%s: found %d octets, want %d", i.path, len(key), itemKeySize)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	key = make([]byte, itemKeySize)
	rand.Read(key) // never an error
	i.use(key)
	return i, errors.Join(err, i.save(key))
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
