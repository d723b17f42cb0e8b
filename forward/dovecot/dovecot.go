// Package dovecot finds what Dovecot and its Sieve interpreter, Pigeonhole, send
// elsewhere: the scripts of every mailbox, those that run before and after, the
// default one, those of IMAP events, and settings that copy mail to other hosts.
//
// What a script does is told by forward/sieve; who is outside, by judge.
//
// The trap: a script may be compiled, and the compiled form runs if it is newer
// than the text, whatever the text says. Both are read; Differs says where they
// part.
package dovecot

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"relayguard/forward"
)

// Options are where to look. The zero value: Debian's places.
type Options struct {
	ConfigDir string // of dovecot.conf; empty: /etc/dovecot
}

var (
	readConfigOptions = forward.ReadOptions{Max: 4 << 20}
	readDirOptions    = forward.ReadOptions{}
)

// planner puts a plan together.
type planner struct {
	ctx       context.Context // of the planning, not of the reading
	host      *forward.Host
	file      string // dovecot.conf
	settings  Settings
	plan      forward.Plan
	suffix    string // this configuration beside the first: what its units' names end with
	mailUID   int    // of the mail store; NoUID: none is set
	mailGID   int
	walked    bool
	unused    string     // why Sieve is not in use; empty: it is
	before    []location // per-user ones of sieve_before and sieve_after
	everybody []location // that are one script for all
	personal  []location
	databases []userdb
	extra     []forward.Rule           // of scripts that cannot be read, of fields and services
	others    []string                 // further configurations that services are run with
	closed    string                   // a file that doveconf passes over, for this account may not read it; Dovecot reads it
	byUID     map[int]*forward.Account // the first account of each uid
	asked     map[string]user          // as Dovecot told them
	templates map[string]template      // of homes, parsed once
}

// Plan is what there is to be read: one unit a mailbox, one each of the scripts
// for everybody, one of the settings. A host without dovecot.conf has none.
func Plan(ctx context.Context, h *forward.Host, o Options) forward.Plan {
	if o.ConfigDir == "" {
		o.ConfigDir = "/etc/dovecot"
	}
	files := []string{path.Join(o.ConfigDir, "dovecot.conf")}
	var all forward.Plan
	for i := 0; i < len(files) && i < maxConfigurations; i++ {
		p := newPlanner(ctx, h, files[i], i > 0)
		p.all()
		all.Add(p.plan)
		for _, file := range p.others {
			if !slices.Contains(files, file) {
				files = append(files, file)
			}
		}
	}
	return all
}

// maxConfigurations bounds those that services are run with ("lmtp -c FILE").
const maxConfigurations = 8

func newPlanner(ctx context.Context, h *forward.Host, file string, further bool) *planner {
	p := &planner{ctx: ctx, host: h, file: file, mailUID: forward.NoUID, mailGID: forward.NoUID, templates: map[string]template{}}
	if further {
		p.suffix = " of " + file
	}
	p.byUID = make(map[int]*forward.Account, len(h.Accounts))
	for i := range h.Accounts {
		if a := &h.Accounts[i]; p.byUID[a.UID] == nil {
			p.byUID[a.UID] = a
		}
	}
	return p
}

func (p *planner) all() {
	if !p.load(p.ctx) {
		return
	}
	p.services()
	p.environment()
	p.store()
	p.places()
	p.databaseFields()
	p.proxies()
	for _, u := range p.users(p.ctx) {
		p.mailbox(u)
	}
	p.settingsUnit()
}

// unit plans one; names are unique among all configurations.
func (p *planner) unit(u forward.Unit) {
	u.ID += p.suffix
	p.plan.Units = append(p.plan.Units, u)
}

func (p *planner) uses(file string) { p.plan.Uses = append(p.plan.Uses, file) }

func (p *planner) gap(source, why string) {
	p.plan.Gaps = append(p.plan.Gaps, forward.Gap{Source: source, Why: why})
}

// load reads the settings: of a live machine as doveconf prints them, else, and
// if that fails, from the files. The files are read either way: a change of one
// asks for another plan.
func (p *planner) load(ctx context.Context) bool {
	entries, err := p.readConfig(ctx, p.file)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	p.settings = p.fromFiles(entries)
	if p.closed != "" {
		p.gap(p.file, "doveconf is not asked, for it would leave out "+p.closed+", which this account may not read; the files were read instead")
	} else if p.host.Live() {
		out, runErr := p.host.Run(ctx, nil, "doveconf", "-n", "-c", p.file)
		if runErr == nil {
			p.settings = Parse(out, p.file, nil)
			p.locate(entries)
			p.settings = p.fromFiles(p.settings)
			return true
		}
		p.gap(p.file, "doveconf: "+runErr.Error()+"; its files were read instead")
	}
	if err != nil {
		p.gap(p.file, err.Error())
		return false
	}
	return true
}

// locate gives what doveconf printed the files and lines it came from.
func (p *planner) locate(entries []Entry) {
	type key struct{ key, value string }
	at := make(map[key]Entry, len(entries))
	for _, e := range entries {
		at[key{e.Key, e.Value}] = e
	}
	for i := range p.settings {
		e := &p.settings[i]
		e.Line = 0
		if from, ok := at[key{e.Key, e.Value}]; ok {
			e.File, e.Line = from.File, from.Line
		}
	}
}

// fromFiles reads the values that are in files of their own: "key = <FILE".
func (p *planner) fromFiles(entries []Entry) []Entry {
	for i := range entries {
		file, ok := strings.CutPrefix(entries[i].Value, "<")
		if !ok || !strings.HasPrefix(file, "/") || strings.HasPrefix(entries[i].Key, "ssl_") { // keys are nobody else's business
			continue
		}
		p.uses(file)
		data, _, err := p.host.Files.Read(p.ctx, file, forward.ReadOptions{Max: 64 << 10})
		if err != nil {
			p.gap(file, err.Error())
			continue
		}
		entries[i].Value = strings.TrimRight(string(data), "\r\n")
	}
	return entries
}

// store finds the databases, and the account that owns the mail of users without
// accounts.
func (p *planner) store() {
	for _, b := range p.settings.blocks("userdb") {
		p.databases = append(p.databases, p.newDatabase(b))
	}
	if len(p.databases) == 0 {
		p.databases = []userdb{p.newDatabase(block{values: map[string]string{"driver": "passwd"}, file: p.file})}
	}
	p.mailUID, p.mailGID = p.accountID(p.settings.Get("mail_uid"))
}

func (p *planner) accountID(s string) (uid, gid int) {
	if a := p.host.Account(s); a != nil {
		return a.UID, a.GID
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return forward.NoUID, forward.NoUID
	}
	if a := p.byUID[n]; a != nil {
		return n, a.GID
	}
	return n, n
}
