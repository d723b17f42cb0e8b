package postfix

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"relayguard/mta"
	"relayguard/mta/backup"
)

// RedSwitch stops all mail that an instance sends to the outside, and lets it
// go again. It needs root, and nothing of the guard's daemon.
//
// Postfix itself tells inside from outside: what belongs to none of its own
// domains goes by default_transport, so that becomes retry(8), which delivers
// nothing and defers everything with StopText. Unlike with defer_transports, a
// transport that inside and outside share goes on for the inside, and
// "postqueue -f" lets nothing out. Where transport_maps sends outside domains
// some other way, a table in front of it does the same for every domain that is
// not inside.
//
// Trap: what a setting outside main.cf sends away (FILTER in an access table, a
// content_filter on another machine) does not ask default_transport. What of
// that can be seen is among the caveats.
type RedSwitch struct {
	Instance *Instance
	StateDir string   // root's alone; made if missing: /var/lib/relayguard-queue
	Inside   []string // our domains beside those that Postfix's settings name
}

const (
	stopTransport = "retry:4.3.2 " + mta.StopText
	stopTableFile = "relayguard-stop.regexp"
)

// stopTimes bound what StopOutgoing waits for. All is stopped within 5 s: a
// reload takes two of them, for Postfix trusts no main.cf younger than that.
const (
	inflightWait = 1 * time.Second // deliveries under way may end by themselves
	qmgrWait     = 1 * time.Second // the old queue manager ends
)

// StopOutgoing stops all outgoing mail: it changes the settings, reloads, waits
// a moment for deliveries under way and ends those that go on, then puts mail
// on hold that has recipients outside only. What it changes it first writes to
// the state file. Calling it again repairs a change that was cut short or undone
// by others, and holds what has come since.
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
	in, err := r.inside(ctx)
	if err != nil {
		return mta.Stopped{}, fmt.Errorf("stop outgoing mail: %w", err)
	}
	out := mta.Stopped{Since: state.Since, Already: already}
	setup := Setup{Tools: r.Instance.tools, ConfigDir: r.Instance.ConfigDir}
	out.Running = setup.running(ctx) // before the change: after it this would wait two seconds
	changed, err := r.divert(ctx, &state, in, &out)
	if err != nil {
		return out, fmt.Errorf("stop outgoing mail: %w", err)
	}
	if out.Running && (changed || !state.Reloaded) {
		if err := r.stopDeliveries(ctx, setup, &out); err != nil {
			return out, fmt.Errorf("stop outgoing mail: %w", err)
		}
		state.Reloaded = true
	}
	if err := r.hold(ctx, &state, in, &out); err != nil {
		return out, fmt.Errorf("outgoing mail is stopped; hold what waits in the queue: %w", err)
	}
	return out, nil
}

// divert makes the settings such that nothing leaves. It reports whether it
// changed any.
func (r RedSwitch) divert(ctx context.Context, state *stopState, in inside, out *mta.Stopped) (bool, error) {
	raw, err := r.Instance.explicit(ctx)
	if err != nil {
		return false, err
	}
	wanted, caveats, err := r.stopSettings(ctx, raw, state, in)
	if err != nil {
		return false, err
	}
	out.Caveats = append(out.Caveats, caveats...)
	table := filepath.Join(r.Instance.ConfigDir, stopTableFile)
	tableText, err := backup.ReadIfThere(table)
	if err != nil {
		return false, err
	}
	newTable := stopTable(in.domains)
	var edits []string
	for _, s := range wanted {
		if value, ok := raw[s.Name]; !ok || value != s.During {
			edits = append(edits, s.Name+"="+s.During)
		}
	}
	if len(edits) == 0 && string(tableText) == newTable {
		return false, nil
	}
	if len(edits) > 0 {
		if err := state.remember(r.Instance.ConfigDir, wanted, raw); err != nil {
			return false, err
		}
	}
	state.Reloaded = false
	if err := r.writeState(*state); err != nil { // before the change
		return false, err
	}
	if err := backup.Replace(table, []byte(newTable), 0o644, -1, -1); err != nil {
		return false, fmt.Errorf("write %s: %w", table, err)
	}
	if len(edits) > 0 {
		if err := r.Instance.editMain(ctx, edits); err != nil {
			return false, err
		}
		if err := state.seal(r.Instance.ConfigDir); err != nil {
			return true, err
		}
	}
	return true, r.writeState(*state)
}

