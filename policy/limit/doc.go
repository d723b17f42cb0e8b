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
//   - An Item is one recipient, as a keyed digest. Known is whom an account has
//     written to.
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
// # What the units count
//
// Messages, Recipients and Bytes count the charge's amount. So do Bounces, of
// which a message asks with an amount of 0: it fits if there is room for one
// more, and an abuse bucket without is shut by it. Bounces come by Add.
//
// FirstTime counts, in cells like any other, those of the charge's items that
// the step's account does not know. If it knows all, the charge fits, whatever
// was used; but with no items it only asks. In a shut bucket those items are
// known that the account wrote to before the bucket was shut: a charge of only
// such fits, takes nothing, and its uses are not over, though Latched says that
// the bucket is shut; every other is shut out, and its amount is of those that
// are not.
//
// Distinct counts the items of which the last event is inside the closed window,
// exactly: it has no cells. A charge's amount is those of its items that the
// window does not count; if it counts all, the charge fits, whatever was used.
// When a charge is taken all its items have their last event then, so that a
// soft window counts on, too. Amount, Over, Never and FreeAt are of each window;
// an attempt is the largest amount of the windows.
//
// # What an account knows
//
// A step that was taken, and one that was added, gives each of Known.Items a
// last event, and if it was not known a first one, both at t, the later of now
// and the last event of all the account's items, and not before microsecond 1.
// An item is known if its last event is at most KnownTerm before t. After that
// no more than a bounded number stay, those with the latest last event; of those
// of one microsecond, the items that are larger as unsigned numbers. A step's
// charges are weighed before any of this.
//
// # Distinct, when there are many
//
// A bucket keeps up to N items (MemoryOptions.DistinctExact) and is exact up to
// then. Beyond, it keeps a sample. Its state is a level k, 0 to 32, the items
// kept, each with its last event, and thrown, the last event of what it left
// out; t is the later of now and its newest event, thrown and attempts among
// them; L is its longest window, W a window, all in microseconds.
//
//  1. An item is in the sample of level k if the low k bits of it, of its low 32
//     as an integer, are 0. Items are keyed hashes and need no mixing.
//  2. Weigh: if thrown < t - L, k is 0 for this step. Used is 2^k times the items
//     kept with a last event >= t - W. Amount is the charge's items less those of
//     them that are kept with a last event >= t - W: who is left out of the
//     sample counts as new, or whoever is left out would pass for ever. Never:
//     the charge has more items than the window's Count.
//  3. FreeAt is the earliest later time at which Used + Amount, as of 2, is at
//     most Count, if nothing else comes: it is one microsecond after an item's
//     last event leaves the window, or after thrown leaves L, when k is 0.
//  4. Take (and Add), of one item or more: if thrown < t - L, both k and thrown
//     are 0 from then on. Each item in the sample of k is kept with last event t;
//     if one is not, thrown becomes t.
//  5. If then more than N are kept, those with a last event < t - L go, without a
//     trace. While more than N are kept and k < 32: k rises by one, and those not
//     in its sample go; thrown becomes the latest of their last events, if that
//     is later than it was.
//
// At level k a count of C has a standard error of the root of C times 2^k - 1.
// Where k has just risen for the longest window that is about 1.2 / root N of
// the count: 4 % for N = 1,000. It is no more than that of the limit's largest
// Count, since what is over it is not taken; a shorter window, with fewer in the
// same sample, is coarser. Set N to the largest Count of your distinct limits,
// and all of them are exact.
//
// Two traps. Everything that decides takes now from the caller, in integer
// microseconds, and in a bucket time never runs backwards: a bucket that has
// seen tomorrow stays there until tomorrow (or Reset; Memory.Ahead finds it). And a store that gives an
// error has not said yes: what becomes of the message then is the caller's
// decision, and "let it pass uncounted" is the wrong one.
//
// The package decides nothing about mail: it does not know verdicts, and keys
// are made by others, who see to it that none is one that the sender can choose.
package limit
