// Package postfixtest starts a private real Postfix, with SMTP AUTH by a real
// Dovecot, for tests, the demo and the benchmark.
//
// Nothing of the host's own mail system is read or changed: configuration,
// queue, data directory, log and mailboxes lie below one directory, every
// port is a free one of the loopback interface, and mail that leaves ends in
// a smtptest.Sink. The services are chrooted as Debian ships them, so a Unix
// milter socket has to lie where users' sockets lie (MilterDir, MilterName).
// Postfix needs root; so does everything here.
//
// Trap: sendmail(1) takes a foreign configuration directory from users other
// than root only as MAIL_CONFIG in the environment, not as -C, and only if
// its real group is postdrop. Sendmail runs it that way; a plain exec of
// sendmail as another user ends in the host's own Postfix.
package postfixtest
