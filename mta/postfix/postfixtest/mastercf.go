package postfixtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// masterServices is what Debian's master.cf has besides SMTP listeners and
// pickup, with the same chroot column.
const masterServices = `cleanup    unix  n - y - 0 cleanup
qmgr       unix  n - n 300 1 qmgr
tlsmgr     unix  - - y 1000? 1 tlsmgr
rewrite    unix  - - y - - trivial-rewrite
bounce     unix  - - y - 0 bounce
defer      unix  - - y - 0 bounce
trace      unix  - - y - 0 bounce
verify     unix  - - y - 1 verify
flush      unix  n - y 1000? 0 flush
proxymap   unix  - - n - - proxymap
proxywrite unix  - - n - 1 proxymap
smtp       unix  - - y - - smtp
relay      unix  - - y - - smtp
showq      unix  n - y - - showq
error      unix  - - y - - error
retry      unix  - - y - - error
discard    unix  - - y - - discard
local      unix  - n n - - local
virtual    unix  - n n - - virtual
lmtp       unix  - - y - - lmtp
anvil      unix  - - y - 1 anvil
scache     unix  - - y - 1 scache
postlog    unix-dgram n - n - 1 postlogd
`

// masterCF renders master.cf.
func (p *Postfix) masterCF() string {
	var out strings.Builder
	for _, service := range p.options.Services {
		p.writeService(&out, service)
	}
	p.writePickup(&out)
	out.WriteString(masterServices)
	for _, line := range p.options.Master {
		out.WriteString(line + "\n")
	}
	return out.String()
}

func (p *Postfix) writeService(out *strings.Builder, s Service) {
	chroot := "y"
	if s.NoChroot {
		chroot = "n"
	}
	fmt.Fprintf(out, "%s inet n - %s - - smtpd\n", p.addrs[s.Name], chroot)
	parameters := map[string]string{
		"syslog_name":                    "postfix/" + s.Name,
		"smtpd_sasl_auth_enable":         yesNo(s.Auth),
		"smtpd_tls_security_level":       "none",
		"smtpd_authorized_xclient_hosts": "",
	}
	if len(s.Milters) > 0 { // else main.cf's, which has none of its own
		parameters["smtpd_milters"] = strings.Join(s.Milters, ", ")
	}
	if s.TLS || s.AskClientCert {
		parameters["smtpd_tls_security_level"] = "may"
	}
	if s.AskClientCert {
		parameters["smtpd_tls_ask_ccert"] = "yes"
	}
	if s.XClient {
		parameters["smtpd_authorized_xclient_hosts"] = "127.0.0.0/8"
	}
	if s.DaemonName != "" {
		parameters["milter_macro_daemon_name"] = s.DaemonName
	}
	maps.Copy(parameters, s.Options)
	writeParameters(out, parameters)
}

// writePickup writes the service that takes sendmail(1)'s mail, and the
// cleanup service of its own that some of Local needs.
func (p *Postfix) writePickup(out *strings.Builder) {
	local := p.options.Local
	out.WriteString("pickup unix n - y 60 1 pickup\n")
	if !local.ShowUID && local.DaemonName == "" {
		return
	}
	writeParameters(out, map[string]string{"cleanup_service_name": "localcleanup"})
	out.WriteString("localcleanup unix n - y - 0 cleanup\n")
	parameters := map[string]string{"syslog_name": "postfix/local"}
	if local.DaemonName != "" {
		parameters["milter_macro_daemon_name"] = local.DaemonName
	}
	if local.ShowUID {
		parameters["header_checks"] = "regexp:$config_directory/local_header_checks"
	}
	writeParameters(out, parameters)
}

func writeParameters(out *strings.Builder, parameters map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		fmt.Fprintf(out, "  -o { %s = %s }\n", name, parameters[name])
	}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
