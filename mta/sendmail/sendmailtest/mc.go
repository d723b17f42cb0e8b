package sendmailtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// heading begins both mc files as Debian's do, with other paths.
func (s *Sendmail) heading(domain string) string {
	return fmt.Sprintf(`divert(0)dnl
define(%[1]s_USE_ETC_MAIL_')dnl
define(%[1]sMAIL_SETTINGS_DIR', %[1]s%[2]s/')dnl
include(%[1]s%[3]s')dnl
include(%[1]s%[4]s')dnl
OSTYPE(%[1]sdebian')dnl
DOMAIN(%[1]s%[5]s')dnl
undefine(%[1]sconfCONTROL_SOCKET_NAME')dnl
undefine(%[1]sconfHOST_STATUS_DIRECTORY')dnl
`, "`", s.ConfigDir, share("cf/m4/cf.m4"), share("cf/debian/autoconf.m4"), domain) +
		define("confDOMAIN_NAME", s.options.Hostname) +
		define("confSERVICE_SWITCH_FILE", filepath.Join(s.ConfigDir, "service.switch")) +
		define("confDEAD_LETTER_DROP", filepath.Join(s.Dir, "run", "dead.letter")) +
		define("confTO_IDENT", "0") +
		// The machine's own addresses and their names are not the test's.
		define("confDONT_PROBE_INTERFACES", "True") +
		// Hundreds of children of tests are no reason to wait, for sendmail(1) neither.
		define("confQUEUE_LA", "1000") + define("confREFUSE_LA", "1000")
}

func quote(text string) string { return "`" + text + "'" }

func define(name, value string) string {
	return "define(" + quote(name) + ", " + quote(value) + ")dnl\n"
}

func feature(name string, args ...string) string {
	text := "FEATURE(" + quote(name)
	for _, arg := range args {
		text += ", " + quote(arg)
	}
	return text + ")dnl\n"
}

// mtaMC is sendmail.mc.
func (s *Sendmail) mtaMC() string {
	o := s.options
	queue := s.QueueDir
	switch {
	case o.QueueDirs > 1:
		queue += "/q*"
	case len(o.QueueGroups) > 0:
		queue += "/main"
	}
	mc := s.heading("debian-mta") +
		define("confPID_FILE", s.PIDFile()) +
		define("STATUS_FILE", filepath.Join(s.Dir, "run", "sendmail.st")) +
		define("QUEUE_DIR", queue) +
		define("HELP_FILE", filepath.Join(packageFolder(), "etc/mail/helpfile")) +
		define("ALIAS_FILE", filepath.Join(s.ConfigDir, "aliases")) +
		define("confDELIVERY_MODE", o.DeliveryMode) +
		define("confLOG_LEVEL", "14") +
		feature("no_default_msa") + feature("use_cw_file") + feature("nocanonify") +
		feature("accept_unresolvable_domains") + feature("accept_unqualified_senders") +
		s.routesMC() + s.authMC()
	if o.QueueReturn > 0 {
		mc += define("confTO_QUEUERETURN", strconv.Itoa(int(o.QueueReturn.Seconds()))+"s")
	}
	for _, group := range o.QueueGroups {
		path := filepath.Join(s.QueueDir, group.Name)
		if group.Dirs > 1 {
			path += "*"
		}
		mc += "QUEUE_GROUP(" + quote(group.Name) + ", " + quote("P="+path) + ")dnl\n"
	}
	for _, m := range o.milters(s.MilterDir()) {
		equates := "S=" + m.Socket + ", T=" + m.Timeouts
		if m.Flag != "none" {
			equates += ", F=" + m.Flag
		}
		mc += "MAIL_FILTER(" + quote(m.Name) + ", " + quote(equates) + ")dnl\n"
	}
	for _, service := range o.Services {
		mc += s.daemonMC(service)
	}
	mc += strings.Join(append(o.MC, ""), "\n") + "MAILER(`local')dnl\nMAILER(`smtp')dnl\n"
	if len(o.CF) > 0 {
		mc += "LOCAL_CONFIG\n" + strings.Join(append(o.CF, ""), "\n")
	}
	return mc
}

// routesMC sends all that leaves to the sink, and mail for inside domains too,
// with its address as it is; mailboxes aside, which virtusertable turns into
// aliases of files.
func (s *Sendmail) routesMC() string {
	return define("SMART_HOST", "relay:[127.0.0.1]") +
		define("MAIL_HUB", "relay:[127.0.0.1]") +
		define("RELAY_MAILER_ARGS", "TCP $h "+s.sinkPort()) +
		feature("stickyhost") +
		feature("virtusertable", "hash -o "+filepath.Join(s.ConfigDir, "virtusertable"))
}

// authMC lets SASL users relay, also without TLS.
func (s *Sendmail) authMC() string {
	return define("confAUTH_MECHANISMS", "PLAIN LOGIN") +
		"TRUST_AUTH_MECH(`PLAIN LOGIN')dnl\n" +
		define("confAUTH_OPTIONS", "A") +
		define("confCACERT_PATH", s.tlsDir()) +
		define("confCACERT", filepath.Join(s.tlsDir(), "server.crt")) + // without one there is no STARTTLS
		define("confSERVER_CERT", filepath.Join(s.tlsDir(), "server.crt")) +
		define("confSERVER_KEY", filepath.Join(s.tlsDir(), "server.key"))
}

