package maillog

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"relayguard/mta"
)

const (
	// maxEntry bounds a line of journalctl: octet for octet as numbers, MaxLine
	// takes four times as much, and the other fields are short.
	maxEntry = 512 << 10
	// Pauses before journalctl is started again.
	firstPause = time.Second
	mostPause  = time.Minute
)

// runJournal follows the journal through journalctl, started again whenever it
// ends.
func (f *Follower) runJournal(ctx context.Context, fn func(Event, Position) error) error {
	if f.pos == (Position{}) {
		at := f.from
		if at.IsZero() {
			at = f.o.Now()
		}
		f.from = at
		f.publish(Position{At: at.UTC().Truncate(time.Microsecond)})
	} else if f.pos.cursor == "" {
		f.from = f.pos.At
	}
	pause, complaint := firstPause, ""
	for {
		read, err := f.journalctl(ctx, fn)
		var fault *readError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !errors.As(err, &fault):
			return err
		case read > 0:
			pause, complaint = firstPause, ""
		}
		why := "journalctl ended"
		if fault != nil {
			why = fault.Error()
		}
		if why != complaint {
			f.o.Log.Warn("mail log not read from the journal, trying again", "err", why, "after", pause)
			complaint = why
		}
		if !mta.Sleep(ctx, pause) {
			return ctx.Err()
		}
		pause = min(2*pause, mostPause)
	}
}

// journalArgs ask for all mail entries from the position on. The entry of the
// cursor itself comes first: that it does shows that nothing was lost. With
// --follow alone, whatever else is asked for, journalctl shows nothing from before
// the last boot; with --merge it does, and what other machines sent here, too.
func (f *Follower) journalArgs() []string {
	args := []string{"--output=json", "--output-fields=" + journalFields, "--all", "--quiet", "--no-pager",
		"--follow", "--no-tail", "--merge"}
	if f.pos.cursor != "" {
		args = append(args, "--cursor="+f.pos.cursor)
	} else {
		args = append(args, fmt.Sprintf("--since=@%d", f.pos.At.Unix()))
	}
	if id := machineID(); id != "" {
		args = append(args, "_MACHINE_ID="+id)
	}
	return append(args, "SYSLOG_FACILITY=2")
}

// machineID is machine-id(5); empty where there is none.
func machineID() string {
	text, err := os.ReadFile("/etc/machine-id")
	id := strings.TrimSpace(string(text))
	if err != nil || len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		return ""
	}
	return id
}

// journalctl runs it once, and returns how many entries came.
func (f *Follower) journalctl(ctx context.Context, fn func(Event, Position) error) (read int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, f.o.Journalctl, f.journalArgs()...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	var complaint limited
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return 0, &readError{fmt.Errorf("start %s: %w", f.o.Journalctl, err)}
	}
	read, err = f.readEntries(out, fn)
	cancel()
	waitErr := cmd.Wait()
	if err != nil {
		return read, err
	}
	said := strings.TrimSpace(string(complaint.data))
	if read == 0 && f.pos.cursor != "" && strings.Contains(said, "cursor") {
		// The cursor is not one of this journal's: go on by time.
		f.lose("the journal does not know the entry that was read last")
		f.from = f.pos.At
		f.publish(Position{At: f.pos.At})
	}
	return read, &readError{fmt.Errorf("%s ended (%v): %s", f.o.Journalctl, waitErr, said)}
}

// readEntries hands over what comes, to its end.
func (f *Follower) readEntries(out io.Reader, fn func(Event, Position) error) (read int, err error) {
	reader := bufio.NewReaderSize(out, maxEntry)
	at := f.pos.cursor // its entry is to come first
	for {
		data, err := reader.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = reader.ReadSlice('\n')
			}
			f.count(func(c *Counts) { c.Lines++; c.Long++ })
			continue
		}
		if err != nil {
			return read, nil // what has no end is no entry; why it ended, Wait tells
		}
		e, parseErr := parseEntry(bytes.TrimSpace(data))
		if parseErr != nil {
			f.count(func(c *Counts) { c.Lines++; c.Foreign++ })
			continue
		}
		read++
		if at != "" {
			found := e.cursor == at
			if at = ""; found {
				continue
			}
			f.lose("the entry of the journal that was read last is gone: removed to save space")
		}
		if err := f.entry(e, fn); err != nil {
			return read, err
		}
	}
}

func (f *Follower) entry(e entry, fn func(Event, Position) error) error {
	p := Position{cursor: e.cursor}
	if len(f.o.UIDs) > 0 && !slices.Contains(f.o.UIDs, e.uid) {
		f.count(func(c *Counts) { c.Lines++; c.Foreign++ })
		p.At = e.line.Time
		f.reach(p)
		return nil
	}
	return f.line(e.line, p, fn)
}

// limited keeps the first 2 KiB written to it.
type limited struct{ data []byte }

func (l *limited) Write(p []byte) (int, error) {
	l.data = append(l.data, p[:min(len(p), 2<<10-len(l.data))]...)
	return len(p), nil
}
