package cases

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// All reads every case of a folder, in the order of their names. That there is
// none is an error.
func All(dir string) ([]*Case, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.case"))
	if err == nil && len(paths) == 0 {
		err = errors.New("there is no *.case")
	}
	if err != nil {
		return nil, fmt.Errorf("cases of %s: %w", dir, err)
	}
	var all []*Case
	for _, path := range paths {
		c, wrong := Read(path)
		if wrong != nil {
			err = errors.Join(err, wrong)
			continue
		}
		all = append(all, c)
	}
	return all, err
}

// Read reads a case. The error tells each fault with file and line.
func Read(path string) (*Case, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read a case: %w", err)
	}
	return Parse(path, string(text))
}

// Parse is Read of a text.
func Parse(path, text string) (*Case, error) {
	p := &parser{c: &Case{Path: path, Name: strings.TrimSuffix(filepath.Base(path), ".case")}}
	if !fileName.MatchString(filepath.Base(path)) {
		p.fault(1, "the file's name: want NN-what-it-shows.case")
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	p.title(lines)
	for _, s := range p.unroll(p.statements(lines)) {
		p.statement(s)
	}
	if len(p.c.Steps) == 0 {
		p.fault(len(lines), "nothing happens")
	}
	if len(p.faults) > 0 {
		return nil, errors.Join(p.faults...)
	}
	return p.c, nil
}

var fileName = regexp.MustCompile(`^[0-9]{2}-[a-z0-9]+(-[a-z0-9]+)*\.case$`)

type parser struct {
	c       *Case
	faults  []error
	clients map[string]bool // that were opened
	talking bool            // a client is
}

func (p *parser) fault(line int, format string, args ...any) {
	p.faults = append(p.faults, fmt.Errorf("%s:%d: %s", p.c.Path, line, fmt.Sprintf(format, args...)))
}

// statement is a line with those indented below it.
type statement struct {
	line  int
	only  string // Postfix or Sendmail
	text  string
	block string // "" none; else lines, each with its line feed
}

// title takes the first sentence of the comment that the file begins with.
func (p *parser) title(lines []string) {
	var words []string
	for _, line := range lines {
		comment, ok := strings.CutPrefix(line, "#")
		if !ok {
			break
		}
		words = append(words, strings.Fields(comment)...)
	}
	sentence, _, _ := strings.Cut(strings.Join(words, " "), ". ")
	p.c.Title = strings.TrimSuffix(sentence, ".")
	if p.c.Title == "" {
		p.fault(1, "want a comment first: what the case shows")
	}
}

// indent is how far what belongs to a statement is moved in.
const indent = "  "

// statements groups the lines.
func (p *parser) statements(lines []string) []statement {
	var all []statement
	commented := false // the line before is a comment, or a variant that had one
	for i, line := range lines {
		if inner, ok := strings.CutPrefix(line, indent); ok && len(all) > 0 {
			all[len(all)-1].block += inner + "\n"
			continue
		}
		switch trimmed := strings.TrimSpace(line); {
		case strings.HasPrefix(trimmed, "#"):
			commented = true
			continue
		case trimmed == "" && belongs(all, lines[i+1:]):
			all[len(all)-1].block += "\n"
			continue
		case trimmed == "":
			commented = false
			continue
		case line != strings.TrimLeft(line, " \t"):
			p.fault(i+1, "indented by other than two spaces, or below nothing")
			continue
		}
		s := statement{line: i + 1, text: line}
		for _, server := range []string{Postfix, Sendmail} {
			if rest, ok := strings.CutPrefix(line, "["+server+"] "); ok {
				s.only, s.text = server, rest
			}
		}
		if s.only != "" && !commented {
			p.fault(i+1, "for %s alone: want a comment before it that says why the mail servers differ", s.only)
		}
		commented = commented && s.only != ""
		all = append(all, s)
	}
	return all
}

// belongs tells whether an empty line is within a block: more of it follows.
func belongs(all []statement, rest []string) bool {
	if len(all) == 0 || all[len(all)-1].block == "" {
		return false
	}
	for _, line := range rest {
		if line != "" {
			return strings.HasPrefix(line, indent)
		}
	}
	return false
}

var repeat = regexp.MustCompile(`^repeat ([A-Z]) from ([0-9]+) to ([0-9]+)$`)

// most bounds what a range of numbers stands for.
const most = 2000

// unroll writes loops out.
func (p *parser) unroll(all []statement) []statement {
	var flat, body []statement
	var begin *statement
	var loop []string
	for i, s := range all {
		match := repeat.FindStringSubmatch(s.text)
		switch {
		case match != nil && begin != nil:
			p.fault(s.line, "a loop within the one of line %d", begin.line)
		case match != nil:
			begin, loop, body = &all[i], match, nil
		case s.text == "end" && begin == nil:
			p.fault(s.line, "end of no loop")
		case s.text == "end":
			flat = append(flat, p.turns(*begin, loop, body)...)
			begin = nil
		case begin != nil:
			body = append(body, s)
		default:
			flat = append(flat, s)
		}
	}
	if begin != nil {
		p.fault(begin.line, "the loop has no end")
	}
	return flat
}

func (p *parser) turns(begin statement, loop []string, body []statement) []statement {
	first, last, ok := p.bounds(begin.line, loop[2], loop[3])
	if !ok {
		return nil
	}
	var flat []statement
	for n := first; n <= last; n++ {
		in := strings.NewReplacer("{"+loop[1]+"}", strconv.Itoa(n))
		for _, s := range body {
			s.text, s.block = in.Replace(s.text), in.Replace(s.block)
			flat = append(flat, s)
		}
	}
	return flat
}

func (p *parser) bounds(line int, from, to string) (first, last int, ok bool) {
	first, errFirst := strconv.Atoi(from)
	last, errLast := strconv.Atoi(to)
	if errFirst != nil || errLast != nil || last < first || last-first >= most {
		p.fault(line, "%s to %s: want at most %d numbers, the lesser first", from, to, most)
		return 0, 0, false
	}
	return first, last, true
}
