package dovecot

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"strings"

	"relayguard/forward"
)

// maxScripts bounds the scripts of one directory that are read.
const maxScripts = 500

// mailbox plans one mailbox.
func (p *planner) mailbox(u user) {
	if !strings.HasPrefix(u.home, "/") {
		u.home = ""
	}
	if m := p.reader(u); len(m.stores)+len(m.others)+len(m.extra) > 0 {
		p.unit(forward.Unit{ID: "sieve " + u.name, Paths: m.paths, Writer: u.uid, Owner: u.name, Read: m.read})
	}
}

// reader is what one mailbox is read by.
func (p *planner) reader(u user) *mailboxReader {
	m := &mailboxReader{planner: p, user: u}
	personal, others, extra := p.own(u)
	m.extra = extra
	if u.home == "" && u.homeWhy != "" {
		m.extra = append(m.extra, p.unknown(u, "home", u.homeWhy, "where the home is, is not known"))
	}
	seen := map[string]bool{}
	watch := func(file string) {
		if file != "" && file != "/" && !seen[file] {
			seen[file] = true
			m.paths = append(m.paths, file)
		}
	}
	for _, l := range personal {
		at := l.path.resolve(u)
		if at == "" || strings.Contains(at, "/../") {
			continue
		}
		active := l.active.resolve(u)
		if active == "" && u.home != "" {
			active = path.Join(u.home, ".dovecot.sieve")
		}
		s := store{location: l, path: at, active: active, bindir: l.bindir.resolve(u)}
		m.stores = append(m.stores, s)
		watch(at)
		watch(at + "/")
		watch(active)
		watch(binaryOf(active, ""))
		if s.bindir != "" {
			watch(s.bindir + "/")
		}
	}
	for _, l := range others {
		if at := l.path.resolve(u); at != "" {
			m.others = append(m.others, store{location: l, path: at, bindir: l.bindir.resolve(u)})
			watch(at)
			watch(at + "/")
		}
	}
	return m
}

// store is one place of scripts, for one user or for everybody.
type store struct {
	location
	path   string // a script, or a directory of scripts
	active string // the link to the active one; empty: none
	bindir string
}

// mailboxReader reads the scripts of one mailbox.
type mailboxReader struct {
	*planner
	user   user
	paths  []string
	stores []store
	others []store
	extra  []forward.Rule // of the user's fields
}

func (m *mailboxReader) read(ctx context.Context) forward.Reading {
	infos, err := m.host.Files.LstatAll(ctx, append([]string{nonEmpty(m.user.home)}, m.paths...))
	if err != nil {
		return forward.Reading{Gaps: []forward.Gap{{Source: "sieve " + m.user.name, Why: err.Error()}}}
	}
	there := make(map[string]forward.Info, len(m.paths))
	for i, file := range m.paths {
		if infos[i+1].Name != "" {
			there[file] = infos[i+1]
		}
	}
	if len(there) == 0 {
		return forward.Reading{Rules: m.extra}
	}
	r := m.scripts(ctx, infos[0], there)
	r.reading.Rules = append(r.reading.Rules, m.extra...)
	for _, s := range m.stores {
		r.store = s
		m.personalStore(r, s, there)
	}
	for _, s := range m.others {
		r.store = s
		r.location(s)
	}
	return r.reading
}

func nonEmpty(home string) string {
	if home == "" {
		return "/"
	}
	return home
}

// scripts reads as the account that the mail server takes for this mailbox.
func (m *mailboxReader) scripts(ctx context.Context, home forward.Info, there map[string]forward.Info) *scriptReader {
	r := &scriptReader{planner: m.planner, ctx: ctx, owner: m.user.name, home: m.user.home, user: m.user}
	uid, gid := m.user.uid, m.user.gid
	if uid == forward.NoUID && m.user.home != "" && home.Name != "" {
		uid, gid = home.UID, home.GID
	}
	if uid == forward.NoUID {
		for _, info := range there {
			uid, gid = info.UID, info.GID
			break
		}
	}
	r.as = m.account(uid, gid)
	if len(m.stores) > 0 {
		r.personalDir = m.stores[0].path
		if at, ok := there[r.personalDir]; strings.HasSuffix(r.personalDir, ".sieve") || ok && at.Mode.IsRegular() {
			r.personalDir = m.scriptDir()
		}
	}
	return r
}

