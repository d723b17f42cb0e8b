// Package aliases reads what local(8) delivers by: aliases(5), :include: files
// and .forward, as the parser of Postfix reads them and with the rights that
// Postfix reads them with. It lists no compiled tables (forward/tables) and
// does not judge where a target ends (forward/judge).
//
// The trap: the right side is neither a list of words nor RFC 822. It is read
// from right to left, what stands before "<...>" or a group's colon is thrown
// away, "#" begins a comment at the start of a line only, a backslash before a
// name means nothing, and a line longer than line_length_limit is several. A
// reader that is cleaner than Postfix misses what Postfix delivers. All of it
// was observed on Postfix 3.7.11; the live tests hold it.
package aliases
