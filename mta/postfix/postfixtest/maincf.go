package postfixtest

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// mainCF renders main.cf.
func (p *Postfix) mainCF() string {
	values := p.mainDefaults()
	maps.Copy(values, p.options.Main)
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(values)) {
		fmt.Fprintf(&out, "%s = %s\n", name, values[name])
	}
	return out.String()
}

func (p *Postfix) mainDefaults() map[string]string {
	o := p.options
	sink := "smtp:[127.0.0.1]" + p.Sink.Addr()[strings.LastIndex(p.Sink.Addr(), ":"):]
	if o.Discard {
		sink = "discard:"
	}
	values := map[string]string{
		"compatibility_level": "3.6",

		// Everything in its own place.
		"queue_directory":       p.QueueDir,
		"data_directory":        p.dataDir(),
		"maillog_file":          p.LogPath(),
		"maillog_file_prefixes": p.Dir,
		"inet_interfaces":       "127.0.0.1",
		"inet_protocols":        "ipv4",
		"alias_maps":            "",
		"alias_database":        "",

		// No DNS: names come from files, mail goes to the sink.
		"smtp_dns_support_level": "disabled",
		"smtp_host_lookup":       "native",
		"myhostname":             o.Hostname,
		"myorigin":               "$myhostname",
		"mydestination":          "",
		"default_transport":      sink,
		"relay_transport":        sink,

		// Inside domains: Mailboxes to a Maildir, all others to the sink. The
		// second map only says that any recipient exists.
		"virtual_mailbox_domains":   strings.Join(o.Inside, ", "),
		"virtual_mailbox_maps":      "texthash:$config_directory/mailboxes, static:sink",
		"virtual_transport":         sink,
		"transport_maps":            "texthash:$config_directory/transport",
		"virtual_mailbox_base":      p.mailDir(),
		"virtual_mailbox_limit":     "0",
		"virtual_uid_maps":          fmt.Sprintf("static:%d", p.accounts.mailbox.UID),
		"virtual_gid_maps":          fmt.Sprintf("static:%d", p.accounts.mailbox.GID),
		"virtual_minimum_uid":       "1",
		"mailbox_size_limit":        "0",
		"message_size_limit":        "104857600",
		"smtp_line_length_limit":    "0", // deliver what came in
		"smtp_header_checks":        "regexp:$config_directory/smtp_header_checks",
		"smtputf8_enable":           "yes",
		"notify_classes":            "",
		"smtpd_banner":              "$myhostname ESMTP",
		"mynetworks":                "127.0.0.0/8",
		"smtpd_relay_restrictions":  "permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination",
		"smtpd_sasl_type":           "dovecot",
		"smtpd_sasl_path":           "private/auth",
		"smtpd_tls_auth_only":       "no",
		"smtpd_tls_chain_files":     filepath.Join(p.tlsDir(), "server.pem"),
		"smtpd_tls_CAfile":          filepath.Join(p.tlsDir(), "ca.pem"),
		"smtpd_tls_loglevel":        "1",
		"non_smtpd_milters":         strings.Join(o.Local.Milters, ", "),
		"milter_default_action":     "tempfail",
		"smtpd_client_port_logging": "yes",

		// Tests are rude and in a hurry.
		"smtpd_recipient_limit":               "2000",
		"smtpd_client_connection_count_limit": "0",
		"smtpd_error_sleep_time":              "0s",
		"smtpd_soft_error_limit":              "1000",
		"smtpd_hard_error_limit":              "1000",
		"smtpd_junk_command_limit":            "10000",
		"in_flow_delay":                       "0s",
		"anvil_status_update_time":            "1h",
	}
	return values
}

// configFiles are the files of the configuration directory.
func (p *Postfix) configFiles() map[string]string {
	var mailboxes, transport strings.Builder
	for _, address := range p.options.Mailboxes {
		fmt.Fprintf(&mailboxes, "%s %s/\n", address, maildirName(address))
		fmt.Fprintf(&transport, "%s virtual:\n", address)
	}
	files := map[string]string{
		"main.cf":            p.mainCF(),
		"master.cf":          p.masterCF(),
		"mailboxes":          mailboxes.String(),
		"transport":          transport.String(),
		"smtp_header_checks": "/^" + UIDHeader + ":/ IGNORE\n",
		"local_header_checks": fmt.Sprintf("/^%s:/ IGNORE\n/^Received: by %s \\(Postfix, from userid ([0-9]+)\\)/ PREPEND %s: $1\n",
			UIDHeader, strings.ReplaceAll(p.options.Hostname, ".", `\.`), UIDHeader),
	}
	maps.Copy(files, p.options.Files)
	return files
}
