package limit

import (
	"context"
	"errors"
)

// Entry is one thing that a store knows: a bucket or an account's recipients.
// Exactly one of the two is set.
type Entry struct {
	State *State      `json:"state,omitempty"`
	Known *KnownState `json:"known,omitempty"`
}

// Check says why no store can have this entry.
func (e Entry) Check() error {
	switch {
	case e.State != nil && e.Known == nil:
		return e.State.Check()
	case e.State == nil && e.Known != nil:
		return e.Known.Check()
	}
	return errors.New("entry: want either a bucket's state or an account's known recipients")
}

// Keeper is a store that hands over all it knows, and takes it from another.
type Keeper interface {
	// Each calls fn for every entry, each bucket and each account once, in no
	// order, until fn gives an error, which it returns. What changes meanwhile is
	// told as it was or as it is.
	Each(ctx context.Context, fn func(Entry) error) error

	// Put sets one entry in place of what there is of that bucket or account. A
	// State that is Gone, or a KnownState without items, forgets it.
	Put(ctx context.Context, e Entry) error
}
