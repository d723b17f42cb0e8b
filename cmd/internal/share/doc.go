// Package share gives the relays of one fleet the same orders: a suspension on
// one is in force on all within a second, or as soon as Redis can be reached.
//
// One hash in Redis has the last that is known of each switch, as
// switches.Entry encodes it, under its name. A relay that sees another version
// token than before reads the whole hash, takes over what is newer than its own
// file and writes what is older there. Of two changes about the same the one
// that was dated later stays, on every relay, in whatever order they hear of it;
// dates are by Redis's clock while it is there, and a change is always dated
// after what it changes. That a switch was taken back stays in the hash and in
// every file for 30 days. A relay that was away for longer than that brings back
// what was taken back meanwhile.
//
// A web node (Options.Node) only takes orders: what its own admin says is in force
// there alone, over what a relay ordered before.
//
// The file is the truth: what is ordered here is in force and written before
// Redis hears of it, and a Redis that was emptied is filled again. The red
// switch is never shared. Trap: whoever may write to this hash may suspend
// anyone and lift any limit on all relays; it wants the password that the
// buckets want.
package share
