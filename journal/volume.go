package journal

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"relayguard/policy"
)

// VolumeSlot is how finely volumes are kept.
const VolumeSlot = 15 * time.Minute

// maxVolumes bounds an answer: 400 days have fewer.
const maxVolumes = 500_000

const slotMicros = int64(VolumeSlot / time.Microsecond)

// Volume counts the answers of one verdict in a quarter of an hour, but for those
// about mail that came in from outside (role inbound) or was seen again on its way out
// (egress): each message that leaves, or would leave, counts once. It counts with its
// recipients; an answer at RCPT as one recipient and no message.
type Volume struct {
	Start      time.Time // of the quarter of an hour, UTC
	Verdict    policy.Verdict
	Messages   int64
	Recipients int64
}

// Volumes gives those of the quarters of an hour that begin before until, from the
// one that since is in; oldest first, then by verdict's name. Zero times have no
// bound. They are kept as long as totals, and name nobody, so that they stay when an
// account is purged. Of days before the journal kept them a whole day stands at its
// noon, UTC, and of those whose decisions are no longer kept everything counts.
func (j *Journal) Volumes(ctx context.Context, since, until time.Time) ([]Volume, error) {
	return search(ctx, j, func(s store) ([]Volume, error) { return s.volumes(ctx, since, until) })
}

// Volumes is Journal.Volumes.
func (r *Reader) Volumes(ctx context.Context, since, until time.Time) ([]Volume, error) {
	found, err := r.memory.volumes(ctx, since, until)
	if err != nil || r.file == nil {
		return found, err
	}
	older, err := r.inFile().volumes(ctx, since, until) // each answer is in one of them
	if err != nil {
		return nil, err
	}
	return joinVolumes(older, found), nil
}

func (s store) volumes(ctx context.Context, since, until time.Time) ([]Volume, error) {
	var c condition
	if !since.IsZero() {
		c.add("slot >= ?", slot(micros(since)))
	}
	if !until.IsZero() {
		c.add("slot < ?", slot(micros(until)-1)+1)
	}
	text := "SELECT slot, verdict, messages, recipients FROM volume"
	if s.lacks(5) {
		text = "SELECT slot, verdict, messages, recipients FROM (" + volumesOfTotals + ")"
	}
	var found []Volume
	err := s.each(ctx, text+c.where()+" ORDER BY slot DESC, verdict DESC LIMIT ?", append(c.args, maxVolumes), func(rows *sql.Rows) error {
		var v Volume
		var n int64
		var verdict string
		err := rows.Scan(&n, &verdict, &v.Messages, &v.Recipients)
		v.Start = time.UnixMicro(n * slotMicros).UTC()
		v.Verdict, _ = policy.ParseVerdict(verdict)
		found = append(found, v)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read volumes: %w", err)
	}
	slices.Reverse(found)
	return found, nil
}

// joinVolumes adds up what two databases have.
func joinVolumes(a, b []Volume) []Volume {
	type name struct {
		start   int64
		verdict policy.Verdict
	}
	of := func(v *Volume) name { return name{v.Start.UnixMicro(), v.Verdict} }
	at := make(map[name]int, len(a))
	for i := range a {
		at[of(&a[i])] = i
	}
	for _, v := range b {
		if i, both := at[of(&v)]; both {
			a[i].Messages += v.Messages
			a[i].Recipients += v.Recipients
		} else {
			a = append(a, v)
		}
	}
	slices.SortFunc(a, func(a, b Volume) int {
		if c := a.Start.Compare(b.Start); c != 0 {
			return c
		}
		return compareVerdicts(a.Verdict, b.Verdict)
	})
	return a
}

func compareVerdicts(a, b policy.Verdict) int {
	x, y := verdictName(a), verdictName(b)
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

// slot counts quarters of an hour since the epoch.
func slot(us int64) int64 {
	n := us / slotMicros
	if us%slotMicros < 0 {
		n--
	}
	return n
}