// scriptDir is where the included scripts lie of a mailbox whose own is one file:
// sieve_dir, ~/sieve.
func (m *mailboxReader) scriptDir() string {
	dir := m.setting("sieve_dir", m.user.fields)
	if dir == "" {
		dir = "~/sieve"
	}
	t, err := parseTemplate(dir)
	if err != nil {
		return ""
	}
	return t.resolve(m.user)
}

func (p *planner) account(uid, gid int) *forward.Account {
	if uid == forward.NoUID {
		return nil
	}
	if a := p.byUID[uid]; a != nil {
		return a
	}
	return &forward.Account{UID: uid, GID: gid}
}

// personalStore reads the active script, and the others as dormant ones.
func (m *mailboxReader) personalStore(r *scriptReader, s store, there map[string]forward.Info) {
	at, ok := there[s.path]
	isDir := ok && r.isDir(s.path, at)
	r.there = there
	if ok && !isDir {
		// A script by itself: "sieve = ~/.dovecot.sieve".
		if !s.shared {
			r.script(s.path, at, s.dormant)
		}
		s.active = ""
	}
	activeFile := ""
	if link, ok := there[s.active]; ok && s.active != "" {
		activeFile = r.active(s, link, isDir)
	}
	if isDir && !s.shared {
		r.inactive(s.path, activeFile)
	}
}

// active reads the script that a link names and returns where it lies. A link
// that leads out of the directory of scripts is ignored by Pigeonhole.
func (r *scriptReader) active(s store, at forward.Info, isDir bool) string {
	if at.Mode&fs.ModeSymlink == 0 {
		r.script(s.active, at, s.dormant)
		return s.active
	}
	to := r.linked(s.active)
	dormant := s.dormant
	if dormant == "" && isDir && !r.within(s, to) {
		dormant = "the active link leads out of the directory of scripts: it is ignored"
	}
	r.script(s.active, at, dormant)
	return to
}

// within reports whether a link to a script leads into the directory: by its
// text, or, where a home is written in several ways, to the same file.
func (r *scriptReader) within(s store, to string) bool {
	if path.Dir(to) == s.path {
		return true
	}
	_, there, err := r.host.Files.Read(r.ctx, path.Join(s.path, path.Base(to)), r.options())
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	_, here, errHere := r.host.Files.Read(r.ctx, s.active, r.options())
	return err != nil || errHere != nil || here.Inode == there.Inode && here.Dev == there.Dev
}

// inactive reads the scripts of a directory that are not the active one.
func (r *scriptReader) inactive(dir, active string) {
	infos, err := r.host.Files.ReadDir(r.ctx, dir, forward.ReadOptions{As: r.as})
	if err != nil && !errors.Is(err, forward.ErrTooLarge) {
		r.gap(dir, err)
		return
	}
	count := 0
	for _, info := range infos {
		file := path.Join(dir, info.Name)
		if !strings.HasSuffix(info.Name, ".sieve") || info.Mode.IsDir() || sameScript(file, active) || r.included[file] {
			continue
		}
		if count++; count > maxScripts {
			r.gap(dir, errors.New("more scripts than are read"))
			return
		}
		r.script(file, info, "not the active script")
	}
}

// sameScript compares paths that differ in how a home was written.
func sameScript(a, b string) bool {
	return a == b || b != "" && path.Base(a) == path.Base(b) && path.Base(path.Dir(a)) == path.Base(path.Dir(b))
}

// binaryOf is where the compiled form of a script lies.
func binaryOf(script, bindir string) string {
	if script == "" {
		return ""
	}
	dir, base := path.Split(script)
	if bindir != "" {
		dir = bindir
	}
	return path.Join(dir, strings.TrimSuffix(base, ".sieve")+".svbin")
}
