package postfix

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"relayguard/mta"
	"relayguard/mta/backup"
	"relayguard/policy"
)

// Names that setup gives to what it adds.
const (
	daemonOriginating = "ORIGINATING"        // {daemon_name} of submission, as Postfix's own master.cf has it
	cleanupService    = "relayguard-cleanup" // the cleanup(8) behind pickup(8)
	uidChecksFile     = "relayguard-uid.regexp"
	stripChecksFile   = "relayguard-strip.regexp"
)

// LocalMail is how the guard knows mail from sendmail(1) and its sender.
type LocalMail struct {
	DaemonName string // {daemon_name} of pickup's cleanup service: "LOCAL-PICKUP"
	UIDHeader  string // the field that tells the uid: "X-Relayguard-Uid"

	// Strip names further fields that must not leave this machine. The guard takes
	// them off what it sees; Postfix sees to what goes round the guard.
	Strip []string
}

// Place says what kind of thing a Setting is.
type Place string

const (
	InMain    Place = "main.cf"   // Name = Value
	InService Place = "master.cf" // -o Name=Value of Service
	NewEntry  Place = "service"   // Value is a whole master.cf line for Service
	InFile    Place = "file"      // Value is the text of the file Name
)

// Setting is one thing that Postfix must be told, and why.
type Setting struct {
	Place   Place
	Service string // "submission/inet"; empty in main.cf
	Name    string
	Value   string
	Was     string // what it is now; empty: not set
	Why     string

	unset bool // it is not there now, not even empty
}

// Changes reports whether the setting is not yet as it should be.
func (s Setting) Changes() bool { return s.unset || s.Value != s.Was }

func (s Setting) String() string {
	switch s.Place {
	case InService:
		return fmt.Sprintf("%s: -o %s=%s", s.Service, s.Name, s.Value)
	case NewEntry:
		return s.Value
	case InFile:
		return s.Name
	}
	return s.Name + " = " + s.Value
}

// Plan lists the settings that attach the guard's listeners to an instance,
// those that are already right included. What the admin has stays: other
// milters keep their order behind ours, other header checks theirs. Ours come
// first so that nothing is changed before the guard sees it (the uid of a
// local sender counts only in the very first header) and nobody signs or scans
// what is then refused.
//
// The listener of the role SMTP becomes the default of SMTP services that are
// not submission; without a role they are left alone, and always so those that
// the admin gave a listener of ours by name. Trap: the relay role refuses
// strangers, so a server that is also an MX wants inbound there.
func (s Setup) Plan(ctx context.Context, i *Instance) ([]Setting, error) {
	raw, err := i.raw(ctx, "smtpd_milters", "non_smtpd_milters", "header_checks", "smtp_header_checks")
	if err != nil {
		return nil, fmt.Errorf("plan settings of %s: %w", i.ConfigDir, err)
	}
	p := &plan{i: i, listeners: s.Listeners, general: s.SMTP, mail: s.LocalMail, raw: raw}
	for _, l := range s.Listeners {
		if _, inside := i.inQueue(l.Address); l.Network == "unix" && !inside && slices.ContainsFunc(i.Services, func(s Service) bool {
			return s.Chroot && (s.Command == "smtpd" || s.Command == "cleanup")
		}) {
			return nil, fmt.Errorf("plan settings of %s: listener %s is not below the queue directory %s, where chrooted services look for it", i.ConfigDir, l.Address, i.QueueDir)
		}
	}
	p.mainDefaults()
	p.smtp()
	p.local()
	if p.err != nil {
		return nil, fmt.Errorf("plan settings of %s: %w", i.ConfigDir, p.err)
	}
	return p.settings, nil
}

type plan struct {
	i         *Instance
	listeners []mta.Listener
	general   policy.Role
	mail      LocalMail
	raw       map[string]string // main.cf's values, not expanded
	settings  []Setting
	err       error
}

