package sendmail

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"relayguard/mta"
	"relayguard/mta/backup"

	"golang.org/x/net/idna"
)

// RedSwitch stops all mail that an instance sends to the outside, and lets it go
// again. It needs root, and nothing of the guard's daemon.
//
// It puts lines into sendmail.cf that have Sendmail itself look where each address
// ends: mail to our domains goes on, over whatever mailer, all other mail is accepted
// and deferred with mta.StopText. Then Sendmail reads its file again, what it began
// with the old one is ended, and what waits for the outside alone is quarantined.
// submit.cf gets the lines too where it hands its mail to another machine.
//
// Traps: a "make" in /etc/mail makes the file anew without the lines:
// OutgoingStopped tells, and StopOutgoing puts them back. Nothing outside can make a
// daemon of other -C or -O options read them.
type RedSwitch struct {
	Instance *Instance
	StateDir string   // root's alone; made if missing: /var/lib/relayguard-queue
	Inside   []string // our domains beside those that Sendmail's settings name
}

// StopOutgoing stops all outgoing mail: it changes the settings, has Sendmail read
// them, waits a moment for what was under way and ends that, then quarantines mail
// that has recipients outside only. What it changes it first writes to the state file.
// Calling it again repairs a change that was cut short or undone by others, and holds
// what has come since.
func (r RedSwitch) StopOutgoing(ctx context.Context, now time.Time) (mta.Stopped, error) {
	unlock, err := backup.Lock(ctx, r.Instance.ConfigDir)
	if err != nil {
		return mta.Stopped{}, fmt.Errorf("stop outgoing mail: %w", err)
	}
	defer unlock()
	state, err := r.readState()
	already := err == nil
	if errors.Is(err, fs.ErrNotExist) {
		state, err = stopState{Since: now.UTC(), ConfigDir: r.Instance.ConfigDir}, nil
	}
	if err != nil {
		return mta.Stopped{}, fmt.Errorf("stop outgoing mail: %w", err)
	}
	in := r.insideOf(ctx)
	if err := ctx.Err(); err != nil {
		return mta.Stopped{}, fmt.Errorf("stop outgoing mail: %w", err)
	}
	out := mta.Stopped{Since: state.Since, Already: already, Caveats: in.caveats()}
	changed, err := r.divert(&state, in)
	if err != nil {
		return out, fmt.Errorf("stop outgoing mail: %w", err)
	}
	late := r.makeRead(ctx, &state, changed, &out)
	if err := r.hold(ctx, &state, in, &out); err != nil {
		return out, fmt.Errorf("outgoing mail is stopped; hold what waits in the queue: %w", errors.Join(late, err))
	}
	if late != nil {
		return out, fmt.Errorf("stop outgoing mail: the settings are changed, but %w", late)
	}
	return out, nil
}

// cfFile is a cf file that leads to the outside.
type cfFile struct {
	path     string
	settings *Settings
}

// cfFiles are sendmail.cf, and submit.cf where its mail does not pass this MTA.
func (r RedSwitch) cfFiles() []cfFile {
	i := r.Instance
	files := []cfFile{{i.Config, i.main}}
	if i.Submit == "" {
		return files
	}
	host, _ := i.submit.handsTo()
	own, _ := i.main.ownName()
	if host != "" && !isLoopback(host) && !strings.EqualFold(strings.TrimSuffix(host, "."), own) {
		files = append(files, cfFile{i.Submit, i.submit})
	}
	return files
}

// divert puts the lines in. It reports whether it changed any file.
func (r RedSwitch) divert(state *stopState, in insideDomains) (changed bool, err error) {
	for _, f := range r.cfFiles() {
		text, err := readFile(f.path, maxConfig)
		if err != nil {
			return changed, err
		}
		target, err := r.stopTargetOf(f.settings, in)
		if err != nil {
			return changed, err
		}
		known := state.file(f.path)
		before, _, _ := started(string(text), known.Lines)
		during, err := target.stopped(before)
		if err != nil {
			return changed, fmt.Errorf("%s: %w", f.path, err)
		}
		if during == string(text) && known.After == digest(during) {
			continue
		}
		_, lines, _ := started(during, "")
		*known = stopFile{Path: f.path, Before: before, Lines: lines, After: digest(during)}
		state.Reloaded = false
		if err := r.writeState(*state); err != nil { // before the change
			return changed, err
		}
		if err := replaceKeeping(f.path, during); err != nil {
			return changed, fmt.Errorf("write %s: %w", f.path, err)
		}
		changed = true
	}
	return changed, nil
}

