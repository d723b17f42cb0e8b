package procmail

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

// Server is the rcfile that is read before every account's.
const Server = "/etc/procmailrc"

// maxFile bounds one rcfile, in octets.
const maxFile = 4 << 20

// Plan has a unit for /etc/procmailrc and one for every account's ~/.procmailrc,
// there or not. Whether the mail server calls procmail is not asked: a .forward
// may do so, too.
func Plan(ctx context.Context, h *forward.Host) forward.Plan {
	reading, snapshot := readServer(ctx, h)
	plan := forward.Plan{Uses: []string{Server}, Units: make([]forward.Unit, 0, len(h.Accounts)+1)}
	plan.Uses = append(plan.Uses, reading.Uses...)
	plan.Units = append(plan.Units, forward.Unit{ID: "procmail " + Server, Paths: []string{Server}, Writer: forward.NoUID, Server: true,
		Read: func(ctx context.Context) forward.Reading {
			reading, _ := readServer(ctx, h)
			return reading
		}})
	have := make(map[string]bool, len(h.Accounts))
	for _, account := range h.Accounts {
		if have[account.Name] || !strings.HasPrefix(account.Home, "/") {
			continue
		}
		have[account.Name] = true
		account.Home = path.Clean(account.Home)
		u := &user{host: h, account: account, server: snapshot, file: path.Join(account.Home, ".procmailrc")}
		plan.Units = append(plan.Units, forward.Unit{ID: "procmail " + account.Name, Paths: []string{u.file},
			Writer: account.UID, Owner: account.Name, Read: u.read})
	}
	return plan
}

// server is /etc/procmailrc at the time of the plan: what the accounts' units go
// on from. A change of it, or of a file that it includes, asks for another plan.
type server struct {
	data     []byte          // nil: there is none
	common   map[string]bool // its files that do not depend on the account
	personal bool            // it includes such as do
}

func readServer(ctx context.Context, h *forward.Host) (forward.Reading, *server) {
	s := &server{common: map[string]bool{Server: true}}
	r := &reader{host: h, base: forward.Rule{Owner: forward.Everybody, Mechanism: forward.Procmail, Source: Server, Server: true}}
	data, info, err := h.Files.Read(ctx, Server, forward.ReadOptions{Max: maxFile})
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			r.unread(Server, err.Error())
		}
		return r.reading, s
	}
	r.base.UID = info.UID
	result := Targets(data, r.options(ctx, Server))
	r.tell(ctx, result)
	s.data, s.personal = data, result.Personal
	for _, used := range result.Uses {
		s.common[used] = true
	}
	return r.reading, s
}

// user is one account's ~/.procmailrc.
type user struct {
	host    *forward.Host
	account forward.Account
	server  *server
	file    string
}

func (u *user) read(ctx context.Context) forward.Reading {
	r := &reader{host: u.host, account: &u.account, as: rights(&u.account), base: forward.Rule{
		Owner: u.account.Name, Mechanism: forward.Procmail, Source: u.file, UID: u.account.UID}}
	info, err := u.host.Files.Lstat(ctx, u.file)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			r.unread(u.file, err.Error())
		}
		u.server.tell(ctx, r, nil, u.file)
		return r.reading
	}
	data, opened, err := u.host.Files.Read(ctx, u.file, forward.ReadOptions{Max: maxFile, As: r.as})
	if err != nil {
		u.server.tell(ctx, r, nil, u.file)
		u.unreadable(ctx, r, info, err)
		return r.reading
	}
	r.base.UID = opened.UID
	r.dormant = u.suspicious(ctx, opened)
	if r.dormant != "" {
		dormant := r.dormant
		r.dormant = ""
		u.server.tell(ctx, r, nil, u.file)
		r.dormant = dormant
	}
	u.server.tell(ctx, r, data, u.file)
	return r.reading
}

// tell tells of one account's rcfile, nil if there is none, after the server's.
func (s *server) tell(ctx context.Context, r *reader, data []byte, file string) {
	switch {
	case s.data != nil && (data != nil || s.personal):
		r.tell(ctx, After(s.data, Server, s.common, data, r.options(ctx, file)))
	case data != nil:
		r.tell(ctx, Targets(data, r.options(ctx, file)))
	}
}

// unreadable tells of an rcfile that cannot be read as its account would.
func (u *user) unreadable(ctx context.Context, r *reader, info forward.Info, err error) {
	rule := r.base
	rule.Kind, rule.Target, rule.Mode = forward.File, u.file, forward.Redirect
	r.reading.Uses = append(r.reading.Uses, u.file)
	switch {
	case errors.Is(err, fs.ErrNotExist): // a link to nowhere
		if to, err := u.host.Files.Readlink(ctx, u.file); err == nil && strings.HasPrefix(to, "/") {
			r.reading.Uses = append(r.reading.Uses, path.Clean(to))
		}
	case errors.Is(err, fs.ErrPermission) && r.as != nil:
		rule.Dormant = fmt.Sprintf("%s cannot open it: procmail goes on without: %v", u.account.Name, err)
		r.reading.Rules = append(r.reading.Rules, rule)
	case errors.Is(err, forward.ErrNotRegular):
		to, _ := u.host.Files.Readlink(ctx, u.file)
		if to != "/dev/null" && !info.Mode.IsDir() {
			r.unread(u.file, err.Error())
		}
	default:
		r.unread(u.file, err.Error())
	}
}

