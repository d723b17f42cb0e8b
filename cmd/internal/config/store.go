package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Store says where is kept what was used of the limits.
type Store struct {
	Kind            string // StoreSQLite, StoreMemory or StoreRedis
	MaxBuckets      int
	DistinctExact   int // recipients that a bucket counts exactly
	KnownPerAccount int // recipients remembered of one account
	Known           int // of all accounts; at least KnownPerAccount
}

// What Store.Kind may be.
const (
	StoreSQLite = "sqlite"
	StoreMemory = "memory"
	StoreRedis  = "redis"
)

// Redis is the server that several relays share. It is used if Store.Kind is
// StoreRedis only.
type Redis struct {
	Mode                 string   // "single", "sentinel" or "cluster"
	Addresses            []string // host:port, [v6]:port, or the absolute path of a socket; none without StoreRedis
	Master               string   // the name by which sentinels know it
	User                 string   // "" for Redis's default one
	PasswordFile         string   // absolute; "" for none
	SentinelPasswordFile string   // absolute; "" for none
	ItemsKeyFile         string   // absolute; "": the relays agree on a key in Redis
	Database             int      // 0 with a cluster
	TLS                  bool
	CAFile               string        // absolute; "" for the system's
	Prefix               string        // of all keys
	Timeout              time.Duration // of one call; less than Milter.DecisionTimeout
	Share                int           // per cent of each limit while Redis is away
	LocalUsers           string        // "own" or "shared"
	Relay                string        // "" for the host's name
}

// Remote are the addresses that lead off this machine.
func (s *Redis) Remote() []string {
	var all []string
	for _, a := range s.Addresses {
		host, _, _ := cutLast(a, ":")
		ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
		here := strings.HasPrefix(a, "/") || host == "localhost" || err == nil && ip.Unmap().IsLoopback()
		if !here {
			all = append(all, a)
		}
	}
	return all
}

var storeFields = []field[Config]{
	key("kind", words(StoreSQLite, StoreMemory, StoreRedis), func(c *Config) *string { return &c.Store.Kind },
		`"sqlite" keeps it in a file of this machine: a crash costs at most the last tenth of a second. "memory" forgets it at each restart, and then every sender starts afresh. "redis" is for several relays that count together: see the section redis. "relayguard limits export" and "import" take it from one to another.`),
	key("max_buckets", integer(1000, 20_000_000), func(c *Config) *int { return &c.Store.MaxBuckets },
		`How many budgets may be in use at a time, each of one limit and one sender; beyond, the longest unused go. A million take about 200 MB of memory. Redis has its own bound, maxmemory.`),
	key("distinct_exact", integer(100, 100_000), func(c *Config) *int { return &c.Store.DistinctExact },
		`Up to how many recipients a limit that counts "distinct" counts exactly. Beyond, it estimates: with 1000 it is off by about 4 %.`),
	key("known_per_account", integer(100, 10_000_000), func(c *Config) *int { return &c.Store.KnownPerAccount },
		`How many recipients of one account are remembered for limits that count "first_time"; beyond, the longest unused are forgotten, and are first-time again. At most known.`),
	key("known", integer(1000, 100_000_000), func(c *Config) *int { return &c.Store.Known },
		`The same of all accounts together.`),
}

