package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"relayguard/systemtest/relay"
)

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
	for _, line := range strings.Split(fmt.Sprintf(format, args...), "\n") {
		fmt.Fprintf(s.w, "  %s\n", line)
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
		s.detail("%s", s.paint("wrong", fmt.Sprintf("EXPECTED %s with %d recipients refused, got %s with %d", a.verdict, a.refused, v.Verdict, refused)))
	}
}

// detail prints a line under a message, wrapped at 80 columns.
func (s *screen) detail(format string, args ...any) {
	const indent, width = 13, 80
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
