package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
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

Under systemd it keeps a copy of each configuration that was right in its state
directory. It goes by that while the file is wrong, as a running daemon goes on
with what it has, and says so in its log.

Exit status: 0 after a signal or when idle, 2 usage or configuration, 3 the socket
cannot be had.`),
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("uid") && uid < 0 {
				return usage(cmd, "--uid: got %d, want the uid of the daemon's account", uid)
			}
			c, wrong, err := helperConfig(cmd)
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
			if wrong != nil {
				log.Error("the configuration is not as it should be; see relayguard check", "error", wrong)
			}
			return serveQueue(cmd.Context(), c, account, socket, log)
		},
	}
	cmd.Flags().StringVar(&socket, "socket", "", "listen on this `path` instead of on what systemd passes")
	cmd.Flags().IntVar(&uid, "uid", -1, "`uid` of the daemon's account, if that is not relayguard")
	return cmd
}

// helperConfig is the configuration, or while that is wrong the last one that was
// right: a typo must not keep the daemon, which goes on, from held mail and from
// the red switch. Wrong says what the log is to say beside.
func helperConfig(cmd *cobra.Command) (c *config.Config, wrong, err error) {
	c, path, err := loadConfig(cmd)
	dir := os.Getenv("STATE_DIRECTORY") // systemd.exec(5), StateDirectory=
	if dir == "" {
		return c, nil, err
	}
	copied := filepath.Join(dir, "relayguard.toml")
	if err == nil {
		return c, keepConfig(path, copied), nil
	}
	last, lastErr := config.Load(copied)
	if lastErr != nil {
		return nil, nil, err
	}
	return last, fmt.Errorf("%w; serving by the last one that was right, %s", err, copied), nil
}

// keepConfig copies a configuration that was read. Where there is none, and the
// defaults are in force, no copy is kept either.
func keepConfig(path, copied string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.Remove(copied); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget the last configuration: %w", err)
		}
		return nil
	}
	if err == nil {
		if last, lastErr := os.ReadFile(copied); lastErr == nil && bytes.Equal(last, text) {
			return nil
		}
		err = os.WriteFile(copied+".new", text, 0o600)
	}
	if err == nil {
		err = os.Rename(copied+".new", copied)
	}
	if err != nil {
		return fmt.Errorf("keep a copy of the configuration: %w", err)
	}
	return nil
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
