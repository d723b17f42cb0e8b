package trail

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// maxSaved bounds what is read of a file of expansions.
const maxSaved = 4 << 20

// Load takes over what was saved in a file. One that is not there has nothing.
// Without it no more is lost than that the next message to an alias is charged
// afterwards again.
func (e *Expansions) Load(path string, now time.Time) error {
	data, err := readSome(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var saved []Expansion
	if err == nil {
		err = json.Unmarshal(data, &saved)
	}
	if err != nil {
		return fmt.Errorf("read what aliases stand for, %s: %w; it is learnt anew", path, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range saved {
		if x.Stands > 1 && x.Stands <= 1+maxGrowth && now.Sub(x.Seen) <= forgetAfter && !x.Seen.After(now) && len(e.known) < maxExpansions {
			e.known[x.Item] = x
		}
	}
	return nil
}

func readSome(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxSaved))
}

// Save writes a file for Load, if anything changed since it was last written.
func (e *Expansions) Save(path string) error {
	e.mu.Lock()
	changed := e.changed
	e.changed = false
	e.mu.Unlock()
	if !changed {
		return nil
	}
	data, err := json.Marshal(e.All())
	if err == nil {
		err = os.WriteFile(path+".new", data, 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		e.mu.Lock()
		e.changed = true
		e.mu.Unlock()
		return fmt.Errorf("write what aliases stand for: %w", err)
	}
	return nil
}
