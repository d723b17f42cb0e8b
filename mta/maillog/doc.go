// Package maillog reads what the MTA logs about mail and hands it over as
// events: who submitted a message, under which queue id it runs, what became
// of it for each recipient, who failed to authenticate.
//
// Parsing (parse.go: the syslog prefix; postfix.go and actions.go: Postfix's
// programs; sendmail.go: Sendmail; dovecot.go: what Sieve scripts did) knows nothing of files. A Follower reads a log file across rotations, or the
// systemd journal through journalctl, and tells for each event the Position
// after it. Who stores that position when the event is dealt with loses
// nothing: after a crash the events since come again.
//
// What a Follower hands over twice: exactly the events after the stored
// position, so store it with the work. Position.ID is the same both times. What it can
// lose (a log removed, compressed beyond reach or emptied before it was read)
// it tells as a Gap.
//
// Everything in a line came from the network or from a local user. A field is
// believed only at its place in a line of the right program, and where the
// places cannot be told for certain the event is Unreadable and says nothing.
// Three traps are left. Addresses are told apart only in the form that
// Postfix logs since 3.5 (info_log_addr_form = external). A syslog service that
// cuts lines below 2,000 octets (Postfix's own limit, which is allowed for)
// lets a sender choose where. And any local user can hand syslog a line in
// Postfix's name: a file cannot tell, a journal can (Options.UIDs). So an event
// is evidence, never a permission.
package maillog
