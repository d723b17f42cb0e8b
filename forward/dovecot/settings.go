package dovecot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Entry is one setting as a configuration states it.
type Entry struct {
	// Sections are the blocks around it, the outermost first: "plugin",
	// "protocol lmtp", "sieve_script personal".
	Sections []string
	Key      string // empty: a block begins
	Value    string
	File     string
	Line     int
}

// Caps of a configuration: an admin writes it, a copied disk may hold anything.
const (
	maxConfigFiles   = 500
	maxConfigDeep    = 16
	maxConfigEntries = 200_000
	maxSections      = 32
)

// Parse reads the text of a Dovecot configuration, of 2.3 or 2.4, or what
// doveconf printed. include is asked for "!include" and "!include_try" with the
// pattern as it stands; nil: they are passed over. What is no setting is passed
// over, too: Dovecot would not start with it.
func Parse(data []byte, file string, include func(pattern string, try bool) error) []Entry {
	p := configParser{file: file, include: include}
	p.parse(data)
	return p.entries
}

type configParser struct {
	file     string
	include  func(pattern string, try bool) error
	entries  []Entry
	sections []string
	deeper   int // blocks beyond maxSections, whose names are not kept
}

func (p *configParser) parse(data []byte) {
	number := 0
	long := ""
	for len(data) > 0 && len(p.entries) < maxConfigEntries {
		var raw []byte
		raw, data, _ = bytes.Cut(data, []byte{'\n'})
		number++
		line := long + strings.TrimSpace(string(raw))
		long = ""
		if rest, ok := strings.CutSuffix(line, `\`); ok && !strings.HasPrefix(line, "#") && len(line) < 1<<16 {
			long = rest
			continue
		}
		p.line(line, number)
	}
}

func (p *configParser) line(line string, number int) {
	if line == "" || line[0] == '#' {
		return
	}
	for _, word := range []string{"!include_try", "!include"} {
		if rest, ok := strings.CutPrefix(line, word); ok && rest != "" && (rest[0] == ' ' || rest[0] == '\t') {
			if p.include != nil {
				// What cannot be read is the caller's to note.
				_ = p.include(unquote(strings.TrimSpace(rest)), word == "!include_try")
			}
			return
		}
	}
	line = stripComment(line)
	if line == "" {
		return
	}
	if line[0] == '}' {
		p.close()
		return
	}
	key, value, assigned := strings.Cut(line, "=")
	if head, ok := strings.CutSuffix(line, "{"); ok && !assigned {
		p.open(head)
		return
	}
	if !assigned {
		p.inline(line, number)
		return
	}
	if head, rest, ok := strings.Cut(key, "{"); ok { // "plugin { sieve = x }"
		p.open(head)
		body, closed := strings.CutSuffix(strings.TrimSpace(rest+"="+value), "}")
		p.line(strings.TrimSpace(body), number)
		if closed {
			p.line("}", number)
		}
		return
	}
	p.add(strings.TrimSpace(key), unquote(strings.TrimSpace(value)), number)
}

// inline is "name { }" on one line.
func (p *configParser) inline(line string, number int) {
	head, rest, ok := strings.Cut(line, "{")
	if !ok {
		return
	}
	p.open(head)
	if strings.Contains(rest, "}") {
		p.line("}", number)
	}
}

func (p *configParser) open(head string) {
	name := strings.Join(strings.Fields(strings.ReplaceAll(head, `"`, "")), " ")
	if len(p.sections) >= maxSections {
		p.deeper++
		return
	}
	p.sections = append(p.sections, name)
	// A block may be empty and mean something: "userdb sql { }".
	p.entries = append(p.entries, Entry{Sections: slices.Clone(p.sections), File: p.file})
}

func (p *configParser) close() {
	switch {
	case p.deeper > 0:
		p.deeper--
	case len(p.sections) > 0:
		p.sections = p.sections[:len(p.sections)-1]
	}
}

func (p *configParser) add(key, value string, number int) {
	if key == "" || p.deeper > 0 || len(p.entries) >= maxConfigEntries {
		return
	}
	sections := slices.Clone(p.sections)
	if before, after, ok := strings.Cut(key, "/"); ok && after != "" { // "plugin/sieve", 2.4's "mail_plugins/sieve"
		sections, key = append(sections, before), after
	}
	p.entries = append(p.entries, Entry{Sections: sections, Key: key, Value: value, File: p.file, Line: number})
}

// stripComment cuts a "#" after white space and outside quotes.
func stripComment(line string) string {
	quote := byte(0)
	for i := range len(line) {
		switch c := line[i]; {
		case quote != 0:
			if c == quote && line[i-1] != '\\' {
				quote = 0
			}
		case c == '"' && i > 0 && (line[i-1] == ' ' || line[i-1] == '=' || line[i-1] == '\t'):
			quote = c
		case c == '#' && i > 0 && (line[i-1] == ' ' || line[i-1] == '\t'):
			return strings.TrimSpace(line[:i])
		}
	}
	return line
}

func unquote(s string) string {
	if len(s) < 2 || s[0] != s[len(s)-1] || s[0] != '"' && s[0] != '\'' {
		return s
	}
	body := s[1 : len(s)-1]
	if s[0] == '"' {
		body = strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(body)
	}
	return body
}

// configReader reads a configuration with its includes.
type configReader struct {
	ctx   context.Context
	p     *planner
	files int
	depth int
	out   []Entry
}

// readConfig is the configuration of a file, includes in their place.
func (p *planner) readConfig(ctx context.Context, file string) ([]Entry, error) {
	r := configReader{ctx: ctx, p: p}
	err := r.read(file, nil, false)
	return r.out, err
}

// read reads one file; try: doveconf passes over it if it may not be read.
func (r *configReader) read(file string, sections []string, try bool) error {
	if r.files++; r.files > maxConfigFiles || r.depth > maxConfigDeep {
		return fmt.Errorf("read %s: includes nest too deep or are too many", file)
	}
	r.p.uses(file)
	data, _, err := r.p.host.Files.Read(r.ctx, file, readConfigOptions)
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	if try && r.p.host.Live() && unix.Access(file, unix.R_OK) != nil {
		r.p.closed = file
	}
	parser := configParser{file: file, sections: slices.Clone(sections)}
	parser.include = func(pattern string, try bool) error {
		r.out = append(r.out, parser.entries...)
		parser.entries = nil
		r.includes(pattern, try, path.Dir(file), parser.sections)
		return nil
	}
	parser.parse(data)
	r.out = append(r.out, parser.entries...)
	return nil
}

// includes reads the files of a pattern; what cannot be read is a gap.
func (r *configReader) includes(pattern string, try bool, dir string, sections []string) {
	if !strings.HasPrefix(pattern, "/") {
		pattern = path.Join(dir, pattern)
	}
	files := r.p.glob(r.ctx, path.Clean(pattern))
	r.depth++
	defer func() { r.depth-- }()
	for _, file := range files {
		err := r.read(file, sections, try)
		if err != nil && !(try && errors.Is(err, fs.ErrNotExist)) {
			r.p.gap(file, err.Error())
		}
	}
}

// glob is the files that a pattern names; one without wildcards names itself.
func (p *planner) glob(ctx context.Context, pattern string) []string {
	if !strings.ContainsAny(pattern, "*?[") {
		return []string{pattern}
	}
	dir, base := path.Split(pattern)
	dir = path.Clean(dir)
	if strings.ContainsAny(dir, "*?[") {
		p.gap(pattern, "a wildcard in a directory's name is not followed")
		return nil
	}
	p.uses(dir)
	infos, err := p.host.Files.ReadDir(ctx, dir, readDirOptions)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			p.gap(dir, err.Error())
		}
		return nil
	}
	var out []string
	for _, info := range infos {
		if ok, err := path.Match(base, info.Name); err == nil && ok && (info.Name[0] != '.' || base[0] == '.') {
			out = append(out, path.Join(dir, info.Name))
		}
	}
	slices.Sort(out)
	return out
}
