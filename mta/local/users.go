package local

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	passwdFile  = "/etc/passwd"
	maxPasswd   = 64 << 20         // a larger file is not a password file
	maxResolved = 4096             // names from other sources (LDAP, systemd) that are remembered
	maxPending  = 256              // uids waiting to be asked for
	checkEvery  = 10 * time.Second // is passwd newer?
	askAgain    = 5 * time.Minute  // a uid that had no name, or whose source failed
	refreshName = time.Hour        // a name from another source
)

// Users names Unix accounts without ever waiting: those of /etc/passwd are
// held in memory, others are asked for in the background and known the next
// time. Safe for concurrent use. Close it.
type Users struct {
	path   string
	lookup func(uid string) (*user.User, error)
	log    *slog.Logger

	listed atomic.Pointer[map[int]string] // of passwd; replaced whole
	looked atomic.Int64                   // how often follow looked at passwd

	mu       sync.Mutex
	resolved map[int]resolvedName
	pending  chan int

	done   chan struct{}
	closed sync.Once
	reader sync.WaitGroup
}

type resolvedName struct {
	name  string // empty: nobody knows it
	until time.Time
	asked bool // waiting in pending
}

// NewUsers reads /etc/passwd and keeps reading it when it changes.
func NewUsers(log *slog.Logger) (*Users, error) {
	return newUsers(passwdFile, user.LookupId, log, checkEvery)
}

func newUsers(path string, lookup func(string) (*user.User, error), log *slog.Logger, every time.Duration) (*Users, error) {
	u := &Users{
		path: path, lookup: lookup, log: log,
		resolved: map[int]resolvedName{},
		pending:  make(chan int, maxPending),
		done:     make(chan struct{}),
	}
	stamp := stampOf(path)
	names, err := readPasswd(path)
	if err != nil {
		return nil, err
	}
	u.listed.Store(&names)
	u.reader.Go(func() { u.follow(stamp, every) })
	go u.resolve() // not waited for: a directory server may hang
	return u, nil
}

// Name returns the name of an account, "" if it has none or it is not known
// yet. It does not wait.
func (u *Users) Name(uid int) string {
	if name, ok := (*u.listed.Load())[uid]; ok {
		return name
	}
	if uid < 0 {
		return ""
	}
	now := time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	r, known := u.resolved[uid]
	if r.asked || known && now.Before(r.until) {
		return r.name
	}
	if !known && len(u.resolved) >= maxResolved {
		for old := range u.resolved { // any one: it is asked for again when it is needed
			delete(u.resolved, old)
			break
		}
	}
	select {
	case u.pending <- uid:
		u.resolved[uid] = resolvedName{name: r.name, until: r.until, asked: true}
	default: // asked for at the next message
	}
	return r.name
}

// Close ends the background work. Name goes on with what is known.
func (u *Users) Close() {
	u.closed.Do(func() { close(u.done) })
	u.reader.Wait()
}

// follow reads passwd again when it is another file than before.
func (u *Users) follow(stamp fileStamp, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-u.done:
			return
		case <-tick.C:
		}
		now := stampOf(u.path)
		u.looked.Add(1)
		if now == stamp || now == (fileStamp{}) {
			continue // the same, or between two renames
		}
		names, err := readPasswd(u.path)
		if err != nil {
			u.log.Warn("account names not read again, the old ones stay", "err", err)
			continue
		}
		stamp = now
		u.listed.Store(&names)
	}
}

// resolve asks the system's other sources, one uid after the other.
func (u *Users) resolve() {
	for {
		var uid int
		select {
		case <-u.done:
			return
		case uid = <-u.pending:
		}
		found, err := u.lookup(strconv.Itoa(uid))
		r := resolvedName{until: time.Now().Add(askAgain)}
		if err == nil && found.Username != "" {
			r = resolvedName{name: found.Username, until: time.Now().Add(refreshName)}
		}
		_, unknown := err.(user.UnknownUserIdError)
		u.mu.Lock()
		if err != nil && !unknown {
			r.name = u.resolved[uid].name // the source failed: what was known stays
		}
		u.resolved[uid] = r
		u.mu.Unlock()
	}
}

func readPasswd(path string) (map[int]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read account names: %w", err)
	}
	defer f.Close()
	names, err := parsePasswd(io.LimitReader(f, maxPasswd))
	if err != nil {
		return nil, fmt.Errorf("read account names of %s: %w", path, err)
	}
	return names, nil
}

// parsePasswd reads passwd(5): name:password:UID:... The first name of a uid
// counts, as for getpwuid(3). Lines of another form are passed over, as there.
func parsePasswd(r io.Reader) (map[int]string, error) {
	names := map[int]string{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		name, rest, _ := strings.Cut(lines.Text(), ":")
		_, rest, _ = strings.Cut(rest, ":")
		id, _, more := strings.Cut(rest, ":")
		uid, err := strconv.ParseUint(id, 10, 32)
		if err != nil || !more || name == "" || name[0] == '#' || name[0] == '+' || name[0] == '-' {
			continue
		}
		if _, dup := names[int(uid)]; !dup {
			names[int(uid)] = name
		}
	}
	return names, lines.Err()
}
