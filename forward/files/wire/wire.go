// Package wire is what a daemon without rights and the root helper that reads
// for it say to each other: requests and responses in frames, over a stream. Who
// may speak, what is served and what is kept is others' matter.
//
// A frame is its length (four octets, the highest first) and that many octets.
// In it numbers are varints (encoding/binary), texts their length and octets:
// file names need not be UTF-8.
//
// The trap: both sides may be lied to. Everything has a bound (MaxFrame above
// all), no length is believed before its octets are there, and what is left over
// in a frame is an error.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"relayguard/forward"
)

// Bounds.
const (
	MaxFrame = 2 << 20 // octets of a frame
	// Part is how many octets of content, paths or entries go into a frame, more
	// or less: a frame has room for one more of the longest.
	Part     = 256 << 10
	MaxPaths = 20_000 // of a request; more go into several. Of entries and changes in a response, too

	maxGroups = 65_536 // of an account: NGROUPS_MAX
)

// Verb is what may be asked.
type Verb uint8

const (
	Read     Verb = 1 + iota // one path: Data parts, then End with Info
	ReadDir                  // one path: Infos parts, then End
	LstatAll                 // paths: Infos parts, then End
	Readlink                 // one path: one Data, then End
	Lstat                    // one path: End with Info
	// Watch replaces what is watched. All but the last frame of a set have More.
	// Then Watching comes, and Changes from then on. A connection that watches
	// is for nothing else.
	Watch
	lastVerb = Watch
)

// Request is one frame of the daemon's.
type Request struct {
	ID         uint32
	Verb       Verb
	Paths      []string
	More       bool
	Max        int64
	MaxEntries int64
	NoFollow   bool
	As         *forward.Account // UID, GID and Groups only
}

// Kind is what a response brings.
type Kind uint8

const (
	Data     Kind = 1 + iota
	Infos         // in the order of the request, or of the directory
	Watching      // Method and Blind
	Changes
	End      // Code, Text and Info
	lastKind = End
)

// Response is one frame of the helper's.
type Response struct {
	ID      uint32
	Kind    Kind
	Data    []byte // valid until the next frame is read
	Infos   []forward.Info
	Method  string
	Blind   []string
	Changes []forward.Change
	Code    Code
	Text    string
	Info    forward.Info
}

// Code is the error that a caller may branch on.
type Code uint8

const (
	Fine Code = iota
	Failed
	notExist
	permission
	invalid
	tooLarge
	notRegular
	outside
	lastCode = outside
)

var codes = map[Code]error{
	notExist: fs.ErrNotExist, permission: fs.ErrPermission, invalid: fs.ErrInvalid,
	tooLarge: forward.ErrTooLarge, notRegular: forward.ErrNotRegular, outside: forward.ErrOutside,
}

// CodeOf is the code and the text of an error.
func CodeOf(err error) (Code, string) {
	if err == nil {
		return Fine, ""
	}
	text := err.Error()
	if len(text) > 2048 {
		text = text[:2048]
	}
	for code := notExist; code <= lastCode; code++ {
		if errors.Is(err, codes[code]) {
			return code, text
		}
	}
	return Failed, text
}

// Err is the error that an End stands for; nil: none.
func (r *Response) Err() error {
	if r.Code == Fine {
		return nil
	}
	return &helperError{r.Text, codes[r.Code]}
}

type helperError struct {
	text string
	is   error // nil: none that anybody branches on
}

func (e *helperError) Error() string { return e.text }
func (e *helperError) Unwrap() error { return e.is }

// ErrForm says that a frame is not of this protocol.
var ErrForm = errors.New("not of the watch helper's protocol")

// ReadFrame reads a frame into buf, which it lets grow, and returns its content.
func ReadFrame(from io.Reader, buf *[]byte) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint32(head[:]))
	if size > MaxFrame {
		return nil, fmt.Errorf("%w: a frame of %d octets, at most %d", ErrForm, size, MaxFrame)
	}
	if cap(*buf) < size {
		*buf = make([]byte, size)
	}
	b := (*buf)[:size]
	if _, err := io.ReadFull(from, b); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return b, nil
}

// frame puts the length before what body appends.
func frame(b []byte, body func([]byte) []byte) []byte {
	at := len(b)
	b = body(append(b, 0, 0, 0, 0))
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return b
}

