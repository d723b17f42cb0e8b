package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newMan() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "write the manual pages into a directory",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			header := &doc.GenManHeader{Section: "8", Source: "relayguard " + version, Manual: "relayguard"}
			if err := doc.GenManTree(cmd.Root(), header, args[0]); err != nil {
				return &exitError{exitCannotTell, fmt.Errorf("write manual pages: %w", err)}
			}
			return nil
		},
	}
}
