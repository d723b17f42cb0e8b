package mailfiles

import (
	"context"
	"path"
	"strings"

	"relayguard/forward"
)

// planCourier: .courier and .courier-ext of the homes, and the aliasdir.
func planCourier(ctx context.Context, h *forward.Host, plan *forward.Plan) {
	if !there(ctx, h, plan, "/etc/courier/courierd") {
		return
	}
	dir := "/etc/courier/aliasdir"
	plan.Units = append(plan.Units, forward.Unit{ID: "courier aliasdir", Paths: []string{dir, dir + "/"}, Writer: 0, Server: true,
		Read: func(ctx context.Context) forward.Reading {
			r := &reader{host: h}
			r.courierDir(ctx, dir, "", true, nil)
			return r.reading
		}})
	for _, account := range accounts(h) {
		as := bare(account)
		plan.Units = append(plan.Units, forward.Unit{ID: "courier " + account.Name, Writer: account.UID, Owner: account.Name,
			Paths: []string{account.Home + "/.courier", account.Home + "/.courier-*"},
			Read: func(ctx context.Context) forward.Reading {
				r := &reader{host: h}
				r.courierDir(ctx, account.Home, account.Name, false, as)
				return r.reading
			}})
	}
}

// courierDir reads the .courier files of a directory; they are dot-qmail(5)
// with "!" for "&" (dot-courier(5)), and dots are written as ":".
func (r *reader) courierDir(ctx context.Context, dir, owner string, server bool, as *forward.Account) {
	for _, info := range r.list(ctx, dir, as) {
		extension, ok := strings.CutPrefix(info.Name, ".courier")
		if !ok || extension != "" && extension[0] != '-' {
			continue
		}
		base := forward.Rule{Owner: owner + strings.ReplaceAll(extension, ":", "."), Mechanism: forward.Courier,
			Source: path.Join(dir, info.Name), Server: server, UID: info.UID, Mode: forward.Redirect}
		if owner == "" {
			base.Owner = strings.TrimPrefix(base.Owner, "-")
		}
		if strings.HasSuffix(extension, "-default") {
			base.Owner, base.Note = strings.TrimSuffix(base.Owner, "-default"), "whatever has no file of its own"
			if owner == "" {
				base.Owner = forward.Everybody
			}
		}
		data, ok := r.read(ctx, &base, as)
		if !ok {
			continue
		}
		for _, i := range ParseCourier(data) {
			if i.Kind == forward.File {
				base.Mode = forward.Copy
			}
		}
		for _, i := range ParseCourier(data) {
			rule := base
			rule.Kind, rule.Target, rule.Line = i.Kind, i.Target, i.Line
			if i.Kind == forward.Program {
				r.program(ctx, rule, as)
				continue
			}
			r.add(rule)
		}
	}
}

// ParseCourier reads a .courier file: as ParseQmail, but "!addr" forwards, too,
// and "||command" prints further instructions.
func ParseCourier(data []byte) []Instruction {
	found := ParseQmail(data)
	for n := range found {
		i := &found[n]
		if i.Kind == forward.Address {
			i.Target = strings.TrimSpace(strings.TrimPrefix(i.Target, "!"))
		}
		if i.Kind == forward.Program {
			i.Target = strings.TrimSpace(strings.TrimPrefix(i.Target, "|"))
		}
	}
	return found
}
