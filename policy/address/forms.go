package address

import "strings"

// Forms lists the addresses of which a may be a legitimate form, a itself not
// among them: without tag, BATV signature, VERP part, or as a list's bounce
// address. Whoever owns one of them owns a, unless a has an owner of its own.
//
// delimiters are the MTA's recipient_delimiter; empty means that it knows no
// tags.
func Forms(a Address, delimiters string) []Address {
	var forms []Address
	add := func(local string) {
		if local != "" && local != a.Local {
			forms = append(forms, Address{local, a.Domain})
		}
	}
	local := a.Local
	if core, ok := batv(local); ok {
		add(core)
		local = core
	}
	if i := strings.IndexAny(local, delimiters); i > 0 {
		add(local[:i])
	}
	for _, owner := range verp(local) {
		add(owner)
		add(listOwner(owner))
	}
	add(listOwner(local))
	return forms
}

// batv takes a signed return path apart: prvs=KDDDSSSSSS=taro (draft-levine-
// smtp-batv), prvs=taro/KDDDSSSSSS, btv1==KDDDSSSSSS==taro.
func batv(local string) (core string, ok bool) {
	lower := strings.ToLower(local)
	switch {
	case strings.HasPrefix(lower, "prvs="):
		rest := local[len("prvs="):]
		if tag, core, ok := strings.Cut(rest, "="); ok && isTag(tag) {
			return core, core != ""
		}
		if core, tag, ok := strings.Cut(rest, "/"); ok && isTag(tag) {
			return core, core != ""
		}
	case strings.HasPrefix(lower, "btv1=="):
		if tag, core, ok := strings.Cut(local[len("btv1=="):], "=="); ok && isTag(tag) {
			return core, core != ""
		}
	}
	return "", false
}

// isTag: a key digit, three digits of a date, six or more hexadecimal digits.
func isTag(s string) bool {
	if len(s) < 10 {
		return false
	}
	for i, c := range []byte(s) {
		digit := c >= '0' && c <= '9'
		hex := digit || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
		if i < 4 && !digit || !hex {
			return false
		}
	}
	return true
}

// verp lists the owners that a variable envelope return path may name:
// news-hanako=example.net, news+hanako=example.net, news-bounces-42-x=y.z.
// The part behind the owner must hold a recipient, local=domain.
//
// At most maxOwners are listed, the shortest: each costs a look at the map.
func verp(local string) []string {
	eq := strings.LastIndexByte(local, '=')
	if eq < 0 || !strings.Contains(local[eq:], ".") {
		return nil
	}
	var owners []string
	for i := 1; i < eq-1 && len(owners) < maxOwners; i++ { // at least one octet on each side
		if local[i] == '-' || local[i] == '+' {
			owners = append(owners, local[:i])
		}
	}
	return owners
}

const maxOwners = 16

// listOwner names the list whose bounce address this is: news-bounces,
// news-owner, owner-news, ... Empty if it is none.
func listOwner(local string) string {
	lower := strings.ToLower(local)
	for _, suffix := range []string{"-bounces", "-bounce", "-owner", "-return", "-errors"} {
		if strings.HasSuffix(lower, suffix) {
			return local[:len(local)-len(suffix)]
		}
	}
	if strings.HasPrefix(lower, "owner-") {
		return local[len("owner-"):]
	}
	return ""
}

// IsSRS reports whether the local part is a sender rewritten by a forwarder
// (the Sender Rewriting Scheme): SRS0=HHH=TT=domain=local, SRS1=HHH=host==....
// Such an address is its domain's, not a person's.
func IsSRS(a Address) bool {
	if len(a.Local) < 5 || !strings.EqualFold(a.Local[:3], "SRS") {
		return false
	}
	if a.Local[3] != '0' && a.Local[3] != '1' || !strings.ContainsRune("=+-", rune(a.Local[4])) {
		return false
	}
	return strings.Count(a.Local[5:], "=") >= 3
}
