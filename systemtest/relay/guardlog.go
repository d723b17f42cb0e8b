package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Line is one line of the guard's log.
type Line struct {
	Time       time.Time `json:"time"`
	Level      string    `json:"level"`
	Msg        string    `json:"msg"`
	ID         string    `json:"id"`
	Verdict    string    `json:"verdict"`
	Stage      string    `json:"stage"`
	Account    string    `json:"account"`
	Confidence string    `json:"confidence"`
	Role       string    `json:"role"`
	Listener   string    `json:"listener"`
	QueueID    string    `json:"queue_id"`
	Client     string    `json:"client"`
	MailFrom   string    `json:"mail_from"`
	From       string    `json:"from"`
	MessageID  string    `json:"message_id"`
	Recipients int       `json:"recipients"`
	Size       int64     `json:"size"`
	Rule       string    `json:"rule"`
	Reason     string    `json:"reason"`
	Network    string    `json:"network"`
	LoginBy    string    `json:"login_by"`
	Problem    string    `json:"problem"`
	Panics     int       `json:"panics"`
	Malformed  int       `json:"malformed"`
	Error      string    `json:"error"`

	Raw string `json:"-"`
}

// lines reads the guard's log as far as it is complete.
func (g *Guard) lines() []Line {
	text, err := os.ReadFile(g.GuardLog())
	if err != nil {
		return nil
	}
	var all []Line
	for _, raw := range strings.SplitAfter(string(text), "\n") {
		if !strings.HasSuffix(raw, "\n") {
			break // not complete yet
		}
		l := Line{Raw: strings.TrimSuffix(raw, "\n")}
		if err := json.Unmarshal([]byte(raw), &l); err != nil {
			l = Line{Msg: "not JSON", Raw: l.Raw}
		}
		all = append(all, l)
	}
	return all
}

// LogEnd is the last lines of the guard's log.
func (g *Guard) LogEnd() string {
	all := g.lines()
	var b strings.Builder
	for _, l := range all[max(0, len(all)-20):] {
		b.WriteString(l.Raw + "\n")
	}
	return b.String()
}

// Mark is where the guard's log ends now.
func (g *Guard) Mark() int { return len(g.lines()) }

// Lines are those of the guard's log since a mark.
func (g *Guard) Lines(mark int) []Line { return g.lines()[mark:] }

// Verdicts are the guard's verdicts since a mark.
func (g *Guard) Verdicts(mark int) []Line {
	var verdicts []Line
	for _, l := range g.lines()[mark:] {
		if l.Msg == "verdict" {
			verdicts = append(verdicts, l)
		}
	}
	return verdicts
}

// WaitVerdict returns the first verdict since the mark that matches.
func (g *Guard) WaitVerdict(ctx context.Context, mark int, match func(Line) bool) (Line, error) {
	return g.waitLine(ctx, mark, func(l Line) bool { return l.Msg == "verdict" && match(l) })
}

// WaitLine returns the first line since the mark with that message.
func (g *Guard) WaitLine(ctx context.Context, mark int, msg string) (Line, error) {
	return g.waitLine(ctx, mark, func(l Line) bool { return l.Msg == msg })
}

// WaitProblem returns the first line since the mark that names a problem of the
// configuration with that text in it.
func (g *Guard) WaitProblem(ctx context.Context, mark int, text string) (Line, error) {
	return g.waitLine(ctx, mark, func(l Line) bool { return strings.Contains(l.Problem, text) })
}

func (g *Guard) waitLine(ctx context.Context, mark int, match func(Line) bool) (Line, error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, l := range g.lines()[mark:] {
			if match(l) {
				return l, nil
			}
		}
		select {
		case <-ctx.Done():
			return Line{}, fmt.Errorf("wait for a line of the guard's log: %w", ctx.Err())
		case <-g.guard.exited:
			return Line{}, errors.New("the guard has ended")
		case <-tick.C:
		}
	}
}

// LogLines are the lines of the guard's log with that message.
func (g *Guard) LogLines(msg string) []Line {
	return slices.DeleteFunc(g.lines(), func(l Line) bool { return l.Msg != msg })
}

// Broken lists the lines of the guard's log that no run may have: a data race,
// a panic, a frame of the MTA that was taken for malformed.
func (g *Guard) Broken() []string {
	var bad []string
	for _, l := range g.lines() {
		if l.Msg == "not JSON" && (strings.Contains(l.Raw, "DATA RACE") || strings.HasPrefix(l.Raw, "panic:") || strings.HasPrefix(l.Raw, "fatal error:")) ||
			l.Panics > 0 || l.Malformed > 0 || strings.HasPrefix(l.Msg, "panic") {
			bad = append(bad, l.Raw)
		}
	}
	return bad
}
