package postfix

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"relayguard/mta"
)

// envelope is what the first records of a queue file say of a message.
type envelope struct {
	arrival time.Time // zero: not said
	micros  string    // of arrival, as it was written; empty before Postfix 2.3
	sender  string    // unquoted
	size    int64     // of the content, octets; -1: not said
	offset  int64     // of the content in the file; -1: not said
	// recipients are those in hand of the queue manager, unquoted: the first 1,000.
	recipients []string
}

// What is read of one queue file at most. Before the sender there are some 20
// records; each recipient has up to four.
const (
	maxRecord  = 64 << 10
	maxRecords = 8 * maxRecipients
	maxJumps   = 1000
	maxRead    = 4 << 20 // octets
)

var (
	errNoSender = errors.New("no sender in its first records")
	errRecord   = errors.New("not a queue file of Postfix's")
)

// records reads a queue file: a type, the length in groups of seven bits, the
// lowest first, and so many octets (Postfix, src/global/record.c).
type records struct {
	file io.ReadSeeker
	in   *bufio.Reader
	n    int // read
	jump int
	left int // octets to read at most
	buf  []byte
}

func newRecords(file io.ReadSeeker) *records {
	return &records{file: file, in: bufio.NewReaderSize(file, 4<<10), left: maxRead}
}

// next returns a record; the value is good until the next one. Pointers, by which
// cleanup(8) changes a file, are followed.
func (r *records) next() (kind byte, value []byte, err error) {
	for {
		if r.n++; r.n > maxRecords {
			return 0, nil, fmt.Errorf("%w: over %d records", errRecord, maxRecords)
		}
		kind, err := r.in.ReadByte()
		if err != nil {
			return 0, nil, short(err)
		}
		length, err := r.length()
		if err != nil {
			return 0, nil, err
		}
		if r.left -= length; r.left < 0 {
			return 0, nil, fmt.Errorf("%w: over %d octets before the content", errRecord, maxRead)
		}
		if cap(r.buf) < length {
			r.buf = make([]byte, length)
		}
		value := r.buf[:length]
		if _, err := io.ReadFull(r.in, value); err != nil {
			return 0, nil, short(err)
		}
		const pointer, padding = 'p', 'w'
		switch kind {
		case padding:
		case pointer:
			if err := r.follow(string(value)); err != nil {
				return 0, nil, err
			}
		default:
			return kind, value, nil
		}
	}
}

// short makes of a file that ends too soon an error of its own: no io.EOF.
func short(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends too soon", errRecord)
	}
	return err
}

func (r *records) length() (int, error) {
	length := 0
	for shift := 0; shift < 28; shift += 7 {
		b, err := r.in.ReadByte()
		if err != nil {
			return 0, short(err)
		}
		if length |= int(b&0x7f) << shift; b&0x80 == 0 {
			if length > maxRecord {
				break
			}
			return length, nil
		}
	}
	return 0, fmt.Errorf("%w: a record of over %d octets", errRecord, maxRecord)
}

// follow goes where a pointer leads; 0 is nowhere.
func (r *records) follow(value string) error {
	offset, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
	if err != nil || offset < 0 {
		return fmt.Errorf("%w: pointer to %.20q", errRecord, value)
	}
	if offset == 0 {
		return nil
	}
	if r.jump++; r.jump > maxJumps {
		return fmt.Errorf("%w: over %d pointers", errRecord, maxJumps)
	}
	if _, err := r.file.Seek(offset, io.SeekStart); err != nil {
		return err
	}
	r.in.Reset(r.file)
	return nil
}

