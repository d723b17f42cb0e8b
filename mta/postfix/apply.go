package postfix

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"relayguard/mta"
	"relayguard/mta/backup"
	"relayguard/policy"
)

// Setup changes one instance's settings and takes the changes back.
type Setup struct {
	Tools     Tools
	ConfigDir string
	Listeners []mta.Listener
	SMTP      policy.Role // of SMTP services that are not submission, see Plan
	LocalMail LocalMail
	Backups   string // directory for backups, root's alone: /var/backups/relayguard

	// Verify looks, after a reload, whether Postfix asks the guard. If it
	// does not, everything is put back. nil: not looked. It is not called
	// when the instance is not running.
	Verify func(ctx context.Context, i *Instance) error

	// ProbeLocal hands in a message by sendmail(1), after Verify, and looks
	// whether it came to the guard. Nobody gets it, and nothing of it stays.
	ProbeLocal bool
}

// Outcome is what Apply or Undo did.
type Outcome struct {
	Changed  []Setting // empty: everything was right already
	Restored []string  // files put back by Undo
	Backup   string    // directory
	Earlier  bool      // after Undo: an Apply before that one is still in force
	Running  bool      // the instance ran and was told to reload
	Verified bool
}

// Apply makes the settings of Plan true: backup, postconf, postfix check,
// reload if the instance runs, verification; a failure puts everything back. A
// second Apply changes nothing.
func (s Setup) Apply(ctx context.Context, now time.Time) (Outcome, error) {
	i, err := Load(ctx, s.Tools, s.ConfigDir)
	if err != nil {
		return Outcome{}, err
	}
	settings, err := s.Plan(ctx, i)
	if err != nil {
		return Outcome{}, err
	}
	out := Outcome{Changed: slices.DeleteFunc(settings, func(s Setting) bool { return !s.Changes() })}
	if len(out.Changed) == 0 {
		return out, nil
	}
	paths := []string{filepath.Join(s.ConfigDir, "main.cf"), filepath.Join(s.ConfigDir, "master.cf")}
	for _, c := range out.Changed {
		if c.Place == InFile {
			paths = append(paths, c.Name)
		}
	}
	dir, m, err := backup.BackUp(s.Backups, s.ConfigDir, now, paths)
	if err != nil {
		return Outcome{}, err
	}
	out.Backup = dir
	err = s.change(ctx, i, out.Changed)
	if err == nil {
		err = m.Finish(dir)
	}
	if err == nil {
		err = s.settle(ctx, &out)
	}
	if err != nil {
		return Outcome{Backup: dir}, s.rollBack(ctx, dir, &m, out.Running, err)
	}
	return out, nil
}

// change writes files first: master.cf must not name what is not there.
func (s Setup) change(ctx context.Context, i *Instance, settings []Setting) error {
	var inMain, entries []string
	overrides := map[string]map[string]string{} // by service
	for _, c := range settings {
		if strings.ContainsAny(c.Value, "\r\n\x00") && c.Place != InFile {
			return fmt.Errorf("set %s: value %q has a line end", c.Name, c.Value)
		}
		switch c.Place {
		case InFile:
			if err := backup.Replace(c.Name, []byte(c.Value), 0o644, -1, -1); err != nil {
				return fmt.Errorf("write %s: %w", c.Name, err)
			}
		case InMain:
			inMain = append(inMain, c.Name+"="+c.Value)
		case NewEntry:
			entries = append(entries, c.Service+"="+c.Value)
		case InService:
			if overrides[c.Service] == nil {
				overrides[c.Service] = map[string]string{}
			}
			overrides[c.Service][c.Name] = c.Value
		}
	}
	for _, id := range sortedKeys(overrides) {
		name, kind := id[:strings.LastIndexByte(id, '/')], id[strings.LastIndexByte(id, '/')+1:]
		service := i.Service(name, kind)
		if service == nil {
			return fmt.Errorf("change service %s: it is not in master.cf", id)
		}
		entries = append(entries, id+"="+service.with(overrides[id]))
	}
	for _, edit := range []struct {
		flag string
		args []string
	}{{"-e", inMain}, {"-Me", entries}} {
		if len(edit.args) == 0 {
			continue
		}
		args := s.Tools.inDir(s.ConfigDir, append([]string{edit.flag}, edit.args...)...)
		if _, err := s.Tools.run(ctx, nil, maxToolOutput, "postconf", args...); err != nil {
			return fmt.Errorf("change settings of %s: %w", s.ConfigDir, err)
		}
	}
	return nil
}

