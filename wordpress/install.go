package wordpress

import (
	"context"
	"errors"
	"slices"
)

// Installed is what Install did.
type Installed struct {
	Key     Key
	Changed []string // files, below the document root's directory "wp-content"
}

// Keys says what Install does with a key that is there.
type Keys int

// What Install does with a key.
const (
	SameKey    Keys = iota // it stays, in a file that is brought up to date
	AnotherKey             // a new one takes its place
	SameFile               // the file stays as it is: it may be another site's
)

// Install puts plugin and key into a site, or brings them up to date. Nothing of
// anybody else's is overwritten. It may fail half done; run again it does the rest.
func (p *Place) Install(ctx context.Context, h Hand, site string, keys Keys) (Installed, error) {
	key := NewKey()
	r, err := h.work(ctx, p, order{Act: "install", Site: site, Key: key.Secret, KeyID: key.ID, Renew: keys == AnotherKey, Keep: keys == SameFile})
	if r == nil || err != nil {
		return Installed{}, err
	}
	got := Key{r.KeyID, r.Secret}
	if parsed, ok := ParseKey(KeyFile("", got)); !ok || parsed.ID != got.ID {
		return Installed{}, errors.New("the site has no fit key; try again with --new-key")
	}
	return Installed{got, r.Changed}, nil
}

// Status is how a site's files are.
type Status struct {
	Plugin  State
	Key     State
	KeyID   string // empty if there is no fit key
	Remarks []string
}

// Status looks, and changes nothing.
func (p *Place) Status(ctx context.Context, h Hand) (Status, error) {
	r, err := h.work(ctx, p, order{Act: "look"})
	if r == nil {
		return Status{}, err
	}
	s := Status{State(r.Plugin), State(r.Key), r.KeyID, r.Remarks}
	for _, state := range []*State{&s.Plugin, &s.Key} {
		if !slices.Contains([]State{Missing, Current, Other, Foreign}, *state) {
			*state = Foreign
		}
	}
	if !keyIDForm.MatchString(s.KeyID) {
		s.KeyID = ""
	}
	return s, err
}

// Removed is what Remove did.
type Removed struct {
	Changed []string // files that are gone
	Remarks []string // what stayed, and why
}

// Remove takes out what is ours, and nothing else.
func (p *Place) Remove(ctx context.Context, h Hand) (Removed, error) {
	r, err := h.work(ctx, p, order{Act: "remove"})
	if r == nil {
		return Removed{}, err
	}
	return Removed{r.Changed, r.Remarks}, err
}
