package sendmailtest

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// LogPath is the log of everything inside, as syslogd would write it.
func (s *Sendmail) LogPath() string { return filepath.Join(s.Dir, "mail.log") }

// Log is all that was logged so far.
func (s *Sendmail) Log() string { return s.logFrom(0) }

// LogMark is the present end of the log, for WaitLogAfter.
func (s *Sendmail) LogMark() int64 {
	info, err := os.Stat(s.LogPath())
	if err != nil {
		return 0 // nothing was logged yet
	}
	return info.Size()
}

// WaitLog waits until a line of the log matches the expression and returns
// the match and its groups. Lines logged before the call count.
func (s *Sendmail) WaitLog(ctx context.Context, expression string) ([]string, error) {
	return s.WaitLogAfter(ctx, 0, expression)
}

// WaitLogAfter is WaitLog for lines after a mark.
func (s *Sendmail) WaitLogAfter(ctx context.Context, mark int64, expression string) ([]string, error) {
	pattern, err := regexp.Compile(expression)
	if err != nil {
		return nil, fmt.Errorf("wait for a log line: %w", err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		text := s.logFrom(mark)
		complete := text[:strings.LastIndexByte(text, '\n')+1]
		if match := pattern.FindStringSubmatch(complete); match != nil {
			return match, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for a line like %s in %s: %w", expression, s.LogPath(), ctx.Err())
		case <-tick.C:
		}
	}
}

func (s *Sendmail) logFrom(mark int64) string {
	file, err := os.Open(s.LogPath())
	if err != nil {
		return "" // nothing was logged yet
	}
	defer file.Close()
	text, err := io.ReadAll(io.NewSectionReader(file, mark, math.MaxInt64-mark))
	if err != nil {
		return ""
	}
	return string(text)
}

// logEnd is the last lines of the log, for a failure's report.
func (s *Sendmail) logEnd(lines int) string {
	all := strings.Split(strings.TrimRight(s.Log(), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
