package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"relayguard/systemtest/relay"
)

// order is a command that an admin types, and what it must answer.
type order struct {
	why  string
	args []string
	exit int
	says []string // all of these

	lines int // that are shown, if not all
}

// admin is who has been called at night.
type admin struct {
	binary string
	relay  *relay.Relay
	out    *screen
	met    bool // every command so far answered as it should
}

// command runs a command on a terminal of 80 columns, and shows both.
func (a *admin) command(ctx context.Context, o order) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	a.out.prompt(o.why, "relayguard "+shellLine(o.args))
	shown, exit, err := onTerminal(ctx, columns, a.binary, append(o.args, "--config", a.relay.ConfigPath)...)
	if err != nil {
		return fmt.Errorf("relayguard %s: %w", strings.Join(o.args, " "), err)
	}
	a.out.shown(firstLines(shown, o.lines))
	if exit != o.exit {
		a.wrong("EXPECTED exit status %d, got %d", o.exit, exit)
	}
	for _, text := range o.says {
		if !strings.Contains(shown, text) {
			a.wrong("EXPECTED %q in that", text)
		}
	}
	return nil
}

// firstLines are so many of a text, and a sign that there are more; 0: all.
func firstLines(text string, most int) string {
	lines := strings.SplitAfter(text, "\n")
	if most == 0 || len(lines) <= most {
		return text
	}
	return strings.Join(lines[:most], "") + "[...]\n"
}

func (a *admin) wrong(format string, args ...any) {
	a.met = false
	a.out.wrong(format, args...)
}

// night is what an admin does about the theft.
func night(ctx context.Context, a *admin, t theft) error {
	a.out.title("At 3 a.m. an alert comes. What the admin types")
	a.out.say("(each with -c %s behind it)", a.relay.ConfigPath)
	const login, limit = "login:" + taro, "login-volume"
	rest := fmt.Sprint(spams - spamsPass)
	for _, o := range []order{
		{why: "is somebody abusing us, and who?", args: []string{"status"}, exit: 1, says: []string{login, limit, "relayguard explain " + t.last.ID}},
		{why: "why was that stopped?", args: []string{"explain", t.last.ID}, says: []string{"hold", "150/150", "+49 rcpt", thief, "relayguard held"}},
		{why: "what is held?", args: []string{"held", "list"}, says: []string{t.taros.QueueID, login}},
		{why: "Taro says that one of them is his: let it go", args: []string{"held", "release", t.taros.QueueID, "--reason", "Taro's own"}, says: []string{"released 1 message"}},
	} {
		if err := a.command(ctx, o); err != nil {
			return err
		}
	}
	if err := a.delivered(ctx); err != nil {
		return err
	}
	spam := []string{"held", "delete", "--login", taro, "--rule", limit}
	for _, o := range []order{
		{why: "the rest is the thief's: look first,", args: append(spam[:len(spam):len(spam)], "--dry-run"), says: []string{"would delete " + rest + " messages"}},
		{why: "then delete it", args: append(spam[:len(spam):len(spam)], "--yes"), says: []string{"deleted " + rest + " messages"}},
		{why: "stop the login until its password is changed", args: []string{"suspend", login, "--reason", "password stolen"}, says: []string{login}},
	} {
		if err := a.command(ctx, o); err != nil {
			return err
		}
	}
	met, err := tryAgain(ctx, a.relay, a.out)
	if err != nil {
		return err
	}
	a.met = a.met && met
	return a.command(ctx, order{why: "how do we stand now?", args: []string{"status"}, exit: 1, says: []string{"suspended", "password stolen", "1 message"}})
}

// delivered waits for the released message.
func (a *admin) delivered(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if _, err := arrived(ctx, a.relay, customer, messageID(tarosNumber)); err != nil {
		return err
	}
	a.out.say("")
	a.out.say("and it has reached %s", customer)
	return nil
}

// shellLine quotes what a shell would take apart.
func shellLine(args []string) string {
	words := make([]string, len(args))
	for i, word := range args {
		switch {
		case strings.Contains(word, "'"):
			word = `"` + word + `"`
		case strings.ContainsAny(word, " "):
			word = "'" + word + "'"
		}
		words[i] = word
	}
	return strings.Join(words, " ")
}
