package sendmail

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"relayguard/mta"
	"relayguard/policy"
)

// Names that setup gives to what it adds.
const (
	filterPrefix = "relayguard-"      // of milters: relayguard-submission
	localDaemon  = "relayguard-local" // the service for mail from sendmail(1)

	// defaultLocalPort is IANA's port for "any private mail system". Below 1024
	// no account can listen there in Sendmail's place.
	defaultLocalPort = 24
	defaultDeadline  = 5 * time.Second
)

// Setup changes Sendmail's settings and takes the changes back.
type Setup struct {
	Tools     Tools
	ConfigDir string
	Listeners []mta.Listener
	SMTP      policy.Role   // of services that are not submission, see Plan; 0: left alone
	Deadline  time.Duration // the guard's own for a decision; zero: 5 s
	LocalPort int           // of 127.0.0.1, where sendmail(1) is to hand its mail in; zero: 24
	Backups   string        // directory for backups, root's alone: /var/backups/relayguard

	// Verify looks, after a reload, whether Sendmail asks the guard. If it
	// does not, everything is put back. nil: not looked. It is not called
	// when Sendmail is not running.
	Verify func(ctx context.Context, i *Instance) error
}

// Place says in which file a Setting is.
type Place string

// Where there is no .mc file, a line for the .cf file is told.
const (
	InMTA      Place = "sendmail.mc"
	InSubmit   Place = "submit.mc"
	InMTACF    Place = "sendmail.cf"
	InSubmitCF Place = "submit.cf"
)

// Setting is one thing that Sendmail must be told, and why.
type Setting struct {
	Place   Place
	Service string // Name= of a daemon; empty: none
	Name    string // "MAIL_FILTER", "DAEMON_OPTIONS", "RELAY_MAILER_ARGS", "FEATURE"
	Value   string // the line in that file
	Was     string // what it is now; empty: not there
	Why     string
}

// Changes reports whether the setting is not yet as it should be.
func (s Setting) Changes() bool { return s.Value != s.Was }

func (s Setting) String() string { return s.Value }

// ErrByHand says that Apply leaves the settings alone, since it cannot tell that
// nothing else would change with them.
var ErrByHand = errors.New("the settings must be made by hand")

// Plan lists the settings that attach the guard's listeners to Sendmail, those
// that are already right included. What the admin has stays: other milters keep
// their order behind ours. Ours come first, so that nobody signs or scans what is
// then refused.
//
// Services on a submission port, or with AUTH required (M=a), get the listener of
// that role. The listener of the role SMTP is for the others; without a role they
// are left alone, and always so those that have a sound listener of ours. Mail
// from sendmail(1) gets a service of its own on loopback, to which submit.cf hands
// it, unless it has one. Trap: the relay role refuses strangers, so a server that
// is also an MX wants inbound there.
func (s Setup) Plan(ctx context.Context, i *Instance) ([]Setting, error) {
	p, err := s.plan(i)
	if err != nil {
		return nil, fmt.Errorf("plan settings of %s: %w", s.ConfigDir, err)
	}
	return p.settings, nil
}

// Obstacle says why Apply would refuse, with ErrByHand or ErrOutgoingStopped; nil: it
// would not.
func (s Setup) Obstacle(ctx context.Context, i *Instance) error {
	p, err := s.plan(i)
	if err != nil || !p.changes() {
		return err
	}
	if err := notStopped(i); err != nil {
		return err
	}
	_, err = p.candidate(ctx)
	return err
}

// plan is what is to be, worked out.
type plan struct {
	setup    Setup
	now      *configuration
	settings []Setting

	filters map[string]string // milters that are to be defined: equates by name
	lists   map[int][]string  // new lists of milters, by the daemon's place in sendmail.cf
	local   string            // options of a new service for sendmail(1); empty: none
	submit  string            // port that submit.cf is to hand mail to; empty: as it is
}

func (s Setup) plan(i *Instance) (*plan, error) {
	s.Deadline = cmp.Or(s.Deadline, defaultDeadline)
	s.LocalPort = cmp.Or(s.LocalPort, defaultLocalPort)
	now, err := readConfiguration(i.ConfigDir)
	if err != nil {
		return nil, err
	}
	p := &plan{setup: s, now: now, filters: map[string]string{}, lists: map[int][]string{}}
	if err := p.localMail(); err != nil {
		return nil, err
	}
	for n, d := range now.mta.Daemons() {
		p.daemon(n, d)
	}
	slices.SortStableFunc(p.settings, func(a, b Setting) int { return cmp.Compare(rank(a), rank(b)) })
	return p, nil
}

