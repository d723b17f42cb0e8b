package sendmailtest

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// rootParent is where directories are made. Not in /tmp: Sendmail warns of
// every file below a directory that everybody may write.
const rootParent = "/var/lib/relayguard-dev"

// longestSocketPath leaves room for the longest socket path below the
// directory in the 107 bytes of a Unix socket address.
const longestSocketPath = 107 - len("/milter/submission.sock.XXXX")

// account is a Unix account or group by number.
type account struct{ uid, gid int }

// accounts are those that Debian's Sendmail runs as.
type accounts struct {
	smmta   account // TrustedUser of the MTA; owns its queue
	smmsp   account // the submission program, and the group of its binary
	mailbox account // delivers to files (DefaultUser)
}

func lookUpAccounts() (a accounts, err error) {
	for name, into := range map[string]*account{"smmta": &a.smmta, "smmsp": &a.smmsp, "mail": &a.mailbox} {
		if *into, err = lookUpAccount(name); err != nil {
			return a, err
		}
	}
	return a, nil
}

func lookUpAccount(name string) (account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return account{}, fmt.Errorf("look up account %s: %w", name, err)
	}
	uid, errUID := strconv.Atoi(u.Uid)
	gid, errGID := strconv.Atoi(u.Gid)
	return account{uid, gid}, errors.Join(errUID, errGID)
}

// makeRoot makes or checks the directory that holds everything.
func makeRoot(dir string) (root string, temporary bool, err error) {
	if dir == "" {
		if err = os.MkdirAll(rootParent, 0o755); err == nil {
			root, err = os.MkdirTemp(rootParent, "sm-")
		}
		if err != nil {
			return "", false, fmt.Errorf("make a directory for Sendmail: %w", err)
		}
		temporary = true
	} else if root, err = filepath.Abs(dir); err != nil {
		return "", false, fmt.Errorf("directory for Sendmail: %w", err)
	}
	if err = checkRoot(root, temporary); err != nil && temporary {
		os.Remove(root)
	}
	return root, temporary, err
}

func checkRoot(root string, temporary bool) error {
	if temporary {
		if err := os.Chmod(root, 0o755); err != nil {
			return fmt.Errorf("open the directory for Sendmail: %w", err)
		}
	}
	if len(root) > longestSocketPath {
		return fmt.Errorf("directory for Sendmail %s: path has %d bytes, at most %d leave room for Unix sockets",
			root, len(root), longestSocketPath)
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(root, &fs); err != nil {
		return fmt.Errorf("directory for Sendmail: %w", err)
	}
	const noSuid, noExec = 2, 8 // ST_NOSUID, ST_NOEXEC
	if fs.Flags&(noSuid|noExec) != 0 {
		return fmt.Errorf("directory for Sendmail %s: its file system is mounted nosuid or noexec, so sendmail(1) would not run set-group-id", root)
	}
	for dir := root; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("directory for Sendmail: %w", err)
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("directory for Sendmail %s: others may not enter %s (mode %v), so Sendmail's own accounts cannot",
				root, dir, info.Mode().Perm())
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// directory is one that makeTree makes.
type directory struct {
	path string
	mode uint32
	own  account
}

// makeTree makes all directories, with the owners and modes that Debian's
// packages give them, and the binaries.
func (s *Sendmail) makeTree() error {
	dirs := []directory{
		{s.ConfigDir, 0o755, account{}},
		{s.saslDir(), 0o755, account{}},
		{s.tlsDir(), 0o755, account{}},
		{s.mailDir(), 0o755, account{}},
		{s.MilterDir(), 0o755, account{}},
		{filepath.Join(s.Dir, "bin"), 0o755, account{}},
		{filepath.Join(s.Dir, "space"), 0o755, account{}},
		{filepath.Join(s.Dir, "run"), 0o755, account{}},
		{filepath.Join(s.Dir, "run", "mta"), 0o2755, s.accounts.smmta},
		{filepath.Join(s.Dir, "run", "msp"), 0o2775, s.accounts.smmsp},
		{s.QueueDir, 0o2750, account{s.accounts.smmta.uid, s.accounts.smmsp.gid}},
		{s.ClientQueueDir, 0o2770, s.accounts.smmsp},
	}
	for _, dir := range s.QueueDirs() {
		if dir != s.QueueDir {
			dirs = append(dirs, directory{dir, 0o2750, account{s.accounts.smmta.uid, s.accounts.smmsp.gid}})
		}
		if s.options.SplitQueue {
			for _, part := range []string{"qf", "df", "xf"} {
				dirs = append(dirs, directory{filepath.Join(dir, part), 0o2750, account{s.accounts.smmta.uid, s.accounts.smmsp.gid}})
			}
		}
	}
	for _, d := range dirs {
		if err := os.MkdirAll(d.path, 0o755); err != nil {
			return fmt.Errorf("make directory for Sendmail: %w", err)
		}
		if err := os.Chown(d.path, d.own.uid, d.own.gid); err != nil {
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
	for name, own := range map[string]account{"sendmail.st": {0, s.accounts.smmsp.gid}, "sm-client.st": s.accounts.smmsp} {
		path := filepath.Join(s.Dir, "run", name)
		if err := os.WriteFile(path, nil, 0o660); err != nil {
			return fmt.Errorf("make Sendmail's statistics: %w", err)
		}
		if err := errors.Join(os.Chown(path, own.uid, own.gid), os.Chmod(path, 0o660)); err != nil {
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
	if err := os.Chown(binary, 0, s.accounts.smmsp.gid); err != nil {
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