var redisFields = []field[Config]{
	key("mode", words("single", "sentinel", "cluster"), func(c *Config) *string { return &c.Redis.Mode },
		`"single" is one server; "sentinel" one with replicas that sentinels watch; "cluster" a Redis Cluster, of which one node at a time holds all keys: it gives fail-over, not more speed.`),
	key("addresses", list(redisAddress(), true), func(c *Config) *[]string { return &c.Redis.Addresses },
		`Where it is: with "single" the server's one address or Unix socket, with "sentinel" those of the sentinels (port 26379), with "cluster" those of some nodes.`),
	key("master", optional(text("name without spaces", "the name of the master", plainFault("take that of `sentinel monitor` in sentinel.conf"))), func(c *Config) *string { return &c.Redis.Master },
		`The name by which the sentinels know the master. With mode "sentinel" only.`),
	key("user", optional(text("name without spaces", "the name of a user of Redis", plainFault("`ACL LIST` in Redis shows them"))), func(c *Config) *string { return &c.Redis.User },
		`The user of Redis to log in as. Empty: its default user.`),
	key("password_file", optional(absolutePath("a file")), func(c *Config) *string { return &c.Redis.PasswordFile },
		`A file whose first line is the password. It should be readable by the daemon's account alone. Empty: no password.`),
	key("sentinel_password_file", optional(absolutePath("a file")), func(c *Config) *string { return &c.Redis.SentinelPasswordFile },
		`The same for the sentinels. With mode "sentinel" only.`),
	key("items_key_file", optional(absolutePath("a file")), func(c *Config) *string { return &c.Redis.ItemsKeyFile },
		`A file with the key of recipients' digests, at least 32 octets, the same on all relays and readable by the daemon's account alone: "openssl rand -hex 32" makes one. Redis holds digests of recipients and no addresses. Empty: the relays agree on a key, which is in Redis, too, so that who can read Redis, a replica or a copy of it can find out whether an address is among them. With another key all recipients are first-time ones once more.`),
	key("database", integer(0, 9999), func(c *Config) *int { return &c.Redis.Database },
		`The number of the database. A cluster has only 0.`),
	key("tls", boolean(), func(c *Config) *bool { return &c.Redis.TLS },
		`Speak TLS with it. Do, if it is on another machine: who can write to it can lift every limit.`),
	key("ca_file", optional(absolutePath("a file")), func(c *Config) *string { return &c.Redis.CAFile },
		`A PEM file with the authorities that may vouch for its certificate. Empty: those of the system.`),
	key("prefix", text("1 to 64 characters a-z, A-Z, 0-9, -, _, .", `a prefix such as "relayguard"`, prefixFault), func(c *Config) *string { return &c.Redis.Prefix },
		`What all keys begin with. Relays that count together have the same one; two fleets on one Redis have two.`),
	key("timeout", duration(time.Millisecond, 5*time.Second), func(c *Config) *time.Duration { return &c.Redis.Timeout },
		`How long one call may take. One that takes longer means that Redis is away: the relay goes on by itself at once, and asks in the background when Redis is back. Less than milter.decision_timeout.`),
	key("share", integer(1, 100), func(c *Config) *int { return &c.Redis.Share },
		`How much of each limit this relay lets pass by itself while Redis is away, in per cent, counted from what it let pass itself. The relays do not know of each other then: three with 50 together let pass up to one and a half times the limit, beside what was used before.`),
	key("local_users", words("own", "shared"), func(c *Config) *string { return &c.Redis.LocalUsers },
		`Whether Unix accounts of the same number are the same sender on all relays: "shared" where the machines share their accounts, else "own". Trusted machines go by it, too.`),
	key("relay", optional(text("name: 1 to 64 characters a-z, A-Z, 0-9, -, _, .", `a name such as "relay-1"`, prefixFault)), func(c *Config) *string { return &c.Redis.Relay },
		`This relay's name among the others, of which each has another. Empty: the host's name.`),
}

// redisAddress is where a Redis server listens. Names are looked up.
func redisAddress() kind[string] {
	return text(`"host:port" or absolute path of a socket`, `an address such as "192.0.2.7:6379", "[2001:db8::7]:6379" or "/run/redis/redis.sock"`, redisAddressFault)
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)

func redisAddressFault(s string) (remedy string) {
	if rest, ok := strings.CutPrefix(s, "unix:"); ok || strings.HasPrefix(s, "/") {
		_, faults := socketPath().read(&value{kind: aString, text: rest})
		switch {
		case len(faults) > 0:
			return faults[0].remedy
		case ok:
			return "leave out unix:"
		}
		return fine
	}
	if strings.Contains(s, "://") {
		return "leave out what is before the address, and the ://; TLS is redis.tls"
	}
	if ip, err := netip.ParseAddr(s); err == nil && ip.Is6() {
		return fmt.Sprintf("write %q", "["+s+"]:6379")
	}
	host, port, found := cutLast(s, ":")
	n, err := strconv.ParseUint(port, 10, 16)
	inner, closed := strings.CutSuffix(strings.TrimPrefix(host, "["), "]")
	ip, v6 := netip.ParseAddr(inner)
	switch {
	case !found && hostName.MatchString(s):
		return fmt.Sprintf("add the port: %q", s+":6379")
	case err != nil || n == 0:
		return "write the port as a number from 1 to 65535"
	case strings.HasPrefix(host, "[") && closed && v6 == nil && ip.Is6():
		return fine
	case len(host) > 253 || !hostName.MatchString(host):
		return "write a name or an address before the port, IPv6 in brackets"
	}
	return fine
}

func plainFault(remedy string) func(string) string {
	return func(s string) string {
		if s == "" || len(s) > 128 || unprintable(s) || strings.ContainsAny(s, " \t") {
			return remedy
		}
		return fine
	}
}

func prefixFault(s string) string {
	if len(s) < 1 || len(s) > 64 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "" {
		return "write letters, digits, -, _ and . only" // { } would change the hash slot of a cluster
	}
	return fine
}

