package sendmail

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// tryWait is how long Sendmail may take to read a configuration: milliseconds, or
// a minute more where the machine's name has no domain.
const tryWait = 3 * time.Minute

// try has Sendmail itself read the new configuration, where nobody else sees it.
func (s Setup) try(ctx context.Context, p *plan, files []file) error {
	if p.local != "" {
		if err := portFree(portOf(p.local)); err != nil {
			return err
		}
	}
	// The daemon looks at the sockets, address test mode does not.
	for _, equates := range p.filters {
		f := filter("x, "+equates, 0)
		if _, path, found := strings.Cut(f.Socket, ":"); found && strings.HasPrefix(path, "/") {
			if err := p.now.mta.unsafe(path); err != nil {
				return fmt.Errorf("Sendmail would not start with the milter socket %s: %w", path, err)
			}
		}
	}
	dir, err := os.MkdirTemp("", "relayguard-setup-")
	if err != nil {
		return fmt.Errorf("make a configuration to try: %w", err)
	}
	defer os.RemoveAll(dir)
	for _, f := range files {
		if filepath.Ext(f.path) != ".cf" {
			continue
		}
		draft := filepath.Join(dir, filepath.Base(f.path))
		if err := os.WriteFile(draft, []byte(f.text), 0o600); err != nil {
			return fmt.Errorf("make a configuration to try: %w", err)
		}
		if _, err := s.Tools.askRules(ctx, draft, ""); err != nil {
			return fmt.Errorf("check the new %s: %w", filepath.Base(f.path), err)
		}
	}
	return nil
}

func portOf(options string) string { return portOptions(options, 0).Port }

// askRules starts Sendmail in address test mode (-bt) with a configuration and
// gives it lines; it sends nothing and opens no queue. Whatever is wrong with the
// configuration is the error.
func (t Tools) askRules(ctx context.Context, config, lines string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, tryWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, t.Path("sendmail"), "-C", config, "-bt")
	cmd.Stdin = strings.NewReader(lines)
	out, said := bounded{most: maxCF}, bounded{most: maxM4Said}
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s -C %s -bt: %w: %s", cmd.Path, config, err, firstLine(said.String()+"\n"+out.String()))
	}
	return out.String(), nil
}
