package wordpress

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Where our files are below wp-content.
const (
	mustUseDir  = "mu-plugins"
	mustUseFile = "relayguard.php"
	keyDir      = "relayguard"
	keyFile     = "key.php"

	// MustUsePath and KeyPath are the same for people, below wp-content.
	MustUsePath = mustUseDir + "/" + mustUseFile
	KeyPath     = mustUseDir + "/" + keyDir + "/" + keyFile
)

// errForeign says that somebody else's file is where one of ours belongs.
var errForeign = errors.New("it is not relayguard's: it stays as it is. Move it away if it may go")

// order is what the child shall do in the directory wp-content.
type order struct {
	Act   string `json:"act"` // "install", "look" or "remove"
	UID   int    `json:"uid"` // as whom
	Site  string `json:"site,omitempty"`
	Key   []byte `json:"key,omitempty"` // a new one
	KeyID string `json:"key_id,omitempty"`
	Renew bool   `json:"renew,omitempty"` // a key that is there is replaced
	Keep  bool   `json:"keep,omitempty"`  // the file of a key that is there stays as it is
}

// report is what the child found or did: the site's word.
type report struct {
	Error   string   `json:"error,omitempty"`
	Plugin  string   `json:"plugin,omitempty"` // a State
	Key     string   `json:"key,omitempty"`    // a State
	KeyID   string   `json:"key_id,omitempty"`
	Secret  []byte   `json:"secret,omitempty"` // install only
	Changed []string `json:"changed,omitempty"`
	Remarks []string `json:"remarks,omitempty"`
}

// Serve is the child: it reads an order, carries it out in the open directory,
// wp-content, and writes what came of it. It must run as the site's own account,
// and refuses to be root.
func Serve(in io.Reader, out io.Writer, content *os.File) error {
	var o order
	if err := json.NewDecoder(io.LimitReader(in, longestFile)).Decode(&o); err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	if os.Geteuid() != o.UID || os.Getuid() != o.UID || o.UID == 0 {
		return fmt.Errorf("asked to work as uid %d, but this is uid %d", o.UID, os.Geteuid())
	}
	return json.NewEncoder(out).Encode(o.carryOut(content))
}

func (o *order) carryOut(content *os.File) *report {
	r := &report{}
	t := &tree{content, "wp-content"}
	acts := map[string]func(*tree, *report) error{"install": o.install, "look": o.look, "remove": o.remove}
	act, ok := acts[o.Act]
	if !ok {
		r.Error = fmt.Sprintf("no act %q", o.Act)
		return r
	}
	if err := act(t, r); err != nil {
		r.Error = err.Error()
	}
	return r
}

func (o *order) install(content *tree, r *report) error {
	plugins, err := content.made(mustUseDir)
	if err != nil {
		return err
	}
	defer plugins.close()
	if _, err := plugins.check(mustUseFile, markMustUse); err != nil {
		return err // before anything is written
	}
	keys, err := plugins.made(keyDir)
	if err != nil {
		return err
	}
	defer keys.close()
	if err := o.installKey(keys, r); err != nil {
		return err
	}
	return plugins.put(mustUseFile, markMustUse, MustUse(), 0o444, r)
}

// installKey leaves a key that is fit for use.
func (o *order) installKey(keys *tree, r *report) error {
	old, err := keys.check(keyFile, markKey)
	if err != nil {
		return err
	}
	key := Key{o.KeyID, o.Key}
	if old != nil && !o.Renew {
		if k, ok := ParseKey(old.text); ok && int(old.stat.Uid) == o.UID {
			key = k
			if o.Keep {
				r.KeyID, r.Secret = key.ID, key.Secret
				return nil
			}
		}
	}
	r.KeyID, r.Secret = key.ID, key.Secret
	return keys.put(keyFile, markKey, KeyFile(o.Site, key), 0o400, r)
}

// The marks that our files begin with.
const (
	markMustUse = "relayguard:must-use-plugin"
	markKey     = "relayguard:key"
)

