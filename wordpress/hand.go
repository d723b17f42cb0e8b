package wordpress

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// longestWork is how long the child may take: a site cannot keep the admin
// waiting.
const longestWork = 30 * time.Second

// ContentFD is the descriptor on which the child finds wp-content.
const ContentFD = 3

// Hand starts the child: a program and its arguments, with which it calls Serve
// on its standard input, its standard output and the descriptor ContentFD.
type Hand []string

// work has an order carried out as the site's account: by a child if this is
// root, here if this is the account itself.
func (h Hand) work(ctx context.Context, p *Place, o order) (*report, error) {
	o.UID = p.UID
	switch euid := os.Geteuid(); {
	case euid == p.UID && os.Getuid() == p.UID && euid != 0:
		return checked(o.carryOut(p.content.dir))
	case euid != 0:
		return nil, fmt.Errorf("the files of %s are for root or %s to handle; this is uid %d", p.Root, p.Account, euid)
	}
	in, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, longestWork)
	defer cancel()
	cmd := exec.CommandContext(ctx, h[0], h[1:]...)
	out, errs := &bounded{}, &bounded{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), out, errs
	cmd.Env, cmd.Dir = []string{"PATH=/usr/bin:/bin"}, "/"
	cmd.ExtraFiles = []*os.File{p.content.dir}
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: uint32(p.UID), Gid: uint32(p.GID)}, // no other groups
		Setsid:     true,                                                        // no terminal of the admin's to write to
	}
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("work as %s: %w: %s", p.Account, errors.Join(err, context.Cause(ctx)), strings.TrimSpace(errs.b.String()))
	}
	r := &report{}
	if err := json.Unmarshal(out.b.Bytes(), r); err != nil {
		return nil, fmt.Errorf("work as %s: it answered no JSON", p.Account)
	}
	return checked(r)
}

// bounded keeps the beginning of what the child says.
type bounded struct{ b bytes.Buffer }

func (w *bounded) Write(p []byte) (int, error) {
	const most = 64 << 10
	if w.b.Len()+len(p) > most {
		return 0, io.ErrShortWrite
	}
	return w.b.Write(p)
}

func checked(r *report) (*report, error) {
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}

// Child opens what a child is given and serves it.
func Child(in io.Reader, out io.Writer) error {
	content := os.NewFile(ContentFD, "wp-content")
	var stat unix.Stat_t
	if err := unix.Fstat(ContentFD, &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		return errors.New("relayguard wordpress install starts this, and nobody else")
	}
	defer content.Close()
	return Serve(in, out, content)
}
