package queue

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"relayguard/mta"
	"relayguard/mta/backup"
	"relayguard/mta/grace"
)

// Bounds of the protocol. A request is one line, an answer some lines.
const (
	MaxRequest  = 4 << 20 // octets of a request
	MaxTargets  = 50_000  // of a request; a client makes several of more
	maxNames    = 10_000  // likewise
	maxResponse = 1 << 20 // octets of one line of an answer
	maxSender   = 1024    // octets; RFC 5321 §4.5.3.1.3 has 256
	maxError    = 16 << 10
	dataChunk   = 64 << 10 // octets of a message's text in a line
	maxText     = mta.MaxContent + mta.MaxHeaders
)

// verb is what may be asked.
type verb string

const (
	verbList         verb = "list"
	verbHold         verb = "hold"
	verbRelease      verb = "release"
	verbRequeue      verb = "requeue"
	verbDeleteQueued verb = "delete-queued"
	verbDelete       verb = "delete"
	verbDestroy      verb = "delete-for-good"
	verbKept         verb = "kept"
	verbRestore      verb = "restore"
	verbForget       verb = "forget"
	verbHeaders      verb = "headers"
	verbContent      verb = "content"
	verbStop         verb = "stop"
	verbStart        verb = "start"
	verbForbid       verb = "suspend-local"
	verbAllow        verb = "resume-local"
	verbStatus       verb = "status"
)

// rules say of each verb what it takes and how it is run.
type rules struct {
	targets int           // at most; at least one, where there are any
	user    bool          // takes an account's name
	keep    bool          // takes keep
	reason  bool          // takes a reason, which may be empty
	names   int           // of deleted messages, at most; at least one, where there are any
	limit   time.Duration // of the operation
	logged  bool          // it changes something, or shows what is private
	queues  bool          // one such at a time
	always  bool          // goes on when the client has left, and never waits for room
}

var verbs = map[verb]rules{
	verbList:         {limit: 5 * time.Minute},
	verbHold:         {targets: MaxTargets, reason: true, limit: 10 * time.Minute, logged: true, queues: true},
	verbRelease:      {targets: MaxTargets, limit: 10 * time.Minute, logged: true, queues: true},
	verbDelete:       {targets: MaxTargets, limit: 10 * time.Minute, logged: true, queues: true},
	verbRequeue:      {targets: MaxTargets, limit: 10 * time.Minute, logged: true, queues: true},
	verbDeleteQueued: {targets: MaxTargets, limit: 10 * time.Minute, logged: true, queues: true},
	verbDestroy:      {targets: MaxTargets, limit: 10 * time.Minute, logged: true, queues: true},
	verbKept:         {limit: 5 * time.Minute},
	verbRestore:      {names: maxNames, limit: 10 * time.Minute, logged: true, queues: true},
	verbForget:       {names: maxNames, limit: 10 * time.Minute},
	verbHeaders:      {targets: 1, limit: 2 * time.Minute, logged: true},
	verbContent:      {targets: 1, limit: 2 * time.Minute, logged: true},
	verbStop:         {limit: 10 * time.Minute, logged: true, always: true},
	verbStart:        {keep: true, limit: 10 * time.Minute, logged: true, always: true},
	verbForbid:       {user: true, limit: time.Minute, logged: true, always: true},
	verbAllow:        {user: true, limit: time.Minute, logged: true, always: true},
	verbStatus:       {limit: time.Minute},
}

type request struct {
	Verb    verb     `json:"verb"`
	Targets []target `json:"targets,omitempty"`
	User    string   `json:"user,omitempty"`
	Keep    bool     `json:"keep,omitempty"`
	Names   []string `json:"names,omitempty"`
	Reason  string   `json:"reason,omitempty"`
}

// target is a mta.Target on the wire.
type target struct {
	Instance string `json:"instance,omitempty"`
	ID       string `json:"id"`
	Sender   string `json:"sender"`
	Arrival  int64  `json:"arrival"` // microseconds since 1970
	Exact    bool   `json:"exact,omitempty"`
}

