package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"relayguard/forward/ledger"
	"relayguard/policy/address"
)

// Forward is how forwarding rules are found, watched and judged.
type Forward struct {
	Watch     bool
	Helper    string        // absolute path of the reading helper's Unix socket
	Directory string        // absolute; "": see ForwardDirectory
	Rescan    time.Duration // between two full scans
	Poll      time.Duration // between two looks at what nobody tells changes of
	Heartbeat time.Duration

	Dovecot  string // directory of dovecot.conf; "": none
	Sendmail string // sendmail.cf; "": none

	Hosts     []string // next hops of ours, lower case; addresses in their short form
	Important []string // owners, lower case
	Roles     []string // local parts, lower case
	Writers   []string // Unix accounts

	Policy map[ledger.Class]ledger.Action // each class

	TellOwner  bool
	Stop       string // StopOff or StopHold
	StopExcept []string
}

// What Forward.Stop may be.
const (
	StopOff  = "off"
	StopHold = "hold"
)

// Database is a panel's database.
type Database struct {
	Name         string
	Panel        string
	Driver       string // "mysql", "pgsql", "sqlite"
	Address      string // host:port, or the absolute path of a Unix socket
	Database     string // its name; with sqlite the absolute path of the file
	User         string
	PasswordFile string // absolute; "": no password
}

func defaultForward() Forward {
	return Forward{
		Watch: true, Helper: "/run/relayguard-watch/watch.sock",
		Rescan: 15 * time.Minute, Poll: 30 * time.Second, Heartbeat: time.Hour,
		Dovecot: "/etc/dovecot", Sendmail: "/etc/mail/sendmail.cf",
		Roles: ledger.DefaultRoles(), Policy: ledger.DefaultPolicy(), TellOwner: true, Stop: StopOff,
	}
}

// ForwardDirectory is where the ledger of forwarding rules and the evidence are.
func (c *Config) ForwardDirectory() string {
	if c.Forward.Directory != "" {
		return c.Forward.Directory
	}
	return filepath.Join(filepath.Dir(c.Journal.Directory), "forwards")
}

var forwardFields = []field[Config]{
	key("watch", boolean(), func(c *Config) *bool { return &c.Forward.Watch },
		`Whether the daemon looks for forwarding rules. "relayguard forwards scan" looks at them in any case.`),
	key("helper", socketPath(), func(c *Config) *string { return &c.Forward.Helper },
		`The socket of the helper (relayguard-watch.socket) that reads what the daemon may not, and sees who writes.`),
	key("directory", optional(absolutePath("a directory")), func(c *Config) *string { return &c.Forward.Directory },
		`Where is kept which rules there were, who approved which, and which mail went by them: the daemon's own directory, on a local disk. Moving it needs a restart. Empty: "forwards" beside journal.directory.`),
	key("rescan", duration(time.Minute, 24*time.Hour), func(c *Config) *time.Duration { return &c.Forward.Rescan },
		`How often everything is read again, whatever the watch has seen.`),
	key("poll", duration(5*time.Second, time.Hour), func(c *Config) *time.Duration { return &c.Forward.Poll },
		`How often databases and directories (SQL, LDAP) are asked, since nobody tells of their changes.`),
	key("heartbeat", duration(time.Minute, 7*day), func(c *Config) *time.Duration { return &c.Forward.Heartbeat },
		`How often alert.webhook and alert.syslog_server get the head of the ledger's hash chain, so that a ledger that was rewritten, and a guard that is silent, can be noticed from outside.`),
	key("dovecot", optional(absolutePath("a directory")), func(c *Config) *string { return &c.Forward.Dovecot },
		`The directory of dovecot.conf. Empty, or without that file: there is no Dovecot.`),
	key("sendmail", optional(absolutePath("a file")), func(c *Config) *string { return &c.Forward.Sendmail },
		`Sendmail's sendmail.cf. Empty, or without that file: there is no Sendmail.`),
	key("hosts", list(nextHop(), true), func(c *Config) *[]string { return &c.Forward.Hosts },
		`Hosts of ours to which mail may be routed: names or addresses, as transports name them. This machine, loopback and Unix sockets are always among them.`),
	key("important", list(owner(), true), func(c *Config) *[]string { return &c.Forward.Important },
		`Owners whose every new forwarding is told at once: user@domain, a local name, or @domain.`),
	key("roles", list(localName(), true), func(c *Config) *[]string { return &c.Forward.Roles },
		`Local parts of addresses that are a function, not a person.`),
	key("writers", list(account("account"), true), func(c *Config) *[]string { return &c.Forward.Writers },
		`Unix accounts that write forwarding rules for customers: those of panels and webmail. Whoever else writes one into another's home is told at once.`),
	key("tell_owner", boolean(), func(c *Config) *bool { return &c.Forward.TellOwner },
		`Whether the owner of a mailbox gets one message when a rule of his own, which sends mail outside, is new.`),
	key("stop", words(StopOff, StopHold), func(c *Config) *string { return &c.Forward.Stop },
		`Whether mail that is forwarded from inside to outside is held, where the guard sees it: on a listener with the role "egress", and from sendmail(1). Mail by an approved rule goes on. It is never refused: that would go back to an innocent sender.`),
	key("stop_except", list(owner(), true), func(c *Config) *[]string { return &c.Forward.StopExcept },
		`Owners whose forwarded mail is not held.`),
	subsection("policy", `What becomes of a new rule, by what makes it matter; the loudest counts. "alert": told at once. "digest": in the daily report. "ignore": listed only.`, []field[Config]{
		classKey(ledger.Server, `A rule of the server, for more than one person: BCC, generic and transport tables, filters, catch-alls.`),
		classKey(ledger.Important, `Its owner is one of forward.important.`),
		classKey(ledger.Role, `Its owner is one of forward.roles.`),
		classKey(ledger.FanIn, `Three or more unrelated owners forward to its target.`),
		classKey(ledger.Differs, `What runs differs from its source: a compiled table or script that says something else.`),
		classKey(ledger.Writer, `Somebody wrote it who is neither its owner, nor one of forward.writers.`),
		classKey(ledger.Traffic, `No rule is known that says so, and the mail server's log shows that mail to one of ours went outside.`),
		classKey(ledger.Customer, `None of these: somebody's own rule.`),
	}),
}

