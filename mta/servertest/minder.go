package servertest

import (
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"syscall"
)

// Minder is a small process that ends a server when this program is gone,
// however that came: its standard input is a pipe that only we hold open.
type Minder struct {
	cmd  *exec.Cmd
	hold io.WriteCloser
}

// StartMinder starts the minder of a server.
func StartMinder(pid int) (*Minder, error) {
	cmd := exec.Command("/bin/sh", "-c", `read -r word; test "$word" = dismissed || kill -TERM "$0"`, strconv.Itoa(pid))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // not to hear a terminal's Ctrl-C
	hold, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start the minder of pid %d: %w", pid, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the minder of pid %d: %w", pid, err)
	}
	return &Minder{cmd: cmd, hold: hold}, nil
}

// Dismiss ends the minder without a kill. nil, one that could not be started, is
// fine.
func (m *Minder) Dismiss() {
	if m == nil {
		return
	}
	// Should it have been killed, neither matters.
	_, _ = io.WriteString(m.hold, "dismissed\n")
	m.hold.Close()
	_ = m.cmd.Wait()
}
