package postfix

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"relayguard/mta"
)

const (
	maxQueueLine  = 4 << 20 // a message to some 50,000 recipients
	maxRecipients = 1000
	scanWait      = 5 * time.Minute // 100,000 held messages take about 17 s
)

// ScanQueue calls fn with every message in the queue, one at a time and without
// keeping any. A message that moves during the scan may be missed or come
// twice, in two queues: a caller that must not count it twice looks at the ID.
// A message that is still being received is not listed.
//
// It ends at fn's first error and returns that, when ctx ends, and after five
// minutes. Lines that
// cannot be read are left out and told by a *SkippedError after all others. It
// also works while Postfix is stopped. It needs root, or an account that
// authorized_mailq_users lets see the queue.
func (i *Instance) ScanQueue(ctx context.Context, fn func(mta.QueueFile) error) error {
	null := i.Setting("empty_address_recipient")
	err := i.tools.stream(ctx, "postqueue", i.tools.inDir(i.ConfigDir, "-j"), func(r io.Reader) error {
		return scanLines(r, func(f mta.QueueFile) error {
			if f.Instance = i.Name; f.Sender == null {
				f.Sender = ""
			}
			return fn(f)
		})
	})
	if err != nil {
		return fmt.Errorf("read the queue of %s: %w", i.ConfigDir, err)
	}
	return nil
}

// scanLines reads what postqueue -j prints: an object a line.
func scanLines(r io.Reader, fn func(mta.QueueFile) error) error {
	lines := bufio.NewReaderSize(r, 64<<10)
	var skipped mta.SkippedError
	var line []byte
	for {
		whole, err := readLine(lines, &line)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if len(bytes.TrimSpace(line)) > 0 {
			f, bad := parseQueueLine(line, whole)
			if bad == nil {
				bad = fn(f)
				if bad != nil {
					return bad
				}
			} else if skipped.Lines++; skipped.First == nil {
				skipped.First = bad
			}
		}
		switch {
		case err == nil:
		case skipped.Lines > 0:
			return &skipped
		default:
			return nil
		}
	}
}

// readLine reads one line into buf, without its end. Of a longer one than
// maxQueueLine it keeps the beginning, reads to its end and is false.
func readLine(r *bufio.Reader, buf *[]byte) (whole bool, err error) {
	whole = true
	*buf = (*buf)[:0]
	for {
		part, err := r.ReadSlice('\n')
		if room := maxQueueLine - len(*buf); len(part) > room {
			part, whole = part[:room], false
		}
		*buf = append(*buf, part...)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		*buf = bytes.TrimSuffix(*buf, []byte("\n"))
		return whole, err
	}
}

// ParseQueueLine reads one line of postqueue -j. Fields that it does not know
// are ignored; queue, id, arrival time, size and sender must be there.
func ParseQueueLine(line []byte) (mta.QueueFile, error) { return parseQueueLine(line, true) }

func parseQueueLine(line []byte, whole bool) (mta.QueueFile, error) {
	more := 0
	if !whole {
		// The recipients come last. A quote inside a value has a backslash
		// before it, so a sender cannot play this mark.
		head, _, found := bytes.Cut(line, []byte(`, "recipients": [`))
		if !found {
			return mta.QueueFile{}, fmt.Errorf("queue listing: a line of over %d octets", maxQueueLine)
		}
		line, more = append(head[:len(head):len(head)], '}'), -1
	}
	var raw struct {
		Queue      string  `json:"queue_name"`
		ID         string  `json:"queue_id"`
		Arrival    *int64  `json:"arrival_time"`
		Size       *int64  `json:"message_size"`
		Sender     *string `json:"sender"`
		Recipients []struct {
			Address string `json:"address"`
			Reason  string `json:"delay_reason"`
		} `json:"recipients"`
	}
	if err := json.Unmarshal(line, &raw); err != nil {
		return mta.QueueFile{}, fmt.Errorf("queue listing: %w", err)
	}
	const lastSecond = 253402300799 // of the year 9999, the last that JSON can say
	switch {
	case !queueName(raw.Queue):
		return mta.QueueFile{}, fmt.Errorf("queue listing: got queue name %q", clip(raw.Queue))
	case !ValidQueueID(raw.ID):
		return mta.QueueFile{}, fmt.Errorf("queue listing: got queue id %q", clip(raw.ID))
	case raw.Arrival == nil || *raw.Arrival < 0 || *raw.Arrival > lastSecond:
		return mta.QueueFile{}, fmt.Errorf("queue listing: no arrival time of %s, or one out of range", raw.ID)
	case raw.Size == nil || *raw.Size < 0:
		return mta.QueueFile{}, fmt.Errorf("queue listing: no size of %s, or one out of range", raw.ID)
	case raw.Sender == nil:
		return mta.QueueFile{}, fmt.Errorf("queue listing: no sender of %s", raw.ID)
	}
	f := mta.QueueFile{Queue: raw.Queue, ID: raw.ID, Arrival: time.Unix(*raw.Arrival, 0).UTC(), Size: *raw.Size, Sender: *raw.Sender, More: more}
	if f.Sender == mta.NullSender {
		f.Sender = ""
	}
	for n, r := range raw.Recipients {
		if f.Reason == "" {
			f.Reason = r.Reason
		}
		if n < maxRecipients {
			f.Recipients = append(f.Recipients, r.Address)
		} else {
			f.More++
		}
	}
	return f, nil
}

// queueName tells what can be the name of a queue: letters and digits.
func queueName(s string) bool {
	for n := range len(s) {
		if c := s[n] | 0x20; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return s != "" && len(s) <= 100
}

// clip shortens what goes into an error.
func clip(s string) string {
	const most = 60
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
