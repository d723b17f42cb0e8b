package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os/signal"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/queue"
	"relayguard/cmd/internal/telemetry"
)

// helperIdle is how long the root helper waits for work when systemd starts it
// anew whenever there is some.
const helperIdle = 5 * time.Minute

func newQueueHelper() *cobra.Command {
	var socket string
	uid := -1
	cmd := &cobra.Command{
		Use:    "queue-helper",
		Short:  "act on the MTA's queue as root, for the daemon",
		Hidden: true,
		Long: strings.TrimSpace(`
Serves a fixed set of verbs on the MTA's queue to the daemon, which has no rights,
over a Unix socket: the one that systemd passes (relayguard-queue.socket), or
--socket. It reads the same configuration as the daemon. The packaged units start
it when it is needed, and it ends when it has nothing to do.

Exit status: 0 after a signal or when idle, 2 usage or configuration, 3 the socket
cannot be had.`),
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("uid") && uid < 0 {
				return usage(cmd, "--uid: got %d, want the uid of the daemon's account", uid)
			}
			c, _, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			account, err := helperClient(uid)
			if err != nil {
				return &exitError{exitUsage, err}
			}
			log, err := telemetry.NewLogger(cmd.ErrOrStderr(), c.Log.Format, c.Log.Level)
			if err != nil {
				return &exitError{exitUsage, err}
			}
			return serveQueue(cmd.Context(), c, account, socket, log)
		},
	}
	cmd.Flags().StringVar(&socket, "socket", "", "listen on this `path` instead of on what systemd passes")
	cmd.Flags().IntVar(&uid, "uid", -1, "`uid` of the daemon's account, if that is not relayguard")
	return cmd
}

// helperClient is the account that may ask beside root.
func helperClient(uid int) (*user.User, error) {
	if uid < 0 {
		u, err := user.Lookup("relayguard")
		if err != nil {
			return nil, fmt.Errorf("there is no account relayguard here; name the daemon's with --uid: %w", err)
		}
		return u, nil
	}
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil { // a uid needs no name; the socket is then root's group's
		return &user.User{Uid: strconv.Itoa(uid), Gid: "0", Username: "uid:" + strconv.Itoa(uid)}, nil
	}
	return u, nil
}

func serveQueue(ctx context.Context, c *config.Config, account *user.User, socket string, log *slog.Logger) error {
	uid, err := strconv.Atoi(account.Uid)
	gid, gidErr := strconv.Atoi(account.Gid)
	if err = errors.Join(err, gidErr); err != nil {
		return &exitError{exitUsage, err}
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	direct := directly(c)
	direct.Log = log
	s := queue.Server{Operator: direct, UIDs: []int{uid}, Log: log}
	var l *net.UnixListener
	if socket != "" {
		l, err = queue.Listen(socket, gid)
	} else {
		l, err = queue.PassedSocket()
		s.Idle = helperIdle
	}
	if err != nil {
		return &exitError{exitCannotTell, err}
	}
	log.Info("serving the queue", "account", account.Username, "config_directory", c.MTA.ConfigDirectory)
	if err := s.Serve(ctx, l); err != nil {
		return &exitError{exitCannotTell, err}
	}
	return nil
}
