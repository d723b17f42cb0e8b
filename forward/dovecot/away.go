package dovecot

import (
	"context"
	"net/url"
	"strings"

	"relayguard/forward"
)

// elsewhere are settings that send mail, or what is in it, to another host or
// program. stock is Dovecot's own value: no finding.
var elsewhere = []struct {
	key   string
	kind  forward.Kind
	stock string
	note  string
}{
	{"mail_replica", forward.NextHop, "", "all mail is copied there"},
	{"submission_host", forward.NextHop, "", "Sieve's redirects and notices are sent through it"},
	{"submission_relay_host", forward.NextHop, "", "what users submit to Dovecot is sent through it"},
	{"sendmail_path", forward.Program, "/usr/sbin/sendmail", "Sieve's redirects and notices are sent by it"},
	{"mail_filter", forward.Program, "", "mail that is read passes through it"},
	{"mail_filter_out", forward.Program, "", "mail that is read passes through it"},
	{"fts_tika", forward.NextHop, "", "attachments are sent there to be indexed"},
	{"fts_solr", forward.NextHop, "", "mail is sent there to be indexed"},
	{"fts_solr_url", forward.NextHop, "", "mail is sent there to be indexed"},
	{"fts_elastic", forward.NextHop, "", "mail is sent there to be indexed"},
	{"fts_decoder", forward.Program, "", "attachments pass through it to be indexed"},
	{"push_notification_driver", forward.Asked, "", "news of mail are sent there"},
	{"welcome_script", forward.Asked, "", "it runs when a mailbox is made"},
	{"mail_lua_script", forward.Program, "", "it is run for mail"},
	{"antispam_pipe_program", forward.Program, "", "mail that is moved passes through it"},
	{"dsync_remote_cmd", forward.Program, "ssh -l%{login} %{host} doveadm dsync-server -u%u -U", "mail is copied by it"},
	{"libexec_dir", forward.Asked, "/usr/lib/dovecot", "Dovecot's programs are taken from there"},
	{"mail_plugin_dir", forward.Asked, "/usr/lib/dovecot/modules", "Dovecot's plugins are taken from there"},
	{"login_plugin_dir", forward.Asked, "/usr/lib/dovecot/modules/login", "Dovecot's plugins are taken from there"},
	{"imapc_host", forward.NextHop, "", "mail is kept on that host"},
	{"pop3c_host", forward.NextHop, "", "mail is kept on that host"},
}

// stockDirs are where distributions put Dovecot.
var stockDirs = []string{"/usr/lib/dovecot", "/usr/libexec/dovecot", "/usr/lib64/dovecot", "/usr/local/lib/dovecot", "/usr/local/libexec/dovecot"}

// away are the rules of one setting, or of one field of a user; f are the fields
// that count above the settings.
func (p *planner) away(key, value, owner, source string, line int, f fields) []forward.Rule {
	rule := forward.Rule{Owner: owner, Mechanism: forward.Setting, Mode: forward.Copy, Target: value, Source: source, Line: line,
		Server: owner == forward.Everybody, UID: forward.NoUID}
	if base := key[strings.LastIndexByte(key, '/')+1:]; base == "mail" || base == "mail_location" || base == "location" || base == "mail_driver" {
		return p.remoteStore(rule, value, f)
	}
	base := strings.TrimRight(key, "0123456789")
	for _, s := range elsewhere {
		if s.key != base && s.key != key || value == s.stock || s.kind == forward.Asked && isStockDir(value) {
			continue
		}
		rule.Kind, rule.Note = s.kind, s.note
		if s.kind == forward.NextHop {
			rule.Target = p.hop(s.key, value, f)
		}
		if s.kind != forward.NextHop {
			rule.Digest = p.programDigest(value)
		}
		if strings.HasSuffix(s.key, "c_host") {
			rule.Mode = forward.Redirect
		}
		return []forward.Rule{rule}
	}
	return nil
}

func isStockDir(value string) bool {
	for _, dir := range stockDirs {
		if value == dir || value == dir+"/modules" || value == dir+"/modules/login" {
			return true
		}
	}
	return false
}