// raw reads parameters as they are written, so that what is kept keeps its
// $names.
func (i *Instance) raw(ctx context.Context, names ...string) (map[string]string, error) {
	s, err := i.tools.run(ctx, nil, maxToolOutput, "postconf", i.tools.inDir(i.ConfigDir, names...)...)
	if err != nil {
		return nil, err
	}
	return parseSettings(string(s.stdout))
}

func (p *plan) main(name, was, value, why string) {
	p.settings = append(p.settings, Setting{Place: InMain, Name: name, Value: value, Was: was, Why: why})
}

func (p *plan) service(s *Service, name, value, why string) {
	was, set := s.Overrides[name]
	p.settings = append(p.settings, Setting{Place: InService, Service: s.ID(), Name: name, Value: value, Was: was, Why: why, unset: !set})
}

func (p *plan) mainDefaults() {
	action := p.i.Setting("milter_default_action")
	want := "tempfail"
	if action == "shutdown" {
		want = action
	}
	p.main("milter_default_action", action, want, "while the guard is away clients try again; accept would let everything pass")
	for _, t := range []struct{ name, want, why string }{
		{"milter_connect_timeout", "30s", "a guard that restarts is waited for"},
		{"milter_command_timeout", "30s", "longer than the guard takes for any answer (5 s)"},
		{"milter_content_timeout", "300s", "longer than the end of a large message takes"},
	} {
		now := p.i.Setting(t.name)
		want := now
		if d, ok := parseTime(now); !ok || d < 10*time.Second {
			want = t.want
		}
		p.main(t.name, now, want, t.why)
	}
	p.main("milter_protocol", p.i.Setting("milter_protocol"), "6", "the guard is told all of a message")
}

// smtp attaches smtpd(8) services.
func (p *plan) smtp() {
	general, has := byRole(p.listeners, p.general)
	why := "each SMTP service asks the guard: trusted machines and AUTH pass, nobody else relays; first, before other milters change the message"
	if p.general == policy.Inbound {
		why = "each SMTP service shows its mail to the guard, which only tells; first, before other milters change the message"
	}
	if has {
		p.main("smtpd_milters", p.raw["smtpd_milters"], p.first(nil, p.raw["smtpd_milters"], p.i.Setting("smtpd_milters"), general), why)
	}
	submission, submits := byRole(p.listeners, policy.Submission)
	for n := range p.i.Services {
		s := &p.i.Services[n]
		if s.Command != "smtpd" {
			continue
		}
		if strings.EqualFold(s.Overrides["milter_default_action"], "accept") {
			p.service(s, "milter_default_action", "tempfail", "while the guard is away clients try again; accept would let everything pass")
		}
		if strings.Contains(p.i.Effective(s, "receive_override_options"), "no_milters") {
			continue // a content filter's way back
		}
		own, overridden := s.Overrides["smtpd_milters"]
		switch {
		case submits && isSubmission(s):
			before := p.raw["smtpd_milters"]
			if overridden {
				before = own
			}
			p.service(s, "smtpd_milters", p.first(s, before, p.i.Effective(s, "smtpd_milters"), submission), "people and devices: AUTH always; other milters stay behind ours")
			if name, set := s.Overrides["milter_macro_daemon_name"]; !set {
				p.service(s, "milter_macro_daemon_name", daemonOriginating, "milters (DKIM signers too) know mail of our own users by it")
			} else {
				p.service(s, "milter_macro_daemon_name", name, "milters know mail of our own users by it")
			}
		case has && overridden && own != "" && !p.chosen(s):
			p.service(s, "smtpd_milters", p.first(s, own, p.i.Effective(s, "smtpd_milters"), general), why)
		}
	}
}

// chosen reports that a service asks a listener of ours already.
func (p *plan) chosen(s *Service) bool {
	place, m, l, err := p.i.attached(s, p.i.Effective(s, "smtpd_milters"), p.listeners)
	return err == nil && place == 0 && l.Role != policy.Local && !strings.EqualFold(m.Settings["default_action"], "accept")
}

