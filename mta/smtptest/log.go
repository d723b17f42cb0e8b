package smtptest

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"strings"
	"time"

	"relayguard/mta"
)

// LogFile is the log that a mail server writes while a test looks at it. It need not
// be there yet. Safe for concurrent use.
type LogFile struct{ path string }

// NewLogFile is the log at a path.
func NewLogFile(path string) LogFile { return LogFile{path} }

// LogPath is where it is.
func (l LogFile) LogPath() string { return l.path }

// Log is all that was logged so far.
func (l LogFile) Log() string { return l.LogFrom(0) }

// LogMark is the present end of the log, for WaitLogAfter.
func (l LogFile) LogMark() int64 {
	info, err := os.Stat(l.path)
	if err != nil {
		return 0 // nothing was logged yet
	}
	return info.Size()
}

// WaitLog waits until a line of the log matches the expression and returns
// the match and its groups. Lines logged before the call count.
func (l LogFile) WaitLog(ctx context.Context, expression string) ([]string, error) {
	return l.WaitLogAfter(ctx, 0, expression)
}

// WaitLogAfter is WaitLog for lines after a mark.
func (l LogFile) WaitLogAfter(ctx context.Context, mark int64, expression string) ([]string, error) {
	pattern, err := regexp.Compile(expression)
	if err != nil {
		return nil, fmt.Errorf("wait for a log line: %w", err)
	}
	for {
		text := l.LogFrom(mark)
		complete := text[:strings.LastIndexByte(text, '\n')+1]
		if match := pattern.FindStringSubmatch(complete); match != nil {
			return match, nil
		}
		if !mta.Sleep(ctx, 10*time.Millisecond) {
			return nil, fmt.Errorf("wait for a line like %s in %s: %w", expression, l.path, ctx.Err())
		}
	}
}

// LogFrom is what was logged after a mark.
func (l LogFile) LogFrom(mark int64) string {
	file, err := os.Open(l.path)
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

// LogTail is the last lines of the log, for the report of a failure.
func (l LogFile) LogTail(lines int) string {
	all := strings.Split(strings.TrimRight(l.Log(), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