// stopSettings are the settings to change, with what they are to be again. raw
// are the settings that main.cf has, unexpanded.
func (r RedSwitch) stopSettings(ctx context.Context, raw map[string]string, state *stopState, in inside) (wanted []stopSetting, caveats []string, err error) {
	before := func(name string) (string, bool) { // what it is to be again
		value, present := raw[name]
		for _, s := range state.Settings {
			if s.Name == name && present && value == s.During {
				return s.Before, s.Present
			}
		}
		return value, present
	}
	set := func(name, during string) {
		value, present := before(name)
		wanted = append(wanted, stopSetting{Name: name, Before: value, Present: present, During: during})
	}
	set("default_transport", stopTransport)
	if value, _ := before("sender_dependent_default_transport_maps"); value != "" {
		set("sender_dependent_default_transport_maps", "")
	}
	item := "regexp:" + filepath.Join(r.Instance.ConfigDir, stopTableFile)
	if value, _ := before("transport_maps"); value != "" {
		set("transport_maps", item+", "+withoutItem(value, item))
		for _, u := range in.unread {
			caveats = append(caveats, fmt.Sprintf("mail to domains of %s is stopped too, unless the guard's configuration names them: %v", u.Item, u.Err))
		}
	}
	master, err := r.Instance.tools.run(ctx, nil, maxToolOutput, "postconf", r.Instance.tools.inDir(r.Instance.ConfigDir, "-M")...)
	if err != nil {
		return nil, nil, err
	}
	pinned, err := r.pins(ctx, wanted, raw, before, strings.Contains(string(master.stdout), reject))
	if err != nil {
		return nil, nil, err
	}
	caveats = append(caveats, r.caveats(wanted, raw)...)
	return append(wanted, pinned...), caveats, nil
}

// reject begins the restrictions that ask other servers about addresses. Such a
// question carries no mail, and inbound mail waits for the answer.
const reject = "reject_unverified_"

// verifiers are the settings that ask like default_transport and its kin do
// unless they are set.
var verifiers = map[string]string{
	"default_transport":                       "address_verify_default_transport",
	"transport_maps":                          "address_verify_transport_maps",
	"sender_dependent_default_transport_maps": "address_verify_sender_dependent_default_transport_maps",
}

// pins keep what is derived from the changed settings as it was: a
// virtual_transport = $default_transport, or the questions about addresses.
func (r RedSwitch) pins(ctx context.Context, changed []stopSetting, raw map[string]string, before func(string) (string, bool), verifies bool) ([]stopSetting, error) {
	was := map[string]string{}
	for _, s := range changed {
		was[s.Name] = s.Before
		if s.Present {
			continue
		}
		value, err := r.Instance.builtIn(ctx, s.Name)
		if err != nil {
			return nil, err
		}
		was[s.Name] = value
	}
	var pins []stopSetting
	for _, name := range sortedKeys(raw) {
		if _, ours := was[name]; ours || name == "proxy_read_maps" { // which only allows
			continue
		}
		value, present := before(name)
		verifies = verifies || strings.Contains(value, reject)
		if during := substitute(value, was); during != value {
			pins = append(pins, stopSetting{Name: name, Before: value, Present: present, During: during})
		}
	}
	if !verifies {
		return pins, nil
	}
	for _, s := range changed {
		name := verifiers[s.Name]
		if value, present := before(name); !present {
			pins = append(pins, stopSetting{Name: name, Before: value, Present: present, During: was[s.Name]})
		}
	}
	return pins, nil
}

