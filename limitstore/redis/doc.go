// Package redis keeps the buckets of several relays in one Redis.
//
// Store is a limit.Store and a limit.Keeper: each step is one run of one Lua
// script, which Redis does without a pause, so that what all relays pass
// together is never more than a limit allows. Shared is what a relay uses: a
// Store, and buckets of its own for as long as Redis is away.
//
// The script and what it reads and answers: script.lua, with cold.lua inside it
// for what is not simple, and script.go. What a
// bucket looks like in Redis: state.go. What keys are called: store_keys.go.
// Steps that come while others are on their way are sent together (batch.go);
// a step that comes alone is one round trip, at once.
//
// All keys have one hash tag, {Prefix}: in a Cluster all are on one node, which
// gives fail-over and no more room than that node has. Redis 6.2 or newer.
//
// Answers are those of limit.Memory, to the letter. Buckets have a time to live
// in Redis, which is longer than they make a difference: by a slot of the longest
// window and ten minutes, since the caller's now is not Redis's. A shut bucket
// has none. How many there may be is Redis's maxmemory to say; with
// maxmemory-policy noeviction a full Redis is away, with any other it forgets
// budgets.
//
// # What Redis loses
//
// Replication is asynchronous: a master that dies takes with it what its replica
// had not read yet, usually some milliseconds of steps. What they took is then
// free again, once. A Redis without appendonly that is restarted knows nothing;
// appendonly with appendfsync everysec loses a second at most. Sentinels or a
// Cluster that lose sight of a master, which goes on for those who see it, lose
// all that it takes from then on; min-replicas-to-write 1 bounds that.
//
// # Traps
//
// An error is not a no. ErrAway: the step was not done. ErrUnsure: it may have
// been; give it an ID and ask Outcome, or give it again with that ID within a
// minute. The client repeats nothing by itself, and follows no MOVED or ASK: the
// step that gets it fails, and those after it go to the right node.
//
// Redis's scripts may not be interrupted: a step of a thousand charges or of
// items by the thousand holds up all relays for some milliseconds.
//
// Open silences what go-redis prints to standard error, in the whole program.
package redis