func classKey(class ledger.Class, doc string) field[Config] {
	k := choice(ledger.Alert, ledger.Digest, ledger.Ignore)
	return field[Config]{
		name: string(class), typ: k.name, doc: doc, wanted: k.wanted,
		show: func(c *Config) string { return k.show(c.Forward.Policy[class]) },
		read: func(v *value, into *Config) []fault {
			action, faults := k.read(v)
			if len(faults) == 0 {
				into.Forward.Policy[class] = action
			}
			return faults
		},
	}
}

var databases = section[Database]{"database", `The database of a panel that keeps forwarding rules; one section for each. Tables that the mail server itself asks are found by its own settings. The account should be one that can only read.`, zero[Database], sampleDatabases, []field[Database]{
	required(key("name", label("database"), func(d *Database) *string { return &d.Name },
		`Names it in lists and logs.`)),
	required(key("panel", words("postfixadmin", "iredmail", "mailcow", "ispconfig", "plesk"), func(d *Database) *string { return &d.Panel },
		`Whose tables they are.`)),
	required(key("driver", words("mysql", "pgsql", "sqlite"), func(d *Database) *string { return &d.Driver },
		`The kind of server: "mysql" is also MariaDB.`)),
	required(key("database", sentence("its name, or the absolute path of a file"), func(d *Database) *string { return &d.Database },
		`Its name; with "sqlite" the absolute path of the file.`)),
	key("address", optional(serverAddress()), func(d *Database) *string { return &d.Address },
		`Where the server is: host:port, or the absolute path of its Unix socket. Empty with "sqlite".`),
	key("user", optional(sentence("the database's account")), func(d *Database) *string { return &d.User },
		`The database's account.`),
	key("password_file", optional(absolutePath("a file")), func(d *Database) *string { return &d.PasswordFile },
		`The file with its password, on the first line.`),
}}

func sampleDatabases() []Database {
	return []Database{{Name: "panel", Panel: "postfixadmin", Driver: "mysql", Database: "postfix", Address: "/run/mysqld/mysqld.sock", User: "relayguard", PasswordFile: "/etc/relayguard/panel.password"}}
}

