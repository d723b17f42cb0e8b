package watchhelper

import (
	"path"
	"slices"
	"strings"
)

// Secret reports whether a file, by its real path, is one that no forwarding rule
// can stand in and that is nobody's business: password hashes, keys, queued and
// delivered mail, backups, and what the kernel shows of processes. An unknown path
// is secret.
func Secret(p string) bool {
	return hidden(p) || keyFile(p)
}

// hidden is Secret without what may be a key.
func hidden(p string) bool {
	if !strings.HasPrefix(p, "/") {
		return true
	}
	for _, dir := range secretDirs {
		if strings.HasPrefix(p, dir) {
			return true
		}
	}
	elements := strings.Split(strings.TrimPrefix(p, "/"), "/")
	base, dirs := elements[len(elements)-1], elements[:len(elements)-1]
	return slices.ContainsFunc(dirs, secretDir) || queued(dirs) || inMaildir(dirs) || secretName(base)
}

// secretDirs are what stands below them, too.
var secretDirs = []string{"/proc/", "/sys/", "/dev/", "/boot/", "/run/credentials/", "/etc/ssh/", "/etc/ssl/private/",
	"/etc/letsencrypt/archive/", "/etc/letsencrypt/keys/", "/etc/dovecot/private/",
	"/var/mail/", "/var/spool/mail/", "/var/backups/", "/var/cache/", "/var/log/", "/var/lib/mysql/", "/var/lib/postgresql/", "/var/lib/ldap/",
	"/var/lib/redis/", "/var/lib/systemd/", "/var/lib/private/", "/var/spool/cron/", "/var/spool/cups/"}

// secretDir tells directories whose content is a person's or a key anywhere.
func secretDir(name string) bool {
	return slices.Contains([]string{".ssh", ".gnupg", ".aws", ".password-store", "dbox-Mails", "mdbox", "sdbox"}, name)
}

// queued tells the directories in which mail servers keep mail: but for a few of
// Postfix's (etc of a chroot, pid, and what panels put there) the whole spool.
func queued(dirs []string) bool {
	if len(dirs) < 3 || dirs[0] != "var" || dirs[1] != "spool" {
		return false
	}
	switch mta := dirs[2]; {
	case strings.HasPrefix(mta, "postfix"):
		return len(dirs) > 3 && slices.Contains([]string{"active", "bounce", "corrupt", "defer", "deferred", "flush", "hold",
			"incoming", "maildrop", "private", "public", "saved", "trace"}, dirs[3])
	case strings.HasPrefix(mta, "exim"), strings.HasPrefix(mta, "mqueue"), mta == "clientmqueue", mta == "qmail", mta == "smtpd", mta == "courier":
		return true
	}
	return false
}

// inMaildir tells the parts of a Maildir. "tmp" is a usual name elsewhere: there,
// what is beside it tells (warden.mail).
func inMaildir(dirs []string) bool {
	if len(dirs) == 0 {
		return false
	}
	switch dirs[len(dirs)-1] {
	case "cur", "new":
		return true
	case "tmp":
		box := path.Base("/" + path.Join(dirs[:len(dirs)-1]...))
		return strings.HasPrefix(box, ".") || strings.Contains(strings.ToLower(box), "maildir")
	}
	return false
}

// secretName tells files by their own name, wherever they lie: in a chroot, in a
// container's disk, as a copy.
func secretName(base string) bool {
	name := strings.ToLower(strings.TrimPrefix(base, "."))
	for _, begin := range []string{"shadow", "gshadow", "opasswd", "sasl_passwd", "sasldb2", "ssh_host_", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519",
		"krb5.keytab", "credentials", "wp-config", "pgpass", "netrc", "swapfile", "master.passwd", "passwd.client", "htpasswd"} {
		if strings.HasPrefix(name, begin) {
			return true
		}
	}
	for _, end := range []string{"_history", ".keytab", ".kdbx", ".p12", ".pfx", ".ovpn", ".gpg", ".swp"} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return name == "mbox" || name == "dead.letter" || dboxFile(name)
}

// dboxFile tells Dovecot's own mail files: "m.12", "u.7".
func dboxFile(name string) bool {
	rest, ok := strings.CutPrefix(name, "m.")
	if !ok {
		rest, ok = strings.CutPrefix(name, "u.")
	}
	return ok && rest != "" && strings.Trim(rest, "0123456789") == ""
}

// keyFile tells what is a key, or a client's settings with a password in them; mail
// servers have theirs among their own. A certificate looks the same, and so do
// settings that everybody may read: those are shown to whom may read them.
func keyFile(p string) bool {
	name := strings.ToLower(path.Base(p))
	for _, end := range []string{".key", ".pem", ".private"} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return strings.HasSuffix(name, ".cnf") && !serverFile(p)
}
