package sendmail

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"relayguard/mta/backup"
)

// Outcome is what Apply or Undo did.
type Outcome struct {
	Changed  []Setting // empty: everything was right already
	Restored []string  // files put back by Undo
	Backup   string    // directory
	Earlier  bool      // after Undo: an Apply before that one is still in force
	Running  bool      // the daemon ran and was told to read its settings again
	Verified bool
}

// changedFiles are those that Apply changes.
var changedFiles = []string{string(InMTA), string(InSubmit), string(InMTACF), string(InSubmitCF)}

// Apply makes the settings of Plan true: new .mc files, of which m4 makes the .cf
// files, looked at by Sendmail itself; backup, change, SIGHUP if the daemon runs,
// verification. A failure puts everything back. A second Apply changes nothing.
// Where it cannot tell what else would change, it ends with ErrByHand; while the red
// switch is on, with ErrOutgoingStopped. Neither of both runs while the other does.
func (s Setup) Apply(ctx context.Context, now time.Time) (Outcome, error) {
	i, unlock, err := s.claim(ctx)
	if err != nil {
		return Outcome{}, err
	}
	defer unlock()
	s.ConfigDir = i.ConfigDir
	p, err := s.plan(i)
	if err != nil {
		return Outcome{}, fmt.Errorf("plan settings of %s: %w", s.ConfigDir, err)
	}
	out := Outcome{Changed: slices.DeleteFunc(p.settings, func(s Setting) bool { return !s.Changes() })}
	if len(out.Changed) == 0 {
		return out, nil
	}
	if err := notStopped(i); err != nil {
		return Outcome{}, err
	}
	files, err := p.candidate(ctx)
	if err == nil {
		err = s.try(ctx, p, files)
	}
	if err != nil {
		return Outcome{}, err
	}
	return s.change(ctx, i, now, files, out)
}

// change writes the files, and puts everything back if Sendmail does not ask the
// guard then.
func (s Setup) change(ctx context.Context, i *Instance, now time.Time, files []file, out Outcome) (Outcome, error) {
	d, err := i.daemon()
	if err != nil {
		return Outcome{}, err
	}
	var paths []string
	for _, f := range files {
		paths = append(paths, f.path)
	}
	dir, m, err := backup.BackUp(s.Backups, s.ConfigDir, now, paths)
	if err != nil {
		return Outcome{}, err
	}
	out.Backup = dir
	for _, f := range files {
		if err = backup.Rewrite(f.path, []byte(f.text)); err != nil {
			err = fmt.Errorf("write %s: %w", f.path, err)
			break
		}
	}
	if err == nil {
		err = m.Finish(dir)
	}
	if err == nil {
		err = keepMade(dir, files)
	}
	if err == nil && d != nil {
		err = s.settle(ctx, d, &out)
	}
	if err != nil {
		return Outcome{Backup: dir}, s.rollBack(ctx, dir, &m, d, err)
	}
	return out, nil
}

// settle makes the daemon read the new settings and looks whether they work.
func (s Setup) settle(ctx context.Context, d *daemonProcess, out *Outcome) error {
	out.Running = true
	if err := d.reload(ctx); err != nil {
		return err
	}
	if s.Verify == nil {
		return nil
	}
	i, err := Load(ctx, s.Tools, s.ConfigDir)
	if err != nil {
		return err
	}
	if err := s.Verify(ctx, i); err != nil {
		return fmt.Errorf("verify that Sendmail asks the guard: %w", err)
	}
	out.Verified = true
	return nil
}

// ErrDown says that Sendmail ended when it read its settings again. What its pid file
// says of its start is not run: the file may be written by an account that is not root.
var ErrDown = errors.New("Sendmail does not run any more: start it now")

// rollBack goes on when ctx has ended: half a change is worse than a late end.
func (s Setup) rollBack(ctx context.Context, dir string, m *backup.Manifest, d *daemonProcess, cause error) error {
	if err := m.Restore(dir); err != nil {
		return errors.Join(cause, fmt.Errorf("put the old settings back, by hand from %s: %w", dir, err))
	}
	m.Undone = true
	err := m.Save(dir)
	ctx = context.WithoutCancel(ctx)
	runs := d == nil || d.comesBack(ctx)
	if d != nil && runs {
		if reloadErr := d.reload(ctx); reloadErr != nil {
			err = errors.Join(err, fmt.Errorf("with the old settings: %w", reloadErr))
			runs = d.comesBack(ctx)
		}
	}
	if !runs {
		return errors.Join(fmt.Errorf("%w (it was started by %q); the old settings are back; the cause: %w", ErrDown, d.command, cause), err)
	}
	return errors.Join(fmt.Errorf("%w; the old settings are back", cause), err)
}

// Undo puts back what the last Apply changed, byte for byte. It refuses with
// backup.ErrChangedSince when a file was changed by somebody else, unless forced:
// those changes would be lost. Forced or not, it refuses with ErrOutgoingStopped while
// the red switch is on. A cf file that differs in comments alone is no change: m4 writes
// the time into it.
func (s Setup) Undo(ctx context.Context, force bool) (Outcome, error) {
	i, unlock, err := s.claim(ctx)
	if err != nil {
		return Outcome{}, err
	}
	defer unlock()
	if err := notStopped(i); err != nil {
		return Outcome{}, err
	}
	d, err := i.daemon()
	if err != nil {
		return Outcome{}, err
	}
	undone, err := backup.Undo(s.Backups, i.ConfigDir, changedFiles, force, madeAnew)
	out := Outcome{Backup: undone.Backup, Restored: undone.Restored, Earlier: undone.Earlier, Running: d != nil}
	if err == nil && d != nil {
		err = d.reload(ctx)
	}
	return out, err
}

// portFree looks whether the port of a new service is free: a daemon that cannot
// listen on one of its ports ends.
func portFree(port string) error {
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		return fmt.Errorf("port %s of 127.0.0.1, where mail from sendmail(1) is to come in: %w", port, err)
	}
	return l.Close()
}
