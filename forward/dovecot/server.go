package dovecot

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"strings"

	"relayguard/forward"
)

// serverUnit plans scripts that run for everybody.
func (p *planner) serverUnit(l location) {
	at := l.path.resolve(user{})
	bindir := l.bindir.resolve(user{})
	s := store{location: l, path: at, bindir: bindir}
	paths := []string{at, at + "/", binaryOf(at, bindir)}
	if bindir != "" {
		paths = append(paths, bindir+"/")
	}
	p.unit(forward.Unit{
		ID: l.setting + " " + at, Paths: paths, Writer: 0, Server: true,
		Read: func(ctx context.Context) forward.Reading {
			r := &scriptReader{planner: p, ctx: ctx, owner: forward.Everybody, server: true, store: s}
			r.location(s)
			return r.reading
		},
	})
}

// location reads a script, or all of a directory: they run in their order, each
// if the one before it kept the mail.
func (r *scriptReader) location(s store) {
	switch at, err := r.host.Files.Lstat(r.ctx, s.path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		r.unread(s.path, err, s.dormant)
	case r.isDir(s.path, at):
		r.directory(s)
	default:
		r.script(s.path, at, s.dormant)
	}
	for i := range r.reading.Rules {
		if r.reading.Rules[i].Note == "" {
			r.reading.Rules[i].Note = s.source()
		}
	}
}

// isDir reports whether a path is a directory, or leads to one.
func (r *scriptReader) isDir(file string, at forward.Info) bool {
	if at.Mode&fs.ModeSymlink == 0 {
		return at.Mode.IsDir()
	}
	_, err := r.host.Files.ReadDir(r.ctx, file, forward.ReadOptions{MaxEntries: 1, As: r.as})
	return err == nil || errors.Is(err, forward.ErrTooLarge)
}

func (r *scriptReader) directory(s store) {
	infos, err := r.host.Files.ReadDir(r.ctx, s.path, forward.ReadOptions{As: r.as})
	if err != nil {
		r.unread(s.path, err, s.dormant)
	}
	for _, info := range infos {
		if strings.HasSuffix(info.Name, ".sieve") && !info.Mode.IsDir() && info.Name[0] != '.' {
			r.script(path.Join(s.path, info.Name), info, s.dormant)
		}
	}
}