// hop is a next hop as others have it: a host that has no dot must not be taken
// for a transport.
func (p *planner) hop(key, value string, f fields) string {
	switch key {
	case "imapc_host", "pop3c_host":
		proto := strings.TrimSuffix(key, "_host")
		return hostHop(proto, value, p.setting(proto+"_port", f))
	case "submission_host", "submission_relay_host":
		if host, port, _ := strings.Cut(value, ":"); !strings.ContainsAny(value, ".[") {
			return hostHop("smtp", host, port)
		}
	case "fts_solr", "fts_elastic", "fts_tika", "fts_solr_url":
		for word := range strings.FieldsSeq(value) {
			u, err := url.Parse(strings.TrimPrefix(word, "url="))
			if err == nil && u.Host != "" {
				return hostHop(u.Scheme, u.Hostname(), u.Port())
			}
		}
	}
	return value
}

func hostHop(proto, host, port string) string {
	if host = proto + ":[" + strings.Trim(host, "[]") + "]"; port != "" {
		host += ":" + port
	}
	return host
}

// setting is a user's own value, or that of the configuration.
func (p *planner) setting(key string, f fields) string {
	if v := f[key]; v != "" {
		return v
	}
	return p.settings.Get(key)
}

// localStores are drivers that keep mail on this machine.
var localStores = map[string]bool{"maildir": true, "mbox": true, "mdbox": true, "sdbox": true, "dbox": true, "shared": true,
	"cydir": true, "auto": true, "raw": true, "virtual": true, "lazy-expunge": true, "none": true, "": true}

// remoteStore is where mail is kept, if that is not this machine.
func (p *planner) remoteStore(rule forward.Rule, value string, f fields) []forward.Rule {
	driver, _, ok := strings.Cut(value, ":")
	if !ok && strings.ContainsAny(value, "/~%") || localStores[driver] {
		return nil
	}
	rule.Mode = forward.Redirect
	rule.Kind, rule.Note = forward.Asked, "mail is kept by the driver "+driver
	rule.Digest = digest([]byte(value))
	if driver == "imapc" || driver == "pop3c" {
		host := p.setting(driver+"_host", f)
		if host == "" {
			host = forward.Unknown
		}
		rule.Kind, rule.Note, rule.Digest = forward.NextHop, "mail is kept on that host ("+value+")", ""
		rule.Target = hostHop(driver, host, p.setting(driver+"_port", f))
		rule.Dynamic = host == forward.Unknown
	}
	return []forward.Rule{rule}
}

// awaySettings are the rules of all settings that send mail elsewhere by
// themselves, wherever they stand.
func (p *planner) awaySettings() []forward.Rule {
	var rules []forward.Rule
	for _, e := range p.settings {
		if e.Value == "" || e.inside("userdb") || e.inside("passdb") {
			continue
		}
		rules = append(rules, p.away(e.Key, e.Value, forward.Everybody, e.Key+" in "+e.File, e.Line, nil)...)
	}
	return rules
}

// programDigest is the digest of the first file that a command line names; empty:
// it cannot be read.
func (p *planner) programDigest(command string) string {
	for word := range strings.FieldsSeq(command) {
		if !strings.HasPrefix(word, "/") {
			continue
		}
		p.uses(word)
		if data, _, err := p.host.Files.Read(p.ctx, word, forward.ReadOptions{}); err == nil {
			return digest(data)
		}
	}
	return digest([]byte(command))
}

// settingsUnit plans the settings that send mail elsewhere by themselves.
func (p *planner) settingsUnit() {
	rules := append(p.extra, p.awaySettings()...)
	if len(rules) == 0 {
		return
	}
	p.unit(forward.Unit{
		ID: "dovecot " + p.file, Paths: []string{p.file}, Writer: 0, Server: true,
		// The settings are this plan's: a change of the files makes another.
		Read: func(context.Context) forward.Reading { return forward.Reading{Rules: rules} },
	})
}
