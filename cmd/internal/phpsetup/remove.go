package phpsetup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"relayguard/wordpress"
)

// Removed is what Remove did.
type Removed struct {
	Files  []string // taken away, or put back as they were
	Reload []string // commands by which PHP reads its settings again
	Kept   []string // files that PHP may still use
	Early  string   // why files are kept that were to be taken away; "": none were
}

// Remove takes relayguard out of the settings of every PHP, or of one version,
// SAPI or pool. Programs and prepends stay until files is set, for PHPs that have
// not been reloaded still run them; nor are they taken away while a setting names
// them, by a call that took one out of the settings, or while a process is seen
// that began before the settings changed.
func (s *Setup) Remove(files bool) (Removed, error) {
	var out Removed
	inis, pools, err := s.installed()
	if err != nil {
		return out, err
	}
	var changes []Change
	if s.Pool == "" {
		for _, p := range inis {
			if err := os.Remove(p.own()); err != nil {
				return out, fmt.Errorf("take relayguard out of %s: %w", p, err)
			}
			out.Files = append(out.Files, p.own())
			changes = append(changes, Change{Path: p.own(), service: p.service()})
		}
	}
	for _, one := range pools {
		if s.Pool != "" && one.pool.path != s.Pool {
			continue
		}
		c, err := Change{Path: one.pool.path, Text: one.pool.without, service: one.php.service()}.look()
		if err == nil {
			err = Apply([]Change{c})
		}
		if err != nil {
			return out, fmt.Errorf("take relayguard out of %s: %w", one.pool.path, err)
		}
		out.Files = append(out.Files, c.Path)
		changes = append(changes, c)
	}
	out.Reload = Reload(changes)
	return out, s.removeFiles(&out, files, len(changes) > 0)
}

// removeFiles takes away what nobody uses any more.
func (s *Setup) removeFiles(out *Removed, files, changed bool) error {
	own, err := s.ownFiles()
	if err != nil || len(own) == 0 {
		return err
	}
	if !files {
		out.Kept = own
		return nil
	}
	if out.Early, err = s.early(changed); err != nil || out.Early != "" {
		out.Kept = own
		return err
	}
	for _, path := range own {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("take away %s: %w", path, err)
		}
		out.Files = append(out.Files, path)
	}
	return nil
}

// early says why files cannot be taken away yet.
func (s *Setup) early(changed bool) (string, error) {
	everything := *s
	everything.Version, everything.SAPI, everything.Pool = "", "", ""
	inis, pools, err := everything.installed()
	switch {
	case err != nil:
		return "", err
	case len(inis)+len(pools) > 0:
		return "PHP's settings still name relayguard", nil
	case changed:
		return "the settings changed just now, and PHP that runs still goes by the old ones: reload it first, then run this again", nil
	}
	all, err := find(s.etc(), "", "")
	if err != nil {
		return "", err
	}
	if name := stale(filepath.Join(s.Root, "/proc"), all); name != "" {
		return name + " began before PHP's settings changed, and still goes by the old ones: reload it first, then run this again", nil
	}
	return "", nil
}

// ownFiles are those of relayguard's that are there.
func (s *Setup) ownFiles() ([]string, error) {
	prepends, err := filepath.Glob(filepath.Join(s.share(), "prepend*.php"))
	if err != nil {
		return nil, err
	}
	var own []string
	for _, path := range append(prepends, s.program(), s.settings(), s.siteMap()) {
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		is := path == s.settings() || isOurs(path)
		switch path {
		case s.program():
			is = info.Mode()&fs.ModeSymlink != 0
		case s.siteMap():
			text, err := os.ReadFile(path)
			is = err == nil && wordpress.IsEmptySiteMap(text)
		}
		if is {
			own = append(own, path)
		}
	}
	return own, nil
}

// poolOf is a pool with our block, and its PHP.
type poolOf struct {
	php  php
	pool *pool
}

// installed finds our settings.
func (s *Setup) installed() (inis []php, pools []poolOf, err error) {
	all, err := find(s.etc(), s.Version, s.SAPI)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range all {
		if exists(p.own()) {
			inis = append(inis, p)
		}
		own, err := poolsOf(p)
		if err != nil {
			return nil, nil, err
		}
		for _, one := range own {
			if one.text != one.without {
				pools = append(pools, poolOf{p, one})
			}
		}
	}
	return inis, pools, nil
}
