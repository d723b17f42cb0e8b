package main

import (
	"os"
	"runtime"
	"runtime/debug"

	"relayguard/cmd/internal/wrapper"
)

// sendmailMain is the program under the name relayguard-sendmail: sendmail(1) for
// PHP, which asks the daemon before the MTA gets the mail. It returns the exit
// status. Wrong settings keep no mail: "relayguard php status" tells of them.
func sendmailMain(args []string) int {
	// One thread at work is enough, and what is read is gone before there is garbage
	// worth collecting: accounts may have few processes, and threads count.
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(64 << 20) // octets; beyond, garbage is collected all the same
	s, _ := wrapper.Load(wrapper.SettingsPath)
	w := wrapper.Wrapper{Settings: s, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	return w.Run(args)
}
