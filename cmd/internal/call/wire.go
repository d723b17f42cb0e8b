package call

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of what is said. Question and answer are one line of JSON each.
const (
	MaxQuestion = 64 << 10 // octets of a question, its line end included
	MaxHeader   = 32 << 10 // octets of a header in it
	MaxRcpts    = 200      // recipients in it
	maxAddress  = 320      // octets of an address: RFC 5321 §4.5.3.1, 64@255
	maxAllRcpts = 8 << 10  // octets of all recipients
	maxDir      = 512      // octets of a directory that is remembered
	maxAnswer   = 4 << 10  // octets of an answer
	maxText     = 500      // octets of its text
)

// version of the conversation.
const version = 1

// Question is what the wrapper tells of one call of sendmail(1). All of it is a
// claim of whoever runs the wrapper.
type Question struct {
	Dir        string   // where it runs; under PHP the directory of the main script
	MailFrom   string   // of -f; NullSender for that; empty: not given
	RcptTo     []string // of the command line
	RcptMore   bool     // there are more
	FromHeader bool     // -t: the header names recipients, too
	Header     []byte   // as it came, with its line ends
	HeaderMore bool     // there is more
}

// NullSender is the null reverse-path as an option gives it.
const NullSender = "<>"

// wireQuestion is a Question on the wire.
type wireQuestion struct {
	Version    int      `json:"version"`
	Dir        string   `json:"dir,omitempty"`
	MailFrom   string   `json:"mail_from,omitempty"`
	RcptTo     []string `json:"rcpt_to,omitempty"`
	RcptMore   bool     `json:"rcpt_more,omitempty"`
	FromHeader bool     `json:"from_header,omitempty"`
	Header     []byte   `json:"header,omitempty"`
	HeaderMore bool     `json:"header_more,omitempty"`
}

// errQuestion begins the error about what is no question.
var errQuestion = errors.New("bad question")

// encodeQuestion makes the line, leaving out what is over the bounds.
func encodeQuestion(q Question) ([]byte, error) {
	w := wireQuestion{version, q.Dir, q.MailFrom, q.RcptTo, q.RcptMore, q.FromHeader, q.Header, q.HeaderMore}
	if len(w.Header) > MaxHeader {
		w.Header, w.HeaderMore = w.Header[:MaxHeader], true
	}
	w.Dir = cleanDir(w.Dir)
	w.MailFrom = cleanAddress(w.MailFrom)
	size := 0
	w.RcptTo = nil
	for _, r := range q.RcptTo {
		r = cleanAddress(r)
		size += len(r)
		if r == "" || len(w.RcptTo) == MaxRcpts || size > maxAllRcpts {
			w.RcptMore = true
			break
		}
		w.RcptTo = append(w.RcptTo, r)
	}
	return encode(w)
}

// encode makes a line of JSON. Without the escapes for HTML the bounds of a
// question's parts keep it within its own.
func encode(v any) ([]byte, error) {
	var line bytes.Buffer
	e := json.NewEncoder(&line)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("write a line for the other end: %w", err)
	}
	return line.Bytes(), nil
}

// decodeQuestion reads a line strictly: known fields alone, within the bounds.
func decodeQuestion(line []byte) (Question, error) {
	var w wireQuestion
	if err := decode(line, &w); err != nil {
		return Question{}, fmt.Errorf("%w: %w", errQuestion, err)
	}
	size := 0
	for _, r := range w.RcptTo {
		size += len(r)
		if r == "" || r != cleanAddress(r) {
			return Question{}, fmt.Errorf("%w: a recipient of no form", errQuestion)
		}
	}
	switch {
	case w.Version != version:
		return Question{}, fmt.Errorf("%w: version %d, this is %d", errQuestion, w.Version, version)
	case len(w.Header) > MaxHeader:
		return Question{}, fmt.Errorf("%w: a header of %d octets, at most %d", errQuestion, len(w.Header), MaxHeader)
	case len(w.RcptTo) > MaxRcpts || size > maxAllRcpts:
		return Question{}, fmt.Errorf("%w: %d recipients in %d octets, at most %d in %d", errQuestion, len(w.RcptTo), size, MaxRcpts, maxAllRcpts)
	case w.MailFrom != cleanAddress(w.MailFrom):
		return Question{}, fmt.Errorf("%w: an envelope sender of no form", errQuestion)
	}
	return Question{cleanDir(w.Dir), w.MailFrom, w.RcptTo, w.RcptMore, w.FromHeader, w.Header, w.HeaderMore}, nil
}

// decode reads one JSON object of known fields, and nothing behind it.
func decode(line []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return errors.New(clean(err.Error(), 200))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}

// cleanDir is an absolute path in its shortest form, or empty: what is relative,
// longer than anything of ours remembers, or no text.
func cleanDir(dir string) string {
	if !path.IsAbs(dir) || len(dir) > 4096 || !plain(dir) {
		return ""
	}
	if dir = path.Clean(dir); len(dir) > maxDir {
		return ""
	}
	return dir
}

// cleanAddress is empty for what cannot be an address.
func cleanAddress(s string) string {
	if len(s) > maxAddress || !plain(s) {
		return ""
	}
	return s
}

// plain reports whether s is text of one line.
func plain(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unprintable)
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// clean makes one printable line of at most so many octets of a text.
func clean(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if unprintable(r) || r == utf8.RuneError {
			return ' '
		}
		return r
	}, s)
	for len(s) > most {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}

// Verdict is what the wrapper is to do.
type Verdict string

const (
	Accept Verdict = "accept" // hand the mail to the MTA
	Defer  Verdict = "defer"  // refuse it for now
	Reject Verdict = "reject" // refuse it
)

// Exit statuses of sendmail(1), of sysexits.h.
const (
	exitFine        = 0
	exitUnavailable = 69 // EX_UNAVAILABLE
	exitTempFail    = 75 // EX_TEMPFAIL
)

// Exit is the status with which sendmail(1) refuses; 0 for Accept. With either
// of the others PHP's mail() is false.
func (v Verdict) Exit() int {
	switch v {
	case Defer:
		return exitTempFail
	case Reject:
		return exitUnavailable
	}
	return exitFine
}

// Answer is what the daemon says to a Question. The zero value is no answer.
type Answer struct {
	Verdict Verdict `json:"verdict"`
	Token   string  `json:"token,omitempty"` // with Accept: for the message's header
	Text    string  `json:"text,omitempty"`  // with the others: why, for whoever sends; one line
}

// encodeAnswer makes the line.
func encodeAnswer(a Answer) ([]byte, error) {
	a.Text = clean(a.Text, maxText)
	return encode(a)
}

// decodeAnswer reads the line.
func decodeAnswer(line []byte) (Answer, error) {
	var a Answer
	if err := decode(line, &a); err != nil {
		return Answer{}, fmt.Errorf("read the answer: %w", err)
	}
	_, ok := parseToken(a.Token)
	switch a.Verdict {
	case Accept:
		if !ok {
			return Answer{}, errors.New("read the answer: accept without a token")
		}
	case Defer, Reject:
		a.Token = ""
	default:
		return Answer{}, fmt.Errorf("read the answer: no verdict %q", clean(string(a.Verdict), 40))
	}
	a.Text = clean(a.Text, maxText)
	return a, nil
}
