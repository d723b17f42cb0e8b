package wordpress

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"regexp"
)

// keySize is the octets of a key.
const keySize = 32

// Key is what a site signs with. As text it is ***.
type Key struct {
	ID     string // 8 hexadecimal digits
	Secret []byte // 32 octets
}

// String keeps the secret out of logs.
func (k Key) String() string { return k.ID + ":***" }

// GoString keeps the secret out of logs.
func (k Key) GoString() string { return k.String() }

// NewKey makes a key.
func NewKey() Key {
	raw := make([]byte, 4+keySize)
	rand.Read(raw) // never an error
	return Key{ID: hex.EncodeToString(raw[:4]), Secret: raw[4:]}
}

// KeyFile is the file that has a site's key. Run by a web server it shows nothing.
func KeyFile(site string, k Key) []byte {
	return fmt.Appendf(nil, `<?php
// relayguard:key. With it the site signs which plugin its mail comes from. Nobody
// but the site may read it. Removed by "relayguard wordpress remove".
return defined('ABSPATH') ? array(
	'site' => %s,
	'id' => '%s',
	'key' => '%s',
) : null;
`, phpString(site), k.ID, base64.RawURLEncoding.EncodeToString(k.Secret))
}

var (
	keyIDForm = regexp.MustCompile(`^[0-9a-f]{8}$`)
	keyID     = regexp.MustCompile(`'id' => '([0-9a-f]{8})'`)
	keySecret = regexp.MustCompile(`'key' => '([A-Za-z0-9_-]{43})'`)
)

// ParseKey reads what KeyFile wrote, as the PHP side does; false if there is no
// key in it.
func ParseKey(text []byte) (Key, bool) {
	text = text[:min(len(text), 4096)]
	id, secret := keyID.FindSubmatch(text), keySecret.FindSubmatch(text)
	if id == nil || secret == nil {
		return Key{}, false
	}
	raw, err := base64.RawURLEncoding.DecodeString(string(secret[1]))
	if err != nil || len(raw) != keySize {
		return Key{}, false
	}
	return Key{ID: string(id[1]), Secret: raw}, true
}