// rank orders settings as they stand in the files.
func rank(s Setting) int {
	switch {
	case s.Place == InSubmit || s.Place == InSubmitCF:
		return 2
	case s.Name == "MAIL_FILTER":
		return 0
	}
	return 1
}

func (p *plan) changes() bool { return slices.ContainsFunc(p.settings, Setting.Changes) }

func (p *plan) add(s Setting) {
	if !slices.Contains(p.settings, s) {
		p.settings = append(p.settings, s)
	}
}

// daemon attaches one service, unless it is that of sendmail(1).
func (p *plan) daemon(n int, d Daemon) {
	role, why := p.setup.SMTP, "each SMTP service asks the guard: trusted machines and AUTH pass, nobody else relays"
	if role == policy.Inbound {
		why = "each SMTP service shows its mail to the guard, which only tells"
	}
	switch {
	case isSubmission(d):
		role, why = policy.Submission, "people and devices: AUTH always"
	case p.isLocal(d):
		return
	}
	l, has := byRole(p.setup.Listeners, role)
	if role == 0 || !has || role != policy.Submission && p.chosen(d) {
		return
	}
	p.attach(n, d, l, why+"; first, before other milters change the message")
}

// chosen reports that a service asks a listener of ours, soundly.
func (p *plan) chosen(d Daemon) bool {
	place, f, l := p.now.mta.attached(d, p.setup.Listeners)
	return place == 0 && l.Role != policy.Local && f.sound(p.setup.Deadline)
}

// attach puts the listener in front of a daemon's milters.
func (p *plan) attach(n int, d Daemon, l mta.Listener, why string) {
	was, with := p.now.daemonText(n), p.now.daemonText(n)
	others := p.others(d)
	place, f, got := p.now.mta.attached(d, p.setup.Listeners)
	switch all := p.now.mta.FiltersOf(d); {
	case place == 0 && got == l && f.sound(p.setup.Deadline) && slices.Equal(all[1:], others):
		p.define(f.Name, f.equates())
	default:
		name := filterPrefix + l.Role.String()
		p.define(name, p.equates(l))
		p.lists[n] = append([]string{name}, others...)
		with = withFilters(was, p.lists[n])
	}
	if !p.now.listed(n) {
		was = ""
	}
	p.add(p.daemonSetting(d.Name, with, was, why))
}

func (p *plan) daemonSetting(name, value, was, why string) Setting {
	line := func(options string) string { return "DAEMON_OPTIONS(`" + options + "')dnl" }
	s := Setting{Place: InMTA, Service: name, Name: "DAEMON_OPTIONS", Value: line(value), Why: why}
	if p.now.mc == nil {
		line = func(options string) string { return "O DaemonPortOptions=" + options }
		s.Place, s.Value = InMTACF, line(value)
	}
	if was != "" {
		s.Was = line(was)
	}
	return s
}

// others are a daemon's milters that are not ours, and never were.
func (p *plan) others(d Daemon) []string {
	return slices.DeleteFunc(p.now.mta.FiltersOf(d), func(name string) bool {
		f, found := p.now.mta.filterNamed(name)
		_, ours := listenerOf(f, p.setup.Listeners)
		return found && (ours || former(f, p.setup.Listeners))
	})
}

// define has a milter defined, if it is not so already.
func (p *plan) define(name, equates string) {
	line := func(equates string) string { return "MAIL_FILTER(`" + name + "', `" + equates + "')dnl" }
	s := Setting{Place: InMTA, Name: "MAIL_FILTER", Why: "Sendmail finds the guard there, waits longer than it takes to decide (" + p.setup.Deadline.String() + "), and has clients try again while it is away (F=T)"}
	if p.now.mc == nil {
		s.Place = InMTACF
		line = func(equates string) string { return "X" + name + ", " + equates }
	}
	s.Value = line(equates)
	if f, found := p.now.mta.filterNamed(name); found {
		s.Was = line(f.equates())
	}
	p.filters[name] = equates
	p.add(s)
}

// equates defines the milter of a listener. Sendmail's own waits (R:10s, E:5m)
// are raised where the guard may take longer.
func (p *plan) equates(l mta.Listener) string {
	reply, end := max(20*time.Second, 2*p.setup.Deadline), max(2*time.Minute, 4*p.setup.Deadline)
	return fmt.Sprintf("S=%s, F=T, T=C:10s;S:10s;R:%ds;E:%ds", socketOf(l), int(reply.Seconds()), int(end.Seconds()))
}
