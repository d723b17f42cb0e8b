package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"relayguard/journal"
	"relayguard/policy"
	"relayguard/systemtest/relay"
)

// queueHouse is a private mail server of either kind with the guard, below a
// directory of its own.
type queueHouse struct {
	*relay.Guard
	dir     string
	binary  string
	env     []string // of the guard's commands; nil: this program's
	start   starter
	postfix *relay.Relay         // nil beside Sendmail
	smail   *relay.SendmailRelay // nil beside Postfix
}

// Who the mail of a stock is to: tools can choose by it. Both are equally long, so
// that one's file is the other's but for the letter.
const (
	toQueued = "somebody-q@example.net"
	toHeld   = "somebody-h@example.net"

	stockFrom = "www@example.jp"
	stockText = "Subject: waits\n\nHello, world. Hello, world. Hello, world. Hello, world. Hello, world.\n"
	stockUID  = 33
)

// stock is what waits in a queue: as many messages deferred as held by a rule.
// All are copies of one that the mail server made.
type stock struct {
	each    int
	files   []stockFile // of the model
	id      string      // of the model
	arrived time.Time
	account string
	size    int64
	journal string // directory; has a decision about each
}

type stockFile struct {
	text     []byte
	uid, gid int
	mode     os.FileMode
}

// queueServer is a kind of mail server, and its own tools.
type queueServer struct {
	name  string
	open  func(ctx context.Context, guard, dir string) (*queueHouse, error)
	model func(ctx context.Context, h *queueHouse) (paths []string, id string, err error)
	// plant puts the stock's files into the queue; ids and held give them their names.
	plant func(h *queueHouse, s *stock) error
	id    func(s *stock, n int) string // of message n of the stock; those from s.each on are held
	count func(h *queueHouse, held bool) (int, error)
	list  plainTool // of all that is there
	held  *plainTool
	acts  map[string]plainAct
}

// plainTool is what lists without the guard's knowledge.
type plainTool struct {
	name   string
	titles int // lines before the first message
	cmds   func(ctx context.Context, h *queueHouse) []*exec.Cmd
}

// plainAct does to all messages that are deferred, or were before an act, what one
// of ours does.
type plainAct struct {
	name string
	cmd  func(ctx context.Context, h *queueHouse, ids []string) *exec.Cmd
}

var queueServers = []*queueServer{&postfixQueue, &sendmailQueue}

// command is one of the guard's.
func (h *queueHouse) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, h.binary, append(args, "--config", h.ConfigPath)...)
	cmd.Env, cmd.Dir = h.env, "/"
	return cmd
}

func (h *queueHouse) close() error {
	var err error
	if h.postfix != nil {
		err = h.postfix.Stop()
	} else {
		err = h.smail.Stop()
	}
	// What Sendmail's queue run left may still end, and make a file meanwhile.
	for tries := 0; ; tries++ {
		if gone := os.RemoveAll(h.dir); gone == nil || tries == 10 {
			return errors.Join(err, gone)
		}
	}
}

