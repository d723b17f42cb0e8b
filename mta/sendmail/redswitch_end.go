package sendmail

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"relayguard/mta"

	"golang.org/x/sys/unix"
)

// Times that the end of old processes is waited for.
const (
	endWait  = 1 * time.Second         // they may end by themselves
	busyWait = 1500 * time.Millisecond // and these until a local delivery is over
	haltWait = 50 * time.Millisecond   // a process comes to a halt at its next moment in user mode
)

// ended are processes that were ended.
type ended struct {
	deliveries, sessions int
	left                 []process // busy with a delivery on this machine
	lost                 []string  // as of the crew
}

// end waits a moment for old processes and ends those that go on. SIGKILL: at SIGTERM
// Sendmail may remove what it has in the queue (intsig in conf.c); so nothing of a
// message changes, and its lock is gone. What had no answer to its final dot may come
// twice. A process that feeds a program or writes a mailbox is left alone until that is
// done, for the program would take half a message for a whole one.
func (c *crew) end(ctx context.Context, old func() []process) (ended, error) {
	out := ended{lost: c.lost}
	_ = mta.Await(ctx, endWait, func() bool { return len(old()) == 0 })
	killed := map[int]string{}
	_ = mta.Await(ctx, busyWait, func() bool {
		out.left = nil
		there := parentsFirst(old())
		ports := listeningPorts(c.daemon)
		seen := map[int]bool{}
		for _, p := range there {
			if !seen[p.pid] && killed[p.pid] != p.started {
				c.endFamily(p, ports, &out, seen, killed)
			}
		}
		return len(there) == 0 // the killed ones may need a moment to let go of their locks
	})
	return out, ctx.Err()
}

// parentsFirst puts those last whose parent is another one of them.
func parentsFirst(all []process) []process {
	pids := map[int]bool{}
	for _, p := range all {
		pids[p.pid] = true
	}
	slices.SortStableFunc(all, func(a, b process) int {
		switch {
		case pids[a.parent] == pids[b.parent]:
			return 0
		case pids[a.parent]:
			return 1
		}
		return -1
	})
	return all
}

// endFamily looks at one process and its forks while they are stopped, so that none
// begins anything meanwhile, and ends those that are not busy. Only one family is
// stopped at a time: should this program be killed just then, little stands still
// until restart wakes it.
func (c *crew) endFamily(root process, ports map[string]bool, out *ended, seen map[int]bool, killed map[int]string) {
	for _, m := range halt(root) {
		seen[m.pid] = true
		if c.busy(m) {
			out.left = append(out.left, m.process)
			defer m.signal(unix.SIGCONT) // when all have been looked at
			continue
		}
		session := m.session(ports)
		if !m.signal(unix.SIGKILL) {
			continue
		}
		killed[m.pid] = m.started
		if session {
			out.sessions++
		} else {
			out.deliveries++
		}
	}
}

// halted is a process that is stopped, so its children are as they were.
type halted struct {
	process
	children []process
}

// halt stops a process and its forks. Its children that execute something else go on.
func halt(root process) []halted {
	if !root.signal(unix.SIGSTOP) {
		return nil
	}
	_ = mta.Await(context.Background(), haltWait, func() bool {
		now, there := readProcess(root.pid)
		return !there || now.state == "T"
	})
	if now, there := readProcess(root.pid); there && now.image != root.image { // it executed a mailer just before
		root.signal(unix.SIGCONT)
		return nil
	}
	family := []halted{{root, children(root.pid)}}
	for _, child := range family[0].children {
		if child.image == root.image {
			family = append(family, halt(child)...)
		}
	}
	return family
}

// busy reports whether a process delivers on this machine at the moment: it has a
// child that is another program, or a file open for writing that is not of the queue.
func (c *crew) busy(p halted) bool {
	for _, child := range p.children {
		if name := child.program(); name != "" && !strings.HasPrefix(name, "sendmail") {
			return true
		}
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fdinfo", p.pid))
	if err != nil {
		return false
	}
	for _, fd := range fds {
		if n, err := strconv.Atoi(fd.Name()); err == nil && n > 2 && c.writesMailbox(p.pid, n) {
			return true
		}
	}
	return false
}
