package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"relayguard/cmd/internal/config"
)

func newMan() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "write the manual pages into a directory",
		Long: strings.TrimSpace(`
Writes a manual page for each command, relayguard-COMMAND.8, and that of the
configuration, relayguard.toml.5. They are made from the same tables as the
commands' help and the parser of the configuration.`),
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := writeManuals(cmd.Root(), args[0]); err != nil {
				return &exitError{exitCannotTell, fmt.Errorf("write manual pages: %w", err)}
			}
			return nil
		},
	}
}

func writeManuals(root *cobra.Command, dir string) error {
	root.InitDefaultCompletionCmd()
	made, err := made()
	if err != nil {
		return err
	}
	header := &doc.GenManHeader{Date: &made, Section: "8", Source: "relayguard " + version, Manual: "relayguard"}
	if err := writePages(root, header, dir); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "relayguard.toml.5"), []byte(configManual(*header.Date)), 0o644)
}

// made is the date in the pages: now, unless a reproducible build says another.
func made() (time.Time, error) {
	epoch := os.Getenv("SOURCE_DATE_EPOCH")
	if epoch == "" {
		return time.Now(), nil
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// filesManual is what relayguard(8) says beside the command's help.
const filesManual = `.SH FILES
.TP
/etc/relayguard/relayguard.toml
The configuration, see
.BR relayguard.toml (5).
Without it all defaults are in force.
.TP
/var/spool/postfix/relayguard/
The sockets that Postfix connects to, unless listeners say otherwise; beside Sendmail
they are in /run/relayguard.
.TP
/run/relayguard/control.sock
The socket by which commands speak to the daemon, unless control.socket says
otherwise.
.TP
/var/lib/relayguard/
The journal, the switches that are pulled, what is known of forwarding rules.
.TP
/run/relayguard\-queue/queue.sock
The socket of the root helper, see
.BR relayguard\-queue\-helper (8).
.TP
/run/relayguard\-watch/watch.sock
The socket of the helper that reads and watches the places of forwarding rules, see
.BR relayguard\-watch\-helper (8).
.TP
/var/lib/relayguard\-queue/
What the root helper keeps: of the red switch, and deleted mail for hold.grace.
.TP
/var/backups/relayguard/
What
.BR relayguard\-setup\-postfix (8)
replaced, for \-\-undo.
`

// option is a flag's name on a line, then its text behind a tab.
var option = regexp.MustCompile(`(?m)^(?:\.PP\n)?(\\fB-.*)\n\t`)

// unitCommands are hidden, for nobody types them; their units have pages to point to.
var unitCommands = []string{"queue-helper", "watch-helper"}

// writePages writes the page of a command and those of all below it.
func writePages(cmd *cobra.Command, header *doc.GenManHeader, dir string) error {
	for _, c := range cmd.Commands() {
		if c.IsAdditionalHelpTopicCommand() || !c.IsAvailableCommand() && !slices.Contains(unitCommands, c.Name()) {
			continue
		}
		if err := writePages(c, header, dir); err != nil {
			return err
		}
	}
	var page bytes.Buffer
	own := *header
	if err := doc.GenMan(cmd, &own, &page); err != nil {
		return err
	}
	// cobra writes switches as --name[=false], sets options as running text, and
	// knows its own pages only.
	text := option.ReplaceAllString(strings.ReplaceAll(page.String(), "[=false]", ""), ".TP\n$1\n")
	text = strings.Replace(text, own.Date.Format(`"Jan 2006"`), own.Date.Format(`"2006-01-02"`), 1) // man(7) wants a day
	files, helper := "", ""
	if !cmd.HasParent() {
		files = filesManual
		for _, name := range unitCommands {
			helper += ".BR relayguard\\-" + strings.ReplaceAll(name, "-", "\\-") + " (8),\n"
		}
	}
	before, seeAlso, found := strings.Cut(text, ".SH SEE ALSO\n")
	if !found {
		seeAlso = ""
	} else {
		seeAlso = strings.TrimRight(seeAlso, "\n") + ",\n"
	}
	text = strings.TrimRight(before, "\n") + "\n" + files + ".SH SEE ALSO\n" + seeAlso + helper + ".BR relayguard.toml (5)\n"
	return os.WriteFile(filepath.Join(dir, strings.ReplaceAll(cmd.CommandPath(), " ", "-")+".8"), []byte(text), 0o644)
}

// configManual is relayguard.toml(5) in man(7) macros.
func configManual(made time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH RELAYGUARD.TOML 5 %s \"relayguard %s\" relayguard\n", made.Format(time.DateOnly), roff(version))
	b.WriteString(".SH NAME\nrelayguard.toml \\- configuration of relayguard\n.SH SYNOPSIS\n.B " + roff(config.DefaultPath) + "\n.SH DESCRIPTION\n" +
		"One strict TOML file. An unknown key, a wrong type, a value out of bounds and keys that contradict each other are errors, all reported at once with line and remedy.\n" +
		"A missing key or section means its default. Zero never means off: delete the key.\n" +
		".PP\nCheck it with\n.BR relayguard\\-check (8);\nSIGHUP makes the daemon read it again, and keep the old one if the new one has a fault.\n.SH KEYS\n")
	for _, s := range config.Sections() {
		title := s.Name
		switch {
		case title == "":
			title = "At the head of the file"
		case s.Array:
			title = "[[" + title + "]], any number of times"
		default:
			title = "[" + title + "]"
		}
		fmt.Fprintf(&b, ".SS \"%s\"\n%s\n", roff(title), roff(s.Doc))
		for _, k := range s.Keys {
			need := "Default: " + k.Default
			switch {
			case k.Required:
				need = "Required"
			case k.Default == "":
				need = "Default: none"
			}
			fmt.Fprintf(&b, ".TP\n\\fB%s\\fR (%s)\n%s\n%s.\n", roff(k.Name), roff(k.Type), roff(k.Doc), roff(need))
		}
	}
	b.WriteString(".SH SEE ALSO\n.BR relayguard (8),\n.BR relayguard\\-serve (8),\n.BR relayguard\\-check (8)\n")
	return b.String()
}

// roff escapes a text for man(7).
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, `"`, `\(dq`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}
