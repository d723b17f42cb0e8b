package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/guard"
	"relayguard/cmd/internal/telemetry"
	"relayguard/milter"
	"relayguard/mta/local"
	"relayguard/policy"
)

func newServe() *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "run the daemon",
		Long: strings.TrimSpace(`
Serves the milter sockets of the configuration and logs to standard error, one
line "verdict" a decision.

SIGHUP reads the configuration again. What is wrong with it is logged, all of
it, and the old one stays in force. Changes to listeners and to the sections
milter, journal, alert, store, redis, most of origin and some of forward and rbl need
a restart; the log says so.

SIGTERM and SIGINT drain: no new connections, running transactions finish,
until milter.drain_timeout is over. A second signal ends at once; the MTA
answers its clients with a temporary failure, and nothing is lost.

Exit status: 0 after a signal, 2 if the configuration is wrong, 3 if a socket
cannot be opened.`),
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, path, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), c, path, cmd.ErrOrStderr())
		},
	}
}

// daemon is what a running guard consists of.
type daemon struct {
	since    time.Time
	path     string // of the configuration
	config   *config.Config
	rules    *rules
	state    *state
	control  *control.Server
	guard    *guard.Guard
	server   *milter.Server
	users    *local.Users
	log      *slog.Logger // what must not wait: stops, and all but verdicts
	verdicts *slog.Logger // of mail that goes on
	level    *slog.LevelVar
	reports  reportBook
	failures chan error  // of listeners
	changes  chan func() // for run, which alone changes the rules in force
}

// serve runs until a signal ends it.
func serve(ctx context.Context, c *config.Config, path string, stderr io.Writer) error {
	limitHeap(int64(c.Milter.MaxMemory), int64(200*c.Store.MaxBuckets+100*c.Store.Known))
	hangup := make(chan os.Signal, 1) // several at once are one
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	ends := make(chan os.Signal, 2)
	signal.Notify(ends, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(ends)

	out := telemetry.NewWriter(stderr)
	defer out.Close()
	d := &daemon{since: time.Now(), path: path, config: c, level: new(slog.LevelVar), changes: make(chan func())}
	d.level.Set(c.Log.Level)
	var err error
	if d.log, err = telemetry.NewLogger(out.Urgent(), c.Log.Format, d.level); err != nil {
		return &exitError{exitUsage, err}
	}
	if d.verdicts, err = telemetry.NewLogger(out, c.Log.Format, d.level); err != nil {
		return &exitError{exitUsage, err}
	}
	out.Lost = func(lines int64) { d.log.Error("lines of the log were lost", "lines", lines) }
	if d.users, err = local.NewUsers(d.log); err != nil {
		return &exitError{exitCannotTell, err}
	}
	defer d.users.Close()
	if err := makeStateDir(c); err != nil {
		d.log.Error("the journal's directory", "error", err) // the journal says the rest
	}
	if d.state, err = openState(ctx, c, d.users, d.log); err != nil {
		return &exitError{exitCannotTell, err}
	}
	defer func() { d.state.close(d.guard) }()
	if err := d.start(ctx); err != nil {
		return err
	}
	defer func() { d.rules.close() }() // those in force by then
	return d.run(ctx, hangup, ends)
}

// start opens every socket or none.
func (d *daemon) start(ctx context.Context) error {
	var err error
	if d.rules, err = newRules(ctx, d.config, d.state, d.users, d.log); err != nil {
		return err
	}
	d.state.rules.Store(d.rules)
	d.state.config.Store(d.config)
	d.state.seedRoom(ctx)
	d.state.startShare(ctx)
	if err := d.state.desk.OpenLines(ctx, time.Now()); err != nil {
		d.log.Error("held mail does not wait for budget", "error", err)
	}
	d.guard = guard.New(d.rules.policy, d.verdicts, d.log)
	d.guard.Journal, d.guard.Watcher = d.state.journal, watcher{d.state}
	d.server = newServer(d.config, d.guard, d.log)
	listeners, err := listen(d.config.Listeners, d.config.MTA.Kind == config.KindSendmail, bodyBytes(d.config))
	if err != nil {
		d.rules.close()
		return err
	}
	d.state.run(d.guard, d.config, d.runReports, d.watchTroubles, d.state.garbage.run)
	d.state.renew(nil, d.config)
	d.serveControl()
	d.serveCalls(ctx)
	d.failures = make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { d.failures <- d.server.Serve(l) }()
		d.log.Info("listening", "listener", l.Name, "role", l.Role.String(), "address", l.Addr().String())
	}
	d.log.Info("serving", "version", version, "config", d.path, "phase", d.config.Phase.String(), "inside_domains", len(d.rules.policy.Inside))
	if len(d.rules.policy.Inside) == 0 {
		d.log.Warn("no inside domains are known; set inside.domains, so that bounces and mail to your own postmaster are never held")
	}
	d.tellSystemd("READY=1")
	return nil
}

