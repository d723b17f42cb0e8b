// Package limit counts what passes, and says when it is too much.
//
// The words:
//
//   - A Limit is a configured rule: per what it counts (Per), what it counts
//     (Unit), how much in which Windows, and its Kind.
//   - A Window is a count in a length of time. The burst is the short one.
//   - A bucket is the state of one limit for one key: "login-volume" for
//     "login:taro@example.jp". It lives in a Store.
//   - A Charge is what a message takes from one bucket. The charges of a message
//     are one step: all are taken or none is.
//   - An attempt is what would have been taken, had it not been stopped.
//   - Volume heals: what is used becomes free with time. Abuse latches: the first
//     charge that does not fit shuts the bucket until somebody resumes it.
//   - A soft window stops nothing: it is told when it would have.
//   - A retry (Retries) is free: what was charged once and then tried again,
//     because the MTA did not take it, is not charged twice.
//
// A window slides. What passes, an exact count over every closed interval of its
// length allows; what is refused, an exact count over 17/16 of it refuses. For
// that a bucket keeps cells: a window's time is cut into slots of a sixteenth of
// its length, a cell is what was taken in one slot and when its last event was,
// and it counts in full as long as that last event is inside the window.
//
// An example: 100 recipients in 16 minutes, slots of one minute. 60 recipients
// at 9:00:10 and 40 at 9:00:50 share the slot of 9:00; the cell says 100, last
// 9:00:50. A message to one at 9:10 does not fit: 100 + 1 > 100. It is free at
// 9:16:50.000001, a microsecond after the last event left the closed window. An
// exact count would have had 60 free from 9:16:10 on; it is this, less than a
// sixteenth, that the sparse count costs. It never costs in the other direction.
//
// Two traps. Everything that decides takes now from the caller, in integer
// microseconds, and in a bucket time never runs backwards: a bucket that has
// seen tomorrow stays there until tomorrow (or Reset). And a store that gives an
// error has not said yes: what becomes of the message then is the caller's
// decision, and "let it pass uncounted" is the wrong one.
//
// The package decides nothing about mail: it does not know verdicts, and keys
// are made by others, who see to it that none is one that the sender can choose.
package limit
