package tables

import (
	"context"
	"fmt"
	"strings"

	"relayguard/forward/dbfile"
	mta "relayguard/mta/postfix"
)

// suffixes of the files that Postfix opens in place of the text.
var suffixes = map[string][]string{
	"hash": {".db"}, "btree": {".db"}, "lmdb": {".lmdb"}, "cdb": {".cdb"},
	"dbm": {".pag", ".dir"}, "sdbm": {".pag", ".dir"},
}

// compiled lists a table that postmap or postalias compiled.
func (r *Reader) compiled(ctx context.Context, t mta.Table, out *table) {
	path := r.path(t.Name)
	text, textErr := r.readText(ctx, path, out)
	running, state := r.readCompiled(ctx, t, path, out)
	switch state {
	case compiledRead:
		source := path + suffixes[t.Type][0]
		if textErr != nil {
			out.gap(path, "text of a compiled table, nothing to compare with: "+textErr.Error())
			for _, e := range running {
				if !signature(e) {
					out.Entries = append(out.Entries, Entry{Key: e.Key, Value: e.Value, Source: source})
				}
			}
			return
		}
		out.Entries = compare(running, text, r.Aliases, path, source)
	case compiledMissing:
		out.textInstead(text, r.Aliases, path, "there is no compiled form: Postfix refuses the table")
	case compiledUnreadable: // so the text is the best that is known
		out.Opaque = textErr != nil
		out.textInstead(text, r.Aliases, path, "")
	}
}

func (r *Reader) readText(ctx context.Context, path string, out *table) (string, error) {
	data, info, err := r.read(ctx, path, out)
	if err == nil {
		out.Writer = info.UID
	}
	return string(data), err
}

type compiledState int

const (
	compiledRead compiledState = iota
	compiledMissing
	compiledUnreadable
)

// readCompiled reads the compiled form with our own reader, or, if that cannot,
// with Postfix's.
func (r *Reader) readCompiled(ctx context.Context, t mta.Table, path string, out *table) ([]dbfile.Entry, compiledState) {
	var lastErr error
	for _, suffix := range suffixes[t.Type] {
		file := path + suffix
		// postmap writes in place: what changed while it was read is read again.
		for try := range 3 {
			data, info, err := r.read(ctx, file, out)
			if err != nil {
				lastErr = err
				break
			}
			out.Writer = info.UID
			entries, err := dbfile.Read(file, data)
			if err == nil {
				return entries, compiledRead
			}
			lastErr = err
			out.Digest = digest(data)
			if now, err := r.Host.Files.Lstat(ctx, file); try == 2 || err == nil && now.MTime.Equal(info.MTime) && now.Size == info.Size {
				break
			}
		}
	}
	if missing(lastErr) {
		out.gap(path, "not compiled: "+lastErr.Error())
		return nil, compiledMissing
	}
	if r.Host.Live() {
		entries, err := r.postmapList(ctx, mta.Table{Type: t.Type, Name: path})
		if err == nil {
			return entries, compiledRead
		}
		lastErr = fmt.Errorf("%w; %w", lastErr, err)
	}
	out.gap(path+suffixes[t.Type][0], lastErr.Error())
	return nil, compiledUnreadable
}

// postmapList is "postmap -s", which can list some of the types that are not
// read here.
func (r *Reader) postmapList(ctx context.Context, t mta.Table) ([]dbfile.Entry, error) {
	printed, err := r.Host.Run(ctx, nil, "postmap", r.inDir("-s", t.String())...)
	if err != nil {
		return nil, fmt.Errorf("list %s with postmap -s: %w", t, err)
	}
	var entries []dbfile.Entry
	for line := range strings.Lines(string(printed)) {
		if key, value, found := strings.Cut(strings.TrimSuffix(line, "\n"), "\t"); found {
			entries = append(entries, dbfile.Entry{Key: key, Value: value})
		}
	}
	return entries, nil
}

func (r *Reader) inDir(args ...string) []string {
	if r.ConfigDir == "" {
		return args
	}
	return append([]string{"-c", r.ConfigDir}, args...)
}

// signature reports what postalias adds for Sendmail and NIS. No lookup finds
// it: keys are asked for in lower case, and "@" is its own value.
func signature(e dbfile.Entry) bool {
	return e.Key == "YP_LAST_MODIFIED" || e.Key == "YP_MASTER_NAME" || e.Key == "@" && e.Value == "@"
}

// textInstead lists the text where there is nothing else.
func (t *table) textInstead(text string, aliases bool, path, dormant string) {
	parse := parsePostmap
	if aliases {
		parse = parsePostalias
	}
	for _, e := range parse(text) {
		t.Entries = append(t.Entries, Entry{Key: e.key, Value: e.value, Source: path, Line: e.line, Dormant: dormant})
	}
}

// compare puts text and compiled form together, by the grammar in which more of
// them agrees: what postmap compiled may serve as an alias map.
func compare(running []dbfile.Entry, text string, aliases bool, path, source string) []Entry {
	entries, agreed := compareAs(running, text, aliases, path, source)
	if agreed == len(running) {
		return entries
	}
	if others, n := compareAs(running, text, !aliases, path, source); n > agreed {
		return others
	}
	return entries
}

