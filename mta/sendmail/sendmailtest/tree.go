package sendmailtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"relayguard/mta/servertest"
)

// root holds everything. Not in /tmp: Sendmail warns of every file below a directory
// that everybody may write.
var root = servertest.Root{Server: "Sendmail", Parent: "/var/lib/relayguard-dev", Prefix: "sm-", Longest: "/milter/submission.sock.XXXX"}

// accounts are those that Debian's Sendmail runs as.
type accounts struct {
	smmta   servertest.Account // TrustedUser of the MTA; owns its queue
	smmsp   servertest.Account // the submission program, and the group of its binary
	mailbox servertest.Account // delivers to files (DefaultUser)
}

func lookUpAccounts() (a accounts, err error) {
	for name, into := range map[string]*servertest.Account{"smmta": &a.smmta, "smmsp": &a.smmsp, "mail": &a.mailbox} {
		if *into, err = servertest.LookUp(name); err != nil {
			return a, err
		}
	}
	return a, nil
}

// checkMount refuses a directory where sendmail(1) would not run set-group-id.
func checkMount(root string) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(root, &fs); err != nil {
		return fmt.Errorf("directory for Sendmail: %w", err)
	}
	const noSuid, noExec = 2, 8 // ST_NOSUID, ST_NOEXEC
	if fs.Flags&(noSuid|noExec) != 0 {
		return fmt.Errorf("directory for Sendmail %s: its file system is mounted nosuid or noexec, so sendmail(1) would not run set-group-id", root)
	}
	return nil
}

// directory is one that makeTree makes.
type directory struct {
	path string
	mode uint32
	own  servertest.Account
}

// makeTree makes all directories, with the owners and modes that Debian's
// packages give them, and the binaries.
func (s *Sendmail) makeTree() error {
	if err := checkMount(s.Dir); err != nil {
		return err
	}
	queue := servertest.Account{UID: s.accounts.smmta.UID, GID: s.accounts.smmsp.GID}
	dirs := []directory{
		{s.ConfigDir, 0o755, servertest.Account{}},
		{s.saslDir(), 0o755, servertest.Account{}},
		{s.tlsDir(), 0o755, servertest.Account{}},
		{s.mailDir(), 0o755, servertest.Account{}},
		{s.MilterDir(), 0o755, servertest.Account{}},
		{filepath.Join(s.Dir, "bin"), 0o755, servertest.Account{}},
		{filepath.Join(s.Dir, "space"), 0o755, servertest.Account{}},
		{filepath.Join(s.Dir, "run"), 0o755, servertest.Account{}},
		{filepath.Join(s.Dir, "run", "mta"), 0o2755, s.accounts.smmta},
		{filepath.Join(s.Dir, "run", "msp"), 0o2775, s.accounts.smmsp},
		{s.QueueDir, 0o2750, queue},
		{s.ClientQueueDir, 0o2770, s.accounts.smmsp},
	}
	for _, dir := range s.QueueDirs() {
		if dir != s.QueueDir {
			dirs = append(dirs, directory{dir, 0o2750, queue})
		}
		if s.options.SplitQueue {
			for _, part := range []string{"qf", "df", "xf"} {
				dirs = append(dirs, directory{filepath.Join(dir, part), 0o2750, queue})
			}
		}
	}
	for _, d := range dirs {
		if err := os.MkdirAll(d.path, 0o755); err != nil {
			return fmt.Errorf("make directory for Sendmail: %w", err)
		}
		if err := os.Chown(d.path, d.own.UID, d.own.GID); err != nil {
			return fmt.Errorf("hand over directory to Sendmail: %w", err)
		}
		if err := syscall.Chmod(d.path, d.mode); err != nil {
			return fmt.Errorf("set mode of %s: %w", d.path, err)
		}
	}
	return errors.Join(s.makeBinaries(), s.makeStatistics())
}

// makeStatistics makes the files that Sendmail counts in; it complains in the
// log of each message if they are not there.
func (s *Sendmail) makeStatistics() error {
	for name, own := range map[string]servertest.Account{"sendmail.st": {GID: s.accounts.smmsp.GID}, "sm-client.st": s.accounts.smmsp} {
		path := filepath.Join(s.Dir, "run", name)
		if err := os.WriteFile(path, nil, 0o660); err != nil {
			return fmt.Errorf("make Sendmail's statistics: %w", err)
		}
		if err := errors.Join(os.Chown(path, own.UID, own.GID), os.Chmod(path, 0o660)); err != nil {
			return fmt.Errorf("make Sendmail's statistics: %w", err)
		}
	}
	return nil
}

// makeBinaries copies sendmail, as its owner and mode are the package's to
// give, under all its names.
func (s *Sendmail) makeBinaries() error {
	binary := s.Tool("sendmail")
	if err := copyFile(libexec("sendmail"), binary); err != nil {
		return err
	}
	if err := os.Chown(binary, 0, s.accounts.smmsp.GID); err != nil {
		return fmt.Errorf("set the group of sendmail: %w", err)
	}
	if err := syscall.Chmod(binary, 0o2755); err != nil {
		return fmt.Errorf("set the mode of sendmail: %w", err)
	}
	for name := range sendmailNames {
		if name == "sendmail" {
			continue
		}
		if err := os.Symlink("sendmail", s.Tool(name)); err != nil {
			return fmt.Errorf("make %s: %w", name, err)
		}
	}
	return nil
}

// sendmailNames are the names of the one binary.
var sendmailNames = map[string]bool{"sendmail": true, "mailq": true, "newaliases": true, "hoststat": true, "purgestat": true}

// Tool is the path of a program of Sendmail's packages: sendmail, mailq,
// newaliases, hoststat, purgestat, makemap, editmap, praliases, mailstats,
// qtool.pl. They are to be run inside.
func (s *Sendmail) Tool(name string) string {
	switch {
	case sendmailNames[name]:
		return filepath.Join(s.Dir, "bin", name)
	case strings.HasSuffix(name, ".pl"):
		return share(name)
	}
	return libexec(name)
}

func (s *Sendmail) saslDir() string   { return filepath.Join(s.Dir, "sasl") }
func (s *Sendmail) tlsDir() string    { return filepath.Join(s.Dir, "tls") }
func (s *Sendmail) mailDir() string   { return filepath.Join(s.Dir, "mail") }
func (s *Sendmail) logSocket() string { return filepath.Join(s.Dir, "log.sock") }

// PIDFile is the MTA's pid file.
func (s *Sendmail) PIDFile() string { return filepath.Join(s.Dir, "run", "mta", "sendmail.pid") }

// MilterDir is where a milter makes its Unix socket, 0755 root.
func (s *Sendmail) MilterDir() string { return filepath.Join(s.Dir, "milter") }

// MilterSocket is the socket of the milter of that name, if Options.Milters
// says nothing else.
func (s *Sendmail) MilterSocket(name string) string {
	return filepath.Join(s.MilterDir(), name+".sock")
}

// QueueDirs are the MTA's queue directories, those of all groups. With
// Options.SplitQueue each has its files in qf, df and xf.
func (s *Sendmail) QueueDirs() []string {
	var dirs []string
	for _, dir := range s.options.queueDirs() {
		dirs = append(dirs, filepath.Join(s.QueueDir, dir))
	}
	return dirs
}
