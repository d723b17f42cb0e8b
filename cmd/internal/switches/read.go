package switches

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"relayguard/policy"
)

// readPlain reads a file of at most maxFile octets. Root reads it, too, in a
// directory of the daemon's: a link is not followed, a FIFO not waited for.
func readPlain(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no file but %v", path, info.Mode().Type())
	}
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s has more than %d octets", path, maxFile)
	}
	return data, err
}

// decode reads as many switches as it can. A file that was cut off has those
// before the cut.
func decode(data []byte) (c content, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	if got, err := d.Token(); err != nil || got != json.Delim('{') {
		return c, errors.Join(fmt.Errorf("found %v, want {", got), err)
	}
	if err := wantKey(d, "switches"); err != nil {
		return c, err
	}
	c.Switches, err = list(d, maxSwitches, (*policy.Switch).Check)
	if errors.Is(err, errCut) {
		return c, err
	}
	if d.More() { // of relays that share switches
		goneErr := wantKey(d, "gone")
		if goneErr == nil {
			c.Gone, goneErr = list(d, maxGone, (*Gone).check)
		}
		if err = errors.Join(err, goneErr); goneErr != nil {
			return c, err
		}
	}
	return c, errors.Join(err, ended(d))
}

func wantKey(d *json.Decoder, key string) error {
	got, err := d.Token()
	if err != nil || got != key {
		return errors.Join(fmt.Errorf("found %v, want %q", got, key), err)
	}
	return nil
}

// errCut says that nothing can be read after this.
var errCut = errors.New("the rest cannot be read")

// list reads what can be understood of a list. Null has none.
func list[T any](d *json.Decoder, most int, check func(*T) error) (all []T, err error) {
	switch got, err := d.Token(); {
	case err != nil:
		return nil, errors.Join(errCut, err)
	case got == nil:
		return nil, nil
	case got != json.Delim('['):
		return nil, fmt.Errorf("%w: found %v, want [", errCut, got)
	}
	var errs []error
	for n := 1; d.More(); n++ {
		var text json.RawMessage
		if err := d.Decode(&text); err != nil {
			return all, errors.Join(append(errs, errCut, err)...)
		}
		var one T
		err := json.Unmarshal(text, &one)
		if err == nil {
			err = check(&one)
		}
		switch {
		case err == nil && len(all) < most:
			all = append(all, one)
		case err == nil:
			return all, errors.Join(append(errs, errCut, fmt.Errorf("there are more than %d", most))...)
		case len(errs) < maxFaults:
			errs = append(errs, fmt.Errorf("entry %d: %w", n, err))
		}
	}
	if _, err := d.Token(); err != nil { // the ]
		return all, errors.Join(append(errs, errCut, err)...)
	}
	return all, errors.Join(errs...)
}

// maxFaults is how many broken switches are told.
const maxFaults = 10

// ended checks that nothing follows the list.
func ended(d *json.Decoder) error {
	if got, err := d.Token(); err != nil || got != json.Delim('}') {
		return errors.Join(fmt.Errorf("found %v after the list, want }", got), err)
	}
	if got, err := d.Token(); err != io.EOF {
		return errors.Join(fmt.Errorf("found %v after the end", got), err)
	}
	return nil
}
