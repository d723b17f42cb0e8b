package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/systemtest/relay"
)

// postfixQueue is Postfix: nothing is delivered, and what is deferred is not due, so
// that it has nothing else to do. What a release lets go it takes in hand and defers.
var postfixQueue = queueServer{
	name: "postfix",
	open: func(ctx context.Context, guard, dir string) (*queueHouse, error) {
		r, err := relay.Start(ctx, relay.Options{Binary: guard, Config: queueConfig, Postfix: postfixtest.Options{Dir: dir, Main: map[string]string{"defer_transports": "smtp", "queue_run_delay": "3h"}}})
		if err != nil {
			return nil, err
		}
		return &queueHouse{Guard: r.Guard, postfix: r, start: (*exec.Cmd).Start}, nil
	},
	model: modelOfPostfix,
	plant: plantPostfix,
	id:    idOfPostfix,
	count: func(h *queueHouse, held bool) (int, error) {
		queues := []string{"hold"}
		if !held {
			queues = []string{"incoming", "active", "deferred"} // where a release may be under way
		}
		var dirs []string
		for _, name := range queues {
			dirs = append(dirs, filepath.Join(h.postfix.QueueDir, name))
		}
		return countFiles("", dirs...)
	},
	list: plainTool{name: "postqueue", cmds: func(ctx context.Context, h *queueHouse) []*exec.Cmd {
		return []*exec.Cmd{exec.CommandContext(ctx, "/usr/sbin/postqueue", "-c", h.postfix.ConfigDir, "-j")}
	}},
	acts: map[string]plainAct{"hold": postsuper("-h"), "release": postsuper("-H"), "delete": postsuper("-d")},
}

// idOfPostfix is a time's microseconds and an inode's number.
func idOfPostfix(_ *stock, n int) string {
	return fmt.Sprintf("%05X%05X", n*7919%0x100000, 0xA0000+n/2)
}

// postsuper acts on the ids on its standard input. -H does not start a delivery.
func postsuper(flag string) plainAct {
	return plainAct{"postsuper", func(ctx context.Context, h *queueHouse, ids []string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, "/usr/sbin/postsuper", "-c", h.postfix.ConfigDir, flag, "-")
		cmd.Stdin = strings.NewReader(strings.Join(ids, "\n") + "\n")
		return cmd
	}}
}

// modelOfPostfix is a message that waits in the deferred queue.
func modelOfPostfix(ctx context.Context, h *queueHouse) (paths []string, id string, err error) {
	r := h.postfix
	if _, err := r.Sendmail(ctx, stockUID, []string{"-f", stockFrom, toQueued}, strings.NewReader(stockText)); err != nil {
		return nil, "", err
	}
	q, err := r.WaitQueue(ctx, func(q postfixtest.Queued) bool { return q.QueueName == "deferred" && q.To(toQueued) })
	if err != nil {
		return nil, "", err
	}
	err = filepath.WalkDir(filepath.Join(r.QueueDir, "deferred"), func(at string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == q.QueueID {
			paths = append(paths, at)
		}
		return err
	})
	if err == nil && len(paths) != 1 {
		err = fmt.Errorf("%s is not in the deferred queue", q.QueueID)
	}
	return paths, q.QueueID, err
}

func plantPostfix(h *queueHouse, s *stock) error {
	model := s.files[0]
	heldText := bytes.ReplaceAll(model.text, []byte(toQueued), []byte(toHeld))
	later := time.Now().Add(time.Hour) // when the queue manager is to try it again
	for n := range 2 * s.each {
		id := idOfPostfix(s, n)
		if n >= s.each {
			if err := model.write(filepath.Join(h.postfix.QueueDir, "hold", id), heldText, time.Time{}); err != nil {
				return err
			}
			continue
		}
		dir := filepath.Join(h.postfix.QueueDir, "deferred", id[:1]) // hashed by the first letter
		if err := os.Mkdir(dir, 0o700); err == nil {
			if err := os.Chown(dir, model.uid, model.gid); err != nil {
				return err
			}
		}
		if err := model.write(filepath.Join(dir, id), model.text, later); err != nil {
			return err
		}
	}
	return nil
}

// countFiles counts files below directories whose names begin so. What moves from
// one to another meanwhile counts once, or not at all.
func countFiles(prefix string, dirs ...string) (int, error) {
	seen := map[string]bool{}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return nil // moved meanwhile
			}
			if err == nil && !e.IsDir() && strings.HasPrefix(e.Name(), prefix) {
				seen[e.Name()] = true
			}
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	return len(seen), nil
}

func ownerOf(info fs.FileInfo) (uid, gid int) {
	owner := info.Sys().(*syscall.Stat_t)
	return int(owner.Uid), int(owner.Gid)
}
