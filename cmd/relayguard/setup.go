package main

import "github.com/spf13/cobra"

func newSetup() *cobra.Command {
	return &cobra.Command{Use: "setup", Short: "print or apply the MTA's settings"}
}
