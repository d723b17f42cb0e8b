package sendmail

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"relayguard/mta"
)

const (
	maxControl    = 8 << 20 // octets of a control file: some 200,000 recipients
	maxRecipients = 1000
	maxText       = 2048 // octets of an address or reason that are kept
	lastVersion   = 8    // of control files: Sendmail 8.13 to 8.18
)

// Control is what a control file (qf, hf) says.
type Control struct {
	Created     time.Time // T: what Timeout.queuereturn counts from
	LastTry     time.Time // K; zero: never
	Tries       int       // N
	Sender      string    // S; "" is the null sender
	Recipients  []string  // R: not yet delivered; the first 1,000
	More        int       // further ones
	Quarantined bool      // there is a q line
	Reason      string    // its text
	Status      string    // M: of the first recipient that has one, else of the message
	DataDir     string    // d: the queue directory where the body is, if it is another one
	Flags       string    // F
	HeaderSize  int64     // octets of the header as it would be sent, about
	Complete    bool      // ends as it must; one that does not is being written, or its writer died

	version              int
	hasSender            bool   // an S line was there
	ofRecipient          bool   // Status is
	precedence, priority string // of the header fields of that name
	report               bool   // a delivery status notification by its Content-Type
}

// ParseControl reads a control file (the Operation Guide, "Format of Queue Files";
// readqf in queue.c). It has an error for what is none, and for versions that are
// not known; of an incomplete file it tells what there is.
func ParseControl(data []byte) (*Control, error) {
	c := &Control{}
	for line := range controlLines(data) {
		if c.Complete {
			return nil, errors.New("there is more after its end")
		}
		if err := c.line(line[0], line[1:]); err != nil {
			return nil, err
		}
	}
	switch {
	case c.Created.IsZero() && c.Complete:
		return nil, errors.New("no creation time")
	case !c.hasSender && c.Complete:
		return nil, errors.New("no sender")
	}
	return c, nil
}

func (c *Control) line(kind byte, value []byte) (err error) {
	switch kind {
	case 'V':
		n, err := number(value)
		if err != nil || n > lastVersion {
			return fmt.Errorf("got version %q, want 1 to %d", clip(string(value)), lastVersion)
		}
		c.version = int(n)
	case 'T':
		if c.Created, err = timeOf(value); err != nil {
			return fmt.Errorf("creation time: %w", err)
		}
	case 'K':
		if c.LastTry, err = timeOf(value); err != nil {
			return fmt.Errorf("time of the last try: %w", err)
		}
	case 'N':
		n, _ := number(value)
		c.Tries = int(min(n, 1<<30))
	case 'S':
		c.Sender, c.hasSender = address(value), true
	case 'q':
		c.Quarantined, c.Reason = true, printable(value)
	case 'M':
		c.status(value)
	case 'd':
		c.DataDir = string(value[:min(len(value), maxText)])
	case 'F':
		c.Flags = clip(string(value))
	case 'R':
		c.recipient(value)
	case 'H':
		c.header(value)
	case '.':
		c.Complete = true
	}
	return nil
}

// status takes the message's own, which comes before the sender, and for it the
// first recipient's that has one.
func (c *Control) status(value []byte) {
	if !c.hasSender {
		c.Status = printable(value)
	} else if !c.ofRecipient {
		c.Status, c.ofRecipient = printable(value), true
	}
}

// recipient reads "PFD:address"; before version 1 there were no flags.
func (c *Control) recipient(value []byte) {
	if c.version > 0 {
		_, value, _ = bytes.Cut(value, []byte(":"))
	}
	if len(c.Recipients) < maxRecipients {
		c.Recipients = append(c.Recipients, address(value))
	} else {
		c.More++
	}
}