// readEnvelope reads up to the sender, or with all up to the content. The first of
// several records of a kind counts, as for showq(8).
func readEnvelope(file io.ReadSeeker, all bool) (envelope, error) {
	e := envelope{size: -1, offset: -1}
	in := newRecords(file)
	for sender := false; ; {
		const size, arrival, from, recipient, message, end = 'C', 'T', 'S', 'R', 'M', 'E'
		kind, value, err := in.next()
		if err != nil {
			return e, err
		}
		switch kind {
		case size:
			if e.size < 0 {
				size, rest := strings.TrimLeft(string(value), " "), ""
				size, rest, _ = strings.Cut(size, " ")
				e.size, e.offset = leadingNumber(size), leadingNumber(rest)
			}
		case arrival:
			if e.arrival.IsZero() {
				e.setArrival(string(value))
			}
		case from:
			if !sender {
				e.sender, sender = cString(value), true
			}
			if !all {
				return e, nil
			}
		case recipient:
			if !sender {
				return e, errNoSender // as showq(8), which lists no such file
			}
			if e.recipients = append(e.recipients, cString(value)); len(e.recipients) == maxRecipients {
				return e, nil
			}
		case message, end:
			if !sender {
				return e, errNoSender
			}
			return e, nil
		}
	}
}

func (e *envelope) setArrival(value string) {
	if seconds := leadingNumber(value); seconds > 0 {
		e.arrival = time.Unix(seconds, 0).UTC()
		_, e.micros, _ = strings.Cut(value, " ")
	}
}

// leadingNumber is what atol(3) makes of it; -1 of what is no number.
func leadingNumber(s string) int64 {
	s = strings.TrimLeft(s, " ")
	end := 0
	for end < len(s) && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	n, err := strconv.ParseInt(s[:end], 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// cString ends at a NUL, as for Postfix.
func cString(value []byte) string {
	s, _, _ := strings.Cut(string(value), "\x00")
	return s
}

// senders are the forms in which postqueue -j may print a sender: with
// smtputf8_enable, without, and as up to 3.7, which took any continuation of a
// first octet for a character. Nearly always they are one.
func (i *Instance) senders(raw string) []string {
	if raw == "" || raw == i.Setting("empty_address_recipient") || raw == mta.NullSender {
		return []string{""}
	}
	quoted := quoteLocal(raw)
	plain := printed(quoted, func(string) int { return 0 })
	if plain == quoted {
		return []string{plain}
	}
	return []string{printed(quoted, oneRune), plain, string([]rune(printed(quoted, continued)))} // as encoding/json, octet by octet
}

// printed does as printable(3): character tells how long a character of several
// octets is that s begins with; 0 if it does with none.
func printed(s string, character func(s string) int) string {
	var out strings.Builder
	for s != "" {
		n := 1
		switch {
		case s[0] >= ' ' && s[0] < 0x7f:
			out.WriteByte(s[0])
		case s[0] >= 0x80 && character(s) > 0:
			n = character(s)
			out.WriteString(s[:n])
		default:
			out.WriteByte('?')
		}
		s = s[n:]
	}
	return out.String()
}

func oneRune(s string) int {
	if r, n := utf8.DecodeRuneInString(s); r != utf8.RuneError || n > 1 {
		return n
	}
	return 0
}

func continued(s string) int {
	n := 1
	for n < len(s) && s[n]&0xc0 == 0x80 {
		n++
	}
	if s[0] < 194 || s[0] > 254 || n == 1 {
		return 0
	}
	return n
}

// quoteLocal puts quotes round a local part that needs them (Postfix,
// src/global/quote_822_local.c; 8-bit characters need none).
func quoteLocal(address string) string {
	route := ""
	if colon := strings.IndexByte(address, ':'); address[0] == '@' && colon > 0 {
		route, address = address[:colon+1], address[colon+1:]
	}
	local, domain := address, ""
	if at := strings.LastIndexByte(address, '@'); at >= 0 {
		local, domain = address[:at], address[at:]
	}
	if isDotString(local) {
		return route + address
	}
	var out strings.Builder
	out.WriteString(route + `"`)
	for n := range len(local) {
		if c := local[n]; c == '"' || c == '\\' || c == '\r' {
			out.WriteByte('\\')
		}
		out.WriteByte(local[n])
	}
	return out.String() + `"` + domain
}

func isDotString(local string) bool {
	if local == "" || local[0] == '.' || local[len(local)-1] == '.' || strings.Contains(local, "..") {
		return false
	}
	for n := range len(local) {
		if c := local[n]; c <= ' ' || c == 0x7f || strings.IndexByte(`()<>@,;:\"[]`, c) >= 0 {
			return false
		}
	}
	return true
}
