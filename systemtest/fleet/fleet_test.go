package fleet_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"relayguard/limitstore/redis/redistest"
	"relayguard/mta/postfix/postfixtest"
	"relayguard/systemtest/relay"
)

// fleet is some relays on one Redis.
type fleet struct {
	redis  *redistest.Redis
	relays []*node
}

// node is one relay of a fleet, with its way to Redis.
type node struct {
	*relay.Relay
	t       *testing.T
	network *redistest.Network
}

// fleetOptions describe a fleet.
type fleetOptions struct {
	relays int      // how many; 0 is three
	limits string   // TOML: sections [[limit]]
	redis  string   // further lines of the section [redis]
	server []string // settings of Redis
	away   bool     // the last relay starts without a way to Redis

	sentinels *redistest.Sentinels // in place of one server; without networks
}

// With the race detector in it, and on a busy machine, nothing answers within
// the 50 ms that are the default.
const patient = "timeout = \"2s\"\n"

// logins are who may send.
var logins = []string{"taro@example.jp", "hanako@example.jp", "jiro@example.jp", "saburo@example.jp", "mallory@example.jp"}

// startFleet starts Redis, a network for each relay, and the relays.
func startFleet(t *testing.T, o fleetOptions) *fleet {
	t.Helper()
	postfixtest.Need(t)
	if o.relays == 0 {
		o.relays = 3
	}
	f := &fleet{}
	if o.sentinels == nil {
		f.redis = redistest.Server(t, o.server...)
	}
	var each []relay.Options
	for i := range o.relays {
		n := &node{t: t}
		f.relays = append(f.relays, n)
		store := ""
		if o.sentinels == nil {
			n.network = redistest.Proxy(t, f.redis.Addr)
			store = onRedis(i, o.redis, n.network.Addr)
		} else {
			store = onRedis(i, o.redis+onSentinels, o.sentinels.Addresses()...)
		}
		each = append(each, relayOptions(o.limits+store))
	}
	if o.away {
		f.relays[o.relays-1].network.Refuse()
	}
	for i, r := range relay.StartTests(t, each...) {
		f.relays[i].Relay = r
	}
	return f
}

func relayOptions(config string) relay.Options {
	o := relay.Options{Binary: guardBinary, Config: config, Postfix: postfixtest.Options{Users: map[string]string{}}}
	for _, login := range logins {
		o.Postfix.Users[login] = "secret"
	}
	return o
}

// onRedis is the configuration of a relay that has its store there.
func onRedis(relay int, more string, addresses ...string) string {
	return fmt.Sprintf("\n[store]\nkind = \"redis\"\n\n[redis]\naddresses = [\"%s\"]\nrelay = %q\n%s%s", strings.Join(addresses, `", "`), nameOf(relay), patient, more)
}

// leastUser is a setting of Redis: a user that may what check says it must. asUser
// are further lines of relays that log in as that one.
const (
	leastUser = "user relayguard on >secret ~{relayguard}:* &{relayguard}:* +@all -@admin -@dangerous +info"
	asUser    = "user = \"relayguard\"\n"
)

// passwordFile is a file with the password of leastUser.
func passwordFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "redis.password")
	if err := os.WriteFile(path, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// onSentinels are further lines if the addresses are Sentinels'.
const onSentinels = "mode = \"sentinel\"\nmaster = \"" + redistest.MasterName + "\"\n"

func nameOf(relay int) string { return string(rune('a' + relay)) }

// perLogin is a limit on logins.
func perLogin(name, more string, windows string) string {
	return fmt.Sprintf("[[limit]]\nname = %q\nper = \"login\"\nwindows = [%q]\n%s\n", name, windows, more)
}
