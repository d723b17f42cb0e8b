package sendmail

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"relayguard/mta"
	"relayguard/mta/probe"
)

// milterFails reports what Sendmail answers in place of a milter that it cannot reach,
// or that says nothing better: MSG_TEMPFAIL in srvrsmtp.c (F=T), and the greeting of
// F=4. Its rules', its resolver's and milters' own answers have other texts. Any of them
// may come with a milter away: that AUTH is wanted (M=a) is said before, and where
// check_relay turns a client away no milter is looked for at all.
func milterFails(a probe.Answer) bool {
	return a.Code == 451 && strings.HasPrefix(a.Text, "4.3.2 Please try again later") || a.Code == 421 && a.At == "connect"
}

// judge tells what an answer says of the guard; asks is nil where Sendmail had a
// session with it, or where that cannot be seen. Each milter without which no mail
// passes must be there, whatever the answer is.
func (s *Settings) judge(ctx context.Context, d Daemon, l mta.Listener, answer probe.Answer, asks error) error {
	said := fmt.Sprintf("it answered %d %q to %s", answer.Code, answer.Text, answer.At)
	var away []error
	for _, name := range s.FiltersOf(d) {
		f, found := s.filterNamed(name)
		if !found {
			continue
		}
		err := f.reachable(ctx)
		if other, ours := listenerOf(f, []mta.Listener{l}); err != nil && ours {
			return fmt.Errorf("%s: Sendmail does not find the guard (%s: %w); does it run with these listeners?", said, other.Address, err)
		}
		if err != nil && strings.ContainsAny(f.Flags, "T4R") { // else mail passes without it
			away = append(away, fmt.Errorf("%s (%s): %w", f.Name, f.Socket, err))
		}
	}
	switch {
	case len(away) > 0:
		return fmt.Errorf("%s: not for the guard, but another milter of it is away: %w; start it, or take it out", said, errors.Join(away...))
	case asks != nil || l.Network != "unix" && milterFails(answer): // whose sessions those of TCP are cannot be seen
		return errors.Join(fmt.Errorf("%s: all its milters are there, but it does not use one of them, or one defers everything, or its rules (check_relay) turn this machine away before; its log says which", said), asks)
	}
	return nil // who else defers, a rule, the resolver, a milter that is there, is not the question
}

// reachWait bounds the look whether a milter is there.
const reachWait = 3 * time.Second

// reachable connects to a milter and leaves. A socket without a kind is a path, as in
// milter.c.
func (f Filter) reachable(ctx context.Context) error {
	kind, address, found := strings.Cut(f.Socket, ":")
	if !found {
		kind, address = "local", f.Socket
	}
	network := "tcp"
	switch kind = strings.ToLower(kind); {
	case kind == "unix" || kind == "local" || kind == "":
		network, address = "unix", filepath.Clean(address)
	default: // port@host
		port, host, _ := strings.Cut(address, "@")
		address = net.JoinHostPort(strings.Trim(host, "[]"), port)
	}
	dialer := net.Dialer{Timeout: reachWait}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return err
	}
	return conn.Close()
}
