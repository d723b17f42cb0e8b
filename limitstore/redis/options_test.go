package redis_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayguard/limitstore/redis"
	"relayguard/limitstore/redis/redistest"
	"relayguard/policy/limit"
)

func TestOpenRefuses(t *testing.T) {
	for want, o := range map[string]redis.Options{
		"addresses": {},
		"one of a":  {Addresses: []string{"a:1", "b:1"}},
		"mode":      {Mode: "replica", Addresses: []string{"a:1"}},
		"master":    {Mode: "sentinel", Addresses: []string{"a:1"}},
		"database":  {Mode: "cluster", Addresses: []string{"a:1"}, Database: 1},
		"prefix":    {Addresses: []string{"a:1"}, Prefix: "a}b"},
	} {
		if _, err := redis.Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want an error about %s", o, err, want)
		}
	}
}

func TestPasswords(t *testing.T) {
	r := redistest.Server(t, "requirepass hidden", "user guard on >secret ~{relayguard}:* +@all -@dangerous +info")
	for name, c := range map[string]struct {
		user, password string
		in             bool
	}{
		"default": {"", "hidden", true}, "user": {"guard", "secret", true},
		"none": {"", "", false}, "wrong": {"guard", "hidden", false},
	} {
		s := open(t, r, func(o *redis.Options) { o.User, o.Password = c.user, c.password })
		if err := s.Ping(t.Context()); (err == nil) != c.in || err != nil && !errors.Is(err, redis.ErrAway) {
			t.Errorf("%s: %v", name, err)
		}
		if c.in {
			take(t, s, charge("a", 1))
			if err := s.Reset(t.Context(), now, charge("a", 1).Key); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestTLS(t *testing.T) {
	dir, roots := certificate(t)
	for range 5 { // the port may be taken meanwhile
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().(*net.TCPAddr)
		l.Close()
		redistest.Server(t, fmt.Sprint("tls-port ", addr.Port), "tls-auth-clients no", "tls-cert-file "+dir+"/cert.pem", "tls-key-file "+dir+"/key.pem", "tls-ca-cert-file "+dir+"/cert.pem")
		trusting, err := redis.Open(t.Context(), redis.Options{Addresses: []string{addr.String()}, TLS: &tls.Config{RootCAs: roots}, Timeout: patience})
		if err != nil {
			t.Fatal(err)
		}
		defer trusting.Close()
		take(t, trusting, charge("a", 1))
		strict, err := redis.Open(t.Context(), redis.Options{Addresses: []string{addr.String()}, TLS: &tls.Config{}, Timeout: patience})
		if err != nil {
			t.Fatal(err)
		}
		defer strict.Close()
		if err := strict.Ping(t.Context()); err == nil {
			t.Error("a certificate of nobody was trusted")
		}
		return
	}
}

// certificate writes one for 127.0.0.1, and its key.
func certificate(t *testing.T) (dir string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: cert}, "key.pem": {Type: "EC PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	parsed, err := x509.ParseCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AddCert(parsed)
	return dir, roots
}

// Buckets of what is something else on each relay are apart, all others one.
func TestOwnKeys(t *testing.T) {
	r := redistest.Server(t)
	web1 := open(t, r, func(o *redis.Options) { o.Own = "web1" })
	web2 := open(t, r, func(o *redis.Options) { o.Own = "web2" })
	all := open(t, r)
	value := func(v string) limit.Charge {
		c := charge("a", 1)
		c.Key.Value = v
		return c
	}
	for v, own := range map[string]bool{
		"login:taro@example.jp": false, "local_user:33": true, "shared_user:33": true, "machine:192.0.2.1": true,
		"login:a site:b": false, "plugin:x local_user:33": true, "login:local_user:33": false, "server": false,
		"local_user:33@web1": false, "plugin:x local_user:33@web1": false,
	} {
		take(t, web1, value(v))
		take(t, all, value(v))
		want := int64(2)
		if own {
			want = 0
		}
		if got := take(t, web2, value(v)).Uses[0].Used; got != want {
			t.Errorf("%q: the other relay knows of %d, want %d", v, got, want)
		}
	}
	for name, s := range map[string]*redis.Store{"web1": web1, "web2": web2, "all": all} {
		seen := map[limit.Key]bool{}
		if err := s.Each(t.Context(), func(e limit.Entry) error {
			if seen[e.State.Key] {
				t.Errorf("%s: %q twice", name, e.State.Key)
			}
			seen[e.State.Key] = true
			return nil
		}); err != nil || len(seen) != 10 {
			t.Errorf("%s: %d buckets, %v; want 10", name, len(seen), err)
		}
	}
}

func TestHostileKeysAreApart(t *testing.T) {
	s := open(t, redistest.Server(t))
	keys := []limit.Key{{Limit: "a", Value: "b"}, {Limit: "a", Value: "b "}, {Limit: "1:a", Value: "b"}, {Limit: "a1", Value: ":ab"}, {Limit: "a", Value: "\r\n*1\r\n$8\r\nFLUSHALL\r\n"},
		{Limit: "a", Value: "{x}"}, {Limit: "{x}", Value: "}"}, {Limit: "\x00", Value: "\xff\xfe"}, {Limit: "*", Value: "?"}, {Limit: strings.Repeat("l", 1000), Value: strings.Repeat("v", 1000)}}
	for i, k := range keys {
		c := charge("", int64(i+1))
		c.Key = k
		if out := take(t, s, c); !out.Taken || out.Uses[0].Used != 0 {
			t.Errorf("%q: %+v", k, out)
		}
	}
	found := 0
	if err := s.Each(t.Context(), func(e limit.Entry) error {
		found++
		for i, k := range keys {
			if e.State.Key == k && e.State.Windows[0].Cells[0].Count != int64(i+1) {
				t.Errorf("%q: %+v", k, e.State)
			}
		}
		return nil
	}); err != nil || found != len(keys) {
		t.Errorf("%d found, %v; want %d", found, err, len(keys))
	}
}

func TestSecretIsTheFirstOnes(t *testing.T) {
	r := redistest.Server(t)
	a, err := open(t, r).Secret(t.Context(), []byte("one \x00"))
	b, err2 := open(t, r).Secret(t.Context(), []byte("two"))
	if err != nil || err2 != nil || string(a) != "one \x00" || string(b) != "one \x00" {
		t.Errorf("%q, %v; %q, %v", a, err, b, err2)
	}
}

func TestTimeIsRedis(t *testing.T) {
	at, err := open(t, redistest.Server(t)).Time(t.Context())
	if err != nil || time.Since(at).Abs() > time.Hour {
		t.Errorf("%s, %v", at, err)
	}
}
