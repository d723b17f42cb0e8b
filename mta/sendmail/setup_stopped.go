package sendmail

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"relayguard/mta/backup"
)

// ErrOutgoingStopped says that Apply or Undo leaves the settings alone: they would
// take out the lines of the red switch, or put them in for good with a later Undo.
var ErrOutgoingStopped = errors.New("outgoing mail is stopped: relayguard start first")

// claim reads the instance while no other process of ours changes its settings.
func (s Setup) claim(ctx context.Context) (i *Instance, unlock func(), err error) {
	if i, err = Load(ctx, s.Tools, s.ConfigDir); err != nil {
		return nil, nil, err
	}
	if unlock, err = backup.Lock(ctx, i.ConfigDir); err != nil {
		return nil, nil, fmt.Errorf("change the settings of Sendmail: %w", err)
	}
	if i, err = Load(ctx, s.Tools, i.ConfigDir); err != nil { // as it is now
		unlock()
		return nil, nil, err
	}
	return i, unlock, nil
}

// notStopped returns ErrOutgoingStopped while the lines of the red switch are in one
// of the cf files.
func notStopped(i *Instance) error {
	for _, path := range []string{i.Config, i.Submit} {
		if path == "" {
			continue
		}
		text, err := readFile(path, maxConfig)
		if err != nil {
			return fmt.Errorf("look whether outgoing mail is stopped: %w", err)
		}
		if slices.ContainsFunc(slices.Collect(strings.Lines(string(text))), func(line string) bool { return strings.TrimRight(line, "\r\n") == stopBegin }) {
			return fmt.Errorf("%s has the lines of relayguard stop: %w", filepath.Base(path), ErrOutgoingStopped)
		}
	}
	return nil
}
