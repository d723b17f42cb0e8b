package judge

import (
	"strings"

	"relayguard/forward"
)

// ownerName brings a rule's owner into the form in which findings show it: lower
// case, "alice" a local name, "alice@corp.test" a mailbox, "@corp.test" a
// domain, "*" everybody.
func ownerName(owner string) string {
	owner = strings.TrimSpace(owner)
	if strings.HasPrefix(owner, `\`) {
		owner = owner[1:]
	}
	at := strings.LastIndexByte(owner, '@')
	if at < 0 {
		return strings.ToLower(unquote(owner))
	}
	return strings.ToLower(unquote(strings.TrimSpace(owner[:at]))) + "@" + cleanDomain(owner[at+1:])
}

func unquote(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	text, _ := scanUntil(s, 1, func(c byte) bool { return c == '"' })
	return text
}

// ownerInside reports whether mail for the owner is mail of ours.
func ownerInside(w *forward.World, owner string) bool {
	at := strings.LastIndexByte(owner, '@')
	if at < 0 {
		if d, ok := strings.CutPrefix(owner, "."); ok {
			return insideBelow(w, d)
		}
		return true
	}
	d := owner[at+1:]
	if below, ok := strings.CutPrefix(d, "."); ok {
		return insideBelow(w, below)
	}
	return insideDomain(w, d) || strings.Contains(d, forward.Unknown)
}

// insideBelow reports whether a domain of ours is below d: ".test" in a
// transport table.
func insideBelow(w *forward.World, d string) bool {
	for _, set := range []map[string]bool{w.Inside, w.Local, w.Mailboxes, w.AliasDomains} {
		for own := range set {
			if strings.HasSuffix(own, "."+d) {
				return true
			}
		}
	}
	return false
}

// lookups are the keys under which Postfix looks for an address (address as
// canonical returns it), in its order: user+ext@dom, user@dom, user+ext, user,
// @dom. Names without a domain count for local domains and the origin only.
// ext[i] is the extension that key i leaves over.
func lookups(w *forward.World, addr string) (keys, ext []string) {
	addr = strings.ToLower(addr)
	at := strings.LastIndexByte(addr, '@')
	if at < 0 {
		at = len(addr)
	}
	local, domain := addr[:at], addr[at:]
	add := func(key, rest string) { keys, ext = append(keys, key), append(ext, rest) }
	base := local
	if w.Delimiters != "" && !neverSplit(local) {
		if i := strings.IndexAny(local, w.Delimiters); i > 0 {
			base = local[:i]
		}
	}
	if domain != "" {
		add(addr, "")
		if base != local {
			add(base+domain, local[len(base):])
		}
	}
	if d := strings.TrimPrefix(domain, "@"); domain == "" || d == strings.ToLower(w.Origin) || localDomain(w, d) {
		add(local, "")
		if base != local {
			add(base, local[len(base):])
		}
	}
	if domain != "" {
		add(domain, "")
	}
	return keys, ext
}

// neverSplit are the names in which Postfix sees no extension.
func neverSplit(local string) bool {
	return local == "mailer-daemon" || local == "postmaster" || local == "double-bounce"
}
