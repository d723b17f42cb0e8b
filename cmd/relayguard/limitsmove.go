package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/render"
	"relayguard/policy/limit"
)

func newLimitsExport() *cobra.Command {
	return &cobra.Command{
		Use:   "export",
		Short: "print all budgets, to be imported into another store",
		Long: `Prints what was used of each budget and whom each account has written to (as
keyed digests, no addresses), as JSON Lines. Export before store.kind is changed,
change it, start the daemon, import: nobody has a fresh budget.

Exit status: 0; 2 usage; 3 cannot tell.`,
		Example: "  relayguard limits export >budgets.jsonl",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, _, err := asker(cmd)
			if err != nil {
				return err
			}
			out := bufio.NewWriter(cmd.OutOrStdout())
			n := 0
			err = answerOf(client.Lines(cmd.Context(), "/v1/limits/entries", nil, func(line []byte) error {
				n++
				_, err := out.Write(append(line, '\n'))
				return err
			}))
			if err == nil {
				err = shown(out.Flush())
			}
			if err == nil {
				remark(cmd, "%s", counted(n, "record"))
			}
			return err
		},
	}
}

// importAtOnce is how many entries are handed over together.
const importAtOnce = 500

// imported is what became of entries.
type imported struct {
	Entries int `json:"entries"`
}

func newLimitsImport() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "import [FILE]",
		Short: "read budgets that limits export printed",
		Long: `Reads budgets from FILE or standard input and puts each in place of what the
store has of it. Budgets that the file does not name stay as they are.

Exit status: 0; 2 usage, or a line that is none: what came before it is read; 3
cannot tell, or not allowed.`,
		Example: "  relayguard limits import budgets.jsonl",
		Args:    atMost("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := cmd.InOrStdin()
			if len(args) == 1 {
				f, err := os.Open(args[0])
				if err != nil {
					return &exitError{exitUsage, err}
				}
				defer f.Close()
				in = f
			}
			n, err := importEntries(cmd, in)
			if err != nil {
				remark(cmd, "%s read", counted(n, "record"))
				return err
			}
			if asJSON {
				return shown(render.JSON(cmd.OutOrStdout(), imported{n}))
			}
			remark(cmd, "%s read", counted(n, "record"))
			return nil
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func importEntries(cmd *cobra.Command, in io.Reader) (n int, err error) {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 64<<10), 16<<20)
	var batch []limit.Entry
	hand := func() error {
		if len(batch) == 0 {
			return nil
		}
		done, err := post[imported](cmd, "/v1/limits/entries", batch)
		n += done.Entries
		batch = batch[:0]
		return err
	}
	for line := 1; lines.Scan(); line++ {
		var e limit.Entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			if err := hand(); err != nil {
				return n, err
			}
			return n, &exitError{exitUsage, &escapedError{fmt.Errorf("line %d: %w", line, err)}}
		}
		if batch = append(batch, e); len(batch) == importAtOnce {
			if err := hand(); err != nil {
				return n, err
			}
		}
	}
	if err := lines.Err(); err != nil {
		return n, &exitError{exitUsage, err}
	}
	return n, hand()
}
