package wordpress_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"regexp"
	"slices"
	"strings"
	"testing"

	"relayguard/wordpress"
)

// claim is a stamp taken apart, as the contract of the field has it.
type claim struct {
	Time                                 string
	Blog, Plugin, Entry, Script, Client  string
	RecipientsDigest, SubjectDigest, Key string
}

var stampForm = regexp.MustCompile(`^(v1 k=([0-9a-f]{8}) t=([0-9]{10}) n=[A-Za-z0-9_-]{16} b=([0-9]+) p=([A-Za-z0-9_-]*) e=([a-z]+) f=([A-Za-z0-9_-]*) c=([0-9a-fA-F:.]+|-) r=([A-Za-z0-9_-]{22}) s=([A-Za-z0-9_-]{22})) m=([A-Za-z0-9_-]{43})$`)

// readClaim checks form and signature.
func readClaim(t *testing.T, key wordpress.Key, value string) (c claim) {
	t.Helper()
	m := stampForm.FindStringSubmatch(value)
	if m == nil {
		t.Errorf("a stamp of wrong form: %q", value)
		return c
	}
	h := hmac.New(sha256.New, key.Secret)
	h.Write([]byte("relayguard-origin\n" + m[1]))
	if mac := b64(h.Sum(nil)); mac != m[11] || m[2] != key.ID {
		t.Errorf("a stamp with a wrong signature: %q", value)
	}
	return claim{Key: m[2], Time: m[3], Blog: m[4], Plugin: plain(t, m[5]), Entry: m[6], Script: plain(t, m[7]), Client: m[8], RecipientsDigest: m[9], SubjectDigest: m[10]}
}

func b64(raw []byte) string { return base64.RawURLEncoding.EncodeToString(raw) }

func plain(t *testing.T, s string) string {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Error(err)
	}
	return string(raw)
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return b64(sum[:16])
}

func digestOf(recipients ...string) string {
	slices.Sort(recipients)
	return digest(strings.Join(recipients, "\n"))
}
