// Package maildrop finds where maildrop(1) sends mail on: /etc/maildroprc,
// Courier's /etc/courier/maildroprc and the accounts' ~/.mailfilter, with what
// they include. It runs nothing. Mailboxes are no targets; "!" and "|" are, also
// as the DEFAULT that takes what no "to" has taken. Filters of embedded mode
// (~/.mailfilters) cannot send mail and are not read.
//
// The trap: "!" is no list of addresses but the end of a command line that the
// shell runs behind SENDMAIL, and everything is text that variables, backticks and
// patterns put together. The parser goes by maildrop's own; what runs is not
// known: both branches of "if" count, loops more than once, and variables have all
// the values that they may have. What it cannot parse, maildrop defers; it is told
// as something that cannot be read.
package maildrop
