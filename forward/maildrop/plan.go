package maildrop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"relayguard/forward"
	"relayguard/forward/aliases"
)

// servers are the filters that are read before every account's: maildrop's own,
// and that of the maildrop in Courier.
var servers = []string{"/etc/maildroprc", "/etc/courier/maildroprc"}

// maxFile bounds one filter, in octets.
const maxFile = 4 << 20

// Plan has a unit for each server's filter and one for every account's
// ~/.mailfilter, there or not. Whether the mail server calls maildrop is not
// asked: a .forward may do so, too.
func Plan(ctx context.Context, h *forward.Host) forward.Plan {
	plan := forward.Plan{Units: make([]forward.Unit, 0, len(h.Accounts)+len(servers))}
	var first []*server
	for _, name := range servers {
		reading, s := readServer(ctx, h, name)
		plan.Uses = append(append(plan.Uses, name), reading.Uses...)
		plan.Units = append(plan.Units, forward.Unit{ID: "maildrop " + name, Paths: []string{name}, Writer: forward.NoUID, Server: true,
			Read: func(ctx context.Context) forward.Reading {
				reading, _ := readServer(ctx, h, name)
				return reading
			}})
		if s.data != nil {
			first = append(first, s)
		}
	}
	have := make(map[string]bool, len(h.Accounts))
	for _, account := range h.Accounts {
		if have[account.Name] || !strings.HasPrefix(account.Home, "/") {
			continue
		}
		have[account.Name] = true
		account.Home = path.Clean(account.Home)
		u := &user{host: h, account: account, servers: first, file: path.Join(account.Home, ".mailfilter")}
		plan.Units = append(plan.Units, forward.Unit{ID: "maildrop " + account.Name, Paths: []string{u.file},
			Writer: account.UID, Owner: account.Name, Read: u.read})
	}
	return plan
}

// server is a server's filter at the time of the plan: what the accounts' units
// go on from. A change of it, or of a file that it includes, asks for another
// plan.
type server struct {
	name     string
	data     []byte          // nil: there is none
	common   map[string]bool // see Result.Common
	personal bool            // it includes such as do
}

func readServer(ctx context.Context, h *forward.Host, name string) (forward.Reading, *server) {
	s := &server{name: name}
	r := &reader{host: h, base: forward.Rule{Owner: forward.Everybody, Mechanism: forward.Maildrop, Source: name, Server: true}}
	data, info, err := h.Files.Read(ctx, name, forward.ReadOptions{Max: maxFile})
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			r.unread(name, err.Error())
		}
		return r.reading, s
	}
	r.base.UID = info.UID
	result := Targets(data, r.options(ctx, name))
	r.tell(ctx, result)
	s.data, s.personal, s.common = data, result.Personal, result.Common(name)
	return r.reading, s
}

// user is one account's ~/.mailfilter.
type user struct {
	host    *forward.Host
	account forward.Account
	servers []*server
	file    string
}

func (u *user) read(ctx context.Context) forward.Reading {
	r := &reader{host: u.host, account: &u.account, base: forward.Rule{
		Owner: u.account.Name, Mechanism: forward.Maildrop, Source: u.file, UID: u.account.UID}}
	if u.account.UID != 0 {
		r.as = &u.account
	}
	info, err := u.host.Files.Lstat(ctx, u.file)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			r.unread(u.file, err.Error())
		}
		u.tell(ctx, r, nil)
		return r.reading
	}
	data, opened, err := u.host.Files.Read(ctx, u.file, forward.ReadOptions{Max: maxFile, As: r.as})
	if err != nil {
		u.tell(ctx, r, nil)
		u.unreadable(ctx, r, info, err)
		return r.reading
	}
	r.base.UID = opened.UID
	if dormant := u.refused(ctx, opened); dormant != "" {
		u.tell(ctx, r, nil)
		r.dormant = dormant
	}
	u.tell(ctx, r, data)
	return r.reading
}

// tell tells of the account's filter, nil if there is none, after the server's.
func (u *user) tell(ctx context.Context, r *reader, data []byte) {
	for _, s := range u.servers {
		if data != nil || s.personal {
			r.tell(ctx, After(s.data, s.name, s.common, data, r.options(ctx, u.file)))
		}
	}
	if data != nil && len(u.servers) == 0 {
		r.tell(ctx, Targets(data, r.options(ctx, u.file)))
	}
}

// unreadable tells of a filter that cannot be read as its account would.
func (u *user) unreadable(ctx context.Context, r *reader, info forward.Info, err error) {
	rule := r.base
	rule.Kind, rule.Target, rule.Mode = forward.File, u.file, forward.Redirect
	r.reading.Uses = append(r.reading.Uses, u.file)
	switch {
	case errors.Is(err, fs.ErrNotExist): // a link to nowhere
		if to, err := u.host.Files.Readlink(ctx, u.file); err == nil && strings.HasPrefix(to, "/") {
			r.reading.Uses = append(r.reading.Uses, path.Clean(to))
		}
	case errors.Is(err, fs.ErrPermission) && r.as != nil, errors.Is(err, forward.ErrNotRegular):
		rule.Dormant = fmt.Sprintf("maildrop cannot use it and defers the mail: %v", err)
		r.reading.Rules = append(r.reading.Rules, rule)
	default:
		r.unread(u.file, err.Error())
	}
}