// isSubmission reports services where people hand in mail: RFC 6409, RFC 8314.
func isSubmission(s *Service) bool {
	if s.Type != "inet" {
		return false
	}
	port := s.Name[strings.LastIndexByte(s.Name, ':')+1:]
	return slices.Contains([]string{"submission", "587", "submissions", "smtps", "465"}, port)
}

// first puts the listener in front of a list of milters, and takes out what
// else of ours is there. The text of the others stays as it is.
func (p *plan) first(s *Service, written, effective string, l mta.Listener) string {
	ours := p.i.endpoint(l)
	items, err := splitList(written)
	if err != nil {
		p.err = err
		return written
	}
	if place, m, got, err := p.i.attached(orMain(s), effective, p.listeners); err == nil && place == 0 && got == l && !strings.EqualFold(m.Settings["default_action"], "accept") &&
		!slices.ContainsFunc(items, func(item string) bool { return p.isOther(s, item, l) }) {
		return written
	}
	list := []string{ours}
	for _, item := range items {
		milters, err := ParseMilters(item)
		if err == nil && len(milters) == 1 {
			if _, mine := p.i.listenerOf(orMain(s), milters[0].Endpoint, p.listeners); mine || p.i.former(orMain(s), milters[0].Endpoint, p.listeners) {
				continue
			}
		}
		list = append(list, item)
	}
	return strings.Join(list, ", ")
}

// isOther reports items that are, or were, another listener of ours than l.
func (p *plan) isOther(s *Service, item string, l mta.Listener) bool {
	milters, err := ParseMilters(item)
	if err != nil || len(milters) != 1 {
		return false
	}
	got, mine := p.i.listenerOf(orMain(s), milters[0].Endpoint, p.listeners)
	return mine && got != l || !mine && p.i.former(orMain(s), milters[0].Endpoint, p.listeners)
}

// orMain stands for "any service" where main.cf is meant. Paths there may mean
// different files to chrooted services and others; ours are relative.
func orMain(s *Service) *Service {
	if s != nil {
		return s
	}
	return &Service{Name: "main.cf"}
}

// local attaches sendmail(1)'s way and makes Postfix tell the sender's uid.
func (p *plan) local() {
	l, has := byRole(p.listeners, policy.Local)
	pickup := p.i.Service("pickup", "unix")
	if !has || pickup == nil {
		return
	}
	p.main("non_smtpd_milters", p.raw["non_smtpd_milters"], p.first(nil, p.raw["non_smtpd_milters"], p.i.Setting("non_smtpd_milters"), l),
		"mail from sendmail(1), PHP's mail() and cron asks the guard; first, so that the uid header is the first header")
	uidFile, stripFile := filepath.Join(p.i.ConfigDir, uidChecksFile), filepath.Join(p.i.ConfigDir, stripChecksFile)
	p.file(uidFile, uidChecks(p.mail.UIDHeader), "copies the uid that Postfix writes into Received, which milters do not see, into a header that they see; drops forged ones")
	p.file(stripFile, p.mail.stripChecks(), "drops that header, and others of the guard's, on the way out")
	p.main("smtp_header_checks", p.raw["smtp_header_checks"], inFront("regexp:"+stripFile, p.raw["smtp_header_checks"]), "the uid header does not leave this machine")
	for n := range p.i.Services {
		if s := &p.i.Services[n]; s.Command == "smtp" {
			if own, set := s.Overrides["smtp_header_checks"]; set {
				p.service(s, "smtp_header_checks", inFront("regexp:"+stripFile, own), "the uid header does not leave this machine")
			}
		}
	}
	p.cleanup(pickup, "regexp:"+uidFile)
}

