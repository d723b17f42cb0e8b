package main

import (
	"os"
	"runtime"

	"relayguard/cmd/internal/wrapper"
)

// sendmailMain is the program under the name relayguard-sendmail: sendmail(1) for
// PHP, which asks the daemon before the MTA gets the mail. It returns the exit
// status. Wrong settings keep no mail: "relayguard php status" tells of them.
func sendmailMain(args []string) int {
	runtime.GOMAXPROCS(1) // an account may have few processes, and threads count
	s, _ := wrapper.Load(wrapper.SettingsPath)
	w := wrapper.Wrapper{Settings: s, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	return w.Run(args)
}