// checkDatabases: a server has an address, a file has none.
func (r *report) checkDatabases(all []Database, tables []*table) {
	r.distinct(tables, "name", func(i int) string { return all[i].Name })
	for i, t := range tables {
		if d := all[i]; t.sure("driver", "address") && (d.Driver == "sqlite") != (d.Address == "") {
			found, wanted, remedy := "none", "the server's address", `write host:port, or the path of its socket, or take the driver "sqlite"`
			if d.Driver == "sqlite" {
				found, wanted, remedy = quote(d.Address), `no address with "sqlite"`, "delete the key: database names the file"
			}
			r.add(t.place("address"), "database.address", found, wanted, remedy)
		}
		if d := all[i]; t.sure("driver", "database") && d.Driver == "sqlite" && !strings.HasPrefix(d.Database, "/") {
			r.add(t.place("database"), "database.database", quote(d.Database), "the absolute path of a file", "begin it with /")
		}
	}
}

// owner is whose mail is meant, in lower case.
func owner() kind[string] {
	k := kind[string]{name: "user@domain, local name or @domain", wanted: "user@domain, a local name, or @domain", show: showString}
	return one(k, aString, func(s string) (string, string, bool) {
		local, domain, at := strings.Cut(strings.ToLower(s), "@")
		if at {
			domain = address.Domain(domain)
		}
		switch {
		case s == "" || len(s) > 320 || unprintable(s) || strings.ContainsAny(s, " \t,:*") || strings.Contains(domain, "@"):
			return "", "write one address, name or @domain", false
		case at && domain == "":
			return "", "write a domain after the @", false
		case at:
			return local + "@" + domain, fine, true
		}
		return local, fine, true
	})
}

func localName() kind[string] {
	k := kind[string]{name: "local part", wanted: "what stands in front of the @", show: showString}
	return one(k, aString, func(s string) (string, string, bool) {
		if s == "" || len(s) > 64 || unprintable(s) || strings.ContainsAny(s, " \t,:*@") {
			return "", "write the part in front of the @ alone", false
		}
		return strings.ToLower(s), fine, true
	})
}

// nextHop is a host name or an address, without port and brackets.
func nextHop() kind[string] {
	k := kind[string]{name: "host name or address", wanted: "the name of a host, or its address", show: showString}
	return one(k, aString, func(s string) (string, string, bool) {
		bare := strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
		if ip, err := netip.ParseAddr(bare); err == nil {
			return ip.Unmap().String(), fine, true
		}
		d := address.Domain(bare)
		if d == "" || unprintable(s) || strings.ContainsAny(bare, " \t:/@,*") {
			return "", "leave out port and transport: only the host", false
		}
		return d, fine, true
	})
}

func serverAddress() kind[string] {
	return text("host:port or absolute path of a Unix socket", "host:port, or the absolute path of a Unix socket", func(s string) string {
		if strings.HasPrefix(s, "/") && !unprintable(s) {
			return fine
		}
		if !isHostPort(s) {
			return `write host:port, such as "127.0.0.1:3306"`
		}
		return fine
	})
}

func hostPort() kind[string] {
	return text("host:port", "host:port", func(s string) string {
		if !isHostPort(s) {
			return `write host:port, such as "127.0.0.1:25"`
		}
		return fine
	})
}

func isHostPort(s string) bool {
	u, err := url.Parse("tcp://" + s)
	return err == nil && u.Port() != "" && u.Hostname() != "" && u.Host == s
}

// webhook is where alerts are posted.
func webhook() kind[string] {
	return text("URL: https, or http on this machine", "an https URL", func(s string) string {
		u, err := url.Parse(s)
		switch {
		case err != nil || u.Host == "" || u.Hostname() == "" || unprintable(s) || u.Fragment != "":
			return "write it as https://host/path"
		case u.User != nil:
			return "put the secret into alert.webhook_token_file"
		case u.Scheme == "https":
			return fine
		}
		if ip, err := netip.ParseAddr(u.Hostname()); u.Scheme == "http" && (err == nil && ip.IsLoopback() || u.Hostname() == "localhost") {
			return fine
		}
		return "write https: what is told must not be read or changed on the way"
	})
}

// syslogServer is a log host: "udp://192.0.2.1:514".
func syslogServer() kind[string] {
	return text("udp, tcp or tls URL of a log host", "the URL of a log host: udp://host:port, tcp://host:port or tls://host:port", func(s string) string {
		u, err := url.Parse(s)
		if err != nil || u.Hostname() == "" || u.Port() == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || unprintable(s) {
			return `write it as "tls://loghost.example.jp:6514"`
		}
		switch u.Scheme {
		case "udp", "tcp", "tls":
			return fine
		}
		return fmt.Sprintf("%q is not one of udp, tcp and tls", u.Scheme)
	})
}
