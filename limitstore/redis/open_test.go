package redis_test

import (
	"testing"
	"time"

	"relayguard/limitstore/redis"
	"relayguard/limitstore/redis/redistest"
)

// patience is the time-out of tests that want answers.
const patience = 20 * time.Second

// open makes a store of r that is empty, with a prefix of its own.
func open(t testing.TB, r *redistest.Redis, change ...func(*redis.Options)) *redis.Store {
	t.Helper()
	o := redis.Options{Addresses: []string{r.Socket}, Timeout: patience}
	for _, c := range change {
		c(&o)
	}
	s, err := redis.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
