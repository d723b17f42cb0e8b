package tables

import (
	"context"
	"strings"

	mta "relayguard/mta/postfix"
)

// database lists a table that lies in a database, by its .cf file; if nobody can,
// known addresses are asked for.
func (r *Reader) database(ctx context.Context, t mta.Table, out *table) {
	out.Poll = true
	cf := r.path(t.Name)
	if !strings.HasPrefix(t.Name, "/") && !strings.HasPrefix(t.Name, ".") {
		out.Opaque = true // the old way: NAME_server_host and so on in main.cf
		out.gap(t.String(), "its parameters are in main.cf, not in a file: not listed")
		r.probe(ctx, t, out)
		return
	}
	data, info, err := r.read(ctx, cf, out)
	if err != nil {
		out.Opaque = !missing(err)
		out.gap(cf, err.Error())
		return
	}
	out.Writer = info.UID
	if t.Type == "sqlite" {
		out.Paths = append(out.Paths, sqliteFiles(string(data))...)
	}
	why := "no reader of databases"
	if r.Databases != nil {
		pairs, err := r.Databases.List(ctx, t.Type, cf)
		for _, p := range pairs {
			out.Entries = append(out.Entries, Entry{Key: fold(p.Key), Value: p.Value, Source: t.Type + ":" + cf})
		}
		if err == nil {
			return
		}
		why = err.Error()
	}
	out.Opaque, out.Digest = true, digest(data)
	out.gap(t.String(), why)
	r.probe(ctx, mta.Table{Type: t.Type, Name: cf}, out)
}

// sqliteFiles are the database of a sqlite_table(5) and its log.
func sqliteFiles(cf string) []string {
	for _, l := range logicalLines(cf) {
		name, value, found := strings.Cut(l.text, "=")
		if path := strings.Trim(value, spaces); found && strings.Trim(name, spaces) == "dbpath" && strings.HasPrefix(path, "/") {
			return []string{path, path + "-wal"}
		}
	}
	return nil
}