func toWire(t mta.Target) target {
	return target{t.Instance, t.ID, t.Sender, t.Arrival.UnixMicro(), t.Exact}
}

func (t target) fromWire() mta.Target {
	return mta.Target{Instance: t.Instance, ID: t.ID, Sender: t.Sender, Arrival: time.UnixMicro(t.Arrival).UTC(), Exact: t.Exact}
}

// errRequest begins the answer to what is no request.
var errRequest = errors.New("bad request")

// decodeRequest reads a request strictly: known fields alone, each only with
// its verb, every value of its form.
func decodeRequest(line []byte) (request, error) {
	var r request
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return request{}, fmt.Errorf("%w: %s", errRequest, clip(err.Error()))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return request{}, fmt.Errorf("%w: more than one value", errRequest)
	}
	rule, known := verbs[r.Verb]
	switch {
	case !known:
		return request{}, fmt.Errorf("%w: no verb %q", errRequest, clip(string(r.Verb)))
	case len(r.Targets) > rule.targets:
		return request{}, fmt.Errorf("%w: %s with %d messages, at most %d", errRequest, r.Verb, len(r.Targets), rule.targets)
	case len(r.Targets) == 0 && rule.targets > 0:
		return request{}, fmt.Errorf("%w: %s without a message", errRequest, r.Verb)
	case (r.User != "") != rule.user:
		return request{}, fmt.Errorf("%w: %s with account %q", errRequest, r.Verb, clip(r.User))
	case rule.user && !mta.ValidUser(r.User):
		return request{}, fmt.Errorf("%w: %q is %w", errRequest, clip(r.User), mta.ErrNoSuchUser)
	case r.Keep && !rule.keep:
		return request{}, fmt.Errorf("%w: %s with keep", errRequest, r.Verb)
	case r.Reason != "" && !rule.reason:
		return request{}, fmt.Errorf("%w: %s with a reason", errRequest, r.Verb)
	case r.Reason != clipReason(r.Reason):
		return request{}, fmt.Errorf("%w: reason %q", errRequest, clip(r.Reason))
	case len(r.Names) > rule.names:
		return request{}, fmt.Errorf("%w: %s with %d deleted messages, at most %d", errRequest, r.Verb, len(r.Names), rule.names)
	case len(r.Names) == 0 && rule.names > 0:
		return request{}, fmt.Errorf("%w: %s without a deleted message", errRequest, r.Verb)
	}
	for _, name := range r.Names {
		if !grace.ValidName(name) {
			return request{}, fmt.Errorf("%w: no deleted message has the name %q", errRequest, clip(name))
		}
	}
	for _, t := range r.Targets {
		if err := t.check(); err != nil {
			return request{}, fmt.Errorf("%w: %w", errRequest, err)
		}
	}
	return r, nil
}

func (t target) check() error {
	const lastSecond = 253402300799 // of the year 9999
	switch {
	case !mta.ValidQueueID(t.ID):
		return fmt.Errorf("queue id %q", clip(t.ID))
	case !validInstance(t.Instance):
		return fmt.Errorf("%s: instance %q", t.ID, clip(t.Instance))
	case len(t.Sender) > maxSender:
		return fmt.Errorf("%s: a sender of %d octets", t.ID, len(t.Sender))
	case t.Arrival < 0 || t.Arrival > lastSecond*1_000_000:
		return fmt.Errorf("%s: arrival %d", t.ID, t.Arrival)
	}
	return nil
}

// maxReason is what a hold may say of itself, in octets.
const maxReason = 200

// clipReason makes one line of printable ASCII of a reason.
func clipReason(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), maxReason)]
}

// validInstance tells what postmulti(1) may call an instance; the first is "-".
func validInstance(name string) bool {
	return len(name) <= 100 && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	})
}

func clip(s string) string {
	const most = 200
	if len(s) > most {
		s = s[:most] + "..."
	}
	return strings.ToValidUTF8(s, "?")
}

