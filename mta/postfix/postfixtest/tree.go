package postfixtest

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"relayguard/mta/servertest"
)

// root holds everything.
var root = servertest.Root{Server: "Postfix", Prefix: "postfix-", Longest: "/queue/relayguard/milter.sock.XXXX"}

// accounts are the system's own accounts that the servers run as.
type accounts struct {
	postfix  servertest.Account
	postdrop int                // gid of the group that may write into maildrop
	mailbox  servertest.Account // owns the Maildirs
}

func lookUpAccounts() (accounts, error) {
	var a accounts
	var err error
	if a.postfix, err = servertest.LookUp("postfix"); err != nil {
		return a, err
	}
	if a.mailbox, err = servertest.LookUp("nobody"); err != nil {
		return a, err
	}
	group, err := user.LookupGroup("postdrop")
	if err != nil {
		return a, fmt.Errorf("look up group postdrop: %w", err)
	}
	if a.postdrop, err = strconv.Atoi(group.Gid); err != nil {
		return a, fmt.Errorf("look up group postdrop: %w", err)
	}
	return a, nil
}

// makeTree makes all directories, and the files of the chroot.
func (p *Postfix) makeTree() error {
	dirs := []struct {
		path string
		mode os.FileMode
		own  servertest.Account
	}{
		{p.ConfigDir, 0o755, servertest.Account{}},
		{p.QueueDir, 0o755, servertest.Account{}},
		{p.dataDir(), 0o700, p.accounts.postfix},
		{p.mailDir(), 0o755, p.accounts.mailbox},
		{p.tlsDir(), 0o755, servertest.Account{}},
		{filepath.Join(p.QueueDir, "etc"), 0o755, servertest.Account{}},
		// The set-group-ID bit hands the group postfix on to the socket.
		{p.MilterDir(), 0o2750, servertest.Account{GID: p.accounts.postfix.GID}},
	}
	for _, d := range dirs {
		if err := os.MkdirAll(d.path, 0o755); err != nil {
			return fmt.Errorf("make directory for Postfix: %w", err)
		}
		if err := os.Chown(d.path, d.own.UID, d.own.GID); err != nil {
			return fmt.Errorf("hand over directory to Postfix: %w", err)
		}
		if err := syscall.Chmod(d.path, uint32(d.mode)); err != nil {
			return fmt.Errorf("set mode of %s: %w", d.path, err)
		}
	}
	if err := p.makeQueue(); err != nil {
		return err
	}
	return p.fillChroot()
}

// queueDirs are the directories of a queue, as Postfix's own postfix-files
// lists them. "postfix check" would make them too, with a hundred forks.
var queueDirs = map[os.FileMode][]string{
	0o700: {"active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace"},
	0o730: {"maildrop"},
	0o710: {"public"},
}

// makeQueue makes the queue's directories.
func (p *Postfix) makeQueue() error {
	if err := os.Mkdir(filepath.Join(p.QueueDir, "pid"), 0o755); err != nil {
		return fmt.Errorf("make the queue: %w", err)
	}
	for mode, names := range queueDirs {
		group := 0
		if mode != 0o700 { // for the set-group-ID postdrop and postqueue
			group = p.accounts.postdrop
		}
		for _, name := range names {
			dir := filepath.Join(p.QueueDir, name)
			if err := os.Mkdir(dir, 0o700); err != nil {
				return fmt.Errorf("make the queue: %w", err)
			}
			if err := os.Chown(dir, p.accounts.postfix.UID, group); err != nil {
				return fmt.Errorf("make the queue: %w", err)
			}
			if err := os.Chmod(dir, mode); err != nil {
				return fmt.Errorf("make the queue: %w", err)
			}
		}
	}
	return nil
}

// fillChroot gives the chrooted services what they need to name clients,
// without any DNS.
func (p *Postfix) fillChroot() error {
	files := map[string]string{
		"etc/hosts":         "127.0.0.1 localhost\n::1 localhost\n",
		"etc/nsswitch.conf": "hosts: files\nservices: files\n",
		"etc/services":      "smtp 25/tcp mail\nsubmission 587/tcp\n",
		"etc/resolv.conf":   "",
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(p.QueueDir, name), []byte(content), 0o644); err != nil {
			return fmt.Errorf("fill the chroot: %w", err)
		}
	}
	return nil
}

func (p *Postfix) dataDir() string { return filepath.Join(p.Dir, "data") }
func (p *Postfix) mailDir() string { return filepath.Join(p.Dir, "mail") }
func (p *Postfix) tlsDir() string  { return filepath.Join(p.Dir, "tls") }

// MilterDir is where a milter makes its Unix socket for the chrooted
// services: QueueDir/relayguard, 2750 root:postfix, so that a socket made
// there by root belongs to the group postfix. The socket needs mode 0660.
func (p *Postfix) MilterDir() string { return filepath.Join(p.QueueDir, "relayguard") }

// MilterName is how a chrooted Postfix service names a socket in MilterDir.
func MilterName(socket string) string { return "unix:relayguard/" + socket }
