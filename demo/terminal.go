package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// onTerminal runs a command as somebody does who sits at a terminal of so many
// columns, and returns what is then on the screen, and the exit status. Nobody
// answers questions there.
func onTerminal(ctx context.Context, columns int, name string, args ...string) (string, int, error) {
	screen, terminal, err := openTerminal(columns)
	if err != nil {
		return "", 0, fmt.Errorf("open a terminal: %w", err)
	}
	defer screen.Close()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = terminal, terminal
	cmd.Env = append(os.Environ(), fmt.Sprintf("COLUMNS=%d", columns))
	err = cmd.Start()
	terminal.Close()
	if err != nil {
		return "", 0, err
	}
	var shown bytes.Buffer
	shown.ReadFrom(screen) // ends with EIO when the command has closed the terminal
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		err = nil
	}
	return strings.ReplaceAll(shown.String(), "\r\n", "\n"), cmd.ProcessState.ExitCode(), err
}

// openTerminal makes a pseudo-terminal: what is written to terminal can be read
// from screen.
func openTerminal(columns int) (screen, terminal *os.File, err error) {
	screen, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	fd := int(screen.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: uint16(columns)})
	}
	if err == nil {
		terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		screen.Close()
		return nil, nil, err
	}
	return screen, terminal, nil
}