// refused says why maildrop defers the mail instead of reading a filter that it
// can open. Debian's takes more than others: there, only what everybody may write
// is refused, elsewhere whatever others may read.
func (u *user) refused(ctx context.Context, info forward.Info) string {
	switch {
	case info.UID != u.account.UID:
		return fmt.Sprintf("uid %d owns it, not %s: maildrop defers the mail", info.UID, u.account.Name)
	case info.Mode.Perm()&0o002 != 0:
		return "everybody may write it: maildrop defers the mail"
	}
	home, err := u.host.Files.Lstat(ctx, u.account.Home)
	switch {
	case err != nil || home.Mode&fs.ModeSymlink != 0:
	case home.UID != u.account.UID:
		return fmt.Sprintf("uid %d owns the home directory, not %s: maildrop defers the mail", home.UID, u.account.Name)
	case home.Mode.Perm()&0o002 != 0:
		return "everybody may write the home directory: maildrop defers the mail"
	case home.Mode&fs.ModeSticky != 0:
		return "the home directory has the sticky bit: maildrop defers the mail"
	}
	return ""
}

// reader makes rules of what one unit's filters say.
type reader struct {
	host    *forward.Host
	account *forward.Account
	as      *forward.Account
	base    forward.Rule
	dormant string
	reading forward.Reading
	have    map[Target]bool
	digests int
}

func (r *reader) options(ctx context.Context, name string) Options {
	return Options{Name: name, Account: r.account, Read: func(file string) ([]byte, error) {
		data, _, err := r.host.Files.Read(ctx, file, forward.ReadOptions{Max: maxFile, As: r.as})
		return data, err
	}}
}

func (r *reader) tell(ctx context.Context, result Result) {
	r.reading.Gaps = append(r.reading.Gaps, result.Gaps...)
	r.reading.Uses = append(r.reading.Uses, result.Uses...)
	if r.have == nil {
		r.have = map[Target]bool{}
	}
	for _, t := range result.Targets {
		if r.have[t] {
			continue // said after another server's filter
		}
		r.have[t] = true
		rule := r.base
		rule.Kind, rule.Target, rule.Mode, rule.Dynamic, rule.Note = t.Kind, t.Target, t.Mode, t.Dynamic, t.Note
		rule.Source, rule.Line = t.Source, t.Line
		if rule.Dormant = r.dormant; rule.Dormant == "" {
			rule.Dormant = t.Dormant
		}
		if len(rule.Target) > forward.MaxTarget {
			rule.Target, rule.Broken = strings.ToValidUTF8(rule.Target[:forward.MaxTarget], ""), "the target is too long"
		}
		switch t.Kind {
		case forward.Program:
			rule.Digest = r.digest(ctx, t.Target)
		case forward.Asked:
			rule.Digest = r.digest(ctx, t.Target+" "+t.Source)
		}
		r.reading.Rules = append(r.reading.Rules, rule)
	}
}

// maxDigests bounds the commands whose files are hashed; of the others, the text
// is.
const maxDigests = 200

// digest is of a command line and the files that it names.
func (r *reader) digest(ctx context.Context, command string) string {
	files := r.host.Files
	if r.digests++; r.digests > maxDigests {
		files = nothing{files}
	}
	located := command
	word, _, _ := strings.Cut(strings.TrimSpace(command), " ")
	if r.account != nil && strings.Contains(word, "/") && !strings.HasPrefix(word, "/") && !strings.ContainsAny(word, "$`'\"|;&<>") {
		located = path.Join(r.account.Home, word) + " " + command
	}
	sum, uses := aliases.ProgramDigest(ctx, files, located, r.as)
	for _, use := range uses {
		if path.Clean(use) == use && r.digests <= maxDigests {
			r.reading.Uses = append(r.reading.Uses, use)
		}
	}
	return sum
}

// nothing reads no file.
type nothing struct{ forward.Files }

func (nothing) Read(context.Context, string, forward.ReadOptions) ([]byte, forward.Info, error) {
	return nil, forward.Info{}, fs.ErrNotExist
}

// unread tells of mail that may go by what could not be read.
func (r *reader) unread(source, why string) {
	r.reading.Gaps = append(r.reading.Gaps, forward.Gap{Source: source, Why: why})
	rule := r.base
	rule.Kind, rule.Target, rule.Mode, rule.Note = forward.Asked, source, forward.Redirect, why
	r.reading.Rules = append(r.reading.Rules, rule)
}
