package watchhelper

import (
	"slices"
	"strings"
)

// ruleName reports whether a file of that name may be one in which forwarding
// rules stand, of any account or mailbox: the mail server looks for it by name.
func ruleName(base string) bool {
	for _, begin := range []string{".forward", ".qmail", ".courier", ".mailfilter", ".maildroprc", ".procmailrc", ".dovecot.sieve", ".dovecot.svbin", ".vacation"} {
		if strings.HasPrefix(base, begin) {
			return true
		}
	}
	return strings.HasSuffix(base, ".sieve") || strings.HasSuffix(base, ".svbin")
}

// serverFile reports whether a path outside homes is one of a mail server's
// settings, tables, scripts or lists: what the finders in forward/ read of a
// server, and root alone may read.
func serverFile(p string) bool {
	elements := strings.Split(strings.TrimPrefix(p, "/"), "/")
	base, dirs := elements[len(elements)-1], elements[:len(elements)-1]
	switch {
	case ruleName(base), tableName(base), serverDir(dirs):
		return true
	case len(dirs) > 0 && dirs[len(dirs)-1] == "etc":
		return mailName(base) // /etc/aliases.db
	}
	return base == "master.pid" && len(dirs) > 0 && dirs[len(dirs)-1] == "pid"
}

// serverDir reports whether a directory, or one that it lies in, holds a mail
// server's settings, or a list server's lists; etc may be that of a chroot.
func serverDir(dirs []string) bool {
	for n := range dirs {
		if n > 0 && dirs[n-1] == "etc" && mailName(dirs[n]) {
			return true
		}
	}
	if len(dirs) < 2 || dirs[0] != "var" {
		return false
	}
	switch dirs[1] {
	case "lib":
		return len(dirs) > 2 && listServer(dirs[2])
	case "qmail":
		return len(dirs) > 2 && dirs[2] != "queue" && dirs[2] != "supervise"
	case "spool":
		return len(dirs) > 3 && strings.HasPrefix(dirs[2], "postfix") && dirs[3] == "plesk"
	}
	return false
}

// mailName tells names below /etc that are about mail.
func mailName(name string) bool {
	for _, begin := range []string{"postfix", "dovecot", "mail", "exim", "courier", "procmail", "sendmail", "aliases", "virtual", "valiases", "vdomainaliases",
		"vfilters", "vmail", "vhosts", "sieve", "majordomo", "sympa", "qmail", "localdomains", "userdomains", "relayguard"} {
		if strings.HasPrefix(name, begin) {
			return true
		}
	}
	return false
}

func listServer(name string) bool {
	for _, begin := range []string{"mailman", "majordomo", "sympa", "mlmmj", "ezmlm", "postfix"} {
		if strings.HasPrefix(name, begin) {
			return true
		}
	}
	return false
}

// tableName tells lookup tables that lie elsewhere, by what they are called.
func tableName(base string) bool {
	stem, _, _ := strings.Cut(base, ".")
	if strings.HasSuffix(base, ".cf") || stem == "passwd" || stem == "users" { // a user database of Dovecot's
		return true
	}
	for _, part := range []string{"aliases", "virtual", "canonical", "generic", "transport", "mailertable", "virtusertable", "mailbox", "relay_recipients", "relocated", "bcc"} {
		if strings.Contains(stem, part) {
			return slices.Contains([]string{"", ".db", ".lmdb", ".cdb", ".pcre", ".regexp", ".cidr", ".map", ".txt", ".pag", ".dir"}, base[len(stem):])
		}
	}
	return false
}

// private reports whether a path below a home, relative to it, is one that no file
// of rules includes: what programs keep there of their own, and mail.
func private(below string) bool {
	elements := strings.Split(below, "/")
	for _, name := range elements {
		if strings.HasPrefix(name, ".") && !rulesDir(name) {
			return true
		}
	}
	base := elements[len(elements)-1]
	if strings.Trim(base, "0123456789") == "" { // MH
		return true
	}
	for _, name := range elements[:len(elements)-1] {
		if name == "mail" || name == "Mail" || name == "Maildir" || name == "mboxes" {
			return true
		}
	}
	switch base {
	case "configuration.php", "config.php", "config.inc.php", "settings.php", "local.php", "parameters.yml", "database.yml", "secrets.yml":
		return true
	}
	return false
}

// rulesDir tells hidden names in which people keep parts of their rules.
func rulesDir(name string) bool {
	for _, begin := range []string{".procmail", ".mailfilter", ".maildrop", ".sieve", ".dovecot", ".forward", ".qmail", ".courier", ".lists", ".aliases", ".dotfiles"} {
		if strings.HasPrefix(name, begin) {
			return true
		}
	}
	return false
}
