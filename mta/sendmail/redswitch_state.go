package sendmail

import (
	"fmt"
	"path/filepath"
	"time"

	"relayguard/mta/backup"
)

// stopState is what StartOutgoing must know. It is on disk before anything is
// changed. Which mail the switch holds stands in the queue itself: it is quarantined
// for holdReason.
type stopState struct {
	Since     time.Time  `json:"since"`
	ConfigDir string     `json:"config_dir"`
	Files     []stopFile `json:"files"`
	Held      int        `json:"held"`     // by all calls together
	Reloaded  bool       `json:"reloaded"` // Sendmail has read the changed files, and nothing older goes on
}

// stopFile is a cf file while outgoing mail is stopped.
type stopFile struct {
	Path   string `json:"path"`
	Before string `json:"before"`
	Lines  string `json:"lines"`        // what was put in
	After  string `json:"sha256_after"` // of the file with them
}

// holdReason tells what this stop holds from what another one did that was started
// with keep.
func (s *stopState) holdReason() string {
	return "held by relayguard stop of " + s.Since.UTC().Format("2006-01-02T15:04:05.000000Z")
}

const stopStateFile = "stopped.json"

// maxStopState has room for two cf files twice, as JSON.
const maxStopState = 8 * maxConfig

// readState returns fs.ErrNotExist where nothing is stopped.
func (r RedSwitch) readState() (stopState, error) {
	var state stopState
	if err := backup.ReadState(r.StateDir, stopStateFile, maxStopState, &state); err != nil {
		return stopState{}, err
	}
	if state.ConfigDir != r.Instance.ConfigDir {
		return stopState{}, fmt.Errorf("%s in %s is about %s, want %s; give each instance its own directory", stopStateFile, r.StateDir, state.ConfigDir, r.Instance.ConfigDir)
	}
	return state, nil
}

func (r RedSwitch) writeState(state stopState) error {
	if err := backup.WriteState(r.StateDir, stopStateFile, state); err != nil {
		return fmt.Errorf("write the state of the red switch: %w", err)
	}
	return nil
}

func (r RedSwitch) removeState() error { return backup.RemoveState(r.StateDir, stopStateFile) }

func (s *stopState) file(path string) *stopFile {
	for n := range s.Files {
		if s.Files[n].Path == path {
			return &s.Files[n]
		}
	}
	s.Files = append(s.Files, stopFile{Path: path})
	return &s.Files[len(s.Files)-1]
}

// replaceKeeping writes a file anew with the owner and mode it has. A link stays one.
func replaceKeeping(path string, text string) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	if err := backup.Rewrite(path, []byte(text)); err != nil {
		return err
	}
	return backup.SyncDir(filepath.Dir(path))
}
