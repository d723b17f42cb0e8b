package dovecot

import (
	"bytes"
	"fmt"
	"path"
	"strings"

	"relayguard/forward"
)

// database is one userdb or passdb block.
type userdb struct {
	block
	driver string
	path   string // of a passwd-file; may have variables
	conf   string // the file that says how to ask
	more   bool   // later databases may put their own above its answers
	// args are what static answers; defaults count where the database has nothing,
	// overrides in any case.
	args, defaults, overrides fields
}

func (p *planner) newDatabase(b block) userdb {
	get := func(keys ...string) string {
		for _, key := range keys {
			if v := b.values[key]; v != "" {
				return v
			}
		}
		return ""
	}
	d := userdb{block: b, driver: join(get("driver", b.kind+"_driver"), b.name), path: get("passwd_file_path"),
		args: fields{}, defaults: parseFields(get("default_fields", b.kind+"_default_fields")),
		overrides: parseFields(get("override_fields"))}
	d.more = strings.HasPrefix(get("result_success", b.kind+"_result_success"), "continue")
	for key, value := range b.values {
		for _, section := range []string{"fields/", b.kind + "_fields/", "override_fields/"} {
			if rest, ok := strings.CutPrefix(key, section); ok {
				d.overrides[strings.TrimPrefix(rest, "plugin/")] = value
			}
		}
		for _, section := range []string{"default_fields/", b.kind + "_default_fields/"} {
			if rest, ok := strings.CutPrefix(key, section); ok {
				d.defaults[strings.TrimPrefix(rest, "plugin/")] = value
			}
		}
	}
	for word := range strings.FieldsSeq(b.values["args"]) {
		key, value, ok := strings.Cut(word, "=")
		switch {
		case strings.HasPrefix(word, "/"):
			d.conf = path.Clean(word)
			d.path = word
		case key == "file" && strings.HasPrefix(value, "/"): // Lua
			d.conf = path.Clean(value)
		case ok || d.driver == "static":
			d.args.set(word)
		}
	}
	return d
}

// above are the fields that a database gives to all its users.
func (d *userdb) above() fields { return d.defaults.over(d.args).over(d.overrides) }

// databaseHasSieve reports whether a database loads Sieve for all its users.
func (p *planner) databaseHasSieve() bool {
	for i := range p.databases {
		if hasSieve(p.databases[i].above()["mail_plugins"]) {
			return true
		}
	}
	return false
}

// databaseFields puts what databases give to all users in the place of settings.
func (p *planner) databaseFields() {
	for i := range p.databases {
		d := &p.databases[i]
		for _, f := range []fields{d.defaults, d.args.over(d.overrides)} {
			p.forEverybody(f, "userdb "+d.driver)
		}
	}
}

// complete fills in what a database says of all its users: the home, and who owns
// the mail.
func (p *planner) complete(u user, d *userdb) user {
	u.more = d.more
	if u.file == "" {
		u.file = p.file
	}
	own := u.home
	if v := u.fields["home"]; v != "" {
		own = p.home(&u, v)
	}
	switch above := d.args.over(d.overrides); {
	case above["home"] != "":
		u.home = p.home(&u, above["home"])
	case own != "" || u.homeWhy != "":
		u.home = own
	case d.defaults["home"] != "":
		u.home = p.home(&u, d.defaults["home"])
	case p.settings.Get("mail_home") != "":
		u.home = p.home(&u, p.settings.Get("mail_home"))
	}
	for _, f := range []fields{d.args.over(d.overrides), u.fields, d.defaults} {
		if v := f["uid"]; v != "" && u.uid == forward.NoUID {
			u.uid, u.gid = p.accountID(v)
		}
	}
	if u.uid == forward.NoUID {
		u.uid, u.gid = p.mailUID, p.mailGID
	}
	return u
}

// home is a pattern of homes for one user; one that is not understood is noted.
func (p *planner) home(u *user, pattern string) string {
	t, ok := p.templates[pattern]
	var err error
	if !ok {
		if t, err = parseTemplate(pattern); err == nil && len(p.templates) < 1000 {
			p.templates[pattern] = t
		}
	}
	if err != nil {
		u.homeWhy = pattern
		return ""
	}
	u.homeWhy = ""
	return path.Clean(t.expand(*u))
}

// passwdUsers are the users of a passwd-file; whoever is in it twice counts at
// first. quiet: gaps are told elsewhere.
func (p *planner) passwdUsers(d userdb, quiet bool) []user {
	var out []user
	found := p.passwdFiles(d)
	if len(found) == 0 && !quiet {
		p.gap("userdb passwd-file in "+p.file, fmt.Sprintf("its path %q is not followed", d.path))
		p.opaque("userdb passwd-file", p.file, d.path, "who has a mailbox is not known", "")
	}
	for _, f := range found {
		p.uses(f.path)
		data, _, err := p.host.Files.Read(p.ctx, f.path, forward.ReadOptions{})
		if err != nil {
			if !quiet {
				p.gap(f.path, err.Error())
			}
			continue
		}
		for _, u := range p.parsePasswdFile(data, f.path) {
			if f.domain != "" && !strings.Contains(u.name, "@") {
				u.name += "@" + f.domain
			}
			out = append(out, u)
		}
	}
	return out
}

// passwdFile is one of those that a path with variables names.
type passwdFile struct{ path, domain string }

func (p *planner) passwdFiles(d userdb) []passwdFile {
	t, err := parseTemplate(d.path)
	if err != nil || !strings.HasPrefix(d.path, "/") {
		return nil
	}
	if !t.hasVariables() {
		return []passwdFile{{path: path.Clean(t.expand(user{}))}}
	}
	var out []passwdFile
	w := walker{p: p, ctx: p.ctx, home: t, file: func(file string, have map[string]string) {
		if u := (user{name: have["username"] + "@" + have["domain"]}); len(out) < maxConfigFiles && (have["user"] != "" || path.Clean(t.expand(u)) == file) {
			out = append(out, passwdFile{path: file, domain: have["domain"]})
		}
	}}
	w.step("/", strings.Split(strings.Trim(d.path, "/"), "/"), user{}, map[string]string{})
	return out
}

// parsePasswdFile reads user:password:uid:gid:gecos:home:shell:extra.
func (p *planner) parsePasswdFile(data []byte, file string) []user {
	var out []user
	number := 0
	for raw := range bytes.SplitSeq(data, []byte{'\n'}) {
		number++
		line := strings.TrimSpace(string(raw))
		if line == "" || line[0] == '#' || len(out) >= maxUsers {
			continue
		}
		f := strings.SplitN(line, ":", 8)
		u := user{name: f[0], uid: forward.NoUID, gid: forward.NoUID, file: file, line: number}
		for len(f) < 8 {
			f = append(f, "")
		}
		if f[2] != "" {
			u.uid, u.gid = p.accountID(f[2])
		}
		if f[5] != "" {
			u.home = path.Clean(f[5])
		}
		if strings.Contains(f[7], "=") {
			u.pass = parseFields(f[7])
			u.fields = u.pass.userdb()
		}
		out = append(out, u)
	}
	return out
}
