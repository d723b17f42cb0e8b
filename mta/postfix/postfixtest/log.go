package postfixtest

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

// LogPath is Postfix's log file (maillog_file).
func (p *Postfix) LogPath() string { return filepath.Join(p.Dir, "maillog") }

// Log is all that Postfix logged so far.
func (p *Postfix) Log() string { return p.logFrom(0) }

// LogMark is the present end of the log, for WaitLogAfter.
func (p *Postfix) LogMark() int64 {
	info, err := os.Stat(p.LogPath())
	if err != nil {
		return 0 // nothing was logged yet
	}
	return info.Size()
}

// WaitLog waits until a line of the log matches the expression and returns
// the match and its groups. Lines logged before the call count.
func (p *Postfix) WaitLog(ctx context.Context, expression string) ([]string, error) {
	return p.WaitLogAfter(ctx, 0, expression)
}

// WaitLogAfter is WaitLog for lines after a mark.
func (p *Postfix) WaitLogAfter(ctx context.Context, mark int64, expression string) ([]string, error) {
	pattern, err := regexp.Compile(expression)
	if err != nil {
		return nil, fmt.Errorf("wait for a log line: %w", err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		text := p.logFrom(mark)
		complete := text[:strings.LastIndexByte(text, '\n')+1]
		if match := pattern.FindStringSubmatch(complete); match != nil {
			return match, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for a line like %s in %s: %w", expression, p.LogPath(), ctx.Err())
		case <-tick.C:
		}
	}
}

func (p *Postfix) logFrom(mark int64) string {
	file, err := os.Open(p.LogPath())
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
func (p *Postfix) logEnd(lines int) string {
	all := strings.Split(strings.TrimRight(p.Log(), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