// cleanup gives pickup(8) a cleanup service of its own, so that the header is
// made for local mail only, or completes the one that it has.
func (p *plan) cleanup(pickup *Service, checks string) {
	name := p.i.Effective(pickup, "cleanup_service_name")
	common := p.i.Service("cleanup", "unix")
	own := p.i.Service(name, "unix")
	if name == "cleanup" || own == nil {
		if own = p.i.Service(cleanupService, "unix"); own == nil {
			p.newCleanup(common, checks)
		}
		p.service(pickup, "cleanup_service_name", cleanupService, "local mail takes its own way, so the guard knows it from SMTP")
	} else {
		p.service(pickup, "cleanup_service_name", name, "local mail takes its own way, so the guard knows it from SMTP")
	}
	if own == nil {
		return
	}
	written, set := own.Overrides["header_checks"]
	if !set {
		written = p.raw["header_checks"]
	}
	p.service(own, "header_checks", inFront(checks, written), "the sender's uid becomes visible"+yoursFollow(checks, written))
	p.service(own, "milter_macro_daemon_name", p.mail.DaemonName, "the guard knows local mail by it")
}

func (p *plan) newCleanup(like *Service, checks string) {
	chroot := "y"
	overrides := map[string]string{}
	if like != nil {
		if !like.Chroot {
			chroot = "n"
		}
		for name, value := range like.Overrides {
			overrides[name] = value
		}
	}
	existing, set := overrides["header_checks"]
	if !set {
		existing = p.raw["header_checks"]
	}
	overrides["header_checks"] = inFront(checks, existing)
	if _, set := overrides["nested_header_checks"]; !set {
		overrides["nested_header_checks"] = existing // its default is header_checks: attached messages are not ours to change
	}
	overrides["milter_macro_daemon_name"] = p.mail.DaemonName
	line := cleanupService + " unix n - " + chroot + " - 0 cleanup"
	for _, name := range sortedKeys(overrides) {
		line += " -o " + quoteOverride(name, overrides[name])
	}
	p.settings = append(p.settings, Setting{Place: NewEntry, Service: cleanupService + "/unix", Value: line, unset: true,
		Why: "local mail takes its own way: there the sender's uid becomes a header, and the guard knows it from SMTP" + yoursFollow(checks, existing)})
}

func (p *plan) file(path, text, why string) {
	was, err := backup.ReadIfThere(path)
	if err != nil {
		p.err = err
	}
	p.settings = append(p.settings, Setting{Place: InFile, Name: path, Value: text, Was: string(was), Why: why, unset: was == nil})
}

// yoursFollow tells an admin who has header checks what becomes of them: the
// first table that matches a line decides it.
func yoursFollow(ours, list string) string {
	items, err := splitList(list)
	if err != nil || !slices.ContainsFunc(items, func(item string) bool { return item != ours }) {
		return ""
	}
	return "; your own header_checks follow, but no longer see pickup's Received line of local mail: a pattern that hides or changes it there has no effect any more"
}

// uidChecks is the table that makes the uid visible: the first Received line
// is pickup's, so the first uid header is true and later ones are forged. That
// line names myhostname and mail_name, whatever they are.
func uidChecks(header string) string {
	return "# Made by relayguard setup postfix. Only the first " + header + " of a message is true.\n" +
		"/^" + header + ":/ IGNORE\n" +
		`/^Received: by [^ ]+ \([^,()]+, from userid ([0-9]+)\)/ PREPEND ` + header + ": $1\n"
}

// stripChecks is the table for what leaves this machine.
func (m *LocalMail) stripChecks() string {
	text := "# Made by relayguard setup postfix.\n"
	for _, name := range append([]string{m.UIDHeader}, m.Strip...) {
		text += "/^" + name + ":/ IGNORE\n"
	}
	return text
}

// inFront puts a table first in a list of tables: the first that matches a
// line decides it.
func inFront(table, list string) string {
	items, err := splitList(list)
	switch {
	case err == nil && len(items) > 0 && items[0] == table:
		return list
	case strings.TrimSpace(list) == "":
		return table
	}
	kept := slices.DeleteFunc(items, func(item string) bool { return item == table })
	return strings.Join(append([]string{table}, kept...), ", ")
}
