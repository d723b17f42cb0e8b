package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/milter"
	"relayguard/mta/local"
	"relayguard/policy"
	"relayguard/policy/origin"
)

func newServer(c *config.Config, g milter.Guard, log *slog.Logger) *milter.Server {
	return &milter.Server{
		Guard: g,
		Log:   log,
		Limits: milter.Limits{
			DecisionTimeout: c.Milter.DecisionTimeout,
			AcceptOverdue:   c.Milter.OnTimeout == policy.Accept,
			IdleTimeout:     c.Milter.IdleTimeout,
			FrameTimeout:    c.Milter.FrameTimeout,
			Connections:     c.Milter.MaxConnections,
			HeaderBytes:     c.Milter.MaxHeaderBytes,
			HeaderFields:    c.Milter.MaxHeaderFields,
			Recipients:      c.Milter.MaxRecipients,
			Memory:          int64(c.Milter.MaxMemory),
		},
		ClientUID: func(client, daemon netip.AddrPort) int {
			uid, ok, err := local.TCPOwner(daemon, client)
			if err != nil {
				log.Warn("find the account behind a local connection", "error", err)
			}
			if !ok {
				return origin.NoUID
			}
			return uid
		},
		Own: new(ownAddresses).has,
	}
}

// ownAddresses are those of this machine, looked up now and then: interfaces come
// and go. The zero value has looked up none. Safe for concurrent use.
type ownAddresses struct {
	mu  sync.Mutex
	at  time.Time
	all map[netip.Addr]bool
}

// ownFor is how long what was looked up is believed.
const ownFor = 10 * time.Second

func (o *ownAddresses) has(addr netip.Addr) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if time.Since(o.at) > ownFor {
		o.at = time.Now()
		if all, err := net.InterfaceAddrs(); err == nil { // else those of before
			o.all = make(map[netip.Addr]bool, len(all))
			for _, a := range all {
				if p, err := netip.ParsePrefix(a.String()); err == nil {
					o.all[p.Addr().Unmap().WithZone("")] = true
				}
			}
		}
	}
	return o.all[addr.Unmap().WithZone("")]
}

// bodyBytes is how much of a body is read of mail that came in by a role: of none
// that no limit per template is for.
func bodyBytes(c *config.Config) func(policy.Role) int {
	return func(role policy.Role) int {
		if role != policy.Local && role != policy.Relay && role != policy.Submission || !slices.ContainsFunc(c.Limits, func(l config.Limit) bool {
			logins := len(l.When.Origins) == 0 || slices.ContainsFunc(l.When.Origins, func(o string) bool { return !strings.HasPrefix(o, "local_user:") && !strings.HasPrefix(o, "node:") })
			return slices.Contains(l.Per, "template") && (role != policy.Submission || logins)
		}) {
			return 0
		}
		return c.Milter.MaxBodyBytes
	}
}

// listen opens every socket or none, and reports every one that cannot be. Beside
// Sendmail local mail comes by SMTP.
func listen(wanted []config.Listener, sendmail bool, body func(policy.Role) int) ([]*milter.Listener, error) {
	var open []*milter.Listener
	var errs []error
	for _, w := range wanted {
		l, err := listenOne(w)
		if err != nil {
			errs = append(errs, fmt.Errorf("listener %q: %w", w.Name, err))
			continue
		}
		l.BodyBytes, l.LocalBySMTP = body(w.Role), sendmail
		open = append(open, l)
	}
	if len(errs) > 0 {
		for _, l := range open {
			l.Close()
		}
		return nil, &exitError{exitCannotTell, errors.Join(errs...)}
	}
	return open, nil
}

func listenOne(w config.Listener) (*milter.Listener, error) {
	uids, gid, err := accounts(w)
	if err != nil {
		return nil, err
	}
	socket := milter.Socket{Network: w.Endpoint.Network(), Address: w.Endpoint.Address(), Mode: w.Mode, GID: gid}
	l, err := socket.Listen()
	if err != nil {
		return nil, err
	}
	return &milter.Listener{Name: w.Name, Role: w.Role, Listener: l, Admit: admit(uids, w.Allow)}, nil
}

// accounts finds who may connect, and the socket's group; -1 without one. Every
// account that is missing is reported.
func accounts(w config.Listener) (uids []int, gid int, err error) {
	var errs []error
	gid = -1
	if w.Group != "" {
		if gid, err = groupID(w.Group); err != nil {
			errs = append(errs, err)
		}
	}
	uids = []int{0, os.Getuid()}
	for _, name := range w.Peers {
		uid, err := userID(name)
		if err != nil {
			errs = append(errs, fmt.Errorf("peers: %w; name the account that the MTA runs as", err))
		}
		uids = append(uids, uid)
	}
	return uids, gid, errors.Join(errs...)
}

func userID(name string) (int, error) {
	u, err := user.Lookup(name)
	if uid, numErr := strconv.ParseUint(name, 10, 32); err != nil && numErr == nil {
		return int(uid), nil // an account without a name: that of LDAP, or of a container
	}
	if err != nil {
		return 0, fmt.Errorf("there is no account %q here", name)
	}
	return strconv.Atoi(u.Uid)
}

func groupID(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("group: there is no group %q here; name the MTA's group", name)
	}
	return strconv.Atoi(g.Gid)
}

// admit lets the MTA in and nobody else: who could play the MTA could say who
// sent a message.
func admit(uids []int, allow []netip.Prefix) func(net.Conn) error {
	return func(c net.Conn) error {
		uid, err := peerUID(c)
		if errors.Is(err, errElsewhere) {
			remote := remoteAddr(c)
			if slices.ContainsFunc(allow, func(p netip.Prefix) bool { return p.Contains(remote) }) {
				return nil
			}
			return fmt.Errorf("%v is not in the listener's allow list", remote)
		}
		if err != nil {
			return err
		}
		if !slices.Contains(uids, uid) {
			return fmt.Errorf("uid %d is not among the listener's peers", uid)
		}
		return nil
	}
}

// errElsewhere says that the peer is on another machine.
var errElsewhere = errors.New("peer is on another machine")

func peerUID(c net.Conn) (int, error) {
	if u, ok := c.(*net.UnixConn); ok {
		cred, err := local.PeerCred(u)
		return int(cred.UID), err
	}
	if here, err := onThisMachine(c); err != nil || !here {
		return 0, cmp.Or(err, errElsewhere)
	}
	uid, ok, err := local.TCPOwner(addrPort(c.LocalAddr()), addrPort(c.RemoteAddr()))
	if err == nil && !ok {
		err = fmt.Errorf("the account behind %v cannot be found", c.RemoteAddr())
	}
	return uid, err
}

// onThisMachine reports whether the peer connects from an address of this
// machine's own, loopback or not: so does a local process that connects to the
// machine's outer address.
func onThisMachine(c net.Conn) (bool, error) {
	remote := remoteAddr(c)
	if remote.IsLoopback() || remote == addrPort(c.LocalAddr()).Addr() {
		return true, nil
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false, fmt.Errorf("list this machine's addresses: %w", err)
	}
	return slices.ContainsFunc(own, func(a net.Addr) bool {
		ip, ok := a.(*net.IPNet)
		return ok && ip.IP.Equal(remote.AsSlice())
	}), nil
}

func remoteAddr(c net.Conn) netip.Addr { return addrPort(c.RemoteAddr()).Addr() }

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
