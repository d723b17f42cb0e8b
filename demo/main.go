// Command demo shows relayguard at work: a private Postfix with Dovecot's AUTH
// and the real daemon on loopback, a short scenario over real SMTP and
// sendmail(1), what became of each message, what an admin does about a stolen
// login, by the real commands, how held bills go out by themselves, how the abused
// share button of a web site is stopped, and how a planted forwarding rule is told.
// It exits 0 only if everything was as expected.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/systemtest/relay"
)

func main() {
	once := flag.Bool("once", false, "end after the scenario")
	stay := flag.Bool("stay", false, "stay up after the scenario even without a terminal")
	binary := flag.String("binary", "bin/relayguard", "the `file` to run")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: demo [--once | --stay] [--binary FILE]\n\nShows relayguard at work on a private Postfix.\n\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() > 0 || *once && *stay {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *binary, *stay || !*once && isTerminal(os.Stdin)); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// errUnexpected says that the scenario showed something else than it should have.
var errUnexpected = errors.New("not everything was as expected: look for EXPECTED above")

func run(ctx context.Context, binary string, stay bool) (err error) {
	out := newScreen(os.Stdout)
	if err := postfixtest.Available(); err != nil {
		return err
	}
	out.title("A private Postfix with AUTH, and relayguard on its milter sockets")
	began := time.Now()
	p, err := newPager()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	known, err := os.MkdirTemp("", "relayguard-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(known)) }()
	r, err := relay.Start(ctx, relay.Options{
		Binary:        binary,
		Config:        config + forwardConfig(known, p.URL),
		ShippedLimits: true,
		Postfix: postfixtest.Options{
			Inside:    []string{"example.jp"},
			Mailboxes: []string{"hanako@example.jp", "postmaster@example.jp"},
			Users:     map[string]string{taro: password, "hanako@example.jp": password, billing: password},
		},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Stop()) }()
	out.say("up after %.1f s, everything on loopback, the machine's own Postfix untouched", time.Since(began).Seconds())

	met, err := playAll(ctx, r, p, binary, out)
	if err != nil {
		return err
	}
	if !met {
		return errUnexpected
	}
	out.say("\nall as expected, in %.1f s", time.Since(began).Seconds())
	if stay {
		invite(r, out, binary)
		<-ctx.Done()
		out.say("\nstopping")
	}
	return nil
}

// playAll plays the whole scenario, and reports whether all was as expected.
func playAll(ctx context.Context, r *relay.Relay, p *pager, binary string, out *screen) (bool, error) {
	asExpected, err := play(ctx, r, out)
	if err != nil {
		return false, err
	}
	if err := delivered(ctx, r, out); err != nil {
		return false, err
	}
	found, met, err := steal(ctx, r, out)
	if err != nil {
		return false, err
	}
	a := &admin{binary: binary, relay: r, out: out, met: asExpected && met}
	if err := night(ctx, a, found); err != nil {
		return false, err
	}
	if err := heal(ctx, a); err != nil {
		return false, err
	}
	if err := abuse(ctx, a); err != nil {
		return false, err
	}
	if err := spy(ctx, a, p); err != nil {
		return false, err
	}
	err = morning(ctx, a)
	return a.met, err
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull && !isNull(info)
}

// isNull tells /dev/null, a character device too, from a terminal.
func isNull(info os.FileInfo) bool {
	null, err := os.Stat(os.DevNull)
	return err == nil && os.SameFile(info, null)
}
