package phpsetup

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Our block in a pool's file.
const (
	blockBegin = "; relayguard begins: relayguard php remove takes this out"
	blockEnd   = "; relayguard ends"
)

// pool is a file of php-fpm with one pool.
type pool struct {
	path     string
	text     string // as it is
	without  string // without our block
	names    []string
	settings values // of what is without our block: php_value, php_flag and their like
	chroot   bool
}

// readPool reads a pool's file.
func readPool(path string) (*pool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the pool: %w", err)
	}
	p := &pool{path: path, text: string(text), settings: values{}}
	p.without, err = withoutBlock(p.text)
	if err != nil {
		return nil, fmt.Errorf("read the pool %s: %w", path, err)
	}
	p.scan()
	return p, nil
}

// scan reads the lines of what is without our block.
func (p *pool) scan() {
	for line := range strings.Lines(p.without) {
		line = strings.TrimSpace(line)
		if name, found := strings.CutPrefix(line, "["); found {
			if name, _, _ = strings.Cut(name, "]"); !strings.EqualFold(name, "global") {
				p.names = append(p.names, name)
			}
			continue
		}
		key, text, found := setting(line)
		if !found {
			continue
		}
		p.chroot = p.chroot || key == "chroot" && text != ""
		kind, name, found := strings.Cut(strings.TrimSuffix(key, "]"), "[")
		if found && (kind == "php_value" || kind == "php_admin_value") {
			p.settings[name] = value{text, p.path}
		}
	}
}

// withoutBlock is a pool's file as it was before.
func withoutBlock(text string) (string, error) {
	before, rest, found := strings.Cut(text, blockBegin+"\n")
	if !found {
		return text, nil
	}
	_, after, found := strings.Cut(rest, blockEnd+"\n")
	if !found || strings.Contains(after, blockBegin) {
		return "", fmt.Errorf("relayguard's block in it has no end %q; somebody changed it, take it out by hand", blockEnd)
	}
	return before + after, nil
}

// block are the settings of our block; nil: there is none.
func (p *pool) block() values {
	_, rest, found := strings.Cut(p.text, blockBegin+"\n")
	if !found {
		return nil
	}
	text, _, _ := strings.Cut(rest, blockEnd)
	b := &pool{path: p.path, without: text, settings: values{}}
	b.scan()
	return b.settings
}

// with is the file with our block, which has the last word in it.
func (p *pool) with(lines []string) string {
	text := p.without
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return text + blockBegin + "\n" + strings.Join(lines, "\n") + "\n" + blockEnd + "\n"
}

// poolsOf lists the pools of a PHP that can be read.
func poolsOf(p php) ([]*pool, error) {
	files, err := filepath.Glob(filepath.Join(p.dir, "pool.d", "*.conf"))
	if err != nil {
		return nil, err
	}
	var all []*pool
	for _, file := range files {
		one, err := readPool(file)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}
