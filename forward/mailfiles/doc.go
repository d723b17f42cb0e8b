// Package mailfiles finds the forwarding rules that lie in files of qmail (and
// Plesk's mailboxes), Courier, cPanel and Exim. Postfix and Sendmail have
// rooms of their own, as have Sieve, procmail and maildrop.
//
// The trap: a .forward that begins with "# Exim filter" is a program, of which
// all targets are told, whatever its conditions say; what the expansion of a
// variable would put into them stands as unknown. Whether the mail server that
// reads these files runs on the host is not asked: a place is read where its
// own files are (a control directory, a database of the panel), and a rule in
// it is taken to be in force.
package mailfiles
