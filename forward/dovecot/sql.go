package dovecot

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"relayguard/forward"
	"relayguard/forward/database"
)

// answers are the users of databases, as Dovecot tells them, or, where it cannot be
// asked, as SQL databases themselves do. With an error, those that are known.
func (p *planner) answers(ctx context.Context, known []string, ask []*userdb) (map[string]user, error) {
	var out map[string]user
	why := errors.New("they are in a database that is not read on a copied disk; only homes that lie where a pattern says are looked at")
	if p.host.Live() {
		var names []string
		if names, why = p.names(ctx); why == nil {
			out, why = p.askAll(ctx, union(names, known))
		}
	}
	if why == nil {
		return out, nil
	}
	all := map[string]user{}
	for _, d := range ask {
		if d.driver == "static" {
			continue
		}
		if d.driver != "sql" {
			return out, why
		}
		users, err := p.sqlUsers(ctx, d)
		if err != nil {
			return out, fmt.Errorf("%w; %s: %w", why, d.conf, err)
		}
		for _, u := range users {
			if old, ok := all[u.name]; !ok {
				all[u.name] = u
			} else if old.more {
				all[u.name] = old.under(u)
			}
		}
	}
	return all, nil
}

const defaultUserQuery = "SELECT home, uid, gid FROM users WHERE username = '%n' AND domain = '%d'"

// sqlUsers asks an SQL database for all users at once.
func (p *planner) sqlUsers(ctx context.Context, d *userdb) ([]user, error) {
	if d.conf == "" {
		return nil, errors.New("which file says how to ask is not known")
	}
	p.uses(d.conf)
	data, _, err := p.host.Files.Read(ctx, d.conf, readConfigOptions)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", d.conf, err)
	}
	s := Settings(Parse(data, d.conf, nil))
	q := database.UserQuery{Kind: s.Get("driver"), Query: s.Get("user_query"), Settings: map[string]string{}}
	if q.Query == "" {
		q.Query = defaultUserQuery
	}
	connect := s.Get("connect")
	for word := range strings.FieldsSeq(connect) {
		key, value, ok := strings.Cut(word, "=")
		switch {
		case !ok && q.Kind == "sqlite":
			q.Settings["dbpath"] = word
		case key == "host" || key == "hostaddr":
			if strings.HasPrefix(value, "/") {
				value = "unix:" + value
			}
			q.Settings["hosts"] = strings.TrimSpace(q.Settings["hosts"] + " " + value)
		default:
			q.Settings[key] = value
		}
	}
	if port := q.Settings["port"]; port != "" && q.Settings["hosts"] != "" && !strings.Contains(q.Settings["hosts"], "/") {
		q.Settings["hosts"] += ":" + port
	}
	rows, err := database.New(p.host).Users(ctx, q)
	if err != nil {
		return nil, err
	}
	out := make([]user, 0, len(rows))
	for _, row := range rows {
		out = append(out, p.sqlUser(row, d))
	}
	return out, nil
}

// sqlUser makes a user of a row.
func (p *planner) sqlUser(row database.User, d *userdb) user {
	u := user{name: row.Name, uid: forward.NoUID, gid: forward.NoUID, file: d.conf}
	for key, value := range row.Fields {
		key = strings.TrimPrefix(key, "plugin/")
		switch key {
		case "home":
			if value != "" {
				u.home = path.Clean(value)
			}
		case "uid":
			u.uid, u.gid = p.accountID(value)
		case "gid", "user", "username", "domain", "password":
		default:
			if u.fields == nil {
				u.fields = fields{}
			}
			u.fields[key] = strings.ReplaceAll(value, "%", "%%")
		}
	}
	return p.complete(u, d)
}
