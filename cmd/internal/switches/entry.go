package switches

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"relayguard/policy"
)

// MaxEntry bounds an encoded entry, in octets: a value, a rule, a reason and who
// gave it at their longest, each octet escaped.
const MaxEntry = 24 << 10

// dateDigits is how many digits the date of an entry has: microseconds since 1970.
const dateDigits = 16

// latest is the last date of 16 digits, in the year 2286.
var latest = time.UnixMicro(1e16 - 1).UTC()

// stamp brings a date into the form in which entries have it.
func stamp(t time.Time) time.Time {
	t = t.UTC().Truncate(time.Microsecond)
	switch epoch := time.UnixMicro(0).UTC(); {
	case t.Before(epoch): // of old files that do not tell it
		return epoch
	case t.After(latest):
		return latest
	}
	return t
}

// Encode is the entry as relays share it: its date in 16 digits, a blank, then
// JSON. Of two about the same the greater as a string is the newer.
func (e *Entry) Encode() []byte {
	text := fmt.Appendf(nil, "%0*d ", dateDigits, e.Changed.UnixMicro())
	if e.Switch == nil {
		return append(text, must(json.Marshal(gone{true, e.What}))...)
	}
	return append(text, must(json.Marshal(e.Switch))...)
}

// gone is the JSON of an entry that was taken back.
type gone struct {
	Gone bool `json:"gone"`
	What
}

// must is for what always can be marshalled: times were read from JSON, or are now.
func must(data []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return data
}

// Decode reads an entry that another relay wrote, or somebody else.
func Decode(data []byte) (Entry, error) {
	if len(data) > MaxEntry {
		return Entry{}, fmt.Errorf("found %d octets, want at most %d", len(data), MaxEntry)
	}
	if len(data) < dateDigits+1 || data[dateDigits] != ' ' {
		return Entry{}, errors.New("found no date of 16 digits")
	}
	micros, err := strconv.ParseUint(string(data[:dateDigits]), 10, 63)
	if err != nil {
		return Entry{}, errors.New("found no date of 16 digits")
	}
	changed := time.UnixMicro(int64(micros)).UTC()
	data = data[dateDigits+1:]
	var g gone
	if err := json.Unmarshal(data, &g); err != nil {
		return Entry{}, err
	}
	if g.Gone {
		tomb := Gone{g.What, changed}
		err := tomb.check()
		if err == nil && tomb.Kind == policy.Stop {
			err = errStop
		}
		return Entry{What: tomb.What, Changed: changed}, err
	}
	var s policy.Switch
	if err := json.Unmarshal(data, &s); err != nil {
		return Entry{}, err
	}
	s.Changed = changed
	if err := checkShared(&s); err != nil {
		return Entry{}, err
	}
	return entryOf(s), nil
}

var errStop = errors.New("found the red switch, which each relay has by itself")

// checkShared brings a switch of another relay into its one form, or says what is
// wrong with it.
func checkShared(s *policy.Switch) error {
	if s.Kind == policy.Stop {
		return errStop
	}
	if !isID(s.ID) {
		return fmt.Errorf("found id %.40q, want letters and digits", s.ID)
	}
	return s.Check()
}

func isID(id string) bool {
	for _, c := range []byte(id) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return id != "" && len(id) <= 32
}
