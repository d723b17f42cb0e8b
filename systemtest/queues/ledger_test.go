package queues_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// file is a message in the mail server's queue, by its control file.
type file struct {
	queue, id, path string
	size            int64
	inode           uint64
}

// files lists those of some queues; without, all. What vanishes meanwhile may be
// missing.
func (h *house) files(queues ...string) (all []file) {
	h.t.Helper()
	dirs := map[string]string{} // queue to directory
	if h.postfix != nil {
		for _, q := range []string{"hold", "deferred", "active", "incoming", "maildrop"} {
			dirs[q] = filepath.Join(h.postfix.QueueDir, q)
		}
	} else {
		dirs["queue"], dirs["maildrop"] = h.smail.QueueDir, h.smail.ClientQueueDir
	}
	for queue, dir := range dirs {
		if h.postfix != nil && len(queues) > 0 && !slices.Contains(queues, queue) {
			continue
		}
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return nil // it went
			}
			info, err := e.Info()
			if err != nil {
				return nil
			}
			if h.postfix != nil && leftover(info) {
				return nil
			}
			f := file{queue: queue, id: e.Name(), path: path, size: info.Size(), inode: info.Sys().(*syscall.Stat_t).Ino}
			if h.postfix == nil && !f.sendmails() || len(queues) > 0 && !slices.Contains(queues, f.queue) {
				return nil
			}
			all = append(all, f)
			return nil
		})
		h.must(err)
	}
	return all
}

// leftover reports whether a queue file is half of a message that a cleanup(8) was
// writing when it was killed: not marked as ready, and nobody goes on with it.
// Postfix passes it over, and removes it some day; the message is where it came from.
func leftover(info fs.FileInfo) bool {
	return info.Mode()&0o100 == 0 && time.Since(info.ModTime()) > 10*time.Second
}

// sendmails reads the name of a file of Sendmail's queue; false: no control file.
// A tf, which is the next qf, is one where the qf is not.
func (f *file) sendmails() bool {
	kind, id := f.id[:min(2, len(f.id))], f.id[min(2, len(f.id)):]
	f.id = id
	switch {
	case kind == "hf" && f.queue == "queue":
		f.queue = "hold"
	case kind == "qf" && f.queue == "queue":
		f.queue = "deferred"
	default:
		return kind == "qf" || kind == "hf"
	}
	return true
}

// token is what each message of a test has in its envelope.
var token = regexp.MustCompile(`t-[a-z]+-\d+@example\.net`)

// ledger tells of each message where it is: "hold", "deferred"..., "grace" or
// "sent", once for each time.
func (h *house) ledger() map[string][]string {
	h.t.Helper()
	places := map[string][]string{}
	for _, f := range h.files() {
		if name := tokenOf(f.path); name != "" {
			places[name] = append(places[name], f.queue)
		}
	}
	for name, n := range h.copies() {
		for range n {
			places[name] = append(places[name], "grace")
		}
	}
	for _, m := range h.sink.All() {
		for _, to := range m.RcptTo {
			if token.MatchString(to) {
				places[to] = append(places[to], "sent")
			}
		}
	}
	return places
}

func tokenOf(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "" // it went
	}
	return string(token.Find(text))
}

// copies counts what is in the grace folder.
func (h *house) copies() map[string]int {
	h.t.Helper()
	all := map[string]int{}
	err := filepath.WalkDir(filepath.Join(filepath.Dir(h.ConfigPath), "queue-state", "deleted"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || strings.Contains(path, ".part") || e.Name() == "df" {
			return nil
		}
		if name := tokenOf(path); name != "" {
			all[name]++
		}
		return nil
	})
	h.must(err)
	return all
}

// sum counts a ledger by place, and what is not exactly once in the house.
func sum(places map[string][]string, want []string) (by map[string]int, wrong []string) {
	by = map[string]int{}
	for _, name := range want {
		at := places[name]
		if len(at) != 1 {
			wrong = append(wrong, fmt.Sprintf("%s is at %q", name, at))
			continue
		}
		by[at[0]]++
	}
	return by, wrong
}
