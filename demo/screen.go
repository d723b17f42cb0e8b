package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"relayguard/systemtest/relay"
)

// columns is how wide the screen is.
const columns = 80

// screen prints for people: 80 columns, colours on a terminal only.
type screen struct {
	w      io.Writer
	colour bool
}

func newScreen(f *os.File) *screen {
	return &screen{w: f, colour: isTerminal(f) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

// SGR codes of the verdicts.
var colours = map[string]string{"accept": "32", "tell": "36", "hold": "33", "defer": "33", "reject": "31", "wrong": "1;31", "title": "1", "dim": "2"}

func (s *screen) paint(name, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + colours[name] + "m" + text + "\x1b[0m"
}

func (s *screen) title(text string) {
	fmt.Fprintf(s.w, "\n%s\n\n", s.paint("title", text))
}

func (s *screen) say(format string, args ...any) {
	for line := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
		fmt.Fprintln(s.w, strings.TrimRight("  "+line, " "))
	}
}

func (s *screen) command(what, command string) {
	fmt.Fprintf(s.w, "  %s\n    %s\n", what+":", s.paint("title", command))
}

// act prints one message of the scenario: what happened, and why.
func (s *screen) act(n int, a act, v relay.Line, refused int, ok bool) {
	verdict := s.paint(v.Verdict, fmt.Sprintf("%-6s", v.Verdict))
	fmt.Fprintf(s.w, "  %d  %s  %s %s\n", n, verdict, a.who, a.does)
	s.detail("known as %s (%s)", v.Account, v.Confidence)
	if v.Rule != "" {
		s.detail("%s: %s", v.Rule, v.Reason)
	}
	if refused > 0 && refused < len(a.to) {
		s.detail("%d of %d recipients refused: %s", refused, len(a.to), strings.Join(a.to[len(a.to)-refused:], ", "))
	}
	if !ok {
		s.wrong("EXPECTED %s with %d recipients refused, got %s with %d", a.verdict, a.refused, v.Verdict, refused)
	}
}

// detail prints a line under a message, wrapped at 80 columns.
func (s *screen) detail(format string, args ...any) {
	const indent, width = 13, columns
	line := ""
	for _, word := range strings.Fields(fmt.Sprintf(format, args...)) {
		if line != "" && len(line)+1+len(word) > width-indent {
			fmt.Fprintf(s.w, "%*s%s\n", indent, "", s.paint("dim", line))
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	fmt.Fprintf(s.w, "%*s%s\n", indent, "", s.paint("dim", line))
}

// entry is several messages that met the same.
func (s *screen) entry(verdict, text string) {
	fmt.Fprintf(s.w, "     %s  %s\n", s.paint(verdict, fmt.Sprintf("%-6s", verdict)), text)
}

// wrong says what should have been.
func (s *screen) wrong(format string, args ...any) {
	fmt.Fprintf(s.w, "%13s%s\n", "", s.paint("wrong", fmt.Sprintf(format, args...)))
}

// prompt shows a command as it is typed, with what it is for.
func (s *screen) prompt(why, command string) {
	fmt.Fprintf(s.w, "\n%s\n%s\n", s.paint("dim", "# "+why), s.paint("title", "$ "+command))
}

// shown repeats what a command printed.
func (s *screen) shown(text string) {
	fmt.Fprint(s.w, text)
}
