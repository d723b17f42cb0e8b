package postfixtest

import (
	"fmt"
	"regexp"
	"slices"
)

// Options describes the Postfix to start. The zero value is a Postfix without
// services that still takes local mail.
type Options struct {
	// Dir holds everything. Empty: a new directory with a short path, removed
	// by Stop. A given directory must exist, be reachable for other users
	// and have a path short enough for Unix sockets; Stop leaves it.
	Dir string
	// Hostname is myhostname; empty: relay.example.jp.
	Hostname string
	// Inside lists the domains that are its own: any recipient there is
	// accepted and delivered to the Sink. Empty: example.jp.
	Inside []string
	// Mailboxes lists addresses of inside domains that are delivered to a
	// Maildir instead (see Postfix.Maildir).
	Mailboxes []string
	// Users maps a login to its password, for services with Auth. Without
	// users and Auth services no Dovecot is started.
	Users map[string]string
	// Services are the SMTP listeners.
	Services []Service
	// Local is the way of mail from sendmail(1).
	Local Local
	// Discard throws mail away instead of delivering it to the Sink.
	Discard bool
	// Main holds further main.cf parameters; they win over our own.
	Main map[string]string
	// Master holds further master.cf lines, as they are.
	Master []string
	// Files are further files of the configuration directory: name to
	// content. Main refers to them as $config_directory/NAME.
	Files map[string]string
}

// Service is one SMTP listener.
type Service struct {
	// Name is what Addr knows it by, and part of its syslog_name.
	Name string
	// Milters is smtpd_milters; none: as main.cf has it, by default none.
	Milters []string
	// DaemonName is milter_macro_daemon_name; empty: Postfix's own default.
	DaemonName string
	// Auth offers AUTH PLAIN and LOGIN, also without TLS.
	Auth bool
	// TLS offers STARTTLS with a certificate of CA.
	TLS bool
	// AskClientCert asks for a client certificate, verified against CA.
	AskClientCert bool
	// XClient lets loopback clients use XCLIENT.
	XClient bool
	// NoChroot runs smtpd outside the chroot.
	NoChroot bool
	// Options are further master.cf -o parameters; they win.
	Options map[string]string
}

// Local describes the way of mail from sendmail(1): pickup and its cleanup.
type Local struct {
	// Milters is non_smtpd_milters; none: no milter.
	Milters []string
	// DaemonName is {daemon_name} for local mail; empty: Postfix's default.
	DaemonName string
	// ShowUID gives local mail its own cleanup service, which writes the uid
	// of the sender into the first header of the message, UIDHeader.
	ShowUID bool
}

// UIDHeader is the header that Local.ShowUID makes the milter see first. A
// forged one comes later in the message. It is taken off on the way out.
const UIDHeader = "X-Relayguard-Uid"

const (
	defaultHostname = "relay.example.jp"
	defaultInside   = "example.jp"
)

var serviceName = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)

// complete checks the options and fills in the defaults.
func (o Options) complete() (Options, error) {
	if o.Hostname == "" {
		o.Hostname = defaultHostname
	}
	if len(o.Inside) == 0 {
		o.Inside = []string{defaultInside}
	}
	var seen []string
	for _, service := range o.Services {
		if !serviceName.MatchString(service.Name) {
			return o, fmt.Errorf("service name %q: want lower-case letters, digits and hyphens", service.Name)
		}
		if slices.Contains(seen, service.Name) {
			return o, fmt.Errorf("service name %q is given twice", service.Name)
		}
		seen = append(seen, service.Name)
	}
	return o, nil
}

// needsDovecot tells whether any service offers AUTH.
func (o Options) needsDovecot() bool {
	return len(o.Users) > 0 || slices.ContainsFunc(o.Services, func(s Service) bool { return s.Auth })
}