// settle checks the new settings, makes a running Postfix read them, and looks
// whether they work.
func (s Setup) settle(ctx context.Context, out *Outcome) error {
	if _, err := s.postfix(ctx, "check"); err != nil {
		return fmt.Errorf("check new settings: %w", err)
	}
	i, err := Load(ctx, s.Tools, s.ConfigDir)
	if err != nil {
		return err
	}
	if out.Running = s.running(ctx); !out.Running {
		return nil
	}
	var probe *localProbe
	if s.ProbeLocal {
		if probe, err = s.newLocalProbe(i); err != nil {
			return err
		}
	}
	if probe == nil {
		return s.reload(ctx, i, nil, out)
	}
	return probe.during(func() error { return s.reload(ctx, i, probe, out) })
}

// reload makes Postfix read the new settings and looks whether they work.
func (s Setup) reload(ctx context.Context, i *Instance, probe *localProbe, out *Outcome) error {
	if _, err := s.postfix(ctx, "reload"); err != nil {
		return fmt.Errorf("reload Postfix: %w", err)
	}
	if s.Verify != nil {
		if err := s.Verify(ctx, i); err != nil {
			return fmt.Errorf("verify that Postfix asks the guard: %w", err)
		}
	}
	if probe != nil {
		if err := probe.send(ctx); err != nil {
			return fmt.Errorf("verify that Postfix asks the guard: %w", err)
		}
	}
	out.Verified = s.Verify != nil || probe != nil
	return nil
}

// rollBack goes on when ctx has ended: half a change is worse than a late end.
func (s Setup) rollBack(ctx context.Context, dir string, m *backup.Manifest, running bool, cause error) error {
	ctx = context.WithoutCancel(ctx)
	if err := m.Restore(dir); err != nil {
		return errors.Join(cause, fmt.Errorf("put the old settings back, by hand from %s: %w", dir, err))
	}
	m.Undone = true
	err := m.Save(dir)
	if running {
		if _, reloadErr := s.postfix(ctx, "reload"); reloadErr != nil {
			err = errors.Join(err, fmt.Errorf("reload Postfix with the old settings: %w", reloadErr))
		}
	}
	return errors.Join(fmt.Errorf("%w; the old settings are back", cause), err)
}

// Undo puts back what the last Apply changed, byte for byte. It refuses with
// backup.ErrChangedSince when a file was changed by somebody else, unless forced:
// those changes would be lost.
func (s Setup) Undo(ctx context.Context, force bool) (Outcome, error) {
	undone, err := backup.Undo(s.Backups, s.ConfigDir, changedFiles, force, nil)
	out := Outcome{Backup: undone.Backup, Restored: undone.Restored, Earlier: undone.Earlier}
	if err != nil {
		return out, err
	}
	if out.Running = s.running(ctx); out.Running {
		if _, err := s.postfix(ctx, "reload"); err != nil {
			return out, fmt.Errorf("reload Postfix: %w", err)
		}
	}
	return out, nil
}

func (s Setup) running(ctx context.Context) bool {
	_, err := s.postfix(ctx, "status")
	return err == nil
}

func (s Setup) postfix(ctx context.Context, verb string) (said, error) {
	return s.Tools.run(ctx, nil, maxToolOutput, "postfix", s.Tools.inDir(s.ConfigDir, verb)...)
}

// changedFiles are those that Apply changes.
var changedFiles = []string{"main.cf", "master.cf", uidChecksFile, stripChecksFile}