// header notes what decides on the lifetime.
func (c *Control) header(value []byte) {
	field := headerField(value)
	c.HeaderSize += int64(len(field)) + 1
	name, text, found := bytes.Cut(field, []byte(":"))
	if !found {
		return
	}
	switch strings.ToLower(clip(string(bytes.TrimSpace(name)))) {
	case "precedence":
		c.precedence = strings.ToLower(printable(bytes.TrimSpace(text)))
	case "priority":
		c.priority = strings.ToLower(printable(bytes.TrimSpace(text)))
	case "content-type":
		text := strings.ToLower(strings.Join(strings.Fields(printable(text)), ""))
		c.report = strings.HasPrefix(text, "multipart/report") && (strings.Contains(text, "report-type=delivery-status") || strings.Contains(text, `report-type="delivery-status"`))
	}
}

// headerField takes the conditions off an H line: "?P?Return-Path: ...".
func headerField(value []byte) []byte {
	if len(value) > 0 && value[0] == '?' {
		if end := bytes.IndexByte(value[1:], '?'); end >= 0 {
			return value[end+2:]
		}
	}
	return value
}

// controlLines gives the logical lines without their ends: those with the ones that
// go on with white space, none of them empty. The line is part of data.
func controlLines(data []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for raw := range rawLines(data) {
			line := bytes.TrimSuffix(bytes.TrimSuffix(raw, []byte("\n")), []byte("\r"))
			if len(line) > 0 && !yield(line) {
				return
			}
		}
	}
}

// rawLines gives the logical lines with all that is between them: together they
// are data.
func rawLines(data []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(data) > 0 {
			end := 0
			for {
				at := bytes.IndexByte(data[end:], '\n')
				if at < 0 {
					end = len(data)
					break
				}
				end += at + 1
				if end == len(data) || data[end] != ' ' && data[end] != '\t' {
					break
				}
			}
			line := data[:end]
			data = data[end:]
			if !yield(line) {
				return
			}
		}
	}
}

func number(value []byte) (int64, error) {
	n, err := strconv.ParseInt(string(value[:min(len(value), 24)]), 10, 64)
	if err == nil && n < 0 {
		err = strconv.ErrRange
	}
	return n, err
}

// timeOf reads Unix seconds; 0 is the zero time.
func timeOf(value []byte) (time.Time, error) {
	const lastSecond = 253402300799 // of the year 9999, the last that JSON can say
	n, err := number(value)
	switch {
	case err != nil || n > lastSecond:
		return time.Time{}, fmt.Errorf("got %q, want seconds", clip(string(value)))
	case n == 0:
		return time.Time{}, nil
	}
	return time.Unix(n, 0).UTC(), nil
}

// address takes off the angle brackets that some ways into the queue leave on.
func address(value []byte) string {
	s := printable(bytes.TrimSpace(value))
	if inner, ok := strings.CutPrefix(s, "<"); ok {
		if inner, ok = strings.CutSuffix(inner, ">"); ok {
			return inner
		}
	}
	return s
}

// printable is the text with a '?' for what cannot be printed, as mta.Target
// expects it, and not too long.
func printable(value []byte) string {
	value = value[:min(len(value), maxText)]
	var out strings.Builder
	out.Grow(len(value))
	for _, r := range string(value) { // what is not UTF-8 is U+FFFD each
		switch {
		case r == '\t' || r == '\n':
			out.WriteByte(' ')
		case r < ' ' || r >= 0x7f && r < 0xa0 || r == 0xFFFD:
			out.WriteByte('?')
		default:
			out.WriteRune(r)
		}
	}
	return out.String()
}

// clip shortens what goes into an error.
func clip(s string) string {
	const most = 60
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// queueFile is the message in mta's words, but for the queue and the size of its
// body.
func (c *Control) queueFile(id string) mta.QueueFile {
	f := mta.QueueFile{ID: id, Arrival: c.Created, Size: c.HeaderSize, Sender: c.Sender, Recipients: c.Recipients, More: c.More, Reason: c.Status}
	if c.Quarantined {
		f.HoldReason = c.Reason
	}
	return f
}