// makeRead has the daemons read the files again, and ends what goes on with the old.
func (r RedSwitch) makeRead(ctx context.Context, state *stopState, changed bool, out *mta.Stopped) error {
	whole := true
	var errs []error
	for _, f := range r.cfFiles() {
		instance := &Instance{main: f.settings}
		d, err := instance.daemon()
		if f.path == r.Instance.Config {
			out.Running = d != nil || err != nil
		}
		if !changed && state.Reloaded {
			continue
		}
		if err == nil {
			var over ended
			over, err = stopOld(ctx, f.settings, d)
			out.Ended += over.deliveries
			out.Caveats = append(out.Caveats, over.caveats()...)
			whole = whole && len(over.left) == 0
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	state.Reloaded = whole
	return nil
}

func stopOld(ctx context.Context, s *Settings, d *daemonProcess) (ended, error) {
	pid := 0
	if d != nil {
		pid = d.pid
	}
	c := newCrew(s, pid)
	old, err := c.restart(ctx, d)
	if err != nil {
		return ended{}, err
	}
	return c.end(ctx, old)
}

// caveats says nothing of sessions that were cut off: their clients try again.
func (e ended) caveats() []string {
	all := slices.Clone(e.lost)
	for _, p := range e.left {
		all = append(all, fmt.Sprintf("process %d, which began before, delivers to this machine and may send mail after that: call stop again", p.pid))
	}
	return all
}

// insideDomains tells recipients of ours from all others, as far as the settings can
// be listed.
type insideDomains struct {
	exact, below []string // lower case, sorted; below: all names under these
	unread       []mta.Unread
}

func (r RedSwitch) insideOf(ctx context.Context) insideDomains {
	own := r.Instance.ownDomains(ctx)
	in := insideDomains{unread: own.unread}
	for _, d := range append(own.exact, r.Inside...) {
		if below, is := strings.CutPrefix(d, "."); is { // ".example.jp": as in the settings of Postfix
			own.below = append(own.below, below)
			continue
		}
		in.exact = append(in.exact, spellings(d)...)
	}
	for _, d := range own.below {
		in.below = append(in.below, spellings(d)...)
	}
	for _, list := range []*[]string{&in.exact, &in.below} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return in
}

// spellings are a domain as it is and in both forms of IDNA.
func spellings(domain string) []string {
	d, is := domainName(domain)
	if !is || strings.Contains(d, "#") {
		return nil
	}
	all := []string{d}
	for _, convert := range []func(string) (string, error){idna.ToASCII, idna.ToUnicode} {
		if other, err := convert(d); err == nil && other != d {
			if other, is := domainName(other); is {
				all = append(all, other)
			}
		}
	}
	return all
}

func (in insideDomains) caveats() []string {
	var all []string
	for _, u := range in.unread {
		if strings.HasPrefix(u.Setting, "Fw of ") || strings.HasPrefix(u.Setting, "FR of ") || strings.HasPrefix(u.Setting, "FVirtHost of ") {
			continue // Sendmail itself knows what is in its classes
		}
		all = append(all, fmt.Sprintf("mail to domains of %s is stopped too, unless the guard's configuration names them: %v", u.Item, u.Err))
	}
	return all
}

// has reports whether an address is ours. One without a domain is.
func (in insideDomains) has(address string) bool {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return !strings.Contains(address, "!") // UUCP
	}
	domain := strings.ToLower(strings.TrimSuffix(strings.TrimSuffix(address[at+1:], ">"), "."))
	if _, found := slices.BinarySearch(in.exact, domain); found {
		return true
	}
	for n := range len(domain) {
		if domain[n] == '.' && n > 0 {
			if _, found := slices.BinarySearch(in.below, domain[n+1:]); found {
				return true
			}
		}
	}
	return false
}

// onlyOutside reports whether nobody inside is among the recipients. Where domains of
// ours could not be listed, Sendmail must have said so itself.
func (in insideDomains) onlyOutside(q mta.QueueFile) bool {
	if len(q.Recipients) == 0 || slices.ContainsFunc(q.Recipients, in.has) {
		return false
	}
	return len(in.unread) == 0 || strings.Contains(q.Reason, mta.StopText)
}

// waits are the queues whose mail is held. What the submission program has comes to
// the MTA first.
var waits = []string{"incoming", "active", "deferred"}

// holdBatch bounds what is kept in memory of a queue at a time.
const holdBatch = 1000

// hold quarantines what has recipients outside and none inside: the mailer would
// defer it until it is too old, and a quarantined message is listed with its cause.
func (r RedSwitch) hold(ctx context.Context, state *stopState, in insideDomains, out *mta.Stopped) error {
	var files []mta.QueueFile
	flush := func() error {
		if len(files) == 0 {
			return nil
		}
		targets := make([]mta.Target, len(files))
		for n, q := range files {
			targets[n] = q.Target()
		}
		results, err := r.Instance.HoldMail(ctx, targets, state.holdReason())
		for n, result := range results {
			switch result.Fate {
			case mta.Done:
				out.Held = append(out.Held, files[n])
				state.Held++
			case mta.Failed:
				out.Failed = append(out.Failed, result)
			}
		}
		files = files[:0]
		return err
	}
	err := r.Instance.ScanQueue(ctx, func(q mta.QueueFile) error {
		if !slices.Contains(waits, q.Queue) || !in.onlyOutside(q) || q.More != 0 && !r.allOutside(q.ID, in) {
			return nil
		}
		if files = append(files, brief(q)); len(files) < holdBatch {
			return nil
		}
		return flush()
	})
	var skipped *mta.SkippedError
	if errors.As(err, &skipped) {
		out.Caveats, err = append(out.Caveats, fmt.Sprintf("not all messages could be put on hold, those are deferred only: %v", err)), nil
	}
	if err == nil {
		err = flush()
	}
	return errors.Join(err, r.writeState(*state))
}

// brief leaves of a message's recipients as many as are told in a list of a hundred
// thousand.
func brief(q mta.QueueFile) mta.QueueFile {
	const most = 4 << 10 // octets
	size := 0
	for n, to := range q.Recipients {
		if size += len(to); size > most {
			q.More += len(q.Recipients) - n
			q.Recipients = slices.Clone(q.Recipients[:n])
			break
		}
	}
	return q
}

// allOutside reads all recipients of a message that has more than a listing tells.
func (r RedSwitch) allOutside(id string, in insideDomains) bool {
	s, err := r.Instance.openSpool(false)
	if err != nil {
		return false
	}
	defer s.close()
	scan := scanner{spool: s, buf: make([]byte, 64<<10)}
	for _, d := range s.dirs {
		c, _, err := scan.control(d, 'q', id)
		if c == nil || err != nil {
			continue
		}
		for line := range controlLines(scan.last) {
			if line[0] != 'R' {
				continue
			}
			if _, to, _ := strings.Cut(string(line[1:]), ":"); in.has(to) {
				return false
			}
		}
		return c.More >= 0 // else it was cut
	}
	return false
}

// StartOutgoing takes the lines out again, has Sendmail read its files, and releases
// what the switch held unless keep is set. What somebody else changed in the files
// stays. Without a stop it returns ErrNotStopped. What it could not release stays
// quarantined: calling it again goes on. With keep it stays so for good: the next
// stop and start are not about it.
func (r RedSwitch) StartOutgoing(ctx context.Context, now time.Time, keep bool) (mta.Started, error) {
	unlock, err := backup.Lock(ctx, r.Instance.ConfigDir)
	if err != nil {
		return mta.Started{}, fmt.Errorf("start outgoing mail: %w", err)
	}
	defer unlock()
	state, err := r.readState()
	if errors.Is(err, fs.ErrNotExist) {
		return mta.Started{}, fmt.Errorf("start outgoing mail: %w", mta.ErrNotStopped)
	}
	if err != nil {
		return mta.Started{}, fmt.Errorf("start outgoing mail: %w", err)
	}
	out := mta.Started{Since: state.Since}
	if err := r.putBack(state, &out); err != nil {
		return out, fmt.Errorf("start outgoing mail: put the settings back: %w", err)
	}
	if err := r.readAgain(ctx, &out); err != nil {
		return out, fmt.Errorf("start outgoing mail: %w", err)
	}
	if err := r.letGo(ctx, now, state, keep, &out); err != nil {
		return out, fmt.Errorf("outgoing mail is started; let go what waits: %w", err)
	}
	if err := r.removeState(); err != nil {
		return out, fmt.Errorf("outgoing mail is started: %w", err)
	}
	return out, nil
}

// putBack takes the lines out: byte for byte what was there, if nobody changed the
// file since, else what it is without them.
func (r RedSwitch) putBack(state stopState, out *mta.Started) error {
	for _, f := range state.Files {
		if f.Path != r.Instance.Config && f.Path != filepath.Join(r.Instance.ConfigDir, "submit.cf") {
			return fmt.Errorf("the state names %q, which the switch never changes", f.Path)
		}
		text, err := readFile(f.Path, maxConfig)
		if errors.Is(err, fs.ErrNotExist) {
			out.Caveats = append(out.Caveats, fmt.Sprintf("%s is not there any more", f.Path))
			continue
		}
		if err != nil {
			return err
		}
		before, lines, whole := started(string(text), f.Lines)
		if digest(string(text)) != f.After && before != f.Before {
			out.Caveats = append(out.Caveats, fmt.Sprintf("%s was changed since; only the lines of relayguard stop were taken out", f.Path))
		}
		if !whole {
			out.Caveats = append(out.Caveats, fmt.Sprintf("%s: the end of the lines of relayguard stop was gone; look whether it is as it should be", f.Path))
		}
		if lines == "" {
			continue
		}
		if err := replaceKeeping(f.Path, before); err != nil {
			return fmt.Errorf("write %s: %w", f.Path, err)
		}
	}
	return nil
}

// readAgain has the daemons read their files.
func (r RedSwitch) readAgain(ctx context.Context, out *mta.Started) error {
	for _, f := range r.cfFiles() {
		d, err := (&Instance{main: f.settings}).daemon()
		if err != nil {
			return err
		}
		pid := 0
		if d != nil {
			pid = d.pid
			out.Running = out.Running || f.path == r.Instance.Config
		}
		c := newCrew(f.settings, pid)
		if _, err := c.restart(ctx, d); err != nil {
			return err
		}
		out.Caveats = append(out.Caveats, c.lost...)
	}
	return nil
}

// letGo releases what the switch held, and has what it deferred tried again.
func (r RedSwitch) letGo(ctx context.Context, now time.Time, state stopState, keep bool, out *mta.Started) error {
	var held, deferred []mta.Target
	err := r.Instance.ScanQueue(ctx, func(q mta.QueueFile) error {
		switch {
		case q.Queue == "hold" && q.HoldReason == state.holdReason():
			held = append(held, q.Target())
		case q.Queue == "deferred" && strings.Contains(q.Reason, mta.StopText):
			deferred = append(deferred, q.Target())
		}
		return nil
	})
	var skipped *mta.SkippedError
	if err != nil && !errors.As(err, &skipped) {
		return err
	}
	if keep {
		out.Kept = held
	} else if len(held) > 0 {
		if err := r.release(ctx, now, held, out); err != nil {
			return err
		}
	}
	if !out.Running || len(deferred) == 0 {
		return nil
	}
	r.retry(deferred, out)
	return nil
}

// release lets go what is held; mail too old for its lifetime is requeued.
func (r RedSwitch) release(ctx context.Context, now time.Time, held []mta.Target, out *mta.Started) error {
	results, err := r.Instance.ReleaseMail(ctx, held, mta.Release{Now: now})
	out.Released = append(out.Released, results...)
	if errors.Is(err, mta.ErrNotStarted) {
		out.Caveats = append(out.Caveats, fmt.Sprintf("released mail waits for Sendmail's next run over its queue: %v", err))
		err = nil
	}
	if err != nil {
		return err
	}
	left := 0
	var first error
	for _, result := range results {
		if result.Fate == mta.Failed {
			if left++; first == nil {
				first = result.Err
			}
		}
	}
	if left > 0 {
		return fmt.Errorf("%d messages could not be released: %w", left, first)
	}
	return nil
}

// retry has what the switch deferred tried again at once.
func (r RedSwitch) retry(deferred []mta.Target, out *mta.Started) {
	ids := make([]string, len(deferred))
	for n, t := range deferred {
		ids[n] = t.ID
	}
	if err := r.Instance.runs.start(r.Instance, ids); err != nil {
		out.Caveats = append(out.Caveats, fmt.Sprintf("deferred mail waits for Sendmail's next run over its queue: %v", err))
		return
	}
	out.Retried = len(ids)
}

// OutgoingStopped reports how the switch stands.
func (r RedSwitch) OutgoingStopped(ctx context.Context) (mta.StopStatus, error) {
	state, err := r.readState()
	if errors.Is(err, fs.ErrNotExist) {
		return mta.StopStatus{}, nil
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return mta.StopStatus{}, fmt.Errorf("look whether outgoing mail is stopped: %w", err)
	}
	status := mta.StopStatus{Stopped: true, Since: state.Since, Held: state.Held}
	for _, f := range state.Files {
		text, err := readFile(f.Path, maxConfig)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return mta.StopStatus{}, fmt.Errorf("look whether outgoing mail is stopped: %w", err)
		}
		if _, lines, whole := started(string(text), f.Lines); err != nil || lines != f.Lines || !whole {
			status.Missing = append(status.Missing, filepath.Base(f.Path))
		}
	}
	if d, err := r.Instance.daemon(); !state.Reloaded && (d != nil || err != nil) {
		status.Missing = append(status.Missing, "a daemon that has read "+filepath.Base(r.Instance.Config))
	}
	return status, nil
}

func digest(text string) string { return backup.Digest([]byte(text)) }
