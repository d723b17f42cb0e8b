package dovecot

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"relayguard/forward"
)

// Bounds of what Dovecot is asked: doveadm answers for many users at once.
const (
	maxAsked  = 50_000 // users whose fields are asked for
	maxPolled = 5_000  // of a database whose fields are asked for again at intervals
	askBatch  = 250
	maxRuns   = 600 // of doveadm in one go
	askFor    = 60 * time.Second
)

// listed adds whom Dovecot lists itself, as it knows them: a database may give any
// of them another home, another script, other plugins.
func (p *planner) listed(ctx context.Context, ask []*userdb, found map[string]user, add func(user)) {
	static := !slices.ContainsFunc(ask, func(d *userdb) bool { return d.driver != "static" })
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	if static {
		p.listedStatic(ctx, ask, found, add)
		return
	}
	var err error
	if p.asked, err = p.answers(ctx, slices.Sorted(maps.Keys(found)), ask); err != nil {
		if p.host.Live() || p.settings.Get("mail_home") == "" && !p.walked {
			p.gap("users of "+p.file, err.Error())
		}
		p.opaqueDatabases(ask, err.Error())
	}
	for name, u := range p.asked {
		found[name] = u
	}
	if p.host.Live() {
		p.pollUnit(ask)
	}
}

// listedStatic adds whom Dovecot lists where all homes lie where a pattern says.
func (p *planner) listedStatic(ctx context.Context, ask []*userdb, found map[string]user, add func(user)) {
	if !p.host.Live() {
		if p.settings.Get("mail_home") == "" && !p.walked {
			p.gap("users of "+p.file, "they are not listed on a copied disk; only homes that lie where a pattern says are looked at")
		}
		return
	}
	names, err := p.names(ctx)
	if err != nil {
		if !p.walked { // where homes were walked, all that have a script are known by then
			p.unasked(ask, err.Error())
		}
		return
	}
	if p.homeOf(ask[0]) == "" {
		if p.asked, err = p.askAll(ctx, names); err != nil {
			p.unasked(ask, err.Error())
		}
		maps.Copy(found, p.asked)
		return
	}
	for _, name := range names {
		add(p.complete(user{name: name, uid: forward.NoUID, gid: forward.NoUID}, ask[0]))
	}
}

func union(a, b []string) []string {
	out := slices.Concat(a, b)
	slices.Sort(out)
	return slices.Compact(out)
}

// unasked are rules and a gap for databases that cannot be asked.
func (p *planner) unasked(ask []*userdb, why string) {
	p.gap("users of "+p.file, why)
	p.opaqueDatabases(ask, why)
}

func (p *planner) opaqueDatabases(ask []*userdb, why string) {
	for _, d := range ask {
		if d.driver == "static" {
			continue
		}
		p.extra = append(p.extra, forward.Rule{Owner: forward.Everybody, Mechanism: forward.Setting, Kind: forward.Asked,
			Target: strings.TrimSuffix(d.driver+":"+d.conf, ":"), Mode: forward.Copy, Source: "userdb " + d.driver + " in " + d.file, Line: d.line,
			Server: true, UID: forward.NoUID, Digest: p.programDigest(d.conf), Note: "it may name scripts and homes: " + why})
	}
}

// names are the users that Dovecot lists.
func (p *planner) names(ctx context.Context) ([]string, error) {
	out, err := p.host.Run(ctx, nil, "doveadm", "-c", p.file, "user", "*")
	if err != nil {
		return nil, fmt.Errorf("doveadm user: %w", err)
	}
	var names []string
	for name := range strings.FieldsSeq(string(out)) {
		if !strings.HasPrefix(name, "-") && !strings.ContainsAny(name, "*?") && len(names) < maxUsers {
			names = append(names, name)
		}
	}
	return names, nil
}

var errTooManyAsked = errors.New("doveadm user: too many calls, or users, to be asked for one by one")

// asker asks for many users.
type asker struct {
	p    *planner
	ctx  context.Context
	runs int
	err  error
	out  map[string]user
	drop []fields // what the databases say of all users is told elsewhere
}

// askAll asks for the fields of all users. With an error, those are returned that
// were answered for.
func (p *planner) askAll(ctx context.Context, names []string) (map[string]user, error) {
	a := &asker{p: p, ctx: ctx, out: make(map[string]user, len(names))}
	for i := range p.databases {
		a.drop = append(a.drop, p.databases[i].above())
	}
	if len(names) > maxAsked {
		a.err, names = errTooManyAsked, names[:maxAsked]
	}
	for batch := range slices.Chunk(names, askBatch) {
		a.batch(batch)
	}
	return a.out, a.err
}