// openQueue makes a directory and starts a mail server there.
func (b *bench) openQueue(ctx context.Context, server *queueServer) (*queueHouse, error) {
	dir, err := os.MkdirTemp(queueParent(), "rgq")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	h, err := server.open(ctx, b.guard, dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	h.dir, h.binary = dir, b.guard
	return h, nil
}

// takeStock has the mail server make a message, and learns from it.
func (b *bench) takeStock(ctx context.Context, server *queueServer) (_ *stock, err error) {
	ctx, cancel := context.WithTimeout(ctx, queueLimit)
	defer cancel()
	h, err := b.openQueue(ctx, server)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	s := &stock{each: b.queued, journal: filepath.Join(b.dir, "journal-"+server.name)}
	paths, id, err := server.model(ctx, h)
	if err != nil {
		return nil, fmt.Errorf("a message that waits: %w", err)
	}
	s.id = id
	for _, path := range paths {
		f, err := readStockFile(path)
		if err != nil {
			return nil, err
		}
		s.files = append(s.files, f)
	}
	if err := s.look(ctx, h); err != nil {
		return nil, err
	}
	return s, s.remember(ctx, server)
}

// look asks the guard about the model.
func (s *stock) look(ctx context.Context, h *queueHouse) error {
	cmd := h.command(ctx, "queue", "list", s.id, "--json")
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := h.start(cmd)
	if err == nil {
		err = ended(cmd, cmd.Wait(), errs.String())
	}
	if err != nil {
		return err
	}
	var list struct {
		Messages []struct {
			Arrival time.Time
			Account string
			Size    int64
		}
	}
	if err := json.Unmarshal([]byte(out.String()), &list); err != nil || len(list.Messages) != 1 {
		return fmt.Errorf("the guard's list of %s: %v: %.300s", s.id, err, out.String())
	}
	m := list.Messages[0]
	s.arrived, s.account, s.size = m.Arrival, m.Account, m.Size
	return nil
}

// remember writes what a guard knows that judged the whole stock.
func (s *stock) remember(ctx context.Context, server *queueServer) (err error) {
	j, err := journal.Open(ctx, journal.Options{Dir: s.journal, KeepLogBytes: 1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	var some []journal.Record
	for n := range 2 * s.each {
		d := journal.Decision{
			ID: fmt.Sprintf("%013x", n+1), Time: s.arrived, Stage: journal.StageMessage, Verdict: policy.Accept, Phase: policy.Enforce,
			Listener: "local", Role: policy.Local, Confidence: "kernel", UID: stockUID, Account: s.account, LocalUser: strings.TrimPrefix(s.account, "local_user:"),
			MailFrom: stockFrom, HeaderFrom: stockFrom, QueueID: server.id(s, n), Size: s.size, Recipients: 1, Domains: map[string]int{"example.net": 1},
		}
		if n < s.each {
			some = append(some, d)
		} else {
			d.Verdict, d.Rule, d.Reason = policy.Hold, "local-user-volume", "over 300 recipients an hour"
			some = append(some, d, journal.HoldChange{QueueID: d.QueueID, DecisionID: d.ID, Time: s.arrived, State: journal.StateHeld, By: "relayguard", Arrival: s.arrived})
		}
		if len(some) >= 2000 || n == 2*s.each-1 {
			if err := j.Append(some...); err != nil {
				return fmt.Errorf("write a journal: %w", err)
			}
			some = some[:0]
		}
	}
	return j.Sync(ctx)
}

// furnish starts a mail server whose queue has the stock; the guard is away.
func (b *bench) furnish(ctx context.Context, server *queueServer, s *stock) (*queueHouse, error) {
	h, err := b.openQueue(ctx, server)
	if err != nil {
		return nil, err
	}
	err = errors.Join(h.StopGuard(os.Interrupt), h.StopHelper(os.Interrupt))
	if err == nil {
		err = server.plant(h, s)
	}
	if err == nil {
		err = server.holds(h, s.each, s.each)
	}
	if err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

// holds wants so many messages in the queue, and on hold. After a release the mail
// server moves mail meanwhile, so it counts more than once.
func (server *queueServer) holds(h *queueHouse, queued, held int) error {
	const tries, pause = 50, 100 * time.Millisecond
	for try := 1; ; try++ {
		gotQueued, err1 := server.count(h, false)
		gotHeld, err2 := server.count(h, true)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		if gotQueued == queued && gotHeld == held {
			return nil
		}
		if try == tries {
			return fmt.Errorf("%d messages are queued and %d on hold, want %d and %d", gotQueued, gotHeld, queued, held)
		}
		time.Sleep(pause)
	}
}

// guarded starts the guard, which knows the stock, and lets it look at the queue.
func (s *stock) guarded(ctx context.Context, h *queueHouse) error {
	err := os.RemoveAll(h.JournalDir())
	if err == nil {
		err = os.CopyFS(h.JournalDir(), os.DirFS(s.journal))
	}
	if err == nil {
		err = h.StartHelper(ctx)
	}
	if err == nil {
		err = h.StartGuard(ctx)
	}
	if err != nil {
		return err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for { // its first look shall not be a part of what is measured
		over, err := h.looked(ctx, s.each)
		if err != nil || over {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the guard's first look at the queue: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// looked asks whether the guard has looked at the queue since it started.
func (h *queueHouse) looked(ctx context.Context, held int) (bool, error) {
	cmd := h.command(ctx, "held", "list", "--limit", "1", "--json")
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := h.start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	var list struct {
		Held   []struct{ QueueID string }
		Looked time.Time
		Stale  string
		Older  bool
	}
	if wrong := json.Unmarshal([]byte(out.String()), &list); wrong != nil {
		return false, ended(cmd, errors.Join(err, wrong), errs.String())
	}
	if len(list.Held) == 0 {
		return false, fmt.Errorf("the guard knows of no held mail, want %d", held)
	}
	return err == nil && list.Stale == "" && !list.Older && !list.Looked.IsZero(), nil
}

// measured runs one of the guard's commands by run and tells what daemon and root
// helper took, too.
func (h *queueHouse) measured(run func() (cost, error)) (ours, error) {
	pids := []int{h.GuardPID(), h.HelperPID()}
	for _, pid := range pids {
		forgetPeak(pid)
	}
	c, err := run()
	if err != nil {
		return ours{}, err
	}
	o := ours{cost: c}
	var err1, err2 error
	o.daemon, err1 = peakMB(pids[0])
	o.helper, err2 = peakMB(pids[1])
	return o, errors.Join(err1, err2)
}

// ours is what one of the guard's commands took, of all its processes.
type ours struct {
	cost
	daemon, helper float64 // MB resident at most meanwhile
}

func readStockFile(path string) (f stockFile, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return f, err
	}
	f.uid, f.gid = ownerOf(info)
	f.mode = info.Mode()
	f.text, err = os.ReadFile(path)
	return f, err
}

// write makes a copy, with another text, and another time if that is not zero.
func (f *stockFile) write(path string, text []byte, at time.Time) error {
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return err
	}
	if err := errors.Join(os.Chown(path, f.uid, f.gid), os.Chmod(path, f.mode.Perm())); err != nil || at.IsZero() {
		return err
	}
	return os.Chtimes(path, at, at)
}
