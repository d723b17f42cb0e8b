package dovecot

import (
	"slices"
	"strings"

	"relayguard/forward"
)

// proxies are rules for users whom the password databases hand to another host:
// LMTP passes their mail on, if lmtp_proxy is set.
func (p *planner) proxies() {
	dormant := "lmtp_proxy is off: mail is not passed on"
	if slices.ContainsFunc(p.settings, func(e Entry) bool { return e.Key == "lmtp_proxy" && isYes(e.Value) }) {
		dormant = ""
	}
	for _, b := range p.settings.blocks("passdb") {
		db := p.newDatabase(b)
		all := db.defaults.over(db.args).over(db.overrides)
		p.forEverybody(all.userdb(), "passdb "+db.driver)
		source := "passdb " + db.driver + " in " + b.file
		p.proxy(all, forward.Everybody, source, 0, dormant)
		switch db.driver {
		case "passwd-file":
			for _, u := range p.passwdUsers(db, true) {
				p.proxy(all.over(u.pass), u.name, "proxy of "+u.name+" in "+u.file, u.line, dormant)
			}
		case "static", "pam", "passwd", "shadow", "bsdauth", "imap", "oauth2", "":
		default:
			if dormant == "" {
				p.extra = append(p.extra, forward.Rule{Owner: forward.Everybody, Mechanism: forward.Setting, Kind: forward.Asked,
					Target: db.driver + ":" + db.conf, Mode: forward.Copy, Source: source, Line: b.line, Server: true, UID: forward.NoUID,
					Digest: p.programDigest(db.conf), Note: "lmtp_proxy is set: this database may name another host for a user's mail"})
			}
		}
	}
}

// proxy is one user's, or everybody's.
func (p *planner) proxy(f fields, owner, source string, line int, dormant string) {
	on := false
	for _, key := range []string{"proxy", "proxy_maybe", "proxy_always"} {
		v, ok := f[key]
		on = on || ok && v != "no" && v != "n" && v != "0"
	}
	if !on {
		return
	}
	host, proto := f["host"], f["protocol"]
	if v := f["hostip"]; v != "" && host == "" {
		host = v
	}
	if proto == "" {
		proto = "lmtp"
	}
	if host == "" || strings.Contains(host, "%") {
		host = forward.Unknown
	}
	p.extra = append(p.extra, forward.Rule{Owner: owner, Mechanism: forward.Setting, Kind: forward.NextHop, Target: hostHop(proto, host, f["port"]),
		Mode: forward.Redirect, Source: source, Line: line, Server: true, Dynamic: host == forward.Unknown, UID: forward.NoUID,
		Dormant: dormant, Note: "LMTP hands the mail to that host"})
}
