package judge

import (
	"strings"

	"relayguard/forward"
)

// judgeRule fills in what is thought of a rule by itself.
func judgeRule(w *forward.World, owner string, r *rule) {
	r.target = r.Target
	switch r.Kind {
	case forward.Address:
		judgeAddress(w, owner, r)
	case forward.NextHop:
		judgeNextHop(w, owner, r)
	case forward.Program:
		r.verdict, r.note = forward.Opaque, "a program decides"
		if deliveryAgent(r.Target) && r.Digest != "" {
			r.verdict, r.note = forward.Inside, "delivers; what it reads is looked at by itself"
		}
	case forward.File:
		r.verdict = forward.Inside
	default:
		r.verdict = forward.Opaque
	}
	switch {
	case r.Rule.Broken != "":
		r.verdict, r.note = forward.Broken, r.Rule.Broken
	case r.Rule.Dormant != "":
		r.verdict, r.note = forward.Dormant, r.Rule.Dormant
	}
}

func judgeAddress(w *forward.World, owner string, r *rule) {
	text, ok := withLocal(owner, r)
	if ok && strings.Contains(r.Target, forward.Unknown) {
		judgeDynamic(w, r)
		return
	}
	if !ok {
		judgeKeptLocal(w, r, text)
		return
	}
	addr, ok := Canonical(w, text)
	if (!ok || insideAddress(w, addr)) && tooDeep(w, text) {
		r.verdict, r.note = forward.Opaque, "an address within an address, too deep to be read"
		return
	}
	if !ok { // no server delivers there, as far as we read it
		r.verdict, r.note = forward.Broken, "the target is no address"
		return
	}
	r.target = addr
	domain := addr[strings.LastIndexByte(addr, '@')+1:]
	switch {
	case insideAddress(w, addr):
		r.verdict = forward.Inside
		if routed(w, addr, domain) {
			r.verdict, r.note = forward.Opaque, "the next server may read another address in the local part"
		}
	case !possible(domain):
		r.verdict, r.note = forward.Broken, "no domain can be called so"
	default:
		r.verdict = forward.Outside
	}
}

func tooDeep(w *forward.World, s string) bool {
	if plain(w, s) {
		return false
	}
	_, deep := canonicals(w, s)
	return deep
}

// keepsLocal are the tables in which a target that begins with "@" gets the
// local part of the address that was looked up before it.
var keepsLocal = map[forward.Mechanism]bool{forward.Virtual: true, forward.Canonical: true, forward.Generic: true, forward.SQL: true, forward.LDAP: true}

// withLocal is the target with the local part that the owner has. False: the
// owner is a whole domain, so any local part may come before it; then text is
// "@" and what follows. Some finders write that local part as Unknown.
func withLocal(owner string, r *rule) (text string, ok bool) {
	text = strings.TrimSpace(r.Target)
	domain := strings.HasPrefix(owner, "@")
	if domain {
		text = strings.TrimPrefix(text, forward.Unknown)
	}
	switch {
	case !strings.HasPrefix(text, "@") || !keepsLocal[r.Mechanism]:
		return r.Target, true
	case domain || owner == forward.Everybody:
		return text, false
	}
	local, _, _ := cutLast(owner)
	return quoteLocal(local + text), true
}

// cutLast cuts an address at its last @; without one, all of it is local.
func cutLast(addr string) (local, domain string, ok bool) {
	at := strings.LastIndexByte(addr, '@')
	if at < 0 {
		return addr, "", false
	}
	return addr[:at], addr[at+1:], true
}

// judgeKeptLocal judges "@domain" of a whole domain.
func judgeKeptLocal(w *forward.World, r *rule, text string) {
	addr, ok := Canonical(w, quoteLocal("x"+text))
	at := strings.LastIndexByte(addr, '@')
	if !ok || at < 0 {
		r.verdict, r.note = forward.Broken, "the target is no address"
		return
	}
	r.target = addr[at:]
	r.verdict = forward.Outside
	if insideDomain(w, addr[at+1:]) {
		r.verdict = forward.Inside
	}
}

// routed reports whether an address of a domain that is delivered by another
// server of ours has another address in its local part.
func routed(w *forward.World, addr, domain string) bool {
	if w.Local[domain] || w.Mailboxes[domain] || w.AliasDomains[domain] {
		return false
	}
	at := strings.LastIndexByte(addr, '@')
	return at > 0 && strings.ContainsAny(addr[:at], "@%!")
}

// judgeDynamic judges a target of which a part is not known before a message.
func judgeDynamic(w *forward.World, r *rule) {
	r.verdict = forward.Dynamic
	at := strings.LastIndexByte(r.Target, '@')
	if at < 0 {
		r.target = strings.ToLower(r.Target)
		return
	}
	local, domain := r.Target[:at], r.Target[at+1:]
	if strings.Contains(domain, forward.Unknown) || strings.ContainsAny(domain, ",;<(\" ") {
		return
	}
	addr, ok := Canonical(w, strings.ReplaceAll(r.Target, forward.Unknown, "x"))
	if !ok {
		return
	}
	domain = addr[strings.LastIndexByte(addr, '@')+1:]
	r.target = local + "@" + domain
	r.verdict = forward.DynamicOutside
	if insideDomain(w, domain) {
		r.verdict = forward.Inside
	}
}
