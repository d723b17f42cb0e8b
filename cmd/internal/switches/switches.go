// Package switches keeps what an admin ordered - suspensions, denials,
// exceptions, the red switch - in one small file, so that an order outlives the
// daemon, the journal and the power. The file is the truth; the journal only
// tells who did it. Trap: what is written is in force already; who cannot write
// says so, and does not take it back.
package switches

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"relayguard/policy"
)

// maxSwitches bounds the file: what an admin may have typed.
const maxSwitches = 100_000

// maxFile bounds what is read of it.
const maxFile = 128 << 20

// File is the file and the board that follows it. Safe for concurrent use; one
// process at a time writes it.
type File struct {
	path  string
	board *policy.Board

	mu        sync.Mutex
	all       []policy.Switch
	gone      []Gone    // what was taken back, for relays that share switches
	unwritten bool      // all is not what the file says
	tried     time.Time // when that was last tried to mend
	clock     func() time.Time
	onChange  func()
}

// content is the file's form.
type content struct {
	Switches []policy.Switch `json:"switches"`
	Gone     []Gone          `json:"gone,omitempty"`
}

// Open reads the file and puts its switches into force. A file that is not
// there has none. Of one that cannot be understood whole, what can be is in
// force; the file is put aside and told, by an error beside a File that works.
func Open(path string, board *policy.Board, now time.Time) (*File, error) {
	f := &File{path: path, board: board}
	sweepTemporary(path)
	content, err := read(path)
	f.all, f.gone = unique(content.Switches), content.Gone // what has ended meanwhile is for Sweep: somebody may have to act on it
	board.Store(policy.NewSwitches(f.all))
	if err != nil {
		err = fmt.Errorf("read switches: %w; %d are in force, what else was ordered is not until it is ordered again", err, len(f.all))
		aside, renamed := putAside(path, now)
		if renamed == nil {
			err = fmt.Errorf("%w; the file is now %s", err, aside)
			renamed = f.save()
		}
		err = errors.Join(err, renamed)
	}
	return f, err
}

// sweepTemporary removes what a write that was cut off left behind.
func sweepTemporary(path string) {
	entries, _ := os.ReadDir(filepath.Dir(path))
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filepath.Base(path)+temporary) && e.Type().IsRegular() {
			_ = os.Remove(filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
}

// temporary is what names of files have that are not yet switches.
const temporary = ".new-"

// putAside renames a broken file, over no other.
func putAside(path string, now time.Time) (aside string, err error) {
	aside = fmt.Sprintf("%s.broken-%d", path, now.Unix())
	for i := 1; ; i++ {
		if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
			return aside, os.Rename(path, aside)
		}
		if i > 100 {
			return "", fmt.Errorf("put %s aside: there are %d such files already", path, i)
		}
		aside = fmt.Sprintf("%s.broken-%d-%d", path, now.Unix(), i)
	}
}

// unique keeps of two about the same the later.
func unique(all []policy.Switch) []policy.Switch {
	last := map[What]int{}
	for i := range all {
		last[whatOf(&all[i])] = i
	}
	i := -1
	return slices.DeleteFunc(all, func(s policy.Switch) bool {
		i++
		return last[whatOf(&s)] != i
	})
}

