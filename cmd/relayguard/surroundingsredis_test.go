package main

import (
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/mta"
)

// What needs a Redis that answers: systemtest/fleet.

func TestWhoElseMayGetAtRedis(t *testing.T) {
	stranger := &account{User: &user.User{Uid: "54321", Username: "nobody-else"}}
	for name, c := range map[string]struct {
		addresses []string
		tls       bool
		password  fs.FileMode // of the password file; 0: none
		account   *account
		id, says  string
	}{
		"loopback and sockets need neither":    {addresses: []string{"127.0.0.1:6379", "[::1]:6379", "localhost:6379", "/run/redis.sock"}},
		"another machine with both":            {addresses: []string{"192.0.2.7:6379"}, tls: true, password: 0o600},
		"another machine with neither":         {addresses: []string{"127.0.0.1:6379", "192.0.2.7:6379"}, id: "redis-open", says: "without TLS and without a password"},
		"another machine without TLS":          {addresses: []string{"192.0.2.7:6379"}, password: 0o600, id: "redis-open", says: "without TLS"},
		"another machine without password":     {addresses: []string{"redis.example.jp:6379"}, tls: true, id: "redis-open", says: "without a password"},
		"a password that the daemon may not":   {addresses: []string{"127.0.0.1:6379"}, password: 0o600, account: stranger, id: "redis-file", says: "nobody-else may not read redis.password_file"},
		"a password that everybody may read":   {addresses: []string{"127.0.0.1:6379"}, password: 0o644, id: "redis-secret-open", says: "0644"},
		"a password that everybody may change": {addresses: []string{"127.0.0.1:6379"}, password: 0o602, id: "redis-secret-open", says: "0602"},
	} {
		t.Run(name, func(t *testing.T) {
			conf := config.Default()
			conf.Redis.Addresses, conf.Redis.TLS = c.addresses, c.tls
			if c.password != 0 {
				conf.Redis.PasswordFile = filepath.Join(t.TempDir(), "password")
				if err := os.WriteFile(conf.Redis.PasswordFile, []byte("secret\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				chmod(t, conf.Redis.PasswordFile, c.password)
			}
			all := surroundings{config: conf, account: c.account}.redisAccess()
			if c.id == "" {
				if len(all) > 0 {
					t.Errorf("%+v", all)
				}
				return
			}
			if len(all) != 1 || all[0].ID != c.id || !strings.Contains(all[0].What, c.says) || all[0].Severity < mta.Warning {
				t.Fatalf("%+v; want %s with %q", all, c.id, c.says)
			}
			if f := all[0]; f.Where == "" || f.Why == "" || f.Remedy == "" {
				t.Errorf("half a finding: %+v", f)
			}
		})
	}
}

func TestRedisOnAClockOfItsOwn(t *testing.T) {
	for ahead, says := range map[time.Duration]string{0: "", time.Second: "", -time.Second: "", time.Minute: "1m0s ahead of", -time.Hour: "1h0m0s behind"} {
		all := redisClock(ahead, "here")
		if says == "" && len(all) > 0 || says != "" && (len(all) != 1 || !strings.Contains(all[0].What, says)) {
			t.Errorf("%s: %+v", ahead, all)
		}
	}
}

func TestOlderVersion(t *testing.T) {
	for version, is := range map[string]bool{"5.0.14": true, "6.0.16": true, "6.2.0": false, "7.0.15": false, "10.0": false, "": false, "unstable": false} {
		if older(version, 6, 2) != is {
			t.Errorf("%q: older than 6.2: %v", version, !is)
		}
	}
}
