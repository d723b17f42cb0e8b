package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// forwardSizes are of a server whose forwarding rules are looked for.
type forwardSizes struct {
	aliases, scripts, homes int
	forwards                int // homes that have a .forward
}

// largeServer is the one of the goals.
var largeServer = forwardSizes{aliases: 100_000, scripts: 10_000, homes: 50_000, forwards: 5_000}

// oneOutside: of so many rules one leads outside.
const oneOutside = 10

// forwardTree writes a server into a directory: /etc with the settings of Postfix
// and Dovecot, once as they are on a disk of its own and once (etc-here) with this
// directory before every path, for a live scan.
type forwardTree struct {
	forwardSizes
	root string
	uid  int // of the first account; the accounts are all this one unless root writes
	mine bool
}

func (t *forwardTree) path(name string) string { return filepath.Join(t.root, name) }

func (t *forwardTree) write(name, text string) error {
	if err := os.MkdirAll(filepath.Dir(t.path(name)), 0o755); err != nil {
		return err
	}
	return os.WriteFile(t.path(name), []byte(text), 0o644)
}

// give hands a file to an account, where that can be.
func (t *forwardTree) give(uid int, names ...string) error {
	for _, name := range names {
		if err := os.Lchown(t.path(name), t.account(uid), -1); err != nil {
			return err
		}
	}
	return nil
}

func (t *forwardTree) account(uid int) int {
	if t.mine {
		return os.Getuid()
	}
	return uid
}

// plantForwards writes the whole tree.
func plantForwards(ctx context.Context, root string, sizes forwardSizes) error {
	t := &forwardTree{forwardSizes: sizes, root: root, uid: 10_000, mine: os.Getuid() != 0}
	for name, text := range map[string]string{
		"etc/postfix/main.cf": mainOf(""), "etc-here/postfix/main.cf": mainOf(root),
		"etc/postfix/master.cf": benchMaster, "etc-here/postfix/master.cf": benchMaster,
		"etc/dovecot/dovecot.conf": dovecotOf(""), "etc-here/dovecot/dovecot.conf": dovecotOf(root),
		"etc/group": "users:x:100:\nvmail:x:5000:\n", "var/spool/postfix/.keep": "",
	} {
		if err := t.write(name, text); err != nil {
			return fmt.Errorf("write a server: %w", err)
		}
	}
	for _, step := range []func() error{t.writeHomes, t.writeScripts, t.writeAliases} {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step(); err != nil {
			return fmt.Errorf("write a server: %w", err)
		}
	}
	return compileAliases(ctx, root)
}

func mainOf(prefix string) string {
	return strings.ReplaceAll(`compatibility_level = 3.6
myhostname = mx.corp.test
mydomain = corp.test
myorigin = $mydomain
mydestination = $mydomain, $myhostname, localhost
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
recipient_delimiter = +
queue_directory = PREFIX/var/spool/postfix
alias_maps = hash:PREFIX/etc/aliases
virtual_mailbox_domains = virt.test
virtual_mailbox_maps = static:all
virtual_transport = lmtp:unix:private/dovecot-lmtp
`, "PREFIX", prefix)
}

const benchMaster = `smtp      inet  n - y - - smtpd
pickup    unix  n - y 60 1 pickup
cleanup   unix  n - y - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
rewrite   unix  - - y - - trivial-rewrite
smtp      unix  - - y - - smtp
local     unix  - n n - - local
lmtp      unix  - - y - - lmtp
`

func dovecotOf(prefix string) string {
	return strings.ReplaceAll(`protocols = imap lmtp sieve
mail_location = maildir:~/Maildir
userdb {
  driver = static
  args = uid=vmail gid=vmail home=PREFIX/var/vmail/%d/%n
}
protocol lmtp {
  mail_plugins = sieve
}
plugin {
  sieve = file:~/sieve;active=~/.dovecot.sieve
}
`, "PREFIX", prefix)
}

func homeOf(i int) string { return fmt.Sprintf("home/%02d/user%05d", i%100, i) }