// read returns the switches that can be understood, and what is wrong with the
// others.
func read(path string) (content, error) {
	data, err := readPlain(path)
	if errors.Is(err, fs.ErrNotExist) {
		return content{}, nil
	}
	if err != nil {
		return content{}, err
	}
	c, err := decode(data)
	if err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Read lists the switches of a file that have not ended, and changes nothing. With
// an error there are those that can be understood.
func Read(path string, now time.Time) ([]policy.Switch, error) {
	content, err := read(path)
	return slices.DeleteFunc(unique(content.Switches), func(s policy.Switch) bool { return s.Over(now) }), err
}

// All lists the switches that have not ended, oldest first.
func (f *File) All(now time.Time) []policy.Switch {
	return slices.DeleteFunc(f.board.Load().All(), func(s policy.Switch) bool { return s.Over(now) })
}

// Find is the switch about just that which has not ended, nil if there is none. It
// does not wait. It must not be modified.
func (f *File) Find(now time.Time, w What) *policy.Switch {
	return f.board.Load().Find(now, w.Kind, w.Subject, w.Value, w.Rule)
}

// ErrFull says that there are as many switches as there may be.
var ErrFull = fmt.Errorf("there are %d switches already", maxSwitches)

// Set puts a switch into force, in place of one about the same, and returns it
// with its id. With an error that is neither ErrFull nor one of Check it is in
// force, but will not outlive the daemon.
func (f *File) Set(s policy.Switch) (policy.Switch, error) {
	if err := s.Check(); err != nil {
		return s, err
	}
	s, err := f.set(s)
	if !errors.Is(err, ErrFull) {
		f.changed()
	}
	return s, err
}

func (f *File) set(s policy.Switch) (policy.Switch, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s.ID = newID(); slices.ContainsFunc(f.all, func(o policy.Switch) bool { return o.ID == s.ID }); {
		s.ID = newID()
	}
	what := whatOf(&s)
	s.Changed = f.after(what)
	all := slices.DeleteFunc(slices.Clone(f.all), func(o policy.Switch) bool { return whatOf(&o) == what })
	if len(all) >= maxSwitches {
		return s, ErrFull
	}
	f.gone = slices.DeleteFunc(f.gone, func(g Gone) bool { return g.What == what })
	return s, f.use(append(all, s))
}

// Remove takes back every switch that matches, and returns them.
func (f *File) Remove(match func(policy.Switch) bool) ([]policy.Switch, error) {
	gone, err := f.remove(match, true)
	if len(gone) > 0 {
		f.changed()
	}
	return gone, err
}

// remove takes back every switch that matches. Bury: it is remembered that it was.
func (f *File) remove(match func(policy.Switch) bool, bury bool) ([]policy.Switch, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var gone []policy.Switch
	left := slices.DeleteFunc(slices.Clone(f.all), func(s policy.Switch) bool {
		if match(s) {
			gone = append(gone, s)
			return true
		}
		return false
	})
	if len(gone) == 0 {
		return nil, nil
	}
	if bury {
		for i := range gone {
			f.bury(Gone{whatOf(&gone[i]), f.after(whatOf(&gone[i]))})
		}
	}
	return gone, f.use(left)
}

// retryEvery is how long a file that could not be written rests.
const retryEvery = 10 * time.Second

// Over lists what has ended by itself and was not swept.
func (f *File) Over(now time.Time) []policy.Switch {
	f.mu.Lock()
	defer f.mu.Unlock()
	var over []policy.Switch
	for _, s := range f.all {
		if s.Over(now) {
			over = append(over, s)
		}
	}
	return over
}

// Sweep removes what has ended by itself, but for what keep wants (nil: nothing),
// and returns it. It also tries again to write what could not be written.
func (f *File) Sweep(now time.Time, keep func(policy.Switch) bool) ([]policy.Switch, error) {
	f.mu.Lock()
	if f.unwritten && now.Sub(f.tried) >= retryEvery {
		f.tried = now
		_ = f.save()
	}
	f.mu.Unlock()
	return f.remove(func(s policy.Switch) bool { return s.Over(now) && (keep == nil || !keep(s)) }, false) // every relay does so by itself
}

// use puts switches into force, then writes them.
func (f *File) use(all []policy.Switch) error {
	f.all = all
	f.board.Store(policy.NewSwitches(all))
	return f.save()
}

func (f *File) save() error {
	err := write(f.path, content{f.all, f.gone})
	f.unwritten = err != nil
	if err != nil {
		return fmt.Errorf("write switches: %w; the order is in force, but would be lost with the daemon", err)
	}
	return nil
}

// write replaces the file as a whole: after a crash it is the old or the new one.
func write(path string, c content) error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	if len(data) >= maxFile { // read would not take it
		return fmt.Errorf("%s would have %d octets, more than %d", path, len(data), maxFile)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+temporary)
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // gone after the rename
	_, err = tmp.Write(append(data, '\n'))
	if err == nil {
		err = keepOwner(tmp)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// keepOwner gives the new file to who owns the directory: root writes it, too,
// when the daemon is dead.
func keepOwner(file *os.File) error {
	info, err := os.Stat(filepath.Dir(file.Name()))
	if err != nil {
		return err
	}
	uid, gid, ok := owner(info)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	return file.Chown(uid, gid) // by its descriptor: the name is in a directory of theirs
}

// newID names a switch for commands that take it back.
func newID() string { return "s" + strings.ToLower(rand.Text()[:7]) }