func (d *daemon) tellSystemd(state string) {
	if err := notify(state); err != nil {
		d.log.Warn("notify", "error", err)
	}
}

// run waits for signals and failing listeners.
func (d *daemon) run(ctx context.Context, hangup, ends <-chan os.Signal) error {
	hourly := time.NewTicker(countEvery)
	defer hourly.Stop()
	for {
		select {
		case <-hourly.C:
			d.count("counters")
		case <-ctx.Done():
			return d.drain(ends)
		case s := <-ends:
			return d.drain(ends, "signal", s.String())
		case <-hangup:
			if s := d.reloadUnless(ctx, ends); s != nil {
				return d.drain(ends, "signal", s.String())
			}
		case change := <-d.changes:
			change()
		case err := <-d.failures:
			if errors.Is(err, milter.ErrClosed) {
				continue
			}
			d.server.Close()
			return &exitError{exitCannotTell, err}
		}
	}
}

// countEvery is how often the counters are logged.
const countEvery = time.Hour

// count logs what was counted since the start.
func (d *daemon) count(msg string) {
	s, g := &d.server.Stats, &d.guard.Counts
	d.log.Info(msg, "connections", s.Connections.Load(), "open", s.Open.Load(), "messages", s.Messages.Load(),
		"told", g.Messages[policy.Tell].Load(), "held", g.Messages[policy.Hold].Load(), "deferred", g.Messages[policy.Defer].Load(),
		"rejected", g.Messages[policy.Reject].Load(), "refused_recipients", g.Refused.Load(), "refused_calls", g.Called.Load(), "late", g.Late.Load(), "refused_connections", s.Refused.Load(),
		"malformed", s.Malformed.Load(), "overdue", s.Overdue.Load(), "panics", s.Panics.Load(), "accept_errors", s.AcceptFails.Load())
}

// reloadUnless reloads; a signal to end does not wait for it, and is returned.
func (d *daemon) reloadUnless(ctx context.Context, ends <-chan os.Signal) os.Signal {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() {
		d.reload(ctx)
		close(done)
	}()
	select {
	case <-done:
		return nil
	case s := <-ends:
		cancel()
		<-done
		return s
	}
}

// drain ends the daemon; a further signal ends its patience.
func (d *daemon) drain(ends <-chan os.Signal, why ...any) error {
	d.tellSystemd("STOPPING=1")
	d.log.Info("draining", append(why, "at_most", d.config.Milter.DrainTimeout)...)
	ctx, cancel := context.WithTimeout(context.Background(), d.config.Milter.DrainTimeout)
	defer cancel()
	go func() {
		select {
		case <-ctx.Done():
		case <-ends:
			cancel()
		}
	}()
	err := d.server.Shutdown(ctx)
	if err != nil {
		d.log.Warn("drain", "error", err)
	}
	if d.control != nil { // it could not be opened
		d.control.Close()
	}
	d.count("stopped")
	return nil
}

// reload checks the whole file and everything that it names, then swaps. What
// could be read and now cannot is an error here, though not at start: there is
// something better in force.
func (d *daemon) reload(ctx context.Context) {
	c, err := config.Load(d.path)
	var restart []string
	if err == nil {
		restart = d.keepUntilRestart(c)
		if used := len(c.Address.PostfixMaps) > 0; used && c.Address.MapTimeout >= c.Milter.DecisionTimeout {
			err = fmt.Errorf("address.map_timeout: %v is not less than the milter.decision_timeout of %v that is in force until a restart", c.Address.MapTimeout, c.Milter.DecisionTimeout)
		}
	}
	if err == nil && c.RBL.Watch {
		err = new(asking).choose(c)
	}
	var next *rules
	if err == nil {
		next, err = newRules(ctx, c, d.state, d.users, d.log)
	}
	if err == nil {
		// In observe nothing is stopped, so nothing can get worse.
		if c.Phase != policy.Observe && len(next.unread) > len(d.rules.unread) {
			err = next.incomplete()
			next.close()
		}
	}
	if err != nil {
		for _, problem := range eachProblem(err) {
			d.log.Error("configuration not reloaded; the old one stays in force", "problem", problem)
		}
		return
	}
	if len(restart) > 0 {
		d.log.Warn("parts of the configuration need a restart; the rest is in force", "parts", strings.Join(restart, " "))
	}
	d.level.Set(c.Log.Level)
	released := d.state.pacing().Release
	d.guard.Use(next.policy)
	d.state.rules.Store(next)
	d.state.config.Store(c)
	d.state.bound(c)
	d.state.desk.Hurry()
	if !released {
		if err := d.state.desk.RefillLines(ctx, time.Now()); err != nil {
			d.log.Error("held mail does not wait for budget until the queue was looked at", "error", err)
		}
	}
	old := d.rules
	d.state.renew(d.config, c)
	d.state.forwarding.reload(c)
	d.state.blocklists.reload(d.config, c)
	d.rules, d.config = next, c
	d.log.Info("configuration reloaded", "config", d.path, "phase", c.Phase.String(), "inside_domains", len(next.policy.Inside))
	// Decisions under way may still ask the old maps; closed maps answer
	// "slow". None runs longer than the deadline.
	time.AfterFunc(2*c.Milter.DecisionTimeout, old.close)
}

