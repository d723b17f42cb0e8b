package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/render"
	"relayguard/rbl"
)

// Exit codes of monitoring plugins; they are not those of the other commands.
const (
	pluginOK       = 0
	pluginWarning  = 1
	pluginCritical = 2
	pluginUnknown  = 3
)

// maxPluginText bounds the sentence of the line: monitoring shows one line, some of it
// no more than this.
const maxPluginText = 300

// plugin prints one line for monitoring. Whatever goes wrong is UNKNOWN, never an
// exit code that means something else there.
func (f *rblCheck) plugin(cmd *cobra.Command, args []string) error {
	found, err := f.run(cmd, args)
	line, code := "", pluginUnknown
	if err != nil {
		line = pluginLine("UNKNOWN", err.Error())
	} else {
		line, code = found.plugin(f.allowUnknown)
	}
	if _, err := io.WriteString(cmd.OutOrStdout(), line+"\n"); err != nil {
		code = pluginUnknown
	}
	if code == pluginOK {
		return nil
	}
	return &exitError{code: code}
}

// plugin is the line for monitoring and how to exit. A listing of a whole network is
// never more than a warning: somebody else may be the cause.
func (found *rblChecked) plugin(allow int) (line string, code int) {
	all, _, _ := found.sum()
	level, listed := pluginOK, []string{}
	for _, r := range rblRows(found.Answers, false, false) {
		if r.hit == nil || r.hit.Severity == rbl.Info {
			continue
		}
		on := fmt.Sprintf("%s on %s (%s", r.answer.Subject, r.answer.Zone, r.hit.Severity)
		if r.hit.Scope.Wide() {
			on += ", " + r.hit.Scope.String()
		}
		listed = append(listed, on+")")
		if r.hit.Severity >= rbl.High && !r.hit.Scope.Wide() {
			level = pluginCritical
		} else {
			level = max(level, pluginWarning)
		}
	}
	perfdata := fmt.Sprintf(" | listed=%d unknown=%d refused=%d clean=%d info=%d", all.Listed, all.Unknown, all.Refused, all.Clean, all.Info)
	doubt := found.doubt(allow)
	switch {
	case level == pluginCritical:
		return pluginLine("CRITICAL", strings.Join(listed, ", ")) + perfdata, level
	case level == pluginWarning:
		return pluginLine("WARNING", strings.Join(listed, ", ")) + perfdata, level
	case doubt != "":
		return pluginLine("UNKNOWN", strings.Join(append([]string{doubt}, zoneRemarks(found.Zones)...), "; ")) + perfdata, pluginUnknown
	}
	text := found.Subjects[0].Subject.String()
	if more := len(found.Subjects) - 1; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return pluginLine("OK", strings.Join(append([]string{text + " not listed"}, found.Trouble...), "; ")) + perfdata, pluginOK
}

// pluginLine is a sentence as monitoring takes it: one line, with no | in it, behind
// which counts would begin.
func pluginLine(state, text string) string {
	text = strings.ReplaceAll(render.Escape(strings.ReplaceAll(text, "\n", "; ")), "|", "/")
	if len(text) > maxPluginText {
		text = strings.ToValidUTF8(text[:maxPluginText], "") + "..."
	}
	return "RBL " + state + " - " + text
}
