package redis_test

import (
	"fmt"
	"testing"

	"relayguard/limitstore/redis"
	"relayguard/limitstore/redis/redistest"
	"relayguard/policy/limit"
	"relayguard/policy/limit/limittest"
)

func TestStore(t *testing.T) {
	r := redistest.Server(t)
	stores := 0
	limittest.Store(t, func(t *testing.T) limit.Store {
		stores++
		return open(t, r, func(o *redis.Options) {
			o.Prefix = fmt.Sprint("test", stores)
			o.DistinctExact, o.KnownPerAccount = limittest.Options().DistinctExact, limittest.Options().KnownPerAccount
		})
	})
}
