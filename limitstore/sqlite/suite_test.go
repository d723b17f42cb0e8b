package sqlite_test

import (
	"testing"

	"relayguard/limitstore/sqlite"
	"relayguard/policy/limit"
	"relayguard/policy/limit/limittest"
)

func TestStore(t *testing.T) {
	limittest.Store(t, func(t *testing.T) limit.Store {
		return open(t, sqlite.Options{Path: somewhere(t), Memory: limittest.Options()})
	})
}
