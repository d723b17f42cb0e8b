package forwards

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"time"

	"relayguard/forward"
	"relayguard/forward/files"
)

// NewHost is the machine that is looked at: the copied disk at root, or this one if
// root is empty. Reader reads this machine's files; nil: this process does.
func NewHost(ctx context.Context, root string, reader forward.Files) (*forward.Host, error) {
	h := &forward.Host{Files: reader, Log: slog.New(slog.DiscardHandler), Now: time.Now}
	if root != "" {
		rooted, err := files.Rooted(root)
		if err != nil {
			return nil, err
		}
		h.Files = rooted
		if name, _, err := rooted.Read(ctx, "/etc/hostname", forward.ReadOptions{Max: 4096}); err == nil {
			h.Hostname = strings.TrimSpace(string(name))
		}
	} else {
		h.Run = run
		h.Hostname, _ = os.Hostname()
		if h.Files == nil {
			h.Files = files.Local()
		}
	}
	return h, learnAccounts(ctx, h)
}

// learnAccounts reads who has an account. A helper that cannot be reached yet is
// no error: the next plan asks again.
func learnAccounts(ctx context.Context, h *forward.Host) error {
	accounts, err := files.ReadAccounts(ctx, h.Files)
	if err != nil && h.Live() {
		return nil
	}
	h.Accounts = accounts
	return err
}

// Bounds of a program that is run: what it may say, and how long it may take.
const (
	maxOutput = 256 << 20
	runWait   = 30 * time.Second
)

// run runs a program of this machine without a shell, from where Debian puts it.
func run(ctx context.Context, stdin []byte, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, runWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(name), args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"} // MAIL_CONFIG and the like must not lead elsewhere
	cmd.Stdin = bytes.NewReader(stdin)
	out, said := &bounded{limit: maxOutput, stop: cancel}, &bounded{limit: 64 << 10}
	cmd.Stdout, cmd.Stderr = out, said
	cmd.WaitDelay = time.Second // a grandchild may hold the pipe
	err := cmd.Run()
	switch {
	case out.over:
		return nil, fmt.Errorf("%s: says more than %d octets", name, maxOutput)
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
		return out.Bytes(), nil
	case ctx.Err() != nil:
		err = ctx.Err()
	}
	if text := strings.Join(strings.Fields(said.String()), " "); text != "" {
		return out.Bytes(), fmt.Errorf("%s: %w: %s", name, err, text)
	}
	return out.Bytes(), fmt.Errorf("%s: %w", name, err)
}

// program finds one also where PATH has no sbin, as for most accounts.
func program(name string) string {
	if strings.Contains(name, "/") {
		return name
	}
	for _, dir := range []string{"/usr/sbin/", "/usr/bin/", "/usr/local/sbin/", "/usr/local/bin/"} {
		if info, err := os.Stat(dir + name); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return dir + name
		}
	}
	return name
}

// bounded keeps the first limit octets and then calls stop.
type bounded struct {
	bytes.Buffer
	limit int
	over  bool
	stop  func()
}

func (b *bounded) Write(p []byte) (int, error) {
	if room := b.limit - b.Len(); len(p) > room {
		b.over = true
		b.Buffer.Write(p[:max(room, 0)])
		if b.stop != nil {
			b.stop()
		}
		return len(p), nil
	}
	return b.Buffer.Write(p)
}
