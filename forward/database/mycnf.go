package database

import (
	"context"
	"path"
	"strings"

	"relayguard/forward"
)

// myOptions are what an option file of MySQL's client says of a connection.
type myOptions struct {
	user         string
	password     Secret
	socket, port string
	host         string
}

const maxMyFiles = 64 // option files that include one another

// myFiles are the option files that the client library reads by itself.
var myFiles = []string{"/etc/my.cnf", "/etc/mysql/my.cnf"}

// parseMyCnf reads the groups of an option file; includes are files, and
// directories that end with "/".
func parseMyCnf(data []byte, groups []string, o *myOptions) (includes []string) {
	in := false
	for line := range strings.Lines(string(data[:min(len(data), maxCF)])) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
			continue
		case line[0] == '!':
			verb, where, _ := strings.Cut(line[1:], " ")
			if where = strings.TrimSpace(where); path.IsAbs(where) && len(includes) < maxMyFiles {
				if verb == "includedir" {
					where = strings.TrimRight(where, "/") + "/"
				}
				includes = append(includes, where)
			}
			continue
		case line[0] == '[':
			name := strings.TrimSpace(strings.TrimSuffix(line[1:], "]"))
			in = false
			for _, g := range groups {
				in = in || g == name
			}
			continue
		}
		if in {
			name, value, _ := strings.Cut(line, "=")
			o.set(strings.ReplaceAll(strings.TrimSpace(name), "_", "-"), myValue(value))
		}
	}
	return includes
}

func (o *myOptions) set(name, value string) {
	switch name {
	case "user":
		o.user = value
	case "password":
		o.password = Secret(value)
	case "socket":
		o.socket = value
	case "port":
		o.port = value
	case "host":
		o.host = value
	}
}

// myValue takes quotes and a comment off a value.
func myValue(v string) string {
	v = strings.TrimSpace(v)
	if len(v) > 1 && (v[0] == '\'' || v[0] == '"') {
		if end := strings.IndexByte(v[1:], v[0]); end >= 0 {
			return v[1 : 1+end]
		}
	}
	v, _, _ = strings.Cut(v, " #")
	return strings.TrimSpace(v)
}

// myOptions reads the option files that a .cf asks for (option_file,
// option_group). What cannot be read says nothing, as with the library.
func (d *Databases) myOptions(ctx context.Context, s settings) myOptions {
	var o myOptions
	groups := []string{"client", "client-server", "client-mariadb"}
	if g, set := s["option_group"]; set {
		if g == "" && s["option_file"] == "" {
			return o
		}
		groups = append(groups, g)
	}
	todo := myFiles
	if f := s["option_file"]; f != "" {
		todo = []string{f}
	}
	todo = append([]string(nil), todo...)
	for i := 0; i < len(todo) && i < maxMyFiles; i++ {
		if dir, isDir := strings.CutSuffix(todo[i], "/"); isDir {
			infos, _ := d.host.Files.ReadDir(ctx, dir, forward.ReadOptions{MaxEntries: maxMyFiles})
			for _, info := range infos {
				if strings.HasSuffix(info.Name, ".cnf") {
					todo = append(todo, path.Join(dir, info.Name))
				}
			}
			continue
		}
		data, _, err := d.host.Files.Read(ctx, todo[i], forward.ReadOptions{Max: maxCF})
		if err != nil {
			continue
		}
		todo = append(todo, parseMyCnf(data, groups, &o)...)
	}
	return o
}