// response is one line of an answer: one field is set. End comes last, always.
type response struct {
	File    *mta.QueueFile `json:"file,omitempty"`
	Result  *result        `json:"result,omitempty"`
	Target  *target        `json:"target,omitempty"` // that stays on hold after a start
	Data    []byte         `json:"data,omitempty"`
	Stopped *mta.Stopped   `json:"stopped,omitempty"` // without messages, which have come before
	Started *mta.Started   `json:"started,omitempty"` // likewise
	Kept    *grace.Kept    `json:"kept,omitempty"`
	Status  *Status        `json:"status,omitempty"`
	End     *end           `json:"end,omitempty"`
}

type result struct {
	ID    string `json:"id"`
	Fate  string `json:"fate"`
	NewID string `json:"new_id,omitempty"`
	Error string `json:"error,omitempty"`
}

// end says how the operation ended.
type end struct {
	Code    string `json:"code,omitempty"` // empty: well
	Error   string `json:"error,omitempty"`
	Skipped int    `json:"skipped,omitempty"` // lines of the listing
}

// fates by their names.
var fates = map[string]mta.Fate{
	mta.Failed.String(): mta.Failed, mta.Done.String(): mta.Done,
	mta.Gone.String(): mta.Gone, mta.Changed.String(): mta.Changed,
}

func resultToWire(r mta.Result) *result {
	w := &result{ID: clip(r.ID), Fate: r.Fate.String(), NewID: r.NewID}
	if r.Err != nil {
		w.Error = cut(r.Err.Error())
	}
	return w
}

func (r *result) fromWire() (mta.Result, error) {
	fate, known := fates[r.Fate]
	if !known {
		return mta.Result{}, fmt.Errorf("%w (outcome %q of %s)", ErrUnsure, clip(r.Fate), clip(r.ID))
	}
	p := mta.Result{ID: r.ID, Fate: fate, NewID: r.NewID}
	if fate == mta.Failed {
		p.Err = errors.New(r.Error)
	}
	return p, nil
}

// decodeResponse reads one line of an answer. Fields that it does not know are
// ignored: the helper may be newer.
func decodeResponse(line []byte) (response, error) {
	var r response
	if err := json.Unmarshal(line, &r); err != nil {
		return response{}, fmt.Errorf("%w (%w)", ErrUnsure, err)
	}
	return r, nil
}

// ErrBusy says that the root helper has too much to do; nothing was done.
var ErrBusy = errors.New("the root helper is busy")

// codes are the errors that a caller may branch on, over the wire too.
var codes = map[string]error{
	"gone":         mta.ErrGone,
	"changed":      mta.ErrChanged,
	"cut":          mta.ErrCut,
	"not_started":  mta.ErrNotStarted,
	"not_stopped":  mta.ErrNotStopped,
	"no_such_user": mta.ErrNoSuchUser,
	"unsupported":  mta.ErrUnsupported,
	"full":         grace.ErrFull,
	"untrusted":    backup.ErrUntrusted,
	"busy":         ErrBusy,
	"unsure":       ErrUnsure,
	"timeout":      context.DeadlineExceeded,
}

const (
	codeSkipped = "skipped"
	codeOther   = "failed"
)

func endOf(err error) *end {
	if err == nil {
		return &end{}
	}
	e := &end{Code: codeOther, Error: cut(err.Error())}
	var skipped *mta.SkippedError
	if errors.As(err, &skipped) {
		e.Code, e.Skipped, e.Error = codeSkipped, skipped.Lines, cut(skipped.First.Error())
	}
	for code, known := range codes {
		if errors.Is(err, known) {
			e.Code = code
		}
	}
	return e
}

func cut(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), maxError)], "?")
}

func (e *end) err() error {
	switch e.Code {
	case "":
		return nil
	case codeSkipped:
		return &mta.SkippedError{Lines: e.Skipped, First: errors.New(e.Error)}
	}
	return &helperError{e.Error, codes[e.Code]}
}

// helperError is what the helper said, and which error it stands for; nil:
// none that anybody branches on.
type helperError struct {
	text string
	is   error
}

func (e *helperError) Error() string { return e.text }
func (e *helperError) Unwrap() error { return e.is }
