package phpsetup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// values are settings, each with the file that has the last word.
type values map[string]value

type value struct{ text, file string }

// readINI adds what a php.ini says. Sections [PATH=...] and [HOST=...] are about
// single sites, and left out.
func (v values) readINI(text, file string) {
	single := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			name := strings.ToUpper(line)
			single = strings.HasPrefix(name, "[PATH=") || strings.HasPrefix(name, "[HOST=")
			continue
		}
		key, text, found := setting(line)
		if found && !single {
			v[key] = value{text, file}
		}
	}
}

// setting reads a line KEY = VALUE.
func setting(line string) (key, text string, found bool) {
	if line == "" || line[0] == ';' || line[0] == '#' {
		return "", "", false
	}
	key, text, found = strings.Cut(line, "=")
	return strings.TrimSpace(key), unquote(strings.TrimSpace(text)), found
}

// unquote takes off the quotes of a value, or the remark behind it.
func unquote(text string) string {
	if text == "" {
		return ""
	}
	if quote := text[0]; quote == '"' || quote == '\'' {
		if end := strings.IndexByte(text[1:], quote); end >= 0 {
			return text[1 : 1+end]
		}
	}
	text, _, _ = strings.Cut(text, ";")
	return strings.TrimSpace(text)
}

// quote writes a value so that every PHP reads the same again.
func quote(text string) (string, error) {
	if strings.ContainsAny(text, "\"\\\r\n\x00") || strings.Contains(text, "${") {
		return "", refuse("the value %q has a character that an ini file cannot have within quotes", text)
	}
	return `"` + text + `"`, nil
}

// php is one PHP: a version and the way it is run.
type php struct {
	version string // "8.2"
	sapi    string // "fpm", "cli", "apache2", ...
	dir     string // of its php.ini
}

func (p php) String() string { return "PHP " + p.version + " " + p.sapi }

// own is the file that is ours.
func (p php) own() string { return filepath.Join(p.dir, "conf.d", ownINI) }

// ownINI is read after Debian's own files, which begin with lower numbers.
const ownINI = "99-relayguard.ini"

// settings are what PHP goes by; with ours, if so said.
func (p php) settings(ours bool) (values, error) {
	v := values{}
	files, err := filepath.Glob(filepath.Join(p.dir, "conf.d", "*.ini"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	for _, file := range append([]string{filepath.Join(p.dir, "php.ini")}, files...) {
		if file == p.own() && !ours {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read the settings of %s: %w", p, err)
		}
		v.readINI(string(text), file)
	}
	return v, nil
}

// find lists the PHPs below a directory, of one version or SAPI if they are
// named, in order.
func find(etc, version, sapi string) ([]php, error) {
	dirs, err := filepath.Glob(filepath.Join(etc, "[0-9]*.[0-9]*", "*", "conf.d"))
	if err != nil {
		return nil, err
	}
	var all []php
	for _, conf := range dirs {
		dir := filepath.Dir(conf)
		p := php{filepath.Base(filepath.Dir(dir)), filepath.Base(dir), dir}
		if (version == "" || version == p.version) && (sapi == "" || sapi == p.sapi) {
			all = append(all, p)
		}
	}
	return all, nil
}

func firstWord(text string) string {
	word, _, _ := strings.Cut(text, " ")
	return word
}