// writeHomes writes passwd(5), the homes, and in some of them a .forward.
func (t *forwardTree) writeHomes() error {
	var passwd strings.Builder
	fmt.Fprintf(&passwd, "root:x:0:0:root:/root:/bin/bash\nvmail:x:%d:5000::/var/vmail:/usr/sbin/nologin\n", t.account(5000))
	for i := range t.homes {
		home := homeOf(i)
		fmt.Fprintf(&passwd, "user%05d:x:%d:100::/%s:/bin/bash\n", i, t.account(t.uid+i), home)
		if err := os.MkdirAll(t.path(home), 0o755); err != nil {
			return err
		}
		names := []string{home}
		if i%(t.homes/t.forwards) == 0 {
			n := i / (t.homes / t.forwards)
			text := fmt.Sprintf("\\user%05d, user%05d@corp.test\n", i, (i+1)%t.homes)
			if n%oneOutside == 0 {
				text = fmt.Sprintf("# away\nme%d@provider%d.test\n", i, n%100)
			}
			names = append(names, home+"/.forward")
			if err := t.write(home+"/.forward", text); err != nil {
				return err
			}
		}
		if err := t.give(t.uid+i, names...); err != nil {
			return err
		}
	}
	return t.write("etc/passwd", passwd.String())
}

func mailboxOf(i int) string { return fmt.Sprintf("var/vmail/virt.test/box%05d", i) }

// writeScripts writes a mailbox each with an active Sieve script.
func (t *forwardTree) writeScripts() error {
	for i := range t.scripts {
		home := mailboxOf(i)
		if err := t.write(home+"/sieve/main.sieve", sieveOf(i, t.scripts)); err != nil {
			return err
		}
		if err := os.Symlink("sieve/main.sieve", t.path(home+"/.dovecot.sieve")); err != nil {
			return err
		}
		if err := t.give(5000, home, home+"/sieve", home+"/sieve/main.sieve", home+"/.dovecot.sieve"); err != nil {
			return err
		}
	}
	return t.give(5000, "var/vmail", "var/vmail/virt.test")
}

// sieveOf is what webmail programs write.
func sieveOf(i, of int) string {
	text := fmt.Sprintf(`require ["fileinto", "copy", "vacation", "variables", "imap4flags"];
# rule:[lists]
if anyof (header :contains "List-Id" "project%d", address :is "From" "list%d@lists.test")
{
	fileinto "Lists/project%d";
	stop;
}
set "where" "Archive";
if header :matches "Subject" "*[ticket *]*" { fileinto "${where}/${2}"; addflag "\\Seen"; }
if not header :contains "Precedence" "bulk" { vacation :days 7 :subject "Away" "I read mail again on Monday."; }
`, i, i, i)
	if i%oneOutside == 0 {
		text += fmt.Sprintf("set \"d\" \"provider%d.test\";\nredirect :copy \"box%d@${d}\";\n", i%100, i)
	} else if i%3 == 0 {
		text += fmt.Sprintf("redirect \"box%05d@virt.test\";\n", (i+1)%of)
	}
	return text
}

// writeAliases writes aliases(5): names, lists, and some that lead outside.
func (t *forwardTree) writeAliases() error {
	f, err := os.Create(t.path("etc/aliases"))
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	for i := range t.aliases {
		switch {
		case i%oneOutside == 0:
			fmt.Fprintf(w, "alias%06d: phone%d@carrier%d.test\n", i, i, i%1000)
		case i%100 == 1:
			fmt.Fprintf(w, "alias%06d: user%05d, user%05d,\n  box%05d@virt.test\n", i, i%t.homes, (i+7)%t.homes, i%t.scripts)
		default:
			fmt.Fprintf(w, "alias%06d: user%05d\n", i, i%t.homes)
		}
	}
	return w.Flush()
}

// compileAliases makes the compiled form of the aliases.
func compileAliases(ctx context.Context, root string) error {
	postalias, err := exec.LookPath("postalias")
	if err != nil {
		postalias = "/usr/sbin/postalias"
	}
	out, err := exec.CommandContext(ctx, postalias, "-c", filepath.Join(root, "etc-here/postfix"), "hash:"+filepath.Join(root, "etc/aliases")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("compile aliases: %w: %.300s", err, out)
	}
	return nil
}
