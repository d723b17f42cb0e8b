package mta

import "relayguard/policy"

// Listener is one milter socket of the guard, as far as Postfix must know it.
type Listener struct {
	Role    policy.Role
	Network string // "unix" or "tcp"
	Address string // absolute path, or host:port
}
