package main

import "github.com/spf13/cobra"

func newCheck() *cobra.Command {
	return &cobra.Command{Use: "check", Short: "inspect the configuration and the MTA for ways round the guard", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, _, err := loadConfig(cmd)
			return err
		}}
}
