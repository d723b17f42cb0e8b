// Command demo shows relayguard at work: a private Postfix with Dovecot's AUTH
// and the real daemon on loopback, a short scenario over real SMTP and
// sendmail(1), and what became of each message. It exits 0 only if every
// verdict was the expected one.
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

// errUnexpected says that some verdict was not the expected one.
var errUnexpected = errors.New("not every message met what it should have")

func run(ctx context.Context, binary string, stay bool) (err error) {
	out := newScreen(os.Stdout)
	if err := postfixtest.Available(); err != nil {
		return err
	}
	out.title("A private Postfix with AUTH, and relayguard on its milter sockets")
	began := time.Now()
	r, err := relay.Start(ctx, relay.Options{
		Binary: binary,
		Config: config,
		Postfix: postfixtest.Options{
			Inside:    []string{"example.jp"},
			Mailboxes: []string{"hanako@example.jp", "postmaster@example.jp"},
			Users:     map[string]string{"taro@example.jp": password, "hanako@example.jp": password},
		},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Stop()) }()
	out.say("up after %.1f s, everything on loopback, the machine's own Postfix untouched", time.Since(began).Seconds())

	met, err := play(ctx, r, out)
	if err != nil {
		return err
	}
	if err := show(ctx, r, out); err != nil {
		return err
	}
	if !met {
		return errUnexpected
	}
	if stay {
		invite(r, out)
		<-ctx.Done()
		out.say("\nstopping")
	}
	return nil
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
