package sendmail

import (
	"fmt"
	"os"
	"strings"

	"relayguard/mta"
)

// local looks at the way of sendmail(1).
func (r *report) local() {
	r.setuid()
	if r.Instance.Submit == "" {
		r.add(mta.Finding{ID: "local-unguarded", Severity: mta.Critical, Where: "submit.cf", What: "there is no submit.cf: sendmail(1) delivers by itself",
			Why: "mail from sendmail(1), PHP's mail() and cron goes out without any milter", Remedy: "set up Sendmail's submission program (FEATURE(`msp') in submit.mc), then " + applySetup})
		return
	}
	host, port := r.submit.handsTo()
	f := mta.Finding{ID: "local-unguarded", Severity: mta.Critical, Where: "submit.cf", Why: "mail from sendmail(1), PHP's mail() and cron goes out without this guard"}
	switch _, _, found := r.s.takes(host, port); {
	case !isLoopback(host) && r.WebNode: // the relay judges it
	case !isLoopback(host):
		f.What = fmt.Sprintf("sendmail(1) hands its mail to %q, not to this machine", host)
		f.Remedy = "FEATURE(`msp', `[127.0.0.1]') in submit.mc, or a guard there"
		r.add(f)
	case !found:
		f.ID, f.Severity = "local-lost", mta.Warning
		f.What = fmt.Sprintf("sendmail(1) hands its mail to port %s of %s, where no service listens", port, host)
		f.Why, f.Remedy = "such mail stays in the client queue; whoever listens there gets it", applySetup
		r.add(f)
	case portNumber(port) >= 1024:
		f.ID, f.Severity = "local-port", mta.Warning
		f.What = fmt.Sprintf("sendmail(1) hands its mail to port %s of this machine", port)
		f.Why, f.Remedy = "while Sendmail is away, any account can listen there and gets all local mail", "use a port below 1024"
		r.add(f)
	}
}

// setuid looks for a sendmail(1) that may do what the daemon may.
func (r *report) setuid() {
	path := r.Instance.tools.Path("sendmail")
	info, err := os.Stat(path)
	if err != nil || info.Mode()&os.ModeSetuid == 0 {
		return
	}
	r.add(mta.Finding{ID: "sendmail-setuid", Severity: mta.Critical, Where: path, What: "the program is set-user-id",
		Why: "with -Am any account sends mail by the daemon's own settings and queue, past every milter", Remedy: "chown root:smmsp, chmod 2755: sendmail(1) needs its group only"})
}

// queues looks who may read or change what waits.
func (r *report) queues() {
	dirs := map[string]string{}
	for _, g := range r.s.QueueGroups() {
		dirs[strings.TrimRight(strings.TrimSuffix(g.Path, "*"), "/")] = "the queue"
	}
	if dir := r.Instance.ClientQueueDirectory(); dir != "" {
		dirs[dir] = "the client queue"
	}
	for dir, what := range dirs {
		info, err := os.Stat(dir)
		if err != nil || !info.IsDir() {
			continue
		}
		f := mta.Finding{ID: "queue-open", Where: dir, What: fmt.Sprintf("%s has mode %04o", what, info.Mode().Perm()), Remedy: "chmod 2750 (client queue: 2770), group smmsp"}
		switch perm := info.Mode().Perm(); {
		case perm&0o002 != 0:
			f.Severity, f.Why = mta.Critical, "any account can put mail into it, past the guard"
		case perm&0o004 != 0:
			f.Severity, f.Why = mta.Warning, "any account sees whose mail waits"
		default:
			continue
		}
		r.add(f)
	}
}
