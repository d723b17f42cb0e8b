package aliases

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"relayguard/forward"
)

// Bounds of one expansion. Postfix has none but its memory and file
// descriptors; what is beyond is a Gap, and a rule that is asked about.
const (
	MaxIncludes     = 1000     // :include: files
	MaxIncludeDepth = 100      // one in the other
	MaxTargets      = 100_000  // rules
	MaxIncludeFile  = 16 << 20 // octets of one .forward or :include: file
	maxIncludeBytes = 64 << 20 // octets of all of them
)

// Expand makes rules of the right side of an alias, following :include: as the
// account as (nil: the table is root's, and so are the rights until an include
// file of somebody else is met). base has what is common to all: owner,
// mechanism, source, line, uid.
func Expand(ctx context.Context, h *forward.Host, base forward.Rule, right string, as *forward.Account) forward.Reading {
	return ExpandWith(ctx, h, base, right, as, Settings{})
}

// ExpandWith is Expand with what main.cf says. The owner as a target of his own
// is no rule: it makes the others copies.
func ExpandWith(ctx context.Context, h *forward.Host, base forward.Rule, right string, as *forward.Account, settings Settings) forward.Reading {
	var r forward.Reading
	ExpandInto(ctx, &r, h, base, right, as, settings)
	return r
}

// ExpandInto is ExpandWith for one of very many aliases: what it finds is added to a
// reading.
func ExpandInto(ctx context.Context, into *forward.Reading, h *forward.Host, base forward.Rule, right string, as *forward.Account, settings Settings) {
	e := newExpansion(h, base, settings)
	e.reading, e.before = *into, len(into.Rules)
	e.targets(ctx, base, settings.parse(right), place{as: rights(as), stage: inAlias})
	*into = e.finish()
}

// expansion is the state of one.
type expansion struct {
	host     *forward.Host
	settings Settings
	owner    string // of the rules, for what is himself
	reading  forward.Reading
	before   int  // rules in it that are another's
	copies   bool // the owner is among the targets
	seen     map[string]bool
	digests  map[string]digest
	includes int
	octets   int64
	full     bool // MaxTargets was told of
}

// place is where a target stands.
type place struct {
	as    *forward.Account // whose rights; nil: root's
	stage stage
	depth int
}

func newExpansion(h *forward.Host, base forward.Rule, settings Settings) *expansion {
	return &expansion{host: h, settings: settings, owner: base.Owner}
}

func (e *expansion) finish() forward.Reading {
	mode := forward.Redirect
	if e.copies {
		mode = forward.Copy
	}
	for n := e.before; n < len(e.reading.Rules); n++ {
		e.reading.Rules[n].Mode = mode
	}
	return e.reading
}

// rights is the account as local(8) takes it on: without further groups, and
// nil for root.
func rights(as *forward.Account) *forward.Account {
	if as == nil || as.UID == 0 {
		return nil
	}
	bare := *as
	bare.Groups = nil
	return &bare
}

func (e *expansion) targets(ctx context.Context, base forward.Rule, targets []Target, at place) {
	for _, t := range targets {
		if t.Include {
			e.include(ctx, base, t.Text, at)
			continue
		}
		e.target(ctx, base, t, at)
	}
}

func (e *expansion) target(ctx context.Context, base forward.Rule, t Target, at place) {
	if t.Kind == forward.Address && e.settings.self(e.owner, t.Text) || t.Kind == forward.File && e.mailbox(t.Text) {
		e.copies = true
		if t.Kind == forward.Address {
			return
		}
	}
	if t.Kind == forward.Asked {
		e.unread(base, base.Source, t.Text+"; the rest is not told")
		return
	}
	rule := base
	rule.Kind, rule.Target = t.Kind, t.Text
	if why := e.settings.refused(t.Kind, at.stage); why != "" {
		rule.Broken = why
	}
	switch {
	case t.Kind == forward.Address && (t.Text == "" || t.Text == `""`):
		rule.Broken = "the address is empty"
	case t.Kind == forward.Program:
		rule.Digest = e.programDigest(ctx, t.Text, at.as)
	}
	e.add(rule)
}

// add keeps a rule, or tells once that there are too many.
func (e *expansion) add(rule forward.Rule) {
	if len(rule.Target) > forward.MaxTarget {
		rule.Target = rule.Target[:forward.MaxTarget]
		rule.Broken = fmt.Sprintf("the target is longer than %d octets", forward.MaxTarget)
	}
	switch {
	case len(e.reading.Rules)-e.before < MaxTargets:
		e.reading.Rules = append(e.reading.Rules, rule)
	case !e.full:
		e.full = true
		e.unread(rule, rule.Source, fmt.Sprintf("more than %d targets; the rest is not told", MaxTargets))
	}
}

