package redis

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"relayguard/policy/limit"
)

// errAnswer: it is not from our script, or of another step.
var errAnswer = errors.New("the answer does not belong to the step")

// errOther is the error of a step whose id another one had. That is the caller's
// fault, and says nothing about Redis.
var errOther = fmt.Errorf("read what Redis says: %w", errAnswer)

// How a window stands, as the script says.
const (
	fits = iota
	_
	never
	blocked // and more by the last event of the cell that leaves no room
)

// hotAnswer begins the answer of a hot step.
const hotAnswer = 3

// numbers are what the script answers, 7 octets each.
type numbers struct {
	text string
	bad  bool
}

func (n *numbers) next() int64 {
	if len(n.text) < 7 {
		n.bad = true
		return 0
	}
	t := n.text
	n.text = t[7:]
	return int64(uint64(t[0]) | uint64(t[1])<<8 | uint64(t[2])<<16 | uint64(t[3])<<24 | uint64(t[4])<<32 | uint64(t[5])<<40 | uint64(t[6])<<48)
}

// upTo is the next number, which is at most most.
func (n *numbers) upTo(most int64) int64 {
	v := n.next()
	n.bad = n.bad || v > most
	return v
}

// status reads how a step went: whether it was taken.
func (n *numbers) status(charges []limit.Charge) (bool, error) {
	if n.text != "" && n.text[0] == hotAnswer {
		return true, nil
	}
	switch s := n.next(); {
	case n.bad || s > 2:
		return false, fmt.Errorf("read what Redis says: %w: %w", ErrUnsure, errAnswer)
	case s == 2:
		i := n.next() - 1
		if i < 0 || i >= int64(len(charges)) {
			return false, fmt.Errorf("read what Redis says: %w: %w", ErrUnsure, errAnswer)
		}
		return false, fmt.Errorf("read bucket %q: what Redis keeps there is no bucket; reset it", charges[i].Key)
	default:
		return s == 1, nil
	}
}

// decode reads the answer of Spend and Peek into out.
func decode(text string, charges []limit.Charge, twins bool, out *limit.Outcome) error {
	out.Uses = out.Uses[:0]
	out.Latched = slices.Grow(out.Latched[:0], len(charges))[:len(charges)]
	out.Attempts = slices.Grow(out.Attempts[:0], len(charges))[:len(charges)]
	if text != "" && text[0] == hotAnswer {
		return decodeHot(text[1:], charges, out)
	}
	n := numbers{text: text}
	taken, err := n.status(charges)
	if err != nil {
		return err
	}
	out.Taken = taken
	for i := range charges {
		from := len(out.Uses)
		for j := range charges[i].Windows {
			out.Uses = append(out.Uses, limit.Use{Charge: i, Window: charges[i].Windows[j], Amount: charges[i].Amount})
		}
		n.charge(&charges[i], out.Uses[from:], i, out)
		if twins {
			takenBefore(charges[:i], &charges[i], out.Uses)
		}
	}
	if n.bad || len(n.text) > 0 {
		return errOther
	}
	return nil
}

// decodeHot reads the answer of a hot step: the heads of its buckets, before it.
func decodeHot(text string, charges []limit.Charge, out *limit.Outcome) error {
	out.Taken = true
	for i := range charges {
		c := &charges[i]
		sums := headSize(len(c.Windows)) - 7*(len(c.Windows)+1)
		if len(text) < headSize(len(c.Windows)) || int(text[kindAt+1]) != len(c.Windows) {
			return errOther
		}
		head, n := numbers{text: text[7:]}, numbers{text: text[sums:]}
		since := head.next()
		out.Latched[i], out.Attempts[i] = false, n.upTo(limit.MaxCount)
		for j := range c.Windows {
			used := since + n.next()
			n.bad = n.bad || used > limit.MaxCount
			out.Uses = append(out.Uses, limit.Use{Charge: i, Window: c.Windows[j], Used: used, Amount: c.Amount})
		}
		if n.bad {
			return errOther
		}
		text = text[headSize(len(c.Windows)):]
	}
	if text != "" {
		return errOther
	}
	return nil
}

// charge reads how the i-th charge stands.
func (n *numbers) charge(c *limit.Charge, uses []limit.Use, i int, out *limit.Outcome) {
	mark := n.upTo(7)
	for j := range uses {
		uses[j].Used = n.upTo(limit.MaxCount)
	}
	out.Attempts[i] = n.upTo(limit.MaxCount)
	out.Latched[i] = mark&6 != 0
	if mark&1 == 0 {
		return
	}
	const most = 20 // times 2^53: more than cells can count
	out.Attempts[i] += n.upTo(most) * limit.MaxCount
	for j := range uses {
		u := &uses[j]
		u.Used += n.upTo(most) * limit.MaxCount
		u.Amount = n.upTo(limit.MaxCount)
		switch how := n.upTo(blocked + 2*limit.MaxCount); {
		case how == fits:
		case how <= never:
			u.Over, u.Never = true, true
		case c.Counts == limit.Distinct:
			u.Over, u.FreeAt = true, time.UnixMicro(how-blocked).UTC()
		default:
			u.Over, u.FreeAt = true, time.UnixMicro(how-blocked+u.Window.Length.Microseconds()+1).UTC()
		}
	}
}

// takenBefore adds to the last charge's uses what earlier charges of the step
// take from its bucket.
func takenBefore(earlier []limit.Charge, c *limit.Charge, uses []limit.Use) {
	mine, at := uses[len(uses)-len(c.Windows):], 0
	for i := range earlier {
		e := &earlier[i]
		for j := range e.Windows {
			if u := &uses[at+j]; e.Key == c.Key && !u.Over {
				mine[j].Used += u.Amount
			}
		}
		at += len(e.Windows)
	}
}
