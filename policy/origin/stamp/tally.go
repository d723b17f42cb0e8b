package stamp

import "sync/atomic"

// Tally counts what became of stamps. The zero value counts from nothing; nil
// counts nothing. Safe for concurrent use.
type Tally struct {
	believed atomic.Int64
	refused  [len(refusals)]atomic.Int64
}

// Note counts an answer of Verify. An error of another kind than this package's
// counts for nothing.
func (t *Tally) Note(err error) {
	switch at := stage(err); {
	case t == nil:
	case at >= 0:
		t.refused[at].Add(1)
	case err == nil:
		t.believed.Add(1)
	}
}

// Believed is how many were believed.
func (t *Tally) Believed() int64 {
	if t == nil {
		return 0
	}
	return t.believed.Load()
}

// Refused is how many were not, by Reason. It has each of Reasons.
func (t *Tally) Refused() map[string]int64 {
	all := make(map[string]int64, len(refusals))
	for i, r := range refusals {
		all[r.name] = 0
		if t != nil {
			all[r.name] = t.refused[i].Load()
		}
	}
	return all
}