// unread tells that mail may go by what could not be read.
func (e *expansion) unread(base forward.Rule, source, why string) {
	e.reading.Gaps = append(e.reading.Gaps, forward.Gap{Source: source, Why: why})
	rule := base
	rule.Kind, rule.Target, rule.Note = forward.Asked, source, why
	e.reading.Rules = append(e.reading.Rules, rule)
}

// include reads one :include: file. As in Postfix one that was read by the same
// rights already is not read again, so a loop ends.
func (e *expansion) include(ctx context.Context, base forward.Rule, path string, at place) {
	key := fmt.Sprintf("%d %s", uidOf(at.as), path)
	if e.seen[key] {
		return
	}
	if e.seen == nil {
		e.seen = map[string]bool{}
	}
	e.seen[key] = true
	if len(path) == 0 || path[0] != '/' {
		e.broken(base, path, "the path is not absolute: local(8) bounces the mail")
		return
	}
	e.includes++
	switch {
	case e.includes > MaxIncludes:
		e.unread(base, path, fmt.Sprintf("more than %d :include: files", MaxIncludes))
		return
	case at.depth >= MaxIncludeDepth:
		e.unread(base, path, fmt.Sprintf(":include: files nest deeper than %d", MaxIncludeDepth))
		return
	}
	e.reading.Uses = append(e.reading.Uses, path)
	data, info, as, ok := e.open(ctx, base, path, at.as)
	if !ok {
		return
	}
	if e.octets += int64(len(data)); e.octets > maxIncludeBytes {
		e.unread(base, path, fmt.Sprintf(":include: files of more than %d octets together", maxIncludeBytes))
		return
	}
	inner := base
	inner.Source, inner.UID = path, info.UID
	inner.Note = fmt.Sprintf(":include: of %s", from(base))
	for _, record := range ParseForward(data, e.settings.LineLimit) {
		inner.Line = record.Line
		e.targets(ctx, inner, e.settings.parse(record.Text), place{as: as, stage: inInclude, depth: at.depth + 1})
	}
}

// open reads an :include: file with the rights that local(8) has there: it may
// be a symbolic link, must be a regular file that not everybody can write, and
// if root's alias names somebody's file it is his rights from there on.
func (e *expansion) open(ctx context.Context, base forward.Rule, path string, as *forward.Account) ([]byte, forward.Info, *forward.Account, bool) {
	options := forward.ReadOptions{Max: MaxIncludeFile, As: as}
	data, info, err := e.host.Files.Read(ctx, path, options)
	if err == nil && info.Mode.Perm()&0o002 != 0 && !e.settings.Sendmail {
		e.broken(base, path, "everybody may write the file: local(8) bounces the mail")
		return nil, info, nil, false
	}
	if err == nil && as == nil && info.UID != 0 && !e.settings.Sendmail {
		owner := accountOf(e.host, info.UID)
		if owner == nil {
			e.broken(base, path, fmt.Sprintf("its owner, uid %d, is no account: local(8) defers the mail", info.UID))
			return nil, info, nil, false
		}
		as = rights(owner)
		options.As = as
		data, info, err = e.host.Files.Read(ctx, path, options)
	}
	switch {
	case err == nil:
		return data, info, as, true
	case errors.Is(err, fs.ErrNotExist):
		e.broken(base, path, "there is no such file: local(8) bounces the mail")
	case errors.Is(err, forward.ErrNotRegular):
		e.broken(base, path, "it is not a regular file: local(8) bounces the mail")
	case errors.Is(err, fs.ErrPermission) && as != nil:
		e.broken(base, path, as.Name+" may not read it: local(8) does not deliver the mail")
	default:
		e.unread(base, path, err.Error())
	}
	return nil, info, nil, false
}

// broken is a rule for an :include: that cannot work.
func (e *expansion) broken(base forward.Rule, path, why string) {
	rule := base
	rule.Kind, rule.Target, rule.Broken = forward.File, includePrefix+path, why
	e.add(rule)
}

func from(rule forward.Rule) string {
	if rule.Line > 0 {
		return fmt.Sprintf("%s:%d", rule.Source, rule.Line)
	}
	return rule.Source
}

func uidOf(as *forward.Account) int {
	if as == nil {
		return 0
	}
	return as.UID
}

// accountOf is the first account with the uid, as getpwuid(3) finds it.
func accountOf(h *forward.Host, uid int) *forward.Account {
	for n := range h.Accounts {
		if h.Accounts[n].UID == uid {
			return &h.Accounts[n]
		}
	}
	return nil
}

// mailbox tells whether a file target is the owner's own mailbox.
func (e *expansion) mailbox(path string) bool {
	name := e.owner
	for _, spool := range []string{"/var/mail/", "/var/spool/mail/"} {
		if path == spool+name || path == spool+name+"/" {
			return true
		}
	}
	account := e.host.Account(name)
	if account == nil || len(account.Home) < 2 {
		return false
	}
	return len(path) > len(account.Home)+1 && path[:len(account.Home)+1] == account.Home+"/" || len(path) > 2 && path[:2] == "~/"
}
