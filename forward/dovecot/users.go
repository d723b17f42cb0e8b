package dovecot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"relayguard/forward"
)

// maxUsers bounds the mailboxes of one host.
const maxUsers = 1_000_000

// users finds all mailboxes: of the accounts, of passwd-files, by walking where
// homes lie, and, on a live machine, as Dovecot itself lists them.
func (p *planner) users(ctx context.Context) []user {
	found := map[string]user{}
	add := func(u user) {
		old, ok := found[u.name]
		switch {
		case u.name == "" || len(found) >= maxUsers:
		case !ok:
			found[u.name] = u
		case old.more:
			found[u.name] = old.under(u)
		}
	}
	var ask []*userdb
	for i := range p.databases {
		if p.database(ctx, &p.databases[i], add) {
			ask = append(ask, &p.databases[i])
		}
	}
	if len(ask) > 0 {
		p.listed(ctx, ask, found, add)
	}
	out := make([]user, 0, len(found))
	for _, u := range found {
		out = append(out, u)
	}
	slices.SortFunc(out, func(a, b user) int { return strings.Compare(a.name, b.name) })
	return out
}

// under is a user as a later database has him, whose answers count above.
func (u user) under(o user) user {
	if o.home == "" {
		o.home = u.home
	}
	if o.uid == forward.NoUID {
		o.uid, o.gid = u.uid, u.gid
	}
	o.fields = u.fields.over(o.fields)
	return o
}

// database adds the users of one userdb; asked: only Dovecot can list them.
func (p *planner) database(ctx context.Context, d *userdb, add func(user)) (asked bool) {
	all := func(u user) { add(p.complete(u, d)) }
	switch d.driver {
	case "passwd", "pam", "nss", "passwd-files":
		p.accounts(all)
		return false
	case "passwd-file":
		for _, u := range p.passwdUsers(*d, false) {
			all(u)
		}
		return false
	case "prefetch":
		return false
	}
	home := p.homeOf(d)
	switch mail := mailPath(p.settings); {
	case home != "":
		p.walk(ctx, home, true, all)
	case mail != "":
		p.walk(ctx, mail, false, all)
	}
	return true
}

// mailPath is the directory of mail_location (2.3) or mail_path (2.4).
func mailPath(s Settings) string {
	if v := s.Get("mail_path"); strings.HasPrefix(v, "/") {
		return v
	}
	_, v, _ := strings.Cut(s.Get("mail_location"), ":")
	v, _, _ = strings.Cut(v, ":")
	if !strings.HasPrefix(v, "/") {
		return ""
	}
	return v
}

// homeOf is where a userdb says that homes are; else mail_home.
func (p *planner) homeOf(d *userdb) string {
	if v := d.above()["home"]; v != "" {
		return v
	}
	return p.settings.Get("mail_home")
}

func (p *planner) accounts(add func(user)) {
	for _, a := range p.host.Accounts {
		if a.Home != "" && a.Home != "/nonexistent" {
			add(user{name: a.Name, home: path.Clean(a.Home), uid: a.UID, gid: a.GID})
		}
	}
}

// walk finds the users of a pattern of homes, or of mail, by the directories
// that are there.
func (p *planner) walk(ctx context.Context, pattern string, homes bool, add func(user)) {
	p.walked = true
	t, err := parseTemplate(pattern)
	if err != nil || !strings.HasPrefix(pattern, "/") {
		p.gap("homes "+pattern+" in "+p.file, fmt.Sprintf("cannot be walked: %v", err))
		p.opaque("homes", p.file, pattern, "where homes lie is not known", "")
		return
	}
	w := walker{p: p, ctx: ctx, home: t, homes: homes, add: add}
	w.step("/", strings.Split(strings.Trim(pattern, "/"), "/"), user{uid: forward.NoUID, gid: forward.NoUID}, map[string]string{})
}

type walker struct {
	p     *planner
	ctx   context.Context
	home  template
	homes bool // they are homes; else where mail is
	add   func(user)
	file  func(path string, have map[string]string) // not nil: files are looked for, not directories
}

// step goes into the directories that the next element may name. have are the
// variables that are known by now.
func (w *walker) step(dir string, rest []string, u user, have map[string]string) {
	if w.ctx.Err() != nil {
		return
	}
	if len(rest) == 0 {
		if w.file != nil {
			w.file(dir, have)
			return
		}
		w.found(dir, u, have)
		return
	}
	t, err := parseTemplate(rest[0])
	if err != nil {
		w.p.gap(dir, err.Error())
		return
	}
	if !t.hasVariables() {
		w.step(path.Join(dir, t.expand(u)), rest[1:], u, have)
		return
	}
	re, variables, err := t.reverse()
	if err != nil {
		w.p.gap(dir, err.Error())
		return
	}
	w.p.uses(dir)
	infos, err := w.p.host.Files.ReadDir(w.ctx, dir, readDirOptions)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.p.gap(dir, err.Error())
	}
	for _, info := range infos {
		isFile := w.file != nil && len(rest) == 1 && info.Mode.IsRegular()
		if !isFile && !info.Mode.IsDir() && info.Mode&fs.ModeSymlink == 0 {
			continue
		}
		m := re.FindStringSubmatch(info.Name)
		if m == nil {
			continue
		}
		next := make(map[string]string, len(have)+len(variables))
		for k, v := range have {
			next[k] = v
		}
		for i, v := range variables {
			if v.width == 0 && v.offset == 0 {
				next[v.name] = m[i+1]
			}
		}
		w.step(path.Join(dir, info.Name), rest[1:], u, next)
	}
}

// found is a directory at the end of the pattern: a home, if the pattern would
// lead there for that user.
func (w *walker) found(dir string, u user, have map[string]string) {
	u.name = have["user"]
	if u.name == "" {
		u.name = have["username"]
		if domain := have["domain"]; domain != "" && u.name != "" {
			u.name += "@" + domain
		}
	}
	if w.homes {
		u.home = dir
	}
	if u.name != "" && path.Clean(w.home.expand(u)) == dir {
		w.add(u)
	}
}

func (t template) hasVariables() bool {
	for _, p := range t {
		if p.variable != nil {
			return true
		}
	}
	return false
}
