package judge

import (
	"slices"
	"strings"

	"relayguard/forward"
)

const (
	// maxRounds bounds how often a domain of ours is taken off one address: a
	// server would go on for as many rounds as there are octets, which for a
	// target of hostile length takes a tenth of a second.
	maxRounds = 100
	// maxAddresses bounds the addresses in what should be one.
	maxAddresses = 32
)

// Canonical is the address that Postfix delivers to when a rule says s: its
// rewriting (trivial-rewrite(8)) and its resolving, which takes off our own
// domains as long as there is something behind them. The domain is lower case
// and as written otherwise, the local part without quotes. A bare name gets
// World.Origin. "@evil.test", which keeps the local part, stays as it is.
//
// False: there is no address in it, or one that no server would take. If there
// are several, what counts is the one that leads outside.
func Canonical(w *forward.World, s string) (addr string, ok bool) {
	if plain(w, s) {
		at := strings.LastIndexByte(s, '@')
		return s[:at] + strings.ToLower(s[at:]), true
	}
	all, _ := canonicals(w, s)
	for _, a := range all {
		if !ok || !insideAddress(w, a) {
			if addr, ok = a, true; !insideAddress(w, a) {
				break
			}
		}
	}
	return addr, ok
}

// plain reports whether an address has nothing that rewriting would touch; most
// have not.
func plain(w *forward.World, s string) bool {
	at, dots := 0, 0
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '+' || c == '=':
		case c == '.' && i > 0 && s[i-1] != '.' && s[i-1] != '@' && i < len(s)-1:
			if at > 0 {
				dots++
			}
		case c == '@' && at == 0 && i > 0 && s[i-1] != '.':
			at = i
		default:
			return false
		}
	}
	return at > 0 && at < len(s)-1 && dots > 0 && len(s) <= forward.MaxTarget
}

