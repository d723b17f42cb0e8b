package limit

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// stateJSON is a State as JSON; times are microseconds since the epoch, lengths
// seconds, items in hexadecimal:
//
//	{"limit":"login-volume","value":"login:taro@example.jp","latched":1772442000000000,
//	 "windows":[{"s":600,"c":[1772441990000000,12]}],"attempts":[1772442000000000,5]}
type stateJSON struct {
	Limit    string        `json:"limit"`
	Value    string        `json:"value,omitempty"`
	Raw      []byte        `json:"raw,omitempty"` // the value, if it is not UTF-8: JSON would make one key of many
	Latched  int64         `json:"latched,omitempty"`
	Windows  []windowJSON  `json:"windows,omitempty"`
	Attempts []int64       `json:"attempts,omitempty"`
	Distinct *distinctJSON `json:"distinct,omitempty"`
}

type windowJSON struct {
	Seconds int64   `json:"s"`
	Cells   []int64 `json:"c,omitempty"` // last, count, last, count, ...
}

type distinctJSON struct {
	Level  int       `json:"level,omitempty"`
	Thrown int64     `json:"thrown,omitempty"`
	Items  []itemHex `json:"items,omitempty"`
	Last   []int64   `json:"last,omitempty"` // of each item
}

type knownJSON struct {
	Account string    `json:"account,omitempty"`
	Raw     []byte    `json:"raw,omitempty"` // the account, if it is not UTF-8
	Items   []itemHex `json:"items,omitempty"`
	Since   []int64   `json:"since,omitempty"` // of each item
	Last    []int64   `json:"last,omitempty"`
}

// itemHex is an Item as 16 digits: numbers of 64 bits do not survive in JSON.
type itemHex Item

func (i itemHex) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%016x", uint64(i)), nil }

func (i *itemHex) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 16, 64)
	if err != nil || len(text) != 16 {
		return fmt.Errorf("got item %q, want 16 hexadecimal digits", text)
	}
	*i = itemHex(n)
	return nil
}

// asText splits what may not be UTF-8.
func asText(s string) (text string, raw []byte) {
	if !utf8.ValidString(s) {
		return "", []byte(s)
	}
	return s, nil
}

func fromText(text string, raw []byte) (string, error) {
	if text != "" && len(raw) > 0 {
		return "", fmt.Errorf("%q: got two values", text)
	}
	return text + string(raw), nil
}

// MarshalJSON writes the short form.
func (s State) MarshalJSON() ([]byte, error) {
	j := stateJSON{Limit: s.Key.Limit, Attempts: flat(s.Attempts)}
	j.Value, j.Raw = asText(s.Key.Value)
	if !s.Latched.IsZero() {
		j.Latched = s.Latched.UnixMicro()
	}
	for _, w := range s.Windows {
		j.Windows = append(j.Windows, windowJSON{Seconds: int64(w.Length / time.Second), Cells: flat(w.Cells)})
	}
	if d := s.Distinct; d != nil {
		j.Distinct = &distinctJSON{Level: d.Level, Thrown: d.Thrown}
		for _, i := range d.Items {
			j.Distinct.Items, j.Distinct.Last = append(j.Distinct.Items, itemHex(i.Item)), append(j.Distinct.Last, i.Last)
		}
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads the short form and checks it. Unknown fields are ignored:
// a newer version may have written them.
func (s *State) UnmarshalJSON(data []byte) error {
	var j stateJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	r, err := j.state()
	if err != nil {
		return fmt.Errorf("state of bucket %q: %w", Key{j.Limit, j.Value}, err)
	}
	if err := r.Check(); err != nil {
		return err
	}
	*s = r
	return nil
}

func (j *stateJSON) state() (r State, err error) {
	r.Key.Limit = j.Limit
	if r.Key.Value, err = fromText(j.Value, j.Raw); err != nil {
		return r, err
	}
	switch {
	case j.Latched < 0 || j.Latched > MaxCount:
		return r, fmt.Errorf("shut since microsecond %d, want 0 to %d", j.Latched, int64(MaxCount))
	case j.Latched > 0:
		r.Latched = fromMicros(j.Latched)
	}
	for _, w := range j.Windows {
		if w.Seconds < 1 || w.Seconds > int64(MaxLength/time.Second) { // before it overflows
			return r, fmt.Errorf("window of %d s, want 1 s to 400 days", w.Seconds)
		}
		ws := WindowState{Length: time.Duration(w.Seconds) * time.Second}
		if ws.Cells, err = cells(w.Cells); err != nil {
			return r, err
		}
		r.Windows = append(r.Windows, ws)
	}
	if r.Attempts, err = cells(j.Attempts); err != nil {
		return r, err
	}
	if d := j.Distinct; d != nil {
		if len(d.Items) != len(d.Last) {
			return r, fmt.Errorf("got %d items and %d times", len(d.Items), len(d.Last))
		}
		r.Distinct = &DistinctState{Level: d.Level, Thrown: d.Thrown}
		for i, item := range d.Items {
			r.Distinct.Items = append(r.Distinct.Items, DistinctItem{Item(item), d.Last[i]})
		}
	}
	return r, nil
}

func flat(cells []Cell) []int64 {
	var f []int64
	for _, c := range cells {
		f = append(f, c.Last, c.Count)
	}
	return f
}

func cells(f []int64) ([]Cell, error) {
	if len(f)%2 != 0 {
		return nil, fmt.Errorf("got %d numbers for cells, want two a cell", len(f))
	}
	var cells []Cell
	for c := range slices.Chunk(f, 2) {
		cells = append(cells, Cell{Last: c[0], Count: c[1]})
	}
	return cells, nil
}

// MarshalJSON writes the short form: the account, and three lists of the same
// length, of items, of the microseconds of their first and their last use.
func (k KnownState) MarshalJSON() ([]byte, error) {
	var j knownJSON
	j.Account, j.Raw = asText(k.Account)
	for _, i := range k.Items {
		j.Items, j.Since, j.Last = append(j.Items, itemHex(i.Item)), append(j.Since, i.Since), append(j.Last, i.Last)
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads the short form and checks it.
func (k *KnownState) UnmarshalJSON(data []byte) error {
	var j knownJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	account, err := fromText(j.Account, j.Raw)
	if err == nil && (len(j.Items) != len(j.Since) || len(j.Items) != len(j.Last)) {
		err = fmt.Errorf("got %d items, %d and %d times", len(j.Items), len(j.Since), len(j.Last))
	}
	if err != nil {
		return fmt.Errorf("known of account %q: %w", j.Account, err)
	}
	r := KnownState{Account: account}
	for i, item := range j.Items {
		r.Items = append(r.Items, KnownItem{Item(item), j.Since[i], j.Last[i]})
	}
	if err := r.Check(); err != nil {
		return err
	}
	*k = r
	return nil
}

// UnmarshalJSON reads an entry and checks it.
func (e *Entry) UnmarshalJSON(data []byte) error {
	type plain Entry // without this method
	var p plain
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	if err := Entry(p).Check(); err != nil {
		return err
	}
	*e = Entry(p)
	return nil
}
