package sites

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	"relayguard/policy/origin/stamp"
)

// Registration is what POST /v1/sites takes: one site, new or changed. The answer
// is its Info.
type Registration struct {
	Name  string    `json:"name"`            // "shop.example.jp"
	UID   int       `json:"uid"`             // of its Unix account; -1: it logs in from elsewhere
	Login string    `json:"login,omitempty"` // its login then
	KeyID string    `json:"key_id"`          // 8 hexadecimal digits
	Key   stamp.Key `json:"key"`             // 32 octets, base64 as JSON has it
	Root  string    `json:"root,omitempty"`  // its directory, without links; empty: it is on another machine

	Content string `json:"content,omitempty"` // its wp-content, likewise; empty: Root tells
}

// Info is a site without its key: what GET /v1/sites has a list of.
type Info struct {
	Name  string `json:"name"`
	UID   int    `json:"uid"`
	Login string `json:"login,omitempty"`
	KeyID string `json:"key_id"`
	Root  string `json:"root,omitempty"`

	Content string `json:"content,omitempty"`
}

// Removed is the answer to DELETE /v1/sites/{name}.
type Removed struct {
	Name string `json:"name"`
	Was  bool   `json:"was"` // it was registered
}

// InfoOf leaves the key out.
func InfoOf(s stamp.Site) Info { return Info{s.Name, s.UID, s.Login, s.KeyID, s.Root, s.Content} }

// Infos are those of several.
func Infos(all []stamp.Site) []Info {
	infos := make([]Info, len(all))
	for i := range all {
		infos[i] = InfoOf(all[i])
	}
	return infos
}

// Site is what is registered.
func (r *Registration) Site() stamp.Site {
	return stamp.Site{Name: r.Name, UID: r.UID, Login: r.Login, KeyID: r.KeyID, Key: r.Key, Root: r.Root, Content: r.Content}
}

var (
	nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?$`)
	idForm   = regexp.MustCompile(`^[0-9a-f]{8}$`)
)

// CheckName says what is wrong with a site's name, nil for nothing.
func CheckName(name string) error {
	if nameForm.MatchString(name) {
		return nil
	}
	return fmt.Errorf("site name %q: want letters, digits, dots and hyphens, such as shop.example.jp", short(name))
}

func short(s string) string { return s[:min(len(s), 80)] }

// check says what is wrong with one site, for itself.
func check(s *stamp.Site) error {
	if err := CheckName(s.Name); err != nil {
		return err
	}
	switch {
	case s.UID == 0:
		return fmt.Errorf("site %s: root runs no site; want the uid of its account", s.Name)
	case s.UID < -1 || s.UID > 1<<31-1:
		return fmt.Errorf("site %s: uid %d is none", s.Name, s.UID)
	case s.UID == -1 && s.Login == "":
		return fmt.Errorf("site %s: without a uid it needs a login", s.Name)
	case len(s.Login) > 255:
		return fmt.Errorf("site %s: its login is too long", s.Name)
	case !idForm.MatchString(s.KeyID):
		return fmt.Errorf("site %s: key id %q, want 8 hexadecimal digits", s.Name, short(s.KeyID))
	case len(s.Key) != stamp.KeySize || string(s.Key) == string(make([]byte, stamp.KeySize)):
		return fmt.Errorf("site %s: its key has not %d octets, or zeros only", s.Name, stamp.KeySize)
	case s.Root != "" && !cleanPath(s.Root):
		return fmt.Errorf("site %s: root %q is no clean absolute path", s.Name, short(s.Root))
	case s.Content != "" && !cleanPath(s.Content):
		return fmt.Errorf("site %s: content %q is no clean absolute path", s.Name, short(s.Content))
	}
	return nil
}

func cleanPath(name string) bool {
	return path.IsAbs(name) && path.Clean(name) == name && name != "/" && len(name) <= 4096 && !strings.ContainsRune(name, 0)
}

// ErrTaken says that a site cannot be registered beside another.
var ErrTaken = errors.New("another site has it")

// clash says what two sites cannot both have.
func clash(a, b *stamp.Site) error {
	switch {
	case a.KeyID == b.KeyID:
		return fmt.Errorf("site %s: key id %s is that of %s: %w; make a new key", a.Name, a.KeyID, b.Name, ErrTaken)
	case string(a.Key) == string(b.Key):
		return fmt.Errorf("site %s: its key is that of %s: %w; make a new key", a.Name, b.Name, ErrTaken)
	case a.Root != "" && a.Root == b.Root:
		return fmt.Errorf("site %s: %s is the root of %s: %w; remove that first", a.Name, a.Root, b.Name, ErrTaken)
	}
	return nil
}
