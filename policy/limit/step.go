package limit

import (
	"errors"
	"fmt"
	"hash/maphash"
)

// Check tells what is wrong with a step that no store can take. It is for
// stores; it costs some nanoseconds a charge.
func (s *Step) Check() error {
	_, err := s.check()
	return err
}

// check also says whether a key comes twice, which is rare.
func (s *Step) check() (twins bool, err error) {
	if len(s.Charges) > MaxCharges {
		return false, fmt.Errorf("charge %d buckets: want at most %d in one step", len(s.Charges), MaxCharges)
	}
	for i := range s.Charges {
		c := &s.Charges[i]
		err := c.check()
		if err == nil && c.Counts == FirstTime && s.Known.Account == "" {
			err = errors.New("counts first_time, but the step has no account whose recipients these are")
		}
		if err != nil {
			return false, fmt.Errorf("charge bucket %q: %w", c.Key, err)
		}
	}
	if len(s.Known.Items) > 0 && s.Known.Account == "" {
		return false, fmt.Errorf("learn %d recipients: got no account whose they are", len(s.Known.Items))
	}
	return checkTwins(s.Charges)
}

func (c *Charge) check() error {
	switch {
	case c.Key.Limit == "" || c.Key.Value == "":
		return errors.New("got an empty key, want one bucket for each sender")
	case c.Kind != Volume && c.Kind != Abuse:
		return fmt.Errorf("got %s, want one of %q", c.Kind, Kinds())
	case c.Counts > Bounces:
		return fmt.Errorf("got %s, want one of %q", c.Counts, Units())
	case c.Amount < 0 || c.Amount > MaxCount:
		return fmt.Errorf("got amount %d, want 0 to %d", c.Amount, int64(MaxCount))
	case len(c.Windows) < 1 || len(c.Windows) > MaxWindows:
		return fmt.Errorf("got %d windows, want 1 to %d", len(c.Windows), MaxWindows)
	}
	for i := range c.Windows {
		w := &c.Windows[i]
		if !w.valid() {
			return w.check("window")
		}
		for j := range i {
			if c.Windows[j].Length == w.Length {
				return fmt.Errorf("got two windows of %s, want different lengths", w.Length)
			}
		}
	}
	return nil
}

// byItems: what it takes depends on whom the message is to.
func (c *Charge) byItems() bool { return c.Counts == Distinct || c.Counts == FirstTime }

// asks: it takes nothing, whatever the bucket knows.
func (c *Charge) asks() bool {
	switch c.Counts {
	case Distinct, FirstTime:
		return len(c.Items) == 0
	case Bounces: // a message asks, but is stopped, and shuts, like any other
		return false
	}
	return c.Amount == 0
}

// few is up to how many charges comparing each with each is the quickest.
const few = 8

var twinSeed = maphash.MakeSeed()

// checkTwins finds charges of one bucket. They are spent one after the other,
// and so they must be alike, and amounts that add up.
func checkTwins(charges []Charge) (twins bool, err error) {
	if len(charges) <= few {
		for i := range charges {
			for j := range i {
				if charges[i].Key == charges[j].Key {
					if err := charges[i].checkTwin(&charges[j]); err != nil {
						return true, err
					}
					twins = true
				}
			}
		}
		return twins, nil
	}
	var seen [2 * MaxCharges]uint16 // by hash: the number of a charge, from 1
	for i := range charges {
		c := &charges[i]
		at := maphash.String(twinSeed, c.Key.Value) + 3*maphash.String(twinSeed, c.Key.Limit)
		for ; ; at++ {
			at %= uint64(len(seen))
			if seen[at] == 0 {
				seen[at] = uint16(i + 1)
				break
			}
			if other := &charges[seen[at]-1]; other.Key == c.Key {
				if err := c.checkTwin(other); err != nil {
					return true, err
				}
				twins = true
				break
			}
		}
	}
	return twins, nil
}

func (c *Charge) checkTwin(o *Charge) error {
	switch {
	case c.byItems() || c.Tells || c.Counts != o.Counts || c.Kind != o.Kind || o.Tells:
		return fmt.Errorf("charge bucket %q: twice, want amounts of one unit and kind, neither of which only tells", c.Key)
	case !sameLengths(c.Windows, o.Windows):
		return fmt.Errorf("charge bucket %q: twice, with different windows", c.Key)
	}
	return nil
}

func sameLengths(a, b []Window) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Length != b[i].Length {
			return false
		}
	}
	return true
}
