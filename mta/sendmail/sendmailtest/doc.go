// Package sendmailtest starts a private real Sendmail, the MTA and the
// submission program behind sendmail(1), for tests, the demo and the
// benchmark.
//
// Debian's Sendmail conflicts with Postfix, so it is not installed but
// unpacked into a folder (./dev test-sendmail does). Configuration, queues,
// log and mailboxes lie below one directory, services listen on free loopback
// ports, and mail that leaves ends in a smtptest.Sink. sendmail.cf and
// submit.cf are made by m4 from the package's own files, with Debian's
// settings. Sendmail needs root; so does everything here.
//
// Every process of it lives in a mount and host name space of its own, where
// /etc/mail is ConfigDir, /dev/log the harness's own socket, and the machine
// has a qualified name and no DNS. So sendmail(1) runs as it is packaged,
// set-group-id and without -C, and nothing of it reaches the host's syslog.
// Sendmail.Inside, Command and StartCommand run what must see the same.
//
// Trap: outside, on a host whose name has no domain, every single start of the
// sendmail binary sleeps for a minute.
package sendmailtest
