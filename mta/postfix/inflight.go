package postfix

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"relayguard/mta"

	"golang.org/x/sys/unix"
)

// delivery is a process of Postfix's SMTP client with the queue file that it
// delivers.
type delivery struct {
	pid     int
	started string // of /proc/PID/stat: a pid may be somebody else's later
	queueID string
}

// stopDeliveries makes Postfix read the changed settings, and waits for the
// deliveries that began before. Those to the outside that do not end are ended:
// the recipients stay in the queue. Who had no answer to the final dot may get
// the mail twice.
func (r RedSwitch) stopDeliveries(ctx context.Context, setup Setup, out *mta.Stopped) error {
	master, err := r.masterPID()
	if err != nil {
		return err
	}
	old := children(master, "qmgr", "nqmgr")
	if _, err := setup.postfix(ctx, "reload"); err != nil {
		return fmt.Errorf("reload Postfix: %w", err)
	}
	// The queue manager that knew the old settings hands out no more.
	err = mta.Await(ctx, qmgrWait, func() bool { return !slices.ContainsFunc(old, alive) })
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		out.Caveats = append(out.Caveats, "the queue manager has not ended by the reload; it may still send mail")
	}
	under := r.deliveries(master)
	err = mta.Await(ctx, inflightWait, func() bool {
		under = slices.DeleteFunc(under, func(d delivery) bool { return !r.goesOn(d) })
		return len(under) == 0
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		return nil
	}
	in, err := r.inside(ctx)
	if err != nil {
		return err
	}
	for _, d := range under {
		ended, why := r.end(ctx, master, d, in)
		switch {
		case ended:
			out.Ended++
		case why != "":
			out.Caveats = append(out.Caveats, fmt.Sprintf("a delivery of %s that had begun goes on: %s", d.queueID, why))
		}
	}
	return nil
}

// end sends SIGTERM to a delivery with recipients outside and none inside.
func (r RedSwitch) end(ctx context.Context, master int, d delivery, in inside) (ended bool, why string) {
	recipients, err := r.waiting(ctx, d.queueID)
	if err != nil {
		return false, err.Error()
	}
	outside := slices.ContainsFunc(recipients, func(to string) bool { return !in.has(to) })
	if !outside { // mail to the inside, which goes on, or nobody is left
		return false, ""
	}
	if slices.ContainsFunc(recipients, in.has) {
		return false, "it has recipients inside, too"
	}
	if len(in.unread) > 0 {
		return false, "its recipients may be inside: not all domains could be listed"
	}
	fd, err := unix.PidfdOpen(d.pid, 0)
	if err != nil {
		return false, "" // it has ended
	}
	defer unix.Close(fd)
	if !r.goesOn(d) || parent(d.pid) != master { // after the pidfd: it is still the one
		return false, ""
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil {
		return false, fmt.Sprintf("end process %d: %v", d.pid, err)
	}
	return true, ""
}

// waiting lists the recipients of a message that did not get it yet.
func (r RedSwitch) waiting(ctx context.Context, queueID string) ([]string, error) {
	const most = 16 << 20
	s, err := r.Instance.tools.run(ctx, nil, most, "postcat", r.Instance.tools.inDir(r.Instance.ConfigDir, "-e", "-q", queueID)...)
	if err != nil {
		return nil, err
	}
	var recipients []string
	for line := range strings.Lines(string(s.stdout)) {
		if address, found := strings.CutPrefix(line, "recipient: "); found {
			recipients = append(recipients, strings.TrimSpace(address))
		}
	}
	return recipients, nil
}

// masterPID is the process of the running instance.
func (r RedSwitch) masterPID() (int, error) {
	path := filepath.Join(r.Instance.QueueDir, "pid", "master.pid")
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("find Postfix's master: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid < 2 {
		return 0, fmt.Errorf("find Postfix's master: %s says %q", path, text)
	}
	return pid, nil
}

// deliveries lists the SMTP clients that have a queue file open.
func (r RedSwitch) deliveries(master int) []delivery {
	var all []delivery
	for _, pid := range children(master, "smtp", "lmtp") {
		d := delivery{pid: pid, started: startTime(pid), queueID: r.openFile(pid)}
		if d.queueID != "" && d.started != "" {
			all = append(all, d)
		}
	}
	return all
}

func (r RedSwitch) goesOn(d delivery) bool {
	return startTime(d.pid) == d.started && r.openFile(d.pid) == d.queueID
}

// openFile is the queue id of the message that a process has open, "" for none.
func (r RedSwitch) openFile(pid int) string {
	queue, err := filepath.EvalSymlinks(r.Instance.QueueDir)
	if err != nil {
		return ""
	}
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return "" // only a malformed pattern does that
	}
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil {
			continue
		}
		name, found := strings.CutPrefix(target, queue+"/")
		if !found {
			continue
		}
		for _, q := range []string{"active/", "incoming/", "deferred/", "hold/"} {
			if strings.HasPrefix(name, q) && !strings.HasSuffix(name, " (deleted)") {
				return filepath.Base(name)
			}
		}
	}
	return ""
}

// children lists the processes of a parent that run one of these programs.
func children(of int, programs ...string) []int {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil // only a malformed pattern does that
	}
	var pids []int
	for _, path := range stats {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil || parent(pid) != of {
			continue
		}
		if name, _ := procStat(pid); slices.Contains(programs, name) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// procStat reads /proc/PID/stat: the program's name and the fields after it,
// state first (proc(5)); nil for a process that has ended.
func procStat(pid int) (name string, fields []string) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", nil
	}
	open, end := strings.IndexByte(string(text), '('), strings.LastIndexByte(string(text), ')')
	if open < 0 || end < open {
		return "", nil
	}
	fields = strings.Fields(string(text[end+1:]))
	const wanted = 20 // up to starttime
	if len(fields) < wanted || fields[0] == "Z" || fields[0] == "X" {
		return "", nil
	}
	return string(text[open+1 : end]), fields
}

func parent(pid int) int {
	_, fields := procStat(pid)
	if fields == nil {
		return 0
	}
	ppid, _ := strconv.Atoi(fields[1])
	return ppid
}

func startTime(pid int) string {
	_, fields := procStat(pid)
	if fields == nil {
		return ""
	}
	return fields[19]
}

func alive(pid int) bool { return startTime(pid) != "" }
