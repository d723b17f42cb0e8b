// Package postfix reads and changes the settings of Postfix through Postfix's
// own tools: it asks postconf(1) what is in force instead of reading main.cf,
// and postmap(1) what a table says.
//
// It names what a Postfix configuration lets round the guard (Inspect), writes
// the settings that attach the guard (Plan, Apply, Undo), and answers which
// logins own a sender address (Maps). It reads the queue (Instance.ScanQueue) and
// holds, releases, requeues and deletes mail in it through postqueue(1) and
// postsuper(1); it keeps no list of what is held and why.
//
// Trap: postmap -q ends with status 1 both when it found nothing and when it
// could not look; only what it says on standard error tells them apart.
package postfix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Tools runs Postfix's commands. The zero value finds them where Debian puts
// them, else on PATH. No shell is involved.
type Tools struct {
	Dir string // where postconf and postmap are; empty: found
}

// toolWait bounds one run of a tool. postconf takes milliseconds.
const toolWait = 30 * time.Second

// maxToolOutput bounds what a tool may say.
const maxToolOutput = 256 << 20

// said is what a tool printed.
type said struct {
	stdout []byte
	stderr string // one line, joined by "; "
}

var errTooMuch = errors.New("output is too long")

// run gives the tool its arguments and input, and returns what it said; the
// error carries what it said on standard error.
func (t Tools) run(ctx context.Context, stdin []byte, limit int, name string, args ...string) (said, error) {
	ctx, cancel := context.WithTimeout(ctx, toolWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, t.path(name), args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"} // MAIL_CONFIG and the like must not lead elsewhere
	cmd.Stdin = bytes.NewReader(stdin)
	stdout, stderr := capped{limit: limit, stop: cancel}, capped{limit: 64 << 10}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second // a grandchild may hold the pipe
	err := cmd.Run()
	s := said{stdout.buf.Bytes(), oneLine(stderr.buf.String())}
	switch {
	case stdout.over:
		return s, fmt.Errorf("%s %s: %w (over %d octets)", name, brief(args), errTooMuch, limit)
	case err == nil, errors.Is(err, exec.ErrWaitDelay): // postfix-script leaves its look at the directories behind
		return s, nil
	case ctx.Err() != nil:
		err = ctx.Err()
	}
	if s.stderr == "" && name == "postfix" { // which says it there when maillog_file is /dev/stdout
		s.stderr = oneLine(stdout.buf.String())
	}
	if s.stderr != "" {
		return s, fmt.Errorf("%s %s: %w: %s", name, brief(args), err, s.stderr)
	}
	return s, fmt.Errorf("%s %s: %w", name, brief(args), err)
}

func (t Tools) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	if t.Dir != "" {
		return filepath.Join(t.Dir, name)
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/usr/bin"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && !info.IsDir() {
			return filepath.Join(dir, name)
		}
	}
	return name
}

func oneLine(s string) string {
	lines := strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' })
	return strings.Join(lines, "; ")
}

// capped keeps the first limit octets and then calls stop.
type capped struct {
	buf   bytes.Buffer
	limit int
	over  bool
	stop  func()
}

func (c *capped) Write(p []byte) (int, error) {
	if c.buf.Len()+len(p) > c.limit {
		c.over = true
		c.buf.Write(p[:max(0, c.limit-c.buf.Len())])
		if c.stop != nil {
			c.stop()
		}
		return len(p), nil
	}
	return c.buf.Write(p)
}

// brief names a command's first arguments, for an error.
func brief(args []string) string {
	const most = 4
	if len(args) > most {
		args = append(slices.Clone(args[:most]), "...")
	}
	return strings.Join(args, " ")
}
