// Package backup keeps settings as they were before the guard changed them, and
// puts them back. What is restored becomes a mail server's configuration, with
// all that runs as root there: so it reads nothing that others than root could
// have written, and refuses that with ErrUntrusted.
package backup