// canonicals are the canonical forms of all addresses in s, in its order. deep:
// some are nested too deeply to be read to their end.
func canonicals(w *forward.World, s string) (all []string, deep bool) {
	s, _, _ = strings.Cut(s, "\x00") // a string ends there for the server
	s = strings.TrimPrefix(s, "\uFEFF")
	if len(s) > forward.MaxTarget {
		return nil, true
	}
	if d, ok := strings.CutPrefix(strings.TrimSpace(s), "@"); ok && !strings.ContainsAny(d, ":@,<>\"%! \t") {
		return sameLocal(w, d), false
	}
	found := split(scan(s))
	if len(found) > maxAddresses {
		found, deep = found[:maxAddresses], true
	}
	for _, tokens := range found {
		a, ok := resolve(w, join(rewrite(w, tokens)))
		deep = deep || !ok
		if a != "" && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	slices.Reverse(all) // they were found from the right
	return all, deep
}

// sameLocal is "@domain", where a table keeps the local part.
func sameLocal(w *forward.World, domain string) []string {
	if domain = cleanDomain(domain); domain == "" {
		return nil
	}
	if w.AppendDotDomain && w.Domain != "" && !strings.ContainsAny(domain, ".[") {
		domain += "." + cleanDomain(w.Domain)
	}
	return []string{"@" + domain}
}

// rewrite completes an address: a source route is dropped, host!user and
// user%host become user@host, what has no domain gets one.
func rewrite(w *forward.World, t []token) []token {
	if len(t) == 0 || len(t) == 1 && t[0].kind == quoted && t[0].text == "" {
		return t
	}
	if len(t) == 1 && t[0].kind == '@' {
		return []token{{quoted, ""}}
	}
	if t[0].kind == '@' {
		if colon := first(t, ':'); colon >= 0 && colon != len(t)-1 {
			t = t[colon+1:]
		}
	}
	if last(t, '@') < 0 {
		t = addDomain(w, t)
	}
	if at := last(t, '@'); w.AppendDotDomain && w.Domain != "" && at >= 0 && at != len(t)-1 {
		if domain := t[at:]; first(domain, '.') < 0 && first(domain, literal) < 0 {
			t = append(slices.Clone(t), token{kind: '.'})
			t = append(t, scan(w.Domain)...)
		}
	}
	if n := len(t); n > 1 && t[n-1].kind == '.' && t[n-2].kind != '.' && t[n-2].kind != '@' {
		t = t[:n-1]
	}
	return t
}

func addDomain(w *forward.World, t []token) []token {
	if bang := first(t, '!'); swapsBang(w) && bang >= 0 {
		return slices.Concat(t[bang+1:], []token{{kind: '@'}}, t[:bang])
	}
	if percent := last(t, '%'); hacksPercent(w) && percent >= 0 {
		t = slices.Clone(t)
		t[percent].kind = '@'
		return t
	}
	if w.AppendAtOrigin && w.Origin != "" {
		return slices.Concat(t, []token{{kind: '@'}}, scan(w.Origin))
	}
	return t
}

// A world without an origin comes from no MTA's settings: then what is the
// default with Postfix.
func swapsBang(w *forward.World) bool    { return w.SwapBangPath || w.Origin == "" }
func hacksPercent(w *forward.World) bool { return w.PercentHack || w.Origin == "" }

// resolve takes our own local domains off an address as long as the rest names
// another one: user%evil.test@corp.test goes to user@evil.test, and so does
// "user@evil.test"@corp.test, quotes or not. Empty: there is none. False: it has too many rounds.
func resolve(w *forward.World, s string) (string, bool) {
	t := scan(quoteLocal(s))
	var own []token // the domain that was taken off last
	for rounds := 0; ; rounds++ {
		if rounds == maxRounds {
			return "", false
		}
		t = trimEnd(t)
		if at := last(t, '@'); at >= 0 {
			if at+1 < len(t) && !localDomain(w, join(t[at+1:])) {
				own = nil
				break
			}
			t, own = t[:at], t[at:]
		}
		if last(t, '@') >= 0 || swapsBang(w) && last(t, '!') >= 0 || hacksPercent(w) && last(t, '%') >= 0 {
			t = rewrite(w, t)
			continue
		}
		inner, ok := crack(w, t)
		if !ok {
			break
		}
		t = rewrite(w, inner)
	}
	if len(t) == 0 || len(t) == 1 && t[0].kind == quoted && t[0].text == "" {
		return "", true
	}
	return finish(join(slices.Concat(t, own))), true
}

// trimEnd takes off a last dot, but none after another or after the @: those
// stay, and nobody delivers to them.
func trimEnd(t []token) []token {
	if n := len(t); n > 1 && t[n-1].kind == '.' && last(t, '@') >= 0 && t[n-2].kind != '.' && t[n-2].kind != '@' {
		return t[:n-1]
	}
	return t
}

// crack looks into a quoted local part for another domain.
func crack(w *forward.World, t []token) ([]token, bool) {
	if len(t) != 1 || t[0].kind != quoted {
		return nil, false
	}
	local := t[0].text
	at := strings.LastIndexByte(local, '@')
	if at < 0 && hacksPercent(w) {
		if at = strings.LastIndexByte(local, '%'); at >= 0 {
			local = local[:at] + "@" + local[at+1:]
		}
	}
	switch {
	case at >= 0:
		return scan(quoteLocal(local)), true
	case swapsBang(w) && strings.Contains(local, "!"):
		return scan(local), true
	}
	return nil, false
}

// finish brings what was resolved into the form in which findings show it.
func finish(s string) string {
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return s
	}
	return s[:at] + "@" + cleanDomain(s[at+1:])
}

func first(t []token, kind byte) int {
	return slices.IndexFunc(t, func(t token) bool { return t.kind == kind })
}

func last(t []token, kind byte) int {
	for i := len(t) - 1; i >= 0; i-- {
		if t[i].kind == kind {
			return i
		}
	}
	return -1
}
