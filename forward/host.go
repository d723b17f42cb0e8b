package forward

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"time"
)

// Errors of Files.
var (
	ErrTooLarge   = errors.New("file is larger than is read")
	ErrNotRegular = errors.New("not a regular file")
	ErrOutside    = errors.New("leads out of the directory that is looked at")
)

// Files reads the machine that is looked at: this one, a copied disk, or this one
// through the helper that may read what others may not. Paths are absolute and
// of that machine. No call waits for a writer (FIFO, device) and none writes.
// Safe for concurrent use. Errors wrap fs.ErrNotExist and fs.ErrPermission, and
// those above.
type Files interface {
	// Lstat is about the path itself, also if it is a symbolic link.
	Lstat(ctx context.Context, path string) (Info, error)
	// Read returns a regular file's content, whole, with what Stat would say of
	// it at that moment (of what is open, not of what is there by then).
	Read(ctx context.Context, path string, o ReadOptions) ([]byte, Info, error)
	// ReadDir lists a directory by name, at most o.MaxEntries (then ErrTooLarge
	// with the first ones).
	ReadDir(ctx context.Context, path string, o ReadOptions) ([]Info, error)
	// Readlink returns what a symbolic link says, as it says it.
	Readlink(ctx context.Context, path string) (string, error)
	// LstatAll is Lstat of many paths in one step; an Info without Name is of a
	// path that does not exist or cannot be looked at.
	LstatAll(ctx context.Context, paths []string) ([]Info, error)
}

// ReadOptions bound what is read. The zero value: MaxFile octets, links followed,
// whatever the reader itself may read.
type ReadOptions struct {
	Max        int64 // octets; 0: MaxFile
	MaxEntries int   // of a directory; 0: MaxDir
	NoFollow   bool  // a symbolic link at the end is ErrNotRegular
	// As: only if this account could have read it, so that its owner cannot
	// have us read what the mail server would not read for him: else
	// fs.ErrPermission. nil: no such question.
	As *Account
}

// Bounds of what is read at once.
const (
	MaxFile = 64 << 20
	MaxDir  = 200_000
)

// Info is what is known of a file.
type Info struct {
	Name  string // the last element; empty: not there
	Size  int64
	Mode  fs.FileMode
	UID   int
	GID   int
	MTime time.Time
	CTime time.Time
	Inode uint64
	Dev   uint64
	Links uint64
}

// Account is one Unix account of the machine that is looked at.
type Account struct {
	Name   string
	UID    int
	GID    int
	Groups []int // further ones
	Home   string
	Shell  string
}

// Host is the machine that is looked at, as all finders see it.
type Host struct {
	Files Files
	// Run runs a program of that machine, without a shell, and returns what it
	// printed; at most 256 MiB. nil: it is a copied disk, nothing can be run.
	Run func(ctx context.Context, stdin []byte, name string, args ...string) ([]byte, error)
	// Accounts are those of /etc/passwd (and, on a live machine, of getent(1)).
	Accounts []Account
	Hostname string // its name; empty: not known
	Log      *slog.Logger
	Now      func() time.Time
}

// Live reports whether the machine's own programs can be run.
func (h *Host) Live() bool { return h.Run != nil }

// Account finds one by name; nil if there is none.
func (h *Host) Account(name string) *Account {
	for i := range h.Accounts {
		if h.Accounts[i].Name == name {
			return &h.Accounts[i]
		}
	}
	return nil
}

// Reading is what one unit said.
type Reading struct {
	Rules []Rule
	Gaps  []Gap
	// Uses are further paths that this reading depended on (includes, links'
	// ends): a change of them makes the unit stale. Existing or not.
	Uses []string
}

// Unit is one thing that is read by itself, and again when it changed: a table,
// the .forward of one account, the scripts of one mailbox, a database. Read is
// safe for concurrent use with other units' and reads everything anew.
type Unit struct {
	// ID names it: "aliases hash:/etc/aliases", "forward alice". Unique.
	ID string
	// Paths are the files and directories whose change makes it stale, existing
	// or not, absolute and clean. A directory that ends with "/" stands for
	// whatever lies in it, "DIR/NAME*" for all names in it that begin so.
	Paths []string
	// Poll: nobody tells of its changes (SQL, LDAP, a program's output): it is read
	// at intervals.
	Poll bool
	// Writer is the Unix account that is expected to write it beside root: the
	// owner of the home, the mail store's account; NoUID: any registered one.
	Writer int
	// Owner is whose rules these are, for what is told to him;
	// empty: the server's.
	Owner string
	// Server: changes of it concern more than one person.
	Server bool

	Read func(ctx context.Context) Reading
}

// World is what the mail server takes for its own, and how it reads addresses.
// Domains are in the form of address.Domain.
type World struct {
	Inside       map[string]bool // all of ours: below together, and what the configuration adds
	Local        map[string]bool // mydestination: delivered by local names
	AliasDomains map[string]bool // virtual_alias_domains: no mailboxes
	Mailboxes    map[string]bool // virtual_mailbox_domains
	Hosts        map[string]bool // next hops of ours: names in the form of address.Domain, or addresses "192.0.2.1"
	Origin       string          // myorigin: what is appended to a bare name
	Domain       string          // mydomain: appended to a host without dots
	Delimiters   string          // recipient_delimiter
	PercentHack  bool            // allow_percent_hack
	SwapBangPath bool            // swap_bangpath
	// AppendAtOrigin, AppendDotDomain as Postfix has them; true if not known.
	AppendAtOrigin, AppendDotDomain bool
}

// Plan is what there is to be read on a host, as one finder knows it.
type Plan struct {
	Units []Unit
	World World // this finder's part; the zero value: none
	Gaps  []Gap
	// Uses are the files whose change asks for another plan (main.cf,
	// dovecot.conf, /etc/passwd).
	Uses []string
}

// Add puts another finder's plan to this one. Units with an ID that is there
// already are dropped; of scalar settings of the world the first that has one counts.
func (p *Plan) Add(o Plan) {
	have := make(map[string]bool, len(p.Units))
	for i := range p.Units {
		have[p.Units[i].ID] = true
	}
	for _, u := range o.Units {
		if !have[u.ID] {
			have[u.ID] = true
			p.Units = append(p.Units, u)
		}
	}
	p.Gaps = append(p.Gaps, o.Gaps...)
	p.Uses = append(p.Uses, o.Uses...)
	p.World.add(o.World)
}

func (w *World) add(o World) {
	join := func(into *map[string]bool, from map[string]bool) {
		if *into == nil && len(from) > 0 {
			*into = map[string]bool{}
		}
		for name, is := range from {
			if is {
				(*into)[name] = true
			}
		}
	}
	join(&w.Inside, o.Inside)
	join(&w.Local, o.Local)
	join(&w.AliasDomains, o.AliasDomains)
	join(&w.Mailboxes, o.Mailboxes)
	join(&w.Hosts, o.Hosts)
	if w.Origin == "" && o.Origin != "" {
		w.Origin, w.Domain, w.Delimiters = o.Origin, o.Domain, o.Delimiters
		w.PercentHack, w.SwapBangPath = o.PercentHack, o.SwapBangPath
		w.AppendAtOrigin, w.AppendDotDomain = o.AppendAtOrigin, o.AppendDotDomain
	}
}
