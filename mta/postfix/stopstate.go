package postfix

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"relayguard/mta"
	"relayguard/mta/backup"
)

// stopState is what StartOutgoing must know. It is on disk before anything is
// changed.
type stopState struct {
	Since     time.Time     `json:"since"`
	ConfigDir string        `json:"config_dir"`
	Settings  []stopSetting `json:"settings"`
	Held      []mta.Target  `json:"held"`
	Reloaded  bool          `json:"reloaded"` // Postfix has read the changed settings

	// MainBefore is main.cf as it was, After the digest of what we made of it;
	// empty: it is put back setting by setting.
	MainBefore string `json:"main_before,omitempty"`
	After      string `json:"sha256_after,omitempty"`
}

// stopSetting is a main.cf setting while outgoing mail is stopped.
type stopSetting struct {
	Name    string `json:"name"`
	Before  string `json:"before"`  // unexpanded
	Present bool   `json:"present"` // main.cf had it
	During  string `json:"during"`
}

const stopStateFile = "stopped.json"

// maxStopState bounds the state file; a held message takes some 150 octets.
const maxStopState = 256 << 20

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

// remember notes the settings that are to be changed. A copy of main.cf is worth
// something only if it is without any change of ours.
// raw are main.cf's settings now.
func (s *stopState) remember(configDir string, wanted []stopSetting, raw map[string]string) error {
	if first := len(s.Settings) == 0; first {
		text, err := os.ReadFile(filepath.Join(configDir, "main.cf"))
		if err != nil {
			return err
		}
		s.MainBefore = string(text)
	} else {
		s.MainBefore = ""
	}
	s.After = ""
	kept := slices.DeleteFunc(slices.Clone(s.Settings), func(old stopSetting) bool { // of an earlier call, and somebody else undid it
		value, present := raw[old.Name]
		return !present || value != old.During || slices.ContainsFunc(wanted, func(w stopSetting) bool { return w.Name == old.Name })
	})
	s.Settings = append(kept, wanted...)
	return nil
}

// seal notes what main.cf is after the change.
func (s *stopState) seal(configDir string) error {
	if s.MainBefore == "" {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(configDir, "main.cf"))
	if err == nil {
		s.After = backup.Digest(text)
	}
	return err
}

// restore puts main.cf back byte for byte, if it is still as we left it.
func (s *stopState) restore(configDir string) (bool, error) {
	path := filepath.Join(configDir, "main.cf")
	text, err := os.ReadFile(path)
	if err != nil || s.After == "" || s.MainBefore == "" || backup.Digest(text) != s.After {
		return false, err
	}
	return true, backup.Rewrite(path, []byte(s.MainBefore))
}

// mergeTargets adds what is new.
func mergeTargets(known, more []mta.Target) []mta.Target {
	seen := map[string]bool{}
	key := func(t mta.Target) string { return t.ID + " " + t.Arrival.UTC().Format(time.RFC3339Nano) }
	all := slices.Clone(known)
	for _, t := range all {
		seen[key(t)] = true
	}
	for _, t := range more {
		if !seen[key(t)] {
			seen[key(t)] = true
			all = append(all, t)
		}
	}
	return all
}
