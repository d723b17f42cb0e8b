package sendmail

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"

	"relayguard/mta"

	"golang.org/x/sys/unix"
)

var (
	// daemonTitle is what those call themselves that stay ("sendmail: MTA: Queue
	// runner@01:00:00 for ..."). Further on in a title stands what clients say.
	daemonTitle = regexp.MustCompile(`^\S+: (?:[A-Z]+: )?(?:Queue runner@|Queue control|[a-z]+ing connections)`)

	// daemonArgument has one stay, -q1h or -qp. A title comes only later.
	daemonArgument = regexp.MustCompile(`^-(?:b[dD]|q[0-9][0-9a-z]*|qp[0-9a-z]*)$`)
)

// isDaemon tells a queue runner that stays, or a daemon, from a process that ends, by
// the title that it gives itself, and before by its arguments. A fork has both of its
// parent until it gives itself a title.
func (p process) isDaemon() bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
	if err != nil {
		return false
	}
	arguments := bytes.Split(bytes.TrimRight(line, "\x00"), []byte{0})
	is := daemonTitle.Match(arguments[0]) || slices.ContainsFunc(arguments[1:], daemonArgument.Match)
	if !is {
		return false
	}
	parent, there := readProcess(p.parent)
	return !there || parent.image != p.image
}

// restartRunners has the queue runners of their own (-q1h) execute themselves anew:
// those that was tells and who came since. It puts what they execute then into fresh.
func (c *crew) restartRunners(ctx context.Context, was []process, fresh map[image]bool) {
	old := map[image]bool{}
	for _, p := range was {
		old[p.image] = true
	}
	var tried []process
	const rounds = 2
	for range rounds {
		for _, p := range c.members() {
			if !fresh[p.image] && !slices.ContainsFunc(tried, p.same) && p.isDaemon() {
				old[p.image] = true
				tried = append(tried, p, c.restartRunner(ctx, p, old, fresh))
			}
		}
	}
}

// restartRunner returns the process that got the signal.
func (c *crew) restartRunner(ctx context.Context, p process, old, fresh map[image]bool) process {
	err := mta.Await(ctx, restartWait, func() bool {
		if !p.goesOn() { // it has just gone into the background
			if next, is := c.runner(func(m process) bool { return m.image == p.image }); is {
				p = next
			}
		}
		return handlesHUP(p.pid)
	})
	if err != nil {
		if p.goesOn() { // the signal would end it; mostly it has not read its file yet
			fresh[p.image] = true
			c.lost = append(c.lost, fmt.Sprintf("the queue runner, process %d, does not take signals yet: call this again, or restart it", p.pid))
		}
		return p
	}
	p.signal(unix.SIGHUP)
	err = mta.Await(ctx, restartWait, func() bool {
		next, is := c.runner(func(m process) bool { return !old[m.image] && !fresh[m.image] && handlesHUP(m.pid) })
		if is {
			fresh[next.image] = true
		}
		return is
	})
	if err != nil {
		c.lost = append(c.lost, fmt.Sprintf("the queue runner, process %d, did not start anew when told to: start it, or deferred mail waits", p.pid))
	}
	return p
}

// runner finds a daemon among the crew.
func (c *crew) runner(is func(process) bool) (process, bool) {
	all := c.members()
	n := slices.IndexFunc(all, func(p process) bool { return is(p) && p.isDaemon() })
	if n < 0 {
		return process{}, false
	}
	return all[n], true
}