// Append puts a request as a frame behind b.
func (r *Request) Append(b []byte) []byte {
	return frame(b, func(b []byte) []byte {
		b = binary.AppendUvarint(b, uint64(r.ID))
		b = append(b, byte(r.Verb), flags(r.More, r.NoFollow, r.As != nil))
		b = binary.AppendVarint(b, r.Max)
		b = binary.AppendVarint(b, r.MaxEntries)
		if r.As != nil {
			b = binary.AppendVarint(b, int64(r.As.UID))
			b = binary.AppendVarint(b, int64(r.As.GID))
			b = binary.AppendUvarint(b, uint64(len(r.As.Groups)))
			for _, gid := range r.As.Groups {
				b = binary.AppendVarint(b, int64(gid))
			}
		}
		return appendTexts(b, r.Paths)
	})
}

// ParseRequest reads a frame's content.
func ParseRequest(b []byte) (Request, error) {
	p := parser{b: b}
	r := Request{ID: uint32(p.uint(1<<32 - 1)), Verb: Verb(p.octet(byte(lastVerb)))}
	bits := p.octet(7)
	r.More, r.NoFollow = bits&1 != 0, bits&2 != 0
	r.Max, r.MaxEntries = p.int(), p.int()
	if bits&4 != 0 {
		r.As = &forward.Account{UID: int(p.int()), GID: int(p.int())}
		r.As.Groups = several(&p, maxGroups, func() int { return int(p.int()) })
	}
	r.Paths = p.texts()
	switch {
	case r.Verb == 0:
		p.fail("no verb")
	case len(r.Paths) != 1 && r.Verb != LstatAll && r.Verb != Watch:
		p.fail("not one path")
	case r.More && r.Verb != Watch:
		p.fail("more of what is whole")
	}
	return r, p.end()
}

// Append puts a response as a frame behind b.
func (r *Response) Append(b []byte) []byte {
	return frame(b, func(b []byte) []byte {
		b = binary.AppendUvarint(b, uint64(r.ID))
		b = append(b, byte(r.Kind))
		switch r.Kind {
		case Data:
			b = append(b, r.Data...)
		case Infos:
			b = binary.AppendUvarint(b, uint64(len(r.Infos)))
			for n := range r.Infos {
				b = appendInfo(b, &r.Infos[n])
			}
		case Watching:
			b = appendTexts(appendText(b, r.Method), r.Blind)
		case Changes:
			b = binary.AppendUvarint(b, uint64(len(r.Changes)))
			for n := range r.Changes {
				b = appendChange(b, &r.Changes[n])
			}
		case End:
			b = appendText(append(b, byte(r.Code)), r.Text)
			b = appendInfo(b, &r.Info)
		}
		return b
	})
}

// ParseResponse reads a frame's content.
func ParseResponse(b []byte) (Response, error) {
	p := parser{b: b}
	r := Response{ID: uint32(p.uint(1<<32 - 1)), Kind: Kind(p.octet(byte(lastKind)))}
	switch r.Kind {
	case Data:
		r.Data, p.b = p.b, nil
	case Infos:
		r.Infos = several(&p, MaxPaths, p.info)
	case Watching:
		r.Method, r.Blind = p.text(), p.texts()
	case Changes:
		r.Changes = several(&p, MaxPaths, p.change)
	case End:
		r.Code, r.Text = Code(p.octet(byte(lastCode))), p.text()
		r.Info = p.info()
	default:
		p.fail("no kind")
	}
	return r, p.end()
}

func flags(bits ...bool) (f byte) {
	for n, is := range bits {
		if is {
			f |= 1 << n
		}
	}
	return f
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendTexts(b []byte, all []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(all)))
	for _, s := range all {
		b = appendText(b, s)
	}
	return b
}

func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return binary.AppendUvarint(binary.AppendVarint(b, 0), 1<<32-1)
	}
	return binary.AppendUvarint(binary.AppendVarint(b, t.Unix()), uint64(t.Nanosecond()))
}

// appendInfo writes an Info; one without a name is of what is not there, and
// nothing but that.
func appendInfo(b []byte, i *forward.Info) []byte {
	b = appendText(b, i.Name)
	if i.Name == "" {
		return b
	}
	b = binary.AppendVarint(b, i.Size)
	for _, n := range []uint64{uint64(i.Mode), uint64(i.UID), uint64(i.GID), i.Inode, i.Dev, i.Links} {
		b = binary.AppendUvarint(b, n)
	}
	return appendTime(appendTime(b, i.MTime), i.CTime)
}

func appendChange(b []byte, c *forward.Change) []byte {
	b = append(appendText(b, c.Path), flags(c.Lost))
	for _, n := range []int{c.Writer.UID, c.Writer.LoginUID, c.Writer.PID} {
		b = binary.AppendVarint(b, int64(n))
	}
	return appendTime(appendText(b, c.Writer.Process), c.Time)
}