// suspicious says why procmail does not read an rcfile that it can open (tryopen
// of procmail.c, as Debian builds it: the account's own group may write).
func (u *user) suspicious(ctx context.Context, info forward.Info) string {
	mode := info.Mode.Perm()
	switch {
	case info.UID != u.account.UID && info.UID != 0:
		return fmt.Sprintf("uid %d owns it, not %s or root: procmail ignores it", info.UID, u.account.Name)
	case mode&0o002 != 0:
		return "everybody may write it: procmail ignores it"
	case mode&0o020 != 0 && info.GID != u.account.GID:
		return fmt.Sprintf("gid %d may write it: procmail ignores it", info.GID)
	}
	home, err := u.host.Files.Lstat(ctx, u.account.Home)
	if err != nil || home.Mode&fs.ModeSymlink != 0 || home.Mode&fs.ModeSticky != 0 {
		return ""
	}
	switch mode := home.Mode.Perm(); {
	case mode&0o003 == 0o003:
		return "everybody may write the directory: procmail ignores it"
	case mode&0o030 == 0o030 && home.GID != u.account.GID:
		return fmt.Sprintf("gid %d may write the directory: procmail ignores it", home.GID)
	}
	return ""
}

// rights are the account's; root may all.
func rights(account *forward.Account) *forward.Account {
	if account.UID == 0 {
		return nil
	}
	return account
}

// reader makes rules of what one unit's rcfiles say.
type reader struct {
	host    *forward.Host
	account *forward.Account
	as      *forward.Account
	base    forward.Rule
	dormant string
	reading forward.Reading
	digests map[string]string
}

func (r *reader) options(ctx context.Context, name string) Options {
	return Options{Name: name, Account: r.account, Hostname: r.host.Hostname,
		Read: func(file string) ([]byte, error) {
			data, _, err := r.host.Files.Read(ctx, file, forward.ReadOptions{Max: maxFile, As: r.as})
			return data, err
		},
		Look: func(file string) (bool, bool) {
			infos, err := r.host.Files.LstatAll(ctx, []string{file})
			if err != nil || len(infos) != 1 || infos[0].Name == "" {
				return false, false
			}
			return true, infos[0].Mode.IsDir() || infos[0].Mode&fs.ModeSymlink != 0
		},
	}
}

func (r *reader) tell(ctx context.Context, result Result) {
	r.reading.Gaps = append(r.reading.Gaps, result.Gaps...)
	r.reading.Uses = append(r.reading.Uses, result.Uses...)
	for _, t := range result.Targets {
		rule := r.base
		rule.Kind, rule.Target, rule.Mode, rule.Dynamic, rule.Note = t.Kind, t.Target, t.Mode, t.Dynamic, t.Note
		if t.Source != "" {
			rule.Source, rule.Line = t.Source, t.Line
		}
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
			rule.Digest = r.digest(ctx, fileOf(t.Target)+" "+rule.Source)
		}
		r.reading.Rules = append(r.reading.Rules, rule)
	}
}

// digest is of a command line and the files that it names.
func (r *reader) digest(ctx context.Context, command string) string {
	sum, have := r.digests[command]
	if !have {
		if len(r.digests) >= 200 {
			sum, _ = aliases.ProgramDigest(ctx, nothing{r.host.Files}, command, r.as)
			return sum
		}
		var uses []string
		sum, uses = aliases.ProgramDigest(ctx, r.host.Files, r.located(ctx, command), r.as)
		for _, use := range uses {
			if path.Clean(use) == use {
				r.reading.Uses = append(r.reading.Uses, use)
			}
		}
		if r.digests == nil {
			r.digests = map[string]string{}
		}
		r.digests[command] = sum
	}
	return sum
}

// located puts the paths that a command's relative first word may have before
// it.
func (r *reader) located(ctx context.Context, command string) string {
	word, _, _ := strings.Cut(strings.TrimSpace(command), " ")
	if r.account == nil || word == "" || strings.HasPrefix(word, "/") || len(word) > 256 || strings.ContainsAny(word, "$`'\"|;&<>") {
		return command
	}
	if strings.Contains(word, "/") {
		return path.Join(r.account.Home, word) + " " + command
	}
	return path.Join(r.account.Home, "bin", word) + " " + command
}

// nothing reads no file: after many commands only their text is hashed.
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
