// Package procmail finds where procmail(1) sends mail on: /etc/procmailrc and the
// accounts' ~/.procmailrc, with what they include. It runs nothing. Files that
// mail is only stored in are no targets; programs are, known by their hash, unless
// they are the system's own and only print or compute.
//
// The trap: an rcfile has no lines. A statement ends where its last word does, so
// "X=1 :0" begins a recipe, as does what follows a skipped word; a quote runs over
// newlines; ":" without a number has one condition that needs no "*". The parser
// here goes by procmail's own, character for character. What runs is not known,
// either: conditions are taken for both true and false, and variables for all the
// values that they may have.
package procmail