// keepUntilRestart puts into c what cannot change while the daemon runs, and
// names what would have changed.
func (d *daemon) keepUntilRestart(c *config.Config) (restart []string) {
	if c.Milter != d.config.Milter {
		restart = append(restart, "milter")
	}
	if !slices.EqualFunc(c.Listeners, d.config.Listeners, sameListener) {
		restart = append(restart, "listener")
	}
	if c.Log.Format != d.config.Log.Format {
		restart = append(restart, "log.format")
	}
	if c.Journal != d.config.Journal {
		restart = append(restart, "journal")
	}
	if c.Store != d.config.Store {
		restart = append(restart, "store")
	}
	if !reflect.DeepEqual(c.Redis, d.config.Redis) {
		restart = append(restart, "redis")
	}
	if c.Control.Socket != d.config.Control.Socket {
		restart = append(restart, "control.socket")
	}
	if c.Alert != d.config.Alert {
		restart = append(restart, "alert")
	}
	if c.MTA.Log != d.config.MTA.Log || c.MTA.QueueHelper != d.config.MTA.QueueHelper {
		restart = append(restart, "mta.log mta.queue_helper")
	}
	if keepForward(&c.Forward, &d.config.Forward) {
		restart = append(restart, "forward")
	}
	if keepRBL(&c.RBL, &d.config.RBL) {
		restart = append(restart, "rbl")
	}
	if changed := keepOrigin(&c.Origin, &d.config.Origin); changed {
		restart = append(restart, "origin")
	}
	if now, then := bodyBytes(d.config), bodyBytes(c); slices.ContainsFunc([]policy.Role{policy.Local, policy.Relay, policy.Submission}, func(r policy.Role) bool { return now(r) < then(r) }) {
		restart = append(restart, "limit (per template: until then no text is read)")
	}
	if c.Hold.ReconcileEvery != d.config.Hold.ReconcileEvery {
		restart = append(restart, "hold.reconcile_every")
	}
	c.Store, c.Redis = d.config.Store, d.config.Redis
	c.Milter, c.Listeners, c.Log.Format = d.config.Milter, d.config.Listeners, d.config.Log.Format
	c.Journal, c.Control.Socket, c.Alert, c.Hold.ReconcileEvery = d.config.Journal, d.config.Control.Socket, d.config.Alert, d.config.Hold.ReconcileEvery
	c.MTA.Log, c.MTA.QueueHelper = d.config.MTA.Log, d.config.MTA.QueueHelper
	return restart
}

// keepOrigin keeps what of a section cannot change while the daemon runs, and says
// whether something would have.
func keepOrigin(next, now *config.Origin) bool {
	kept := *now
	kept.Fingerprints, kept.MaxPlugins = next.Fingerprints, next.MaxPlugins
	changed := kept != *next
	*next = kept
	return changed
}

// keepForward keeps what of a section is read at the start only, and says whether
// something would have changed.
func keepForward(next, now *config.Forward) bool {
	kept := *next
	kept.Watch, kept.Helper, kept.Directory = now.Watch, now.Helper, now.Directory
	kept.Rescan, kept.Poll, kept.Heartbeat = now.Rescan, now.Poll, now.Heartbeat
	changed := !reflect.DeepEqual(kept, *next)
	*next = kept
	return changed
}

// keepRBL likewise.
func keepRBL(next, now *config.RBL) bool {
	kept := *next
	kept.Watch, kept.Every, kept.Confirm = now.Watch, now.Every, now.Confirm
	changed := !reflect.DeepEqual(kept, *next)
	*next = kept
	return changed
}

func sameListener(a, b config.Listener) bool {
	return a.Name == b.Name && a.Role == b.Role && a.Endpoint == b.Endpoint && a.Mode == b.Mode && a.Group == b.Group &&
		slices.Equal(a.Peers, b.Peers) && slices.Equal(a.Allow, b.Allow)
}

// eachProblem takes an error apart for the log: a line a problem.
func eachProblem(err error) []string {
	var problems config.Errors
	if !errors.As(err, &problems) {
		return []string{err.Error()}
	}
	lines := make([]string, len(problems))
	for i, p := range problems {
		lines[i] = fmt.Sprint(p)
	}
	return lines
}
