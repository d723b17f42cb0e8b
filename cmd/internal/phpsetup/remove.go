package phpsetup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Removed is what Remove did.
type Removed struct {
	Files  []string // taken away, or put back as they were
	Reload []string // commands by which PHP reads its settings again
	Kept   []string // what running PHPs may still use: Remove with files takes it away
}

// Remove takes relayguard out of the settings of every PHP, or of one version,
// SAPI or pool. Programs and prepends stay until files is set, for PHPs that have
// not been reloaded still run them; they are not taken away while a setting names
// them.
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
	return out, s.removeFiles(&out, files)
}

// removeFiles takes away what no setting names any more.
func (s *Setup) removeFiles(out *Removed, files bool) error {
	everything := *s
	everything.Version, everything.SAPI, everything.Pool = "", "", ""
	inis, pools, err := everything.installed()
	if err != nil {
		return err
	}
	own, err := filepath.Glob(filepath.Join(s.share(), "prepend*.php"))
	if err != nil {
		return err
	}
	for _, path := range append(own, s.program(), s.settings()) {
		switch info, err := os.Lstat(path); {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return err
		case path == s.program() && info.Mode()&fs.ModeSymlink == 0, path != s.program() && path != s.settings() && !isOurs(path):
			continue // not ours
		}
		if !files || len(inis)+len(pools) > 0 {
			out.Kept = append(out.Kept, path)
			continue
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("take away %s: %w", path, err)
		}
		out.Files = append(out.Files, path)
	}
	return nil
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
