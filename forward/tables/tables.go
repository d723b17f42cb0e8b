// Package tables lists Postfix's lookup tables whole (DATABASE_README): what
// lies in a compiled file and how the text beside it differs, what a pattern
// table says to addresses that are known, what a database holds. Which setting
// uses a table and what its values mean is left to forward/postfix; the octets of
// compiled files to forward/dbfile; databases to whoever implements Databases.
//
// The trap: the text is not what runs. "postmap -i" changes the compiled file
// alone, and a line that was never compiled does nothing. Both are told
// (Entry.Differs), and which of the two is in force (Entry.Dormant).
package tables

import (
	"context"
	"fmt"
	"path/filepath"

	"relayguard/forward"
	mta "relayguard/mta/postfix"
)

// Pair is one row of a database that serves as a table.
type Pair struct{ Key, Value string }

// Databases lists tables of type mysql, pgsql, sqlite and ldap by their .cf file.
type Databases interface {
	List(ctx context.Context, kind, cf string) ([]Pair, error)
}

// Entry is one entry of a table.
type Entry struct {
	// Key is as Postfix compares it: folded to lower case. Of a pattern it is
	// the pattern, with the conditions around it ("if /x/ /y/i", "!192.0.2.0/24");
	// forward.Everybody where every key has this value (static, randmap).
	Key string
	// Value is the right side. Parts that only a key decides ($1) stand as
	// forward.Unknown, and Dynamic is set.
	Value   string
	Source  string // file, or "type:name"
	Line    int    // from 1; 0 where there are no lines
	Pattern bool   // Key is no fixed key
	Dynamic bool
	// Differs says how text and compiled form differ about it; empty: they
	// agree, or there is one form only.
	Differs string
	// Dormant says why it does nothing; empty: it is in force.
	Dormant string
}

// Listing is a whole table.
type Listing struct {
	Entries []Entry
	Gaps    []forward.Gap
	// Opaque: it cannot be listed, for a server or program answers. Entries are
	// then what is known of it: answers to known addresses.
	Opaque bool
	Digest string // of what was hashed instead: hex SHA-256; empty: nothing
	// Paths are the files whose change makes the listing stale, existing or not,
	// absolute and clean.
	Paths  []string
	Poll   bool // nobody tells of changes
	Writer int  // uid that owns the file in force; forward.NoUID
}

// Reader lists tables of one Postfix instance. It keeps nothing between calls
// and is safe for concurrent use.
type Reader struct {
	Host      *forward.Host
	ConfigDir string          // of the instance; empty: its default
	QueueDir  string          // relative names start here; empty: /var/spool/postfix
	Databases Databases       // nil: such tables are gaps
	Known     func() []string // addresses to try on tables that cannot be listed; nil: none
	Aliases   bool            // texts are aliases(5), not postmap(1)
}

// Bounds of one listing.
const (
	maxTable   = 256 << 20 // octets of a file
	maxEntries = 2_000_000
	maxNesting = 8       // unionmap in pipemap in unionmap
	maxProbes  = 200_000 // addresses tried on one table; on a network server maxAsked
	maxAsked   = 20_000
)

// List lists a table. What went wrong is in its Gaps: a listing is never refused
// as a whole.
func (r *Reader) List(ctx context.Context, t mta.Table) Listing {
	return r.open(ctx, t, 0).listing()
}

// table is a listing that can be asked, too: pipemap does.
type table struct {
	Listing
	rules []rule // of a regexp or pcre table, in order
	fixed map[string][]int
}

func (t *table) listing() Listing {
	if len(t.Entries) > maxEntries {
		t.gap("", fmt.Sprintf("more than %d entries: the rest is not looked at", maxEntries))
		t.Entries = t.Entries[:maxEntries]
	}
	seen := make(map[string]bool, len(t.Paths))
	paths := t.Paths[:0]
	for _, p := range t.Paths {
		if p = filepath.Clean(p); !seen[p] {
			seen[p] = true
			paths = append(paths, p)
		}
	}
	t.Paths = paths
	return t.Listing
}

func (t *table) gap(source, why string) {
	t.Gaps = append(t.Gaps, forward.Gap{Source: source, Why: why})
}

// open reads a table of any type.
func (r *Reader) open(ctx context.Context, t mta.Table, depth int) *table {
	out := &table{Listing: Listing{Writer: forward.NoUID}}
	if depth > maxNesting {
		out.Opaque = true
		out.gap(t.String(), fmt.Sprintf("tables within tables more than %d deep", maxNesting))
		return out
	}
	switch t.Type {
	case "proxy":
		inner, err := mta.ParseTable(t.Name)
		if err != nil {
			out.Opaque = true
			out.gap(t.String(), err.Error())
			return out
		}
		return r.open(ctx, inner, depth+1)
	case "hash", "btree", "lmdb", "cdb", "dbm", "sdbm":
		r.compiled(ctx, t, out)
	case "texthash":
		r.texthash(ctx, t, out)
	case "regexp", "pcre":
		r.patterns(ctx, t, out)
	case "cidr":
		r.networks(ctx, t, out)
	case "inline":
		out.inline(t)
	case "static":
		out.static(t)
	case "randmap":
		out.random(t)
	case "unionmap", "pipemap":
		r.combined(ctx, t, out, depth)
	case "mysql", "pgsql", "sqlite", "ldap":
		r.database(ctx, t, out)
	case "unix":
		r.unixAccounts(ctx, t, out)
	case "fail", "internal": // an error to every question; a table within a program
	default:
		r.asked(ctx, t, out)
	}
	return out
}

// path is where a table's name points to: Postfix's daemons run in the queue
// directory.
func (r *Reader) path(name string) string {
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	dir := r.QueueDir
	if dir == "" {
		dir = "/var/spool/postfix"
	}
	return filepath.Join(dir, name)
}
