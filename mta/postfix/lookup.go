package postfix

import (
	"strings"
	"unicode/utf8"
)

// maxKey bounds what is asked of a table: RFC 5321 §4.5.3.1.3 ends a path at
// 256 octets, SMTPUTF8 and long VERP addresses exceed it.
const maxKey = 1024

// keysOf lists the keys of one sender address, in the order in which Postfix
// asks (postconf(5), smtpd_sender_login_maps; extensions: mail_addr_find(3)).
// The first is the whole address; the others, its parts, are asked of tables
// with fixed keys only. None: no table can hold the address.
func keysOf(address string, delimiters string, isLocal func(domain string) bool) []string {
	if address == "" || len(address) > maxKey || !utf8.ValidString(address) || strings.ContainsFunc(address, isControl) {
		return nil
	}
	address = strings.ToLower(address)
	keys := []string{address}
	at := strings.LastIndexByte(address, '@')
	local, domain := address, ""
	if at >= 0 {
		local, domain = address[:at], address[at+1:]
	}
	base, extended := withoutExtension(local, delimiters)
	switch {
	case at < 0:
		if extended {
			keys = append(keys, base)
		}
		return keys
	case extended:
		keys = append(keys, base+"@"+domain)
	}
	if isLocal(domain) && local != "" {
		keys = append(keys, local)
		if extended {
			keys = append(keys, base)
		}
	}
	if local != "" {
		keys = append(keys, "@"+domain)
	}
	return keys
}

// withoutExtension does as split_addr(3): names that are special to the mail
// system, and owner- and -request addresses of lists, have no extension when -
// is a delimiter.
func withoutExtension(local, delimiters string) (string, bool) {
	switch local {
	case "postmaster", "mailer-daemon", "double-bounce":
		return local, false
	}
	if strings.Contains(delimiters, "-") && (strings.HasPrefix(local, "owner-") || strings.HasSuffix(local, "-request")) {
		return local, false
	}
	if delimiters == "" {
		return local, false
	}
	if i := strings.IndexAny(local, delimiters); i > 0 && i < len(local)-1 {
		return local[:i], true
	}
	return local, false
}

// splitLogins reads the right side of a table: logins separated by commas or
// white space. They are compared in lower case. The result is never nil.
func splitLogins(value string) []string {
	return strings.FieldsFunc(strings.ToLower(value), func(r rune) bool { return r == ',' || r < 0x80 && isSpace(byte(r)) })
}
