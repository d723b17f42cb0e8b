package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/user"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/queue"
	"relayguard/mta"
	"relayguard/mta/local"
)

func newCheck() *cobra.Command {
	var asJSON, noProbe bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "inspect configuration, MTA and surroundings, name ways round the guard",
		Long: strings.TrimSpace(`
Reads the configuration and everything that it names, then the settings of Postfix
or Sendmail as they are in force, and names what lets mail go round the guard: services
without it, a default action that accepts, local mail that it does not see,
sockets that others reach, an open relay. Then it looks at what the daemon needs:
that it runs, the root helper and what the MTA stops by its order, the journal's
directory, room for held mail, the MTA's log, the groups in control, the alert
command, and Redis if relays share one. Each finding says what it lets happen and
what to do. Run it as root: others may not look at everything.

To find an open relay it connects to each SMTP service of this machine and asks
for a recipient outside, without ever sending a message; --no-probe leaves that
out.

Exit status: 0 nothing to do, 1 a finding that is a warning or critical, 2 the
configuration is wrong, 3 the MTA cannot be asked.`),
		Example: "  relayguard check\n  relayguard check --json | jq '.findings[] | select(.severity == \"critical\")'",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, path, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			unread, err := checkNamed(cmd, c, path)
			if err != nil {
				return err
			}
			inspected, err := inspectMTA(cmd, c, noProbe)
			if err != nil {
				return &exitError{exitCannotTell, err}
			}
			around := surroundings{config: c, account: accountNamed(guardUser()), queueDir: inspected.queueDir, setting: inspected.setting}
			if isRoot() {
				around.hand = &queue.Client{Path: c.MTA.QueueHelper}
			}
			findings := slices.Concat(unread, inspected.findings, around.inspect(cmd.Context()))
			slices.SortStableFunc(findings, func(a, b mta.Finding) int { return int(b.Severity) - int(a.Severity) })
			if asJSON {
				err = writeFindingsJSON(cmd.OutOrStdout(), path, findings)
			} else {
				err = writeFindings(cmd.OutOrStdout(), findings)
				fmt.Fprintf(cmd.ErrOrStderr(), "configuration %s: fine; %s: %s\n", path, inspected.name, summary(findings))
			}
			if err != nil {
				return &exitError{exitCannotTell, err}
			}
			if slices.ContainsFunc(findings, func(f mta.Finding) bool { return f.Severity > mta.Info }) {
				return &exitError{code: exitFinding}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	cmd.Flags().BoolVar(&noProbe, "no-probe", false, "do not connect to the SMTP services")
	return cmd
}

// checkNamed opens what the configuration names: address files, maps, accounts.
// What the daemon would live without is a finding.
func checkNamed(cmd *cobra.Command, c *config.Config, path string) ([]mta.Finding, error) {
	users, err := local.NewUsers(slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, &exitError{exitCannotTell, err}
	}
	defer users.Close()
	var findings []mta.Finding
	r, err := newRules(cmd.Context(), c, nothingCounted(), users, slog.New(slog.DiscardHandler))
	errs, code := []error{err}, exitUsage
	if err == nil {
		for _, unread := range r.unread {
			findings = append(findings, mta.Finding{ID: "unread", Severity: mta.Critical, Where: path, What: unread.Error(),
				Why: "the guard does not know what stands there; addresses that a map owns get address.map_slow", Remedy: "mend what it names, or take it out of the configuration"})
		}
		r.close()
	}
	var cause *exitError
	if errors.As(err, &cause) {
		code = cause.code
	}
	if guard := accountNamed(guardUser()); guard != nil && isRoot() {
		for _, file := range append([]string{path}, c.Address.Files...) {
			if !guard.may(reading, file) {
				code = exitUsage
				errs = append(errs, fmt.Errorf("%s: the daemon's account %s may not read it; chgrp %s, chmod 0640", file, guard.Username, guard.Username))
			}
		}
	}
	for _, l := range c.Listeners {
		if _, _, err := accounts(l); err != nil {
			code = exitUsage
			errs = append(errs, fmt.Errorf("listener %q: %w", l.Name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, &exitError{code, err}
	}
	return findings, nil
}

// guardUser is the account of the packaged service; empty where there is none.
func guardUser() string {
	const name = "relayguard"
	if _, err := user.Lookup(name); err != nil {
		return ""
	}
	return name
}

func writeFindingsJSON(w io.Writer, path string, findings []mta.Finding) error {
	type finding struct {
		ID       string `json:"id"`
		Severity string `json:"severity"`
		Where    string `json:"where"`
		What     string `json:"what"`
		Why      string `json:"why"`
		Remedy   string `json:"remedy"`
	}
	all := make([]finding, len(findings))
	for i, f := range findings {
		all[i] = finding{f.ID, f.Severity.String(), f.Where, f.What, f.Why, f.Remedy}
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		Config   string    `json:"config"`
		Findings []finding `json:"findings"`
	}{path, all})
}

// writeFindings prints for people, in 80 columns.
func writeFindings(w io.Writer, findings []mta.Finding) error {
	var b strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&b, "%-8s  %s  %s\n", f.Severity, f.Where, f.ID)
		for _, part := range []struct{ label, text string }{{"", f.What}, {"so: ", f.Why}, {"do: ", f.Remedy}} {
			if part.text != "" {
				b.WriteString(wrap(part.label+part.text, 10, 80))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func summary(findings []mta.Finding) string {
	count := map[mta.Severity]int{}
	for _, f := range findings {
		count[f.Severity]++
	}
	if len(findings) == 0 {
		return "nothing found"
	}
	return fmt.Sprintf("%d critical, %d warnings, %d remarks", count[mta.Critical], count[mta.Warning], count[mta.Info])
}

// wrap breaks a text into lines of at most width columns behind an indent.
func wrap(text string, indent, width int) string {
	var b strings.Builder
	column := 0
	for _, word := range strings.Fields(text) {
		switch n := len([]rune(word)); {
		case column == 0:
			fmt.Fprintf(&b, "%*s%s", indent, "", word)
			column = indent + n
		case column+1+n > width:
			fmt.Fprintf(&b, "\n%*s%s", indent, "", word)
			column = indent + n
		default:
			b.WriteString(" " + word)
			column += 1 + n
		}
	}
	b.WriteByte('\n')
	return b.String()
}
