package forwards

import (
	"context"
	"path"
	"slices"
	"strings"

	"relayguard/cmd/internal/config"
	"relayguard/forward"
	"relayguard/forward/database"
	"relayguard/forward/dovecot"
	"relayguard/forward/ledger"
	"relayguard/forward/maildrop"
	"relayguard/forward/mailfiles"
	"relayguard/forward/postfix"
	"relayguard/forward/procmail"
	"relayguard/forward/scan"
	"relayguard/forward/sendmail"
	"relayguard/policy/address"
)

// Planner plans what there is to be read on a host by one configuration.
func Planner(c *config.Config, h *forward.Host) scan.Planner {
	return PlannerOf(func() *config.Config { return c }, func() *forward.Host { return h })
}

// PlannerOf is Planner by the configuration that is in force when it is asked. Who
// has an account is read anew each time.
func PlannerOf(configuration func() *config.Config, host func() *forward.Host) scan.Planner {
	return func(ctx context.Context, known func() []string) forward.Plan {
		c, h := configuration(), *host()
		var p forward.Plan
		if err := learnAccounts(ctx, &h); err != nil || len(h.Accounts) == 0 {
			p.Gaps = append(p.Gaps, forward.Gap{Source: "/etc/passwd", Why: "cannot be read: homes are not looked at"})
		}
		p.Uses = append(p.Uses, "/etc/passwd", "/etc/group")
		tables := database.New(&h)
		tables.Known = known
		p.Add(postfix.Plan(ctx, &h, postfix.Options{ConfigDir: c.MTA.ConfigDirectory, Databases: tables, Known: known, Guard: guardSockets(c)}))
		if there(ctx, &h, c.Forward.Sendmail) {
			p.Add(sendmail.Plan(ctx, &h, sendmail.Options{Config: c.Forward.Sendmail}))
		}
		if c.Forward.Dovecot != "" && there(ctx, &h, path.Join(c.Forward.Dovecot, "dovecot.conf")) {
			p.Add(dovecot.Plan(ctx, &h, dovecot.Options{ConfigDir: c.Forward.Dovecot}))
		}
		p.Add(procmail.Plan(ctx, &h))
		p.Add(maildrop.Plan(ctx, &h))
		p.Add(mailfiles.Plan(ctx, &h))
		p.Add(database.Plan(ctx, &h, database.Options{Databases: panels(c.Databases)}))
		complete(&p.World, c)
		return p
	}
}

// guardSockets are where this guard itself listens, as Postfix names it.
func guardSockets(c *config.Config) []string {
	sockets := []string{}
	for _, l := range c.Listeners {
		if e := l.Endpoint; e.Path != "" {
			sockets = append(sockets, e.Path)
		} else {
			sockets = append(sockets, "inet:"+e.Address())
		}
	}
	return sockets
}

// there reports whether a file that the configuration names exists, or cannot be
// looked at: then its finder says so.
func there(ctx context.Context, h *forward.Host, file string) bool {
	if file == "" {
		return false
	}
	infos, err := h.Files.LstatAll(ctx, []string{file})
	return err != nil || len(infos) == 1 && infos[0].Name != ""
}

func panels(all []config.Database) []database.Config {
	configs := make([]database.Config, len(all))
	for i, d := range all {
		address := d.Address
		if strings.HasPrefix(address, "/") { // as mysql_table(5) and pgsql_table(5) say that it is a socket
			address = "unix:" + strings.TrimSuffix(address, "/.s.PGSQL.5432")
		}
		configs[i] = database.Config{Name: d.Name, Panel: d.Panel, Driver: d.Driver, Address: address, User: d.User, PasswordFile: d.PasswordFile, DB: d.Database}
	}
	return configs
}

// complete makes the world what the configuration says is inside.
func complete(w *forward.World, c *config.Config) {
	if !c.Inside.FromMTA {
		w.Inside = nil
	}
	inside := map[string]bool{}
	for domain := range w.Inside {
		inside[domain] = true
	}
	for _, domain := range c.Inside.Domains {
		inside[domain] = true
	}
	w.Inside = inside
	hosts := map[string]bool{}
	for host := range w.Hosts {
		hosts[host] = true
	}
	for _, host := range c.Forward.Hosts {
		hosts[host] = true
	}
	w.Hosts = hosts
	if w.Origin == "" && c.Address.DefaultDomain != "" {
		w.Origin = address.Domain(c.Address.DefaultDomain)
	}
}

// Rules are the ledger's by a configuration. Accounts that the host does not have
// write nothing.
func Rules(c *config.Config, h *forward.Host) ledger.Rules {
	r := ledger.Rules{Important: c.Forward.Important, Roles: c.Forward.Roles, Policy: c.Forward.Policy}
	for _, name := range c.Forward.Writers {
		if a := h.Account(name); a != nil && !slices.Contains(r.Writers, a.UID) {
			r.Writers = append(r.Writers, a.UID)
		}
	}
	return r
}

// Unseen tells the ledger who may write a place, for a scan that saw nobody write:
// the owner of the file is who wrote it, but of the server's own places, which
// nobody but root writes to, that says nothing.
func Unseen(s *scan.Scanner) func(*forward.Finding) ledger.Seen {
	seen := seenBy(s, writers{})
	return func(f *forward.Finding) ledger.Seen {
		out := seen(f)
		if u, there := s.Unit(f.Unit); there && u.Server {
			out.Nobody = true
		}
		return out
	}
}

// writers are who was seen to write: by unit, or by path.
type writers struct{ units, paths map[string][]forward.Writer }

func (w *writers) of(f *forward.Finding) []forward.Writer {
	if all, there := w.units[f.Unit]; there {
		return all
	}
	file := f.Source
	if i := strings.LastIndex(file, " in "); i >= 0 { // "always_bcc in /etc/postfix/main.cf"
		file = file[i+len(" in "):]
	}
	return w.paths[file]
}

func seenBy(s *scan.Scanner, w writers) func(*forward.Finding) ledger.Seen {
	return func(f *forward.Finding) ledger.Seen {
		seen := ledger.Seen{Writers: w.of(f)}
		u, there := s.Unit(f.Unit)
		// Of a way to another's rule, the owner of the file says nothing: it is the
		// other rule, perhaps, that is new.
		seen.Nobody = !there || u.Poll || !f.Direct() && len(seen.Writers) == 0
		if u.Writer != forward.NoUID && !u.Server {
			seen.Expected = []int{u.Writer}
		}
		return seen
	}
}
