package mailfiles

import (
	"context"
	"path"
	"strings"

	"relayguard/forward"
)

// planCPanel: /etc/valiases, /etc/vdomainaliases and /etc/vfilters, a file a
// domain; and each account's own filters, etc/DOMAIN/MAILBOX/filter in its home.
func planCPanel(ctx context.Context, h *forward.Host, plan *forward.Plan) {
	if !there(ctx, h, plan, "/etc/valiases") {
		return
	}
	for _, kind := range []struct {
		dir  string
		read func(*reader, context.Context, forward.Rule, string)
	}{
		{"/etc/valiases", (*reader).valiases},
		{"/etc/vdomainaliases", (*reader).vdomainaliases},
		{"/etc/vfilters", (*reader).vfilters},
	} {
		plan.Units = append(plan.Units, forward.Unit{ID: "cpanel " + kind.dir, Paths: []string{kind.dir, kind.dir + "/"},
			Writer: forward.NoUID, Server: true,
			Read: func(ctx context.Context) forward.Reading {
				r := &reader{host: h}
				for _, info := range r.list(ctx, kind.dir, nil) {
					if info.Mode.IsDir() {
						continue
					}
					base := forward.Rule{Mechanism: forward.Virtual, Source: path.Join(kind.dir, info.Name), Mode: forward.Redirect}
					kind.read(r, ctx, base, strings.ToLower(info.Name))
				}
				return r.reading
			}})
	}
	for _, account := range accounts(h) {
		dir, as := path.Join(account.Home, "etc"), bare(account)
		plan.Units = append(plan.Units, forward.Unit{ID: "cpanel filters " + account.Name, Writer: account.UID, Owner: account.Name,
			Paths: []string{dir},
			Read: func(ctx context.Context) forward.Reading {
				r := &reader{host: h}
				r.mailboxFilters(ctx, dir, as)
				return r.reading
			}})
	}
}

// entries cuts a file into "key: value" lines.
func entries(data []byte, each func(line int, key, value string)) {
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if key, value, found := strings.Cut(line, ":"); found {
			each(number, strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value))
		}
	}
}

func (r *reader) valiases(ctx context.Context, base forward.Rule, domain string) {
	data, ok := r.read(ctx, &base, nil)
	if !ok {
		return
	}
	entries(data, func(line int, key, value string) {
		rule := base
		rule.Line = line
		switch {
		case key == "*":
			rule.Owner, rule.Note = "@"+domain, "whatever has no address of its own"
		case strings.Contains(key, "@"):
			rule.Owner = key
		default:
			rule.Owner = key + "@" + domain
		}
		r.value(ctx, rule, value, nil)
	})
}

func (r *reader) vdomainaliases(ctx context.Context, base forward.Rule, _ string) {
	data, ok := r.read(ctx, &base, nil)
	if !ok {
		return
	}
	entries(data, func(line int, key, value string) {
		if key == "" || value == "" {
			return
		}
		rule := base
		rule.Owner, rule.Target, rule.Line = "@"+key, "@"+strings.ToLower(value), line
		r.add(rule)
	})
}

func (r *reader) vfilters(ctx context.Context, base forward.Rule, domain string) {
	if data, ok := r.read(ctx, &base, nil); ok {
		base.Owner = "@" + domain
		r.filter(ctx, base, data, nil)
	}
}

// mailboxFilters reads DOMAIN/MAILBOX/filter below etc of a home.
func (r *reader) mailboxFilters(ctx context.Context, etc string, as *forward.Account) {
	for _, domain := range r.list(ctx, etc, as) {
		if !domain.Mode.IsDir() {
			continue
		}
		r.reading.Uses = append(r.reading.Uses, path.Join(etc, domain.Name))
		for _, mailbox := range r.list(ctx, path.Join(etc, domain.Name), as) {
			if !mailbox.Mode.IsDir() {
				continue
			}
			base := forward.Rule{Owner: strings.ToLower(mailbox.Name + "@" + domain.Name), Mechanism: forward.DotForward,
				Source: path.Join(etc, domain.Name, mailbox.Name, "filter"), Mode: forward.Redirect}
			if data, ok := r.read(ctx, &base, as); ok {
				r.filter(ctx, base, data, as)
			}
		}
	}
}