// check reads a file that must be ours; nil if it is missing.
func (t *tree) check(name, mark string) (*entry, error) {
	old, err := t.read(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !ours(old.text, mark):
		return nil, fmt.Errorf("%s: %w", t.path(name), errForeign)
	}
	return old, nil
}

// put writes a file of ours, unless it is there just so.
func (t *tree) put(name, mark string, text []byte, mode os.FileMode, r *report) error {
	old, err := t.check(name, mark)
	if err != nil {
		return err
	}
	if old != nil && bytes.Equal(old.text, text) && os.FileMode(old.stat.Mode&0o7777) == mode && int(old.stat.Uid) == os.Geteuid() {
		return nil
	}
	if err := t.write(name, text, mode, old != nil); err != nil {
		return err
	}
	r.Changed = append(r.Changed, t.path(name))
	return nil
}

// State is how one of our files is.
type State string

// States of a file.
const (
	Missing State = "missing"
	Current State = "current" // as this version of relayguard writes it
	Other   State = "other"   // ours, of another version or changed by hand
	Foreign State = "foreign" // not ours, or cannot be read
)

func (o *order) look(content *tree, r *report) error {
	r.Plugin, r.Key = string(Missing), string(Missing)
	plugins, err := content.sub(mustUseDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer plugins.close()
	file, state, err := plugins.state(mustUseFile, markMustUse, r)
	if state == Current && !bytes.Equal(file.text, MustUse()) {
		state = Other
	}
	r.Plugin = string(state)
	if err != nil {
		return err
	}
	keys, err := plugins.sub(keyDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer keys.close()
	return o.lookAtKey(keys, r)
}

func (o *order) lookAtKey(keys *tree, r *report) error {
	file, state, err := keys.state(keyFile, markKey, r)
	r.Key = string(state)
	if state != Current {
		return err
	}
	key, ok := ParseKey(file.text)
	if !ok {
		r.Key = string(Other)
		r.Remarks = append(r.Remarks, keys.path(keyFile)+" has no key in it: run relayguard wordpress install again")
		return nil
	}
	r.KeyID = key.ID
	if mode := file.stat.Mode & 0o777; mode&^unix.S_IRUSR != 0 {
		r.Remarks = append(r.Remarks, fmt.Sprintf("%s has mode %04o, want 0400: who can read it can sign for the site; run relayguard wordpress install --new-key", keys.path(keyFile), mode))
	}
	if int(file.stat.Uid) != o.UID {
		r.Remarks = append(r.Remarks, fmt.Sprintf("%s belongs to uid %d, not to the site's %d", keys.path(keyFile), file.stat.Uid, o.UID))
	}
	return nil
}

// state tells how a file is; Current is all that begins with the mark.
func (t *tree) state(name, mark string, r *report) (*entry, State, error) {
	file, err := t.check(name, mark)
	switch {
	case errors.Is(err, errForeign):
		r.Remarks = append(r.Remarks, err.Error())
		return nil, Foreign, nil
	case err != nil:
		return nil, Foreign, err
	case file == nil:
		return nil, Missing, nil
	}
	return file, Current, nil
}

// remove takes the plugin first: without it the key does nothing.
func (o *order) remove(content *tree, r *report) error {
	plugins, err := content.sub(mustUseDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer plugins.close()
	err = plugins.take(mustUseFile, markMustUse, r)
	keys, subErr := plugins.sub(keyDir)
	if errors.Is(subErr, fs.ErrNotExist) {
		return err
	}
	if subErr != nil {
		return errors.Join(err, subErr)
	}
	defer keys.close()
	return errors.Join(err, keys.take(keyFile, markKey, r), plugins.removeEmpty(keyDir))
}

// take removes a file that is ours; another stays, with a remark.
func (t *tree) take(name, mark string, r *report) error {
	file, state, err := t.state(name, mark, r)
	if file == nil || state != Current {
		return err
	}
	if err := t.remove(name); err != nil {
		return err
	}
	r.Changed = append(r.Changed, t.path(name))
	return nil
}