// substitute replaces $name, ${name} and $(name).
func substitute(value string, was map[string]string) string {
	for name, old := range was {
		value = strings.ReplaceAll(value, "${"+name+"}", old)
		value = strings.ReplaceAll(value, "$("+name+")", old)
		for at := 0; ; {
			n := strings.Index(value[at:], "$"+name)
			if n < 0 {
				break
			}
			end := at + n + len(name) + 1
			if end < len(value) && (value[end] == '_' || isAlnum(value[end])) {
				at = end
				continue
			}
			value = value[:at+n] + old + value[end:]
			at += n + len(old)
		}
	}
	return value
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// withoutItem takes an item out of a list.
func withoutItem(list, item string) string {
	items, err := splitList(list)
	if err != nil || !slices.Contains(items, item) {
		return list
	}
	return strings.Join(slices.DeleteFunc(items, func(i string) bool { return i == item }), ", ")
}

// caveats names what the changed settings do not reach.
func (r RedSwitch) caveats(changed []stopSetting, raw map[string]string) []string {
	var caveats []string
	for _, s := range r.Instance.Services {
		for _, c := range changed {
			if value, ok := s.Overrides[c.Name]; ok {
				caveats = append(caveats, fmt.Sprintf("master.cf service %s has its own %s = %s: mail that it routes is not stopped", s.ID(), c.Name, value))
			}
		}
		if value, ok := s.Overrides["content_filter"]; ok && leaves(value) {
			caveats = append(caveats, fmt.Sprintf("master.cf service %s has content_filter = %s: its mail goes there before it is stopped", s.ID(), value))
		}
	}
	if value := r.Instance.Setting("content_filter"); leaves(value) {
		caveats = append(caveats, fmt.Sprintf("content_filter = %s: mail goes there before it is stopped", value))
	}
	return caveats
}

// leaves tells whether a content filter is on another machine, as far as its
// name says.
func leaves(filter string) bool {
	_, host, found := strings.Cut(filter, ":")
	if !found || host == "" || strings.HasPrefix(host, "unix:") || strings.HasPrefix(host, "/") {
		return false
	}
	host = strings.TrimPrefix(strings.TrimPrefix(host, "inet:"), "[")
	for _, here := range []string{"127.", "::1", "localhost", "dummy"} {
		if strings.HasPrefix(host, here) {
			return false
		}
	}
	return true
}

// hold puts on hold what has recipients outside and none inside: retry would
// defer it until it is too old, and a held message is listed with its cause.
func (r RedSwitch) hold(ctx context.Context, state *stopState, in inside, out *mta.Stopped) error {
	var files []mta.QueueFile
	var targets []mta.Target
	seen := map[mta.Target]bool{} // what moves during a scan may come twice
	err := r.Instance.ScanQueue(ctx, func(q mta.QueueFile) error {
		if !slices.Contains(holdAct.from, q.Queue) {
			return nil
		}
		only := in.onlyOutside(q)
		if only && q.More != 0 {
			recipients, err := r.waiting(ctx, q.ID)
			only = err == nil && !slices.ContainsFunc(recipients, in.has)
		}
		if t := q.Target(); only && !seen[t] {
			seen[t] = true
			files, targets = append(files, fewer(q)), append(targets, t)
		}
		return nil
	})
	var skipped *mta.SkippedError
	if errors.As(err, &skipped) {
		out.Caveats, err = append(out.Caveats, fmt.Sprintf("not all messages could be put on hold, those are deferred only: %v", err)), nil
	}
	if err != nil {
		return err
	}
	if len(targets) == 0 {
		return r.writeState(*state)
	}
	known := state.Held
	state.Held = mergeTargets(known, targets) // before it is done
	if err := r.writeState(*state); err != nil {
		return err
	}
	results, err := r.Instance.HoldMail(ctx, targets)
	var held []mta.Target
	for n, result := range results {
		switch result.Fate {
		case mta.Done:
			held = append(held, targets[n])
			out.Held = append(out.Held, files[n])
		case mta.Failed:
			out.Failed = append(out.Failed, result)
		}
	}
	if err != nil {
		return err // the state names all that may have been held
	}
	state.Held = mergeTargets(known, held)
	return r.writeState(*state)
}

// fewer leaves recipients out of what is held in memory for every message that the
// switch holds: what they are for is to tell where mail was going.
func fewer(q mta.QueueFile) mta.QueueFile {
	const most = 50
	if left := len(q.Recipients) - most; left > 0 {
		q.Recipients = slices.Clone(q.Recipients[:most])
		if q.More >= 0 {
			q.More += left
		}
	}
	return q
}

// StartOutgoing puts the settings back as they were, reloads, and releases what
// the switch held unless keep is set. A setting that somebody else changed since
// stays as it is. Without a stop it returns ErrNotStopped. What it could not
// release stays in the state: calling it again goes on.
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
	setup := Setup{Tools: r.Instance.tools, ConfigDir: r.Instance.ConfigDir}
	out.Running = setup.running(ctx)
	if err := r.putBack(ctx, &state, &out); err != nil {
		return out, fmt.Errorf("start outgoing mail: put the settings back: %w", err)
	}
	if out.Running {
		if _, err := setup.postfix(ctx, "reload"); err != nil {
			return out, fmt.Errorf("start outgoing mail: reload Postfix: %w", err)
		}
	}
	// Only now: a trivial-rewrite that knew the old settings could not start
	// without its table.
	if err := os.Remove(filepath.Join(r.Instance.ConfigDir, stopTableFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return out, fmt.Errorf("start outgoing mail: %w", err)
	}
	if err := r.letGo(ctx, now, &state, keep, &out); err != nil {
		return out, fmt.Errorf("outgoing mail is started; let go what waits: %w", err)
	}
	if err := r.removeState(); err != nil {
		return out, fmt.Errorf("outgoing mail is started: %w", err)
	}
	return out, nil
}

// putBack restores main.cf: byte for byte if nobody changed it since, else
// setting by setting.
func (r RedSwitch) putBack(ctx context.Context, state *stopState, out *mta.Started) error {
	if done, err := state.restore(r.Instance.ConfigDir); done || err != nil {
		return err
	}
	raw, err := r.Instance.explicit(ctx)
	if err != nil {
		return err
	}
	var edits, removals []string
	item := "regexp:" + filepath.Join(r.Instance.ConfigDir, stopTableFile)
	for _, s := range state.Settings {
		value, present := raw[s.Name]
		switch {
		case present == s.Present && value == s.Before: // a change that was cut short, or is undone
		case present && value == s.During && s.Present:
			edits = append(edits, s.Name+"="+s.Before)
		case present && value == s.During:
			removals = append(removals, s.Name)
		default:
			out.Caveats = append(out.Caveats, fmt.Sprintf("%s was changed since and stays %q; before the stop it was %q", s.Name, value, s.Before))
			if s.Name == "transport_maps" && withoutItem(value, item) != value {
				edits = append(edits, s.Name+"="+withoutItem(value, item)) // its table goes
			}
		}
	}
	if len(edits) > 0 {
		if err := r.Instance.editMain(ctx, edits); err != nil {
			return err
		}
	}
	if len(removals) > 0 {
		return r.Instance.unsetMain(ctx, removals...)
	}
	return nil
}

// maxRetried bounds how many deferred messages are tried again at once; the
// others wait for their turn, an hour at most by default.
const maxRetried = 1000

// letGo releases what the switch held, and has what it deferred tried again.
func (r RedSwitch) letGo(ctx context.Context, now time.Time, state *stopState, keep bool, out *mta.Started) error {
	if keep {
		out.Kept = state.Held
	} else if len(state.Held) > 0 {
		if err := r.release(ctx, now, state, out); err != nil {
			return err
		}
	}
	if !out.Running {
		return nil
	}
	var deferred []string
	waiting := 0
	err := r.Instance.ScanQueue(ctx, func(q mta.QueueFile) error {
		if q.Queue == "deferred" && strings.Contains(q.Reason, mta.StopText) {
			if waiting++; waiting <= maxRetried {
				deferred = append(deferred, q.ID)
			}
		}
		return nil
	})
	var skipped *mta.SkippedError
	if err != nil && !errors.As(err, &skipped) {
		return err
	}
	if waiting > len(deferred) {
		out.Caveats = append(out.Caveats, fmt.Sprintf("%d deferred messages wait for their next try (maximal_backoff_time); postqueue -f tries all at once", waiting-len(deferred)))
	}
	if err := r.Instance.nudge(ctx, deferred); err != nil {
		return err
	}
	out.Retried = len(deferred)
	return nil
}

// release lets go what the switch held; what could not be released stays in the
// state.
func (r RedSwitch) release(ctx context.Context, now time.Time, state *stopState, out *mta.Started) error {
	results, err := r.Instance.ReleaseMail(ctx, state.Held, mta.Release{Now: now})
	if errors.Is(err, mta.ErrNotStarted) {
		out.Caveats, err = append(out.Caveats, err.Error()), nil
	}
	out.Released = results
	if err != nil {
		return err
	}
	var left []mta.Target
	var first error
	for n, result := range results {
		if result.Fate == mta.Failed {
			left, first = append(left, state.Held[n]), firstOf(first, result.Err)
		}
	}
	if len(left) == 0 {
		return nil
	}
	state.Held = left
	return errors.Join(fmt.Errorf("%d messages could not be released: %w", len(left), first), r.writeState(*state))
}

// OutgoingStopped reports how the switch stands.
func (r RedSwitch) OutgoingStopped(ctx context.Context) (mta.StopStatus, error) {
	state, err := r.readState()
	if errors.Is(err, fs.ErrNotExist) {
		return mta.StopStatus{}, nil
	}
	if err != nil {
		return mta.StopStatus{}, fmt.Errorf("look whether outgoing mail is stopped: %w", err)
	}
	raw, err := r.Instance.explicit(ctx)
	if err != nil {
		return mta.StopStatus{}, fmt.Errorf("look whether outgoing mail is stopped: %w", err)
	}
	status := mta.StopStatus{Stopped: true, Since: state.Since, Held: len(state.Held)}
	for _, s := range state.Settings {
		if value, present := raw[s.Name]; !present || value != s.During {
			status.Missing = append(status.Missing, s.Name)
		}
	}
	return status, nil
}

// explicit returns the settings that main.cf itself makes, unexpanded.
func (i *Instance) explicit(ctx context.Context) (map[string]string, error) {
	s, err := i.tools.run(ctx, nil, maxToolOutput, "postconf", i.tools.inDir(i.ConfigDir, "-n")...)
	if err != nil {
		return nil, err
	}
	return parseSettings(string(s.stdout))
}

// builtIn returns a setting's default.
func (i *Instance) builtIn(ctx context.Context, name string) (string, error) {
	s, err := i.tools.run(ctx, nil, maxToolOutput, "postconf", i.tools.inDir(i.ConfigDir, "-d", name)...)
	if err != nil {
		return "", err
	}
	settings, err := parseSettings(string(s.stdout))
	return settings[name], err
}

// editMain changes main.cf; each edit is name=value.
func (i *Instance) editMain(ctx context.Context, edits []string) error {
	for _, e := range edits {
		if strings.ContainsAny(e, "\r\n\x00") {
			return fmt.Errorf("set %q: it has a line end", e)
		}
	}
	_, err := i.tools.run(ctx, nil, maxToolOutput, "postconf", i.tools.inDir(i.ConfigDir, append([]string{"-e"}, edits...)...)...)
	return err
}

// unsetMain takes settings out of main.cf.
func (i *Instance) unsetMain(ctx context.Context, names ...string) error {
	_, err := i.tools.run(ctx, nil, maxToolOutput, "postconf", i.tools.inDir(i.ConfigDir, append([]string{"-X"}, names...)...)...)
	return err
}
