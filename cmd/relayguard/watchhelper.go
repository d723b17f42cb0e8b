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

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/queue"
	"relayguard/cmd/internal/telemetry"
	"relayguard/cmd/internal/watchhelper"
)

func newWatchHelper() *cobra.Command {
	var socket string
	uid := -1
	cmd := &cobra.Command{
		Use:    "watch-helper",
		Short:  "read and watch the places of forwarding rules as root, for the daemon",
		Hidden: true,
		Long: strings.TrimSpace(`
Reads files and directories and watches them for changes, for the daemon, which has
no rights, over a Unix socket: the one that systemd passes
(relayguard-watch.socket), or --socket. It changes nothing, looks at nothing that
it reads. It shows what rules stand in, and of people's other files what they could
read themselves; no keys, password hashes or mail. It reads no configuration. The
packaged units start it when it is needed, and it ends when nobody is connected.

Exit status: 0 after a signal or when idle, 2 usage, 3 the socket cannot be had.`),
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("uid") && uid < 0 {
				return usage(cmd, "--uid: got %d, want the uid of the daemon's account", uid)
			}
			account, err := helperClient(uid)
			if err != nil {
				return &exitError{exitUsage, err}
			}
			log, err := telemetry.NewLogger(cmd.ErrOrStderr(), "text", slog.LevelInfo)
			if err != nil {
				return &exitError{exitUsage, err}
			}
			return serveWatch(cmd.Context(), account, socket, log)
		},
	}
	cmd.Flags().StringVar(&socket, "socket", "", "listen on this `path` instead of on what systemd passes")
	cmd.Flags().IntVar(&uid, "uid", -1, "`uid` of the daemon's account, if that is not relayguard")
	return cmd
}

func serveWatch(ctx context.Context, account *user.User, socket string, log *slog.Logger) error {
	uid, err := strconv.Atoi(account.Uid)
	gid, gidErr := strconv.Atoi(account.Gid)
	if err = errors.Join(err, gidErr); err != nil {
		return &exitError{exitUsage, err}
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	o := watchhelper.Options{AllowedUID: uid, Log: log}
	var l *net.UnixListener
	if socket != "" {
		l, err = queue.Listen(socket, gid)
	} else {
		l, err = queue.PassedSocket()
		o.Idle = helperIdle
	}
	if errors.Is(err, queue.ErrNoSocket) {
		err = errors.New("no socket was passed; start relayguard-watch.socket, or name one with --socket")
	}
	if err != nil {
		return &exitError{exitCannotTell, err}
	}
	log.Info("serving files and their changes", "account", account.Username)
	if err := watchhelper.Serve(ctx, l, o); err != nil {
		return &exitError{exitCannotTell, fmt.Errorf("serve the watch helper's socket: %w", err)}
	}
	return nil
}
