package redis

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"relayguard/policy/limit"
)

// Options say which Redis, and how it is spoken to.
type Options struct {
	Mode      string   // "single" (or empty), "sentinel", "cluster"
	Addresses []string // "host:port", or "/path.sock" if single; of the Sentinels or nodes, some are enough
	Master    string   // of "sentinel": what they call it

	User, Password   string // empty: none
	SentinelPassword string
	Database         int         // not of "cluster"
	TLS              *tls.Config // nil: none

	// Prefix begins the names of all keys, in braces: one hash tag, so that in a
	// Cluster all are on one node and one script can reach them. Letters, digits,
	// and "_", "-", "."; empty is "relayguard".
	Prefix string

	// Timeout bounds each call; 0 is 50 ms.
	Timeout time.Duration

	// Own is this relay's name. Buckets of local accounts and machines, which
	// mean something else on each relay, are kept under it. Empty: they are
	// shared, too.
	Own string

	DistinctExact   int // as in limit.MemoryOptions
	KnownPerAccount int

	Log *slog.Logger // nil: none
}

var prefixes = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

func (o *Options) check() error {
	var errs []error
	switch {
	case len(o.Addresses) == 0:
		errs = append(errs, errors.New("addresses: got none, want at least one"))
	case o.Mode == "single" && len(o.Addresses) > 1:
		errs = append(errs, fmt.Errorf("addresses: got %d, want one of a single Redis", len(o.Addresses)))
	case o.Mode == "sentinel" && o.Master == "":
		errs = append(errs, errors.New("master: got none, want the name that the Sentinels know"))
	case o.Mode == "cluster" && o.Database != 0:
		errs = append(errs, fmt.Errorf("database: got %d, a Cluster has only 0", o.Database))
	case o.Mode != "single" && o.Mode != "sentinel" && o.Mode != "cluster":
		errs = append(errs, fmt.Errorf(`mode: got %q, want "single", "sentinel" or "cluster"`, o.Mode))
	}
	if !prefixes.MatchString(o.Prefix) {
		errs = append(errs, fmt.Errorf(`prefix: got %q, want up to 64 letters, digits, "_", "-", "."`, o.Prefix))
	}
	return errors.Join(errs...)
}

func (o Options) orDefault() Options {
	if o.Mode == "" {
		o.Mode = "single"
	}
	if o.Prefix == "" {
		o.Prefix = "relayguard"
	}
	if o.Timeout <= 0 {
		o.Timeout = 50 * time.Millisecond
	}
	if o.DistinctExact <= 0 {
		o.DistinctExact = limit.DefaultDistinctExact
	}
	if o.KnownPerAccount <= 0 {
		o.KnownPerAccount = limit.DefaultKnownPerAccount
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// client is go-redis without what it does by itself: it repeats nothing, follows
// nobody to another node in the middle of a call, and waits for nothing longer
// than the time-out.
func (o *Options) client() goredis.UniversalClient {
	u := &goredis.UniversalOptions{
		Addrs: o.Addresses, MasterName: o.Master,
		Username: o.User, Password: o.Password, SentinelPassword: o.SentinelPassword,
		DB: o.Database, TLSConfig: o.TLS, Protocol: 2,
		MaxRetries: -1, MaxRedirects: -1, DialerRetries: 1,
		DialTimeout: o.Timeout, ReadTimeout: o.Timeout, WriteTimeout: o.Timeout, PoolTimeout: o.Timeout,
		ContextTimeoutEnabled: true, DisableIdentity: true, PoolSize: 8,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	switch o.Mode {
	case "cluster":
		return goredis.NewClusterClient(u.Cluster())
	case "sentinel":
		return goredis.NewFailoverClient(u.Failover())
	}
	single := u.Simple()
	if strings.HasPrefix(single.Addr, "/") {
		single.Network = "unix"
	}
	return goredis.NewClient(single)
}
