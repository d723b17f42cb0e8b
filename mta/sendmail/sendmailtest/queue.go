package sendmailtest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"relayguard/mta"
)

// Queued is one message of a queue, as its control file tells it. The files
// are read here, not mailq's output, so that a test can hold one against the
// other.
type Queued struct {
	QueueID    string
	Path       string   // of the control file, qf or hf
	Held       bool     // hf: quarantined
	Reason     string   // why it is quarantined
	MailFrom   string   // without angle brackets
	RcptTo     []string // those that are still to be served
	Delay      string   // the last M line: why a recipient, or all, are still here
	Attempts   string
	HeaderText string // the H lines, as they are
}

// To tells whether an address is among the recipients.
func (q Queued) To(address string) bool {
	return slices.ContainsFunc(q.RcptTo, func(to string) bool { return strings.EqualFold(to, address) })
}

// Queue lists the MTA's queue: all directories of all groups, quarantined mail
// too.
func (s *Sendmail) Queue(ctx context.Context) ([]Queued, error) { return readQueues(s.QueueDirs()) }

// ClientQueue lists the queue of the submission program.
func (s *Sendmail) ClientQueue(ctx context.Context) ([]Queued, error) {
	return readQueues([]string{s.ClientQueueDir})
}

func readQueues(dirs []string) ([]Queued, error) {
	var queue []Queued
	for _, dir := range dirs {
		paths, err := filepath.Glob(filepath.Join(dir, "[qh]f?*"))
		if err != nil {
			return nil, fmt.Errorf("list queue %s: %w", dir, err)
		}
		split, err := filepath.Glob(filepath.Join(dir, "qf", "[qh]f?*"))
		if err != nil {
			return nil, fmt.Errorf("list queue %s: %w", dir, err)
		}
		for _, path := range append(paths, split...) {
			text, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue // delivered or renamed meanwhile
			}
			if err != nil {
				return nil, fmt.Errorf("read queue file: %w", err)
			}
			queue = append(queue, readControlFile(path, text))
		}
	}
	return queue, nil
}

func readControlFile(path string, text []byte) Queued {
	name := filepath.Base(path)
	q := Queued{QueueID: name[2:], Path: path, Held: name[0] == 'h'}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if line == "" {
			continue
		}
		switch rest := line[1:]; line[0] {
		case 'q':
			q.Reason = rest
		case 'S':
			q.MailFrom = strings.Trim(rest, "<>")
		case 'R':
			_, address, ok := strings.Cut(rest, ":")
			if !ok {
				address = rest
			}
			q.RcptTo = append(q.RcptTo, strings.Trim(address, "<>"))
		case 'M':
			q.Delay = rest
		case 'N':
			q.Attempts = rest
		case 'H', '\t', ' ':
			q.HeaderText += line + "\n"
		}
	}
	return q
}

// WaitQueue waits until an entry of the MTA's queue matches.
func (s *Sendmail) WaitQueue(ctx context.Context, match func(Queued) bool) (Queued, error) {
	var found Queued
	err := s.poll(ctx, func(queue []Queued) bool {
		i := slices.IndexFunc(queue, match)
		if i >= 0 {
			found = queue[i]
		}
		return i >= 0
	})
	if err != nil {
		return found, fmt.Errorf("wait for a queue entry: %w", err)
	}
	return found, nil
}

// Held lists the quarantined messages.
func (s *Sendmail) Held(ctx context.Context) ([]Queued, error) {
	queue, err := s.Queue(ctx)
	return slices.DeleteFunc(queue, func(q Queued) bool { return !q.Held }), err
}

// WaitHeld waits until a message to that address is quarantined.
func (s *Sendmail) WaitHeld(ctx context.Context, address string) (Queued, error) {
	held, err := s.WaitQueue(ctx, func(q Queued) bool { return q.Held && q.To(address) })
	if err != nil {
		return held, fmt.Errorf("held mail to %s: %w", address, err)
	}
	return held, nil
}

// WaitEmpty waits until the MTA's queue is empty, quarantined mail aside.
func (s *Sendmail) WaitEmpty(ctx context.Context) error {
	err := s.poll(ctx, func(queue []Queued) bool {
		return !slices.ContainsFunc(queue, func(q Queued) bool { return !q.Held })
	})
	if err != nil {
		return fmt.Errorf("wait for an empty queue: %w", err)
	}
	return nil
}

// poll reads the queue again and again until done says so.
func (s *Sendmail) poll(ctx context.Context, done func([]Queued) bool) error {
	for {
		queue, err := s.Queue(ctx)
		if err != nil || done(queue) {
			return err
		}
		if !mta.Sleep(ctx, 20*time.Millisecond) {
			return fmt.Errorf("%d messages are there: %w", len(queue), ctx.Err())
		}
	}
}

// RunQueue tries all mail of the MTA's queue once and returns when that is
// done: without -v, sendmail -q goes on in the background. Quarantined mail
// stays.
func (s *Sendmail) RunQueue(ctx context.Context) error {
	_, err := s.Command(ctx, "sendmail", "-Am", "-q", "-v")
	return err
}

// RunClientQueue tries all mail of the submission program's queue once, as
// smmsp, which it becomes by itself.
func (s *Sendmail) RunClientQueue(ctx context.Context) error {
	_, err := s.Command(ctx, "sendmail", "-Ac", "-q", "-v")
	return err
}
