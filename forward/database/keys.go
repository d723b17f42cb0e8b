package database

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// maxKey is the longest key that is asked for, in octets: an address has 320 at most.
const maxKey = 512

// fold is the key that Postfix asks for: in lower case (DICT_FLAG_FOLD_FIX), which
// is also what postmap -q does.
func fold(key string) string {
	if !utf8.ValidString(key) {
		return lowerASCII(key)
	}
	return strings.ToLower(key)
}

// keySet keeps keys as Postfix asks for them, in the order in which they came,
// each once.
type keySet struct {
	order []string
	have  map[string]bool
}

func (k *keySet) add(keys ...string) {
	for _, key := range keys {
		key = fold(key)
		if key == "" || len(key) > maxKey || k.have[key] || len(k.order) >= maxRows {
			continue
		}
		if k.have == nil {
			k.have = map[string]bool{}
		}
		k.have[key] = true
		k.order = append(k.order, key)
	}
}

func (k *keySet) list() []string { return k.order }

// addForms adds what Postfix would ask for an address: itself, its parts.
func (k *keySet) addForms(s string) {
	k.add(s, plainKey(s))
	user, domain, found := split(s)
	if found {
		k.add(domain, "@"+domain)
		if !strings.Contains(user, "@") {
			k.add(user)
		}
	} else if strings.Contains(s, ".") {
		k.add("@" + s)
	}
}

func (d *Databases) known() []string {
	if d.Known == nil {
		return nil
	}
	return d.Known()
}

// plainKey is the key that a database may take for equal to this one: in lower
// case, without accents, invisible characters and outer space, as the collations
// of MySQL and the matching rules of LDAP (RFC 4518) fold.
func plainKey(key string) string {
	ascii := true
	for i := 0; i < len(key); i++ {
		ascii = ascii && key[i] > ' ' && key[i] < 0x7f
	}
	if ascii {
		return lowerASCII(key)
	}
	var b strings.Builder
	for _, r := range norm.NFKD.String(strings.ToLower(key)) {
		switch {
		case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf, unicode.Cc):
		case strings.ContainsRune("ı", r):
			b.WriteByte('i')
		case strings.ContainsRune("łŁ", r):
			b.WriteByte('l')
		case strings.ContainsRune("øØ", r):
			b.WriteByte('o')
		case strings.ContainsRune("đĐð", r):
			b.WriteByte('d')
		case r == 'ß':
			b.WriteByte('s') // general_ci; unicode_ci says "ss"
		default:
			b.WriteRune(r)
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}
