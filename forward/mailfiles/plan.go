package mailfiles

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

// Bounds of what is read.
const (
	maxFile  = 16 << 20 // octets of one file
	maxFiles = 10_000   // of one unit
	maxRules = 100_000  // of one unit
)

// Plan is what qmail, Plesk, Courier, cPanel and Exim may forward by on this
// host; places that are not there have no units.
func Plan(ctx context.Context, h *forward.Host) forward.Plan {
	var plan forward.Plan
	for _, find := range []func(context.Context, *forward.Host, *forward.Plan){planQmail, planPlesk, planCourier, planCPanel, planExim} {
		find(ctx, h, &plan)
	}
	return plan
}

// there tells whether a path exists, and notes that its coming changes the plan.
func there(ctx context.Context, h *forward.Host, plan *forward.Plan, name string) bool {
	plan.Uses = append(plan.Uses, name)
	_, err := h.Files.Lstat(ctx, name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		plan.Gaps = append(plan.Gaps, forward.Gap{Source: name, Why: err.Error()})
	}
	return err == nil
}

// reader collects one unit's rules.
type reader struct {
	host    *forward.Host
	reading forward.Reading
	files   int
	full    bool
}

// add keeps a rule, up to maxRules.
func (r *reader) add(rule forward.Rule) {
	if len(rule.Target) > forward.MaxTarget {
		rule.Target, rule.Broken = rule.Target[:forward.MaxTarget], "the target is too long"
	}
	if len(r.reading.Rules) < maxRules {
		r.reading.Rules = append(r.reading.Rules, rule)
	} else if !r.full {
		r.full = true
		r.unread(rule, rule.Source, fmt.Sprintf("more than %d targets; the rest is not told", maxRules))
	}
}

// unread tells that mail may go by what could not be read.
func (r *reader) unread(base forward.Rule, source, why string) {
	r.reading.Gaps = append(r.reading.Gaps, forward.Gap{Source: source, Why: why})
	base.Kind, base.Target, base.Note = forward.Asked, source, why
	r.reading.Rules = append(r.reading.Rules, base)
}

// read reads one file for base; what is not there is nothing, what cannot be
// read is told.
func (r *reader) read(ctx context.Context, base *forward.Rule, as *forward.Account) ([]byte, bool) {
	r.reading.Uses = append(r.reading.Uses, base.Source)
	if r.files++; r.files > maxFiles {
		if r.files == maxFiles+1 {
			r.unread(*base, base.Source, fmt.Sprintf("more than %d files; the rest is not read", maxFiles))
		}
		return nil, false
	}
	data, info, err := r.host.Files.Read(ctx, base.Source, forward.ReadOptions{Max: maxFile, As: as})
	switch {
	case err == nil:
		base.UID = info.UID
		return data, true
	case errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, fs.ErrPermission) && as != nil, errors.Is(err, forward.ErrNotRegular):
		rule := *base
		rule.Kind, rule.Target, rule.Dormant = forward.File, base.Source, err.Error()
		r.add(rule)
	default:
		r.unread(*base, base.Source, err.Error())
	}
	return nil, false
}

// list lists a directory, as the account if one is given; not there is empty.
func (r *reader) list(ctx context.Context, dir string, as *forward.Account) []forward.Info {
	infos, err := r.host.Files.ReadDir(ctx, dir, forward.ReadOptions{As: as})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.reading.Gaps = append(r.reading.Gaps, forward.Gap{Source: dir, Why: err.Error()})
	}
	return infos
}

func (r *reader) program(ctx context.Context, rule forward.Rule, as *forward.Account) {
	var uses []string
	rule.Kind = forward.Program
	rule.Digest, uses = aliases.ProgramDigest(ctx, r.host.Files, rule.Target, as)
	r.reading.Uses = append(r.reading.Uses, uses...)
	r.add(rule)
}

// bare is the account without the groups that the agents do not take on.
func bare(account forward.Account) *forward.Account {
	if account.UID == 0 {
		return nil
	}
	return &account
}

// accounts are the first of each name that have a home.
func accounts(h *forward.Host) []forward.Account {
	have := make(map[string]bool, len(h.Accounts))
	var found []forward.Account
	for _, account := range h.Accounts {
		if !have[account.Name] && strings.HasPrefix(account.Home, "/") {
			have[account.Name] = true
			account.Home = path.Clean(account.Home)
			found = append(found, account)
		}
	}
	return found
}