func (r *report) checkStore(c *Config, seen map[string]*table) {
	store, redis, milter := seen["store"], seen["redis"], seen["milter"]
	if s := c.Store; store.sure("known_per_account", "known") && s.KnownPerAccount > s.Known {
		r.add(store.placeOf("known_per_account", "known"), "store.known_per_account", fmt.Sprint(s.KnownPerAccount),
			fmt.Sprintf("at most store.known, %d", s.Known), "one account cannot have more than all: lower the one or raise the other")
	}
	used := c.Store.Kind == StoreRedis
	switch {
	case !store.sure("kind") || !redis.sure("addresses"):
		return
	case used && len(c.Redis.Addresses) == 0:
		r.add(store.place("kind"), "store.kind", `"redis" without redis.addresses`, "the addresses of Redis", `add redis.addresses = ["192.0.2.7:6379"] with yours, or delete the key to get the default "sqlite"`)
		return
	case !used && len(c.Redis.Addresses) > 0:
		r.add(redis.place("addresses"), "redis.addresses", fmt.Sprintf("addresses, and store.kind = %q", c.Store.Kind), `store.kind = "redis"`, "else Redis is not used, and each relay counts by itself: set store.kind, or delete the addresses")
		return
	case !used:
		return
	}
	if redis.sure("timeout") && milter.sure("decision_timeout") && c.Redis.Timeout >= c.Milter.DecisionTimeout {
		r.add(redis.place("timeout"), "redis.timeout", fmt.Sprintf("%q", showDuration(c.Redis.Timeout)), fmt.Sprintf("less than milter.decision_timeout, %q", showDuration(c.Milter.DecisionTimeout)),
			"else no time is left to go on without Redis: lower the one or raise the other")
	}
	if redis.sure("mode") {
		r.checkRedisMode(&c.Redis, redis)
	}
	r.checkRedisAccess(&c.Redis, redis)
}

// checkRedisMode: each mode has what it needs, and nothing that it ignores.
func (r *report) checkRedisMode(s *Redis, t *table) {
	with := fmt.Sprintf(" with mode = %q", s.Mode)
	if s.Mode == "single" && len(s.Addresses) > 1 {
		r.add(t.elem("addresses", 1), "redis.addresses", fmt.Sprintf("%d addresses", len(s.Addresses))+with, "one", `delete the others, or set mode to "sentinel" or "cluster"`)
	}
	for i, a := range s.Addresses {
		if s.Mode != "single" && strings.HasPrefix(a, "/") {
			r.add(t.elem("addresses", i), "redis.addresses", quote(a)+with, "host:port", `a Unix socket leads to one server only: write its address and port, or set mode to "single"`)
		}
	}
	switch sentinel := s.Mode == "sentinel"; {
	case sentinel && s.Master == "" && t.sure("master"):
		r.add(t.place("mode"), "redis.master", "nothing"+with, "the name of the master", "take that of `sentinel monitor` in sentinel.conf")
	case !sentinel && s.Master != "":
		r.add(t.place("master"), "redis.master", quote(s.Master)+with, `the key only with mode = "sentinel"`, "delete the key, or set the mode")
	}
	if s.Mode != "sentinel" && s.SentinelPasswordFile != "" {
		r.add(t.place("sentinel_password_file"), "redis.sentinel_password_file", quote(s.SentinelPasswordFile)+with, `the key only with mode = "sentinel"`, "delete the key, or set the mode")
	}
	if s.Mode == "cluster" && s.Database != 0 {
		r.add(t.place("database"), "redis.database", fmt.Sprint(s.Database)+with, "0", "a cluster has no other database: delete the key; redis.prefix keeps fleets apart")
	}
}

func (r *report) checkRedisAccess(s *Redis, t *table) {
	if s.User != "" && s.PasswordFile == "" && t.sure("password_file") {
		r.add(t.place("user"), "redis.user", quote(s.User)+", and no redis.password_file", "a password for the user", "name a file with it in redis.password_file, or delete the key")
	}
	if s.CAFile != "" && !s.TLS && t.sure("tls") {
		r.add(t.place("ca_file"), "redis.ca_file", quote(s.CAFile)+", and tls = false", "the key only with tls = true", "set redis.tls, or delete the key")
	}
	for i, a := range s.Addresses {
		if s.TLS && strings.HasPrefix(a, "/") {
			r.add(t.elem("addresses", i), "redis.addresses", quote(a)+" with tls = true", "no TLS on a Unix socket", "delete redis.tls: what goes through a socket stays on this machine")
		}
	}
}
