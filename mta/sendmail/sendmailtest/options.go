package sendmailtest

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Options describes the Sendmail to start. The zero value is an MTA that only
// sendmail(1) reaches.
type Options struct {
	// Dir holds everything. Empty: a new directory with a short path, removed
	// by Stop. A given directory must exist, be reachable for other users
	// and have a path short enough for Unix sockets; Stop leaves it.
	Dir string
	// Hostname is $j; empty: relay.example.jp.
	Hostname string
	// Inside lists the domains of class w: any recipient there is accepted and
	// delivered to the Sink. Empty: example.jp.
	Inside []string
	// Mailboxes lists addresses of inside domains that are delivered to a
	// file instead, by an alias (see Sendmail.Mailbox).
	Mailboxes []string
	// Users maps a login to its password, for services with Auth, kept by
	// Cyrus SASL. A login without @ belongs to the realm Hostname.
	Users map[string]string
	// Services are the SMTP listeners.
	Services []Service
	// SubmitTo names the service that sendmail(1) hands its mail to. Empty:
	// LocalService, which is made if it is not among Services.
	SubmitTo string
	// Milters describes milters that services name. One that is named but not
	// described is a Unix socket NAME.sock in MilterDir.
	Milters []Milter
	// DeliveryMode is background (empty means that), interactive, queueonly
	// or defer.
	DeliveryMode string
	// QueueInterval is how often the MTA runs its queue, at least a second;
	// 0: only by RunQueue.
	QueueInterval time.Duration
	// QueueReturn is when undelivered mail bounces; 0: Sendmail's 5 days.
	QueueReturn time.Duration
	// QueueDirs is the number of queue directories: above 1 they are q1,
	// q2... below QueueDir, and QueueDirectory is their pattern q*.
	QueueDirs int
	// QueueGroups are further queue groups, below QueueDir too.
	QueueGroups []QueueGroup
	// SplitQueue divides each queue directory into qf, df and xf.
	SplitQueue bool
	// MC and SubmitMC hold further lines of sendmail.mc and submit.mc, before
	// the first MAILER; they win over our own.
	MC, SubmitMC []string
	// CF holds further lines at the end of sendmail.mc's LOCAL_CONFIG.
	CF []string
	// Hosts holds further lines of /etc/hosts as Sendmail sees it.
	Hosts []string
	// Files are further files of the configuration directory: name to content.
	Files map[string]string
}

// Service is one SMTP listener: a DAEMON_OPTIONS line.
type Service struct {
	// Name is what Addr knows it by, and the macro {daemon_name}.
	Name string
	// Milters is InputMailFilters, the milters' names; none: no milter.
	Milters []string
	// Auth offers AUTH PLAIN and LOGIN, also without TLS.
	Auth bool
	// TLS offers STARTTLS with a certificate of CA.
	TLS bool
	// Modifiers are further letters of M=, such as a: AUTH is required.
	Modifiers string
	// Options are further key=value pairs of the line.
	Options []string
}

// Milter is a MAIL_FILTER line.
type Milter struct {
	Name string
	// Socket is in Sendmail's form; empty: local:MilterDir/NAME.sock.
	Socket string
	// Flag is F=, what happens without it: T (empty means that), R, 4, or
	// none, where mail passes.
	Flag string
	// Timeouts is T=; empty: C:10s;S:10s;R:20s;E:2m.
	Timeouts string
}

// QueueGroup is a QUEUE_GROUP with Dirs directories, NAME1, NAME2..., or one,
// NAME. Rules that put mail into it are for Options.MC.
type QueueGroup struct {
	Name string
	Dirs int
}

// LocalService is the service for sendmail(1) where none is named.
const LocalService = "local"

const (
	defaultHostname = "relay.example.jp"
	defaultInside   = "example.jp"
	defaultTimeouts = "C:10s;S:10s;R:20s;E:2m"
)

var plainName = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)

// complete checks the options and fills in the defaults.
func (o Options) complete() (Options, error) {
	o.Hostname = cmp.Or(o.Hostname, defaultHostname)
	o.DeliveryMode = cmp.Or(o.DeliveryMode, "background")
	o.SubmitTo = cmp.Or(o.SubmitTo, LocalService)
	if len(o.Inside) == 0 {
		o.Inside = []string{defaultInside}
	}
	if !o.hasService(o.SubmitTo) && o.SubmitTo == LocalService {
		o.Services = append(slices.Clone(o.Services), Service{Name: LocalService})
	}
	if !o.hasService(o.SubmitTo) {
		return o, fmt.Errorf("sendmail(1) is to use service %q, which is not there", o.SubmitTo)
	}
	var names []string
	for _, service := range o.Services {
		names = append(names, service.Name)
	}
	for _, group := range o.QueueGroups {
		names = append(names, group.Name)
	}
	for i, name := range names {
		if !plainName.MatchString(name) {
			return o, fmt.Errorf("name %q: want lower-case letters, digits and hyphens", name)
		}
		if slices.Contains(names[:i], name) {
			return o, fmt.Errorf("name %q is given twice", name)
		}
	}
	return o, o.checkTexts()
}

// checkTexts refuses what would not survive m4 or a file of lines.
func (o Options) checkTexts() error {
	texts := slices.Concat([]string{o.Dir, o.Hostname, o.DeliveryMode}, o.Inside, o.Mailboxes)
	for _, text := range texts {
		if strings.ContainsAny(text, "`' \t\n,()") {
			return fmt.Errorf("%q: quotes, spaces, commas and brackets do not go through m4", text)
		}
	}
	return nil
}

func (o Options) hasService(name string) bool {
	return slices.ContainsFunc(o.Services, func(s Service) bool { return s.Name == name })
}

// milters are all that services name, described.
func (o Options) milters(dir string) []Milter {
	all := slices.Clone(o.Milters)
	for _, service := range o.Services {
		for _, name := range service.Milters {
			if !slices.ContainsFunc(all, func(m Milter) bool { return m.Name == name }) {
				all = append(all, Milter{Name: name})
			}
		}
	}
	for i, m := range all {
		all[i].Socket = cmp.Or(m.Socket, "local:"+dir+"/"+m.Name+".sock")
		all[i].Flag = cmp.Or(m.Flag, "T")
		all[i].Timeouts = cmp.Or(m.Timeouts, defaultTimeouts)
	}
	return all
}

// queueDirs are the directories that hold queues, below QueueDir; "." is
// QueueDir itself.
func (o Options) queueDirs() []string {
	dirs := numbered("q", o.QueueDirs)
	if o.QueueDirs <= 1 {
		dirs = []string{"."}
		if len(o.QueueGroups) > 0 {
			dirs = []string{"main"}
		}
	}
	for _, group := range o.QueueGroups {
		if group.Dirs <= 1 {
			dirs = append(dirs, group.Name)
			continue
		}
		dirs = append(dirs, numbered(group.Name, group.Dirs)...)
	}
	return dirs
}

func numbered(name string, n int) []string {
	var dirs []string
	for i := range n {
		dirs = append(dirs, fmt.Sprintf("%s%d", name, i+1))
	}
	return dirs
}