// daemonMC is a service. Its modifiers say what it does not have: A no AUTH, S
// no STARTTLS.
func (s *Sendmail) daemonMC(service Service) string {
	modifiers := service.Modifiers
	if !service.Auth {
		modifiers += "A"
	}
	if !service.TLS {
		modifiers += "S"
	}
	equates := []string{"Name=" + service.Name, "Family=inet", "Addr=127.0.0.1", "Port=" + s.ports[service.Name],
		"InputMailFilters=" + strings.Join(service.Milters, ";")}
	if modifiers != "" {
		equates = append(equates, "M="+modifiers)
	}
	return "DAEMON_OPTIONS(" + quote(strings.Join(append(equates, service.Options...), ", ")) + ")dnl\n"
}

// submitMC is submit.mc.
func (s *Sendmail) submitMC() string {
	return s.heading("debian-msp") +
		define("MSP_QUEUE_DIR", s.ClientQueueDir) +
		define("confPID_FILE", filepath.Join(s.Dir, "run", "msp", "sendmail.pid")) +
		define("STATUS_FILE", filepath.Join(s.Dir, "run", "sm-client.st")) +
		define("confLOG_LEVEL", "14") +
		define("confQUEUE_LA", "1000") + // sendmail(1) queues on a busy machine, and nobody runs this queue
		define("RELAY_MAILER_ARGS", "TCP $h "+s.ports[s.options.SubmitTo]) +
		strings.Join(append(s.options.SubmitMC, ""), "\n") +
		feature("msp", "[127.0.0.1]")
}

// configFiles are the configuration directory's files but for cf files and
// maps.
func (s *Sendmail) configFiles() map[string]string {
	var virtual, aliases strings.Builder
	aliases.WriteString("postmaster: root\nmailer-daemon: root\nroot: /dev/null\n")
	for i, address := range s.options.Mailboxes {
		fmt.Fprintf(&virtual, "%s\tmbox-%d\n", address, i)
		fmt.Fprintf(&aliases, "mbox-%d: %s\n", i, s.mailboxPath(address))
	}
	files := map[string]string{
		"sendmail.mc":      s.mtaMC(),
		"submit.mc":        s.submitMC(),
		"service.switch":   "hosts files\naliases files\n",
		"local-host-names": strings.Join(slices.Concat(s.options.Inside, []string{s.options.Hostname, "localhost", ""}), "\n"),
		"relay-domains":    "",
		"trusted-users":    "smmsp\n",
		"virtusertable":    virtual.String(),
		"aliases":          aliases.String(),
	}
	for name, content := range s.options.Files {
		files[name] = content
	}
	return files
}

// writeConfig writes all files of the configuration directory.
func (s *Sendmail) writeConfig(ctx context.Context) error {
	for name, content := range s.configFiles() {
		if err := os.WriteFile(filepath.Join(s.ConfigDir, name), []byte(content), 0o644); err != nil {
			return fmt.Errorf("write Sendmail's configuration: %w", err)
		}
	}
	return s.build(ctx)
}

// build makes the cf files and maps of what stands in the configuration
// directory, as the Makefile in Debian's /etc/mail does.
func (s *Sendmail) build(ctx context.Context) error {
	for _, name := range []string{"sendmail", "submit"} {
		if err := s.makeCF(ctx, name); err != nil {
			return err
		}
	}
	virtual, err := os.ReadFile(filepath.Join(s.ConfigDir, "virtusertable"))
	if err != nil {
		return fmt.Errorf("read virtusertable: %w", err)
	}
	cmd := exec.CommandContext(ctx, s.Tool("makemap"), "hash", filepath.Join(s.ConfigDir, "virtusertable"))
	cmd.Stdin = strings.NewReader(string(virtual))
	if _, err := s.output(cmd); err != nil {
		return err
	}
	_, err = s.Command(ctx, "newaliases")
	return err
}

// makeCF makes NAME.cf of NAME.mc, whole or not at all.
func (s *Sendmail) makeCF(ctx context.Context, name string) error {
	path := filepath.Join(s.ConfigDir, name)
	cmd := exec.CommandContext(ctx, m4Program, path+".mc")
	var errs strings.Builder
	cmd.Stderr = &errs
	cf, err := cmd.Output()
	if err == nil && errs.Len() > 0 {
		err = errors.New("it complains")
	}
	if err != nil {
		return fmt.Errorf("m4 %s.mc: %w: %s", path, err, errs.String())
	}
	if err := os.WriteFile(path+".cf.new", cf, 0o644); err != nil {
		return fmt.Errorf("write %s.cf: %w", path, err)
	}
	if err := os.Rename(path+".cf.new", path+".cf"); err != nil {
		return fmt.Errorf("write %s.cf: %w", path, err)
	}
	return nil
}

// daemonArgs are those of the MTA, in the foreground.
func (o Options) daemonArgs() []string {
	args := []string{"-Am", "-L", "sm-mta", "-bD"}
	if o.QueueInterval >= time.Second {
		args = append(args, fmt.Sprintf("-q%ds", int(o.QueueInterval.Seconds())))
	}
	return args
}
