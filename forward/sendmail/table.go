package sendmail

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"relayguard/forward"
	"relayguard/forward/aliases"
	"relayguard/forward/dbfile"
)

// row is one entry of a table.
type row struct {
	key, value string
	line       int // in the text; 0: it is in the compiled form only
	differs    string
}

const (
	onlyCompiled = "the compiled form has it, the text has not"
	onlyText     = "the text has it, the compiled form has not"
)

// table is a text and what was compiled from it.
type table struct {
	file    string
	aliases bool // the text is aliases(5), not makemap(8)
	rows    []row
	gaps    []forward.Gap
	uid     int // who owns what counts
	found   bool
	flawed  bool // there, and not to be read
}

// readTable reads both; if there is no compiled form the text counts (Sendmail
// makes it, or the class is text).
func readTable(ctx context.Context, h *forward.Host, file string, isAliases bool) table {
	t := table{file: file, aliases: isAliases, uid: forward.NoUID}
	text, textInfo, textErr := h.Files.Read(ctx, file, forward.ReadOptions{})
	data, info, err := h.Files.Read(ctx, file+".db", forward.ReadOptions{})
	for _, problem := range []error{textErr, err} {
		if problem != nil && !errors.Is(problem, fs.ErrNotExist) {
			t.gaps = append(t.gaps, forward.Gap{Source: file, Why: problem.Error()})
			t.flawed = true
		}
	}
	var source []row
	if textErr == nil {
		t.found, t.uid = true, textInfo.UID
		source = textRows(text, isAliases)
	}
	if err != nil {
		t.rows = source
		return t
	}
	t.found, t.uid = true, info.UID
	compiled, err := dbfile.Read(file+".db", data)
	if err != nil {
		t.gaps = append(t.gaps, forward.Gap{Source: file + ".db", Why: err.Error()})
		t.flawed = true
	}
	t.rows = merge(compiled, source, textErr == nil, isAliases)
	return t
}

// merge puts lines of the text to the entries that count, and says what is in
// one only.
func merge(compiled []dbfile.Entry, source []row, haveText, isAliases bool) []row {
	lines := make(map[string]row, len(source))
	for _, r := range source {
		lines[r.key+"\x00"+alike(r.value, isAliases)] = r
	}
	var rows []row
	used := make(map[string]bool, len(compiled))
	for _, entry := range compiled {
		if entry.Key == "@" || strings.HasPrefix(entry.Key, "YP_") {
			continue // the mark that it is complete
		}
		key := strings.ToLower(entry.Key)
		id := key + "\x00" + alike(entry.Value, isAliases)
		r := row{key: key, value: entry.Value, line: lines[id].line}
		if r.line == 0 && haveText {
			r.differs = onlyCompiled
		}
		used[id] = true
		rows = append(rows, r)
	}
	for _, r := range source {
		if id := r.key + "\x00" + alike(r.value, isAliases); !used[id] {
			used[id] = true
			r.differs = onlyText
			rows = append(rows, r)
		}
	}
	return rows
}

// alike is the same for values that mean the same.
func alike(value string, isAliases bool) string {
	if !isAliases {
		return strings.TrimSpace(value)
	}
	var out strings.Builder
	for _, t := range aliases.ParseSendmail(value) {
		fmt.Fprintf(&out, "%d %t %t %q\n", t.Kind, t.Include, t.Self, t.Text)
	}
	return out.String()
}

func textRows(text []byte, isAliases bool) []row {
	var rows []row
	if isAliases {
		for _, entry := range aliases.ParseFile(text, true) {
			if entry.Broken == "" {
				rows = append(rows, row{key: entry.Key, value: entry.Value, line: entry.Line})
			}
		}
		return rows
	}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		end := strings.IndexAny(line, " \t")
		if end < 0 {
			continue
		}
		rows = append(rows, row{key: strings.ToLower(line[:end]), value: strings.TrimSpace(line[end:]), line: number})
	}
	return rows
}

// paths are the files of a table.
func paths(file string) []string {
	file = path.Clean(file)
	return []string{file, file + ".db", file + ".pag"}
}