// batch asks for some users. Where the answers cannot be told apart, or one of the
// users is not known, each half is asked again.
func (a *asker) batch(names []string) {
	if a.runs++; a.runs > maxRuns {
		a.err = errTooManyAsked
		return
	}
	out, err := a.p.host.Run(a.ctx, nil, "doveadm", append([]string{"-c", a.p.file, "user"}, names...)...)
	if a.ctx.Err() != nil {
		a.err = fmt.Errorf("doveadm user: %w", a.ctx.Err())
		a.runs = maxRuns
		return
	}
	answers := splitAnswers(string(out))
	if len(answers) == len(names) && err == nil {
		for i, name := range names {
			a.answer(name, answers[i])
		}
		return
	}
	if len(names) == 1 {
		return // not known any more, or not now
	}
	a.batch(names[:len(names)/2])
	a.batch(names[len(names)/2:])
}

// splitAnswers cuts what doveadm prints for several users: lines "FIELD TAB
// VALUE", the first of each user's is its uid.
func splitAnswers(out string) []fields {
	var all []fields
	for line := range strings.Lines(out) {
		key, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), "\t")
		if key == "field" && value == "value" && len(all) == 0 || !ok && key == "" {
			continue
		}
		if key == "uid" {
			all = append(all, fields{})
		}
		if len(all) == 0 {
			return nil
		}
		all[len(all)-1][strings.TrimPrefix(key, "plugin/")] = value
	}
	return all
}

// answer makes a user of what Dovecot told. Its values are final: a "%" in them is
// one.
func (a *asker) answer(name string, f fields) {
	u := user{name: name, uid: forward.NoUID, gid: forward.NoUID, file: a.p.file}
	u.uid, u.gid = a.p.accountID(f["uid"])
	if gid, _ := a.p.accountID(f["gid"]); gid != forward.NoUID {
		u.gid = gid
	}
	if home := f["home"]; strings.HasPrefix(home, "/") {
		u.home = path.Clean(home)
	}
	if f["mail"] == a.p.settings.Get("mail_location") {
		delete(f, "mail")
	}
	for key, value := range f {
		if key == "uid" || key == "gid" || key == "home" || slices.ContainsFunc(a.drop, func(d fields) bool { return d.is(u, key, value) }) {
			continue
		}
		if u.fields == nil {
			u.fields = fields{}
		}
		u.fields[key] = strings.ReplaceAll(value, "%", "%%")
	}
	a.out[name] = u
}

// is reports whether a field is the one that everybody has.
func (f fields) is(u user, key, value string) bool {
	t, err := parseTemplate(f[key])
	return f[key] != "" && err == nil && t.expand(u) == value
}

// pollUnit asks again: nobody tells of a database's changes. It reads the
// mailboxes of users that are no longer what they were when this was planned.
func (p *planner) pollUnit(ask []*userdb) {
	if len(p.asked) > maxPolled {
		return // found by the next full scan
	}
	planned := p.asked
	p.unit(forward.Unit{ID: "users of " + p.file, Paths: []string{p.file}, Poll: true, Writer: forward.NoUID,
		Read: func(ctx context.Context) forward.Reading {
			ctx, cancel := context.WithTimeout(ctx, askFor)
			defer cancel()
			q := *p
			q.ctx, q.plan, q.extra, q.templates = ctx, forward.Plan{}, nil, map[string]template{}
			return q.again(ctx, planned, ask)
		}})
}

func (p *planner) again(ctx context.Context, planned map[string]user, ask []*userdb) forward.Reading {
	var out forward.Reading
	var err error
	if p.asked, err = p.answers(ctx, slices.Collect(maps.Keys(planned)), ask); err != nil {
		p.unasked(ask, err.Error())
		out.Gaps, out.Rules = append(out.Gaps, p.plan.Gaps...), p.extra
	}
	for _, name := range slices.Sorted(maps.Keys(p.asked)) {
		u := p.asked[name]
		if old, ok := planned[name]; ok && old.home == u.home && old.uid == u.uid && maps.Equal(old.fields, u.fields) {
			continue
		}
		r := p.reader(u).read(ctx)
		out.Rules, out.Gaps, out.Uses = append(out.Rules, r.Rules...), append(out.Gaps, r.Gaps...), append(out.Uses, r.Uses...)
	}
	return out
}