// compareAs compares by one grammar, and counts the compiled entries that the
// text has, too.
func compareAs(running []dbfile.Entry, text string, aliases bool, path, source string) (entries []Entry, agreed int) {
	parse, equal := parsePostmap, func(a, b string) bool { return a == b }
	if aliases {
		parse, equal = parsePostalias, sameAlias
	}
	stated := parse(text)
	byKey, next := index(stated)
	entries = make([]Entry, 0, len(running)+8)
	runs := make([]textState, len(stated))
	for _, c := range running {
		entry := Entry{Key: c.Key, Value: c.Value, Source: source}
		i, found := byKey[fold(c.Key)]
		if signature(c) && (!found || stated[i].value != c.Value) {
			agreed++
			continue
		}
		if !found {
			entry.Differs = "the compiled form has it, the text has not"
			entries = append(entries, entry)
			continue
		}
		first, match := i, -1
		for ; match < 0; i = next[i] {
			if equal(stated[i].value, c.Value) {
				match = i
			}
			if next[i] == 0 {
				break
			}
		}
		if match >= 0 {
			entry.Source, entry.Line = path, stated[match].line
			agreed++
			mark(runs, next, first, match, textShadowed)
		} else {
			entry.Differs = fmt.Sprintf("the compiled form says so, the text (line %d) says %q", stated[first].line, cut(stated[first].value))
			mark(runs, next, first, -1, textOther)
		}
		entries = append(entries, entry)
	}
	return append(entries, notRunning(stated, runs, path)...), agreed
}

// index finds the first line of each key, and of each line the next one of the
// same key; 0: none.
func index(stated []textEntry) (first map[string]int, next []int) {
	first, next = make(map[string]int, len(stated)), make([]int, len(stated))
	last := make(map[string]int)
	for i, e := range stated {
		before, found := first[e.key]
		if !found {
			first[e.key] = i
			continue
		}
		if l, several := last[e.key]; several {
			before = l
		}
		next[before], last[e.key] = i, i
	}
	return first, next
}

// textState is what became of a line of the text.
type textState byte

const (
	textAbsent   textState = iota // the compiled form has no such key
	textRuns                      // in force
	textShadowed                  // another line of the same key is in force
	textOther                     // the compiled form has another value
)

func mark(runs []textState, next []int, i, match int, state textState) {
	for {
		switch {
		case i == match:
			runs[i] = textRuns
		case runs[i] != textRuns:
			runs[i] = state
		}
		if next[i] == 0 {
			return
		}
		i = next[i]
	}
}

func notRunning(stated []textEntry, runs []textState, path string) (entries []Entry) {
	for i, e := range stated {
		entry := Entry{Key: e.key, Value: e.value, Source: path, Line: e.line}
		switch {
		case runs[i] == textRuns:
			continue
		case runs[i] == textShadowed:
			entry.Dormant = "another line with the same key is in force"
		case runs[i] == textOther:
			entry.Dormant = "the compiled form has another value"
			entry.Differs = "the text has it, the compiled form says otherwise"
		case e.doubtful:
			entry.Dormant = "not UTF-8: Postfix ignores the line"
		default:
			entry.Dormant = "not compiled"
			entry.Differs = "the text has it, the compiled form has not"
		}
		entries = append(entries, entry)
	}
	return entries
}

func cut(s string) string {
	const most = 100
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}

// texthash reads the text itself, always by postmap's grammar: an aliases file
// gives keys with a colon, which nobody asks for.
func (r *Reader) texthash(ctx context.Context, t mta.Table, out *table) {
	path := r.path(t.Name)
	data, info, err := r.read(ctx, path, out)
	if err != nil {
		out.Opaque = !missing(err)
		out.gap(path, err.Error())
		return
	}
	out.Writer = info.UID
	seen := make(map[string]bool)
	for _, e := range parsePostmap(string(data)) {
		entry := Entry{Key: e.key, Value: e.value, Source: path, Line: e.line}
		if seen[e.key] {
			entry.Dormant = "an earlier line has the same key"
		}
		seen[e.key] = true
		out.Entries = append(out.Entries, entry)
	}
}

// unixAccounts lists unix:passwd.byname and group.byname as the files have them.
func (r *Reader) unixAccounts(ctx context.Context, t mta.Table, out *table) {
	file := map[string]string{"passwd.byname": "/etc/passwd", "group.byname": "/etc/group"}[t.Name]
	if file == "" {
		out.Opaque = true
		out.gap(t.String(), "no such table of unix:")
		return
	}
	data, _, err := r.read(ctx, file, out)
	if err != nil {
		out.gap(file, err.Error())
		return
	}
	n := 0
	for row := range strings.Lines(string(data)) {
		n++
		row = strings.TrimSuffix(row, "\n")
		if name, _, found := strings.Cut(row, ":"); found && name != "" {
			out.Entries = append(out.Entries, Entry{Key: name, Value: row, Source: file, Line: n})
		}
	}
}
