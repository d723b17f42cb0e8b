package sites

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"syscall"

	"relayguard/cmd/internal/wholefile"
	"relayguard/policy/origin/stamp"
)

// Bounds of the file.
const (
	maxSites = 100_000
	maxFile  = 64 << 20
)

// File is the register. Safe for concurrent use by one process.
type File struct {
	path string

	mu    sync.Mutex
	sites []stamp.Site // by name
}

// Open reads the register; a file that is not there is an empty one. With an
// error beside a File the file was wrong: it stands aside, as the error says, and
// the register is empty. An error alone: the file is there and cannot be read or
// put aside, and must not be overwritten.
func Open(path string) (*File, error) {
	f := &File{path: path}
	data, err := readPlain(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the register of sites: %w", err)
	}
	if f.sites, err = Decode(data); err == nil {
		return f, nil
	}
	aside, asideErr := wholefile.PutAside(path)
	if asideErr != nil {
		return nil, fmt.Errorf("register of sites: %s: %w; %w", path, err, asideErr)
	}
	return &File{path: path}, fmt.Errorf("register of sites: %s: %w; it is kept as %s. No site is registered now: mend it, put it back and start the daemon again, or run relayguard wordpress install for each site", path, err, aside)
}

// readPlain reads a plain file of at most maxFile octets.
func readPlain(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file but %v", path, info.Mode().Type())
	}
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s has more than %d octets", path, maxFile)
	}
	return data, err
}

// content is the file.
type content struct {
	Sites []Registration `json:"sites"`
}

// Decode reads a file's text. Anything wrong makes the whole an error: half of a
// register would leave sites without their budgets and not say so.
func Decode(data []byte) ([]stamp.Site, error) {
	var c content
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("it is damaged: %w", err)
	}
	if c.Sites == nil {
		return nil, errors.New(`it is damaged: no list "sites"`)
	}
	if len(c.Sites) > maxSites {
		return nil, fmt.Errorf("it has %d sites, at most %d are read", len(c.Sites), maxSites)
	}
	all := make([]stamp.Site, len(c.Sites))
	for i := range c.Sites {
		all[i] = c.Sites[i].Site()
	}
	slices.SortFunc(all, byName)
	return all, checkAll(all)
}

func byName(a, b stamp.Site) int { return cmp.Compare(a.Name, b.Name) }

// checkAll checks sites that are in order.
func checkAll(all []stamp.Site) error {
	ids, keys, roots := map[string]int{}, map[string]int{}, map[string]int{}
	for i := range all {
		s := &all[i]
		if err := check(s); err != nil {
			return err
		}
		if i > 0 && all[i-1].Name == s.Name {
			return fmt.Errorf("site %s stands in it twice", s.Name)
		}
		for _, m := range []struct {
			seen map[string]int
			what string
		}{{ids, s.KeyID}, {keys, string(s.Key)}, {roots, s.Root}} {
			if other, ok := m.seen[m.what]; ok && m.what != "" {
				return clash(s, &all[other])
			}
			m.seen[m.what] = i
		}
	}
	return nil
}

// All are the sites, by name. The keys are not to be changed.
func (f *File) All() []stamp.Site {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.sites)
}

// Put registers a site, or changes the one of its name. What another site has is
// an ErrTaken. After an error nothing has changed.
func (f *File) Put(s stamp.Site) error {
	if err := check(&s); err != nil {
		return err
	}
	s.Key = slices.Clone(s.Key)
	f.mu.Lock()
	defer f.mu.Unlock()
	all := slices.Clone(f.sites)
	for i := range all {
		if all[i].Name != s.Name {
			if err := clash(&s, &all[i]); err != nil {
				return err
			}
		}
	}
	i, found := slices.BinarySearchFunc(all, s, byName)
	if found {
		all[i] = s
	} else if len(all) >= maxSites {
		return fmt.Errorf("site %s: there are %d sites already, and no more are kept", s.Name, maxSites)
	} else {
		all = slices.Insert(all, i, s)
	}
	return f.keep(all)
}

// Remove takes a site out; false if it was not there.
func (f *File) Remove(name string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, found := slices.BinarySearchFunc(f.sites, stamp.Site{Name: name}, byName)
	if !found {
		return false, nil
	}
	return true, f.keep(slices.Delete(slices.Clone(f.sites), i, i+1))
}

// keep writes the file, whole or not at all, and then goes by it.
func (f *File) keep(all []stamp.Site) error {
	c := content{Sites: make([]Registration, len(all))}
	for i, s := range all {
		c.Sites[i] = Registration(s)
	}
	data, err := json.MarshalIndent(&c, "", " ")
	if err == nil {
		err = wholefile.Write(f.path, func(w io.Writer) error {
			_, err := w.Write(append(data, '\n'))
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("write the register of sites: %w", err)
	}
	f.sites = all
	return nil
}
