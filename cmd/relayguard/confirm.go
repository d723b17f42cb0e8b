package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"relayguard/cmd/internal/render"
)

// confirm asks a person whether to go on. Without one at a terminal it is an
// error that says to use --yes.
func confirm(cmd *cobra.Command, what string) error {
	if !onTerminal(cmd) {
		return usage(cmd, "this would %s; say --yes to go on without being asked", render.Escape(what))
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s? [y/N] ", render.Escape(what))
	line, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n') // no answer is a no
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return &exitError{exitFinding, fmt.Errorf("nothing was done")}
}

// onTerminal reports whether somebody can answer.
func onTerminal(cmd *cobra.Command) bool {
	f, ok := cmd.InOrStdin().(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
