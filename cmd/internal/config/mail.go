package config

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"relayguard/policy/address"
)

// domainFault says what keeps s from being a mail domain in the form that the
// guard compares: lower case, A-labels (RFC 5890 §2.3.2.1), no final dot.
func domainFault(s string) (remedy string) {
	lower := strings.ToLower(s)
	switch {
	case s == "":
		return "name a domain"
	case strings.HasPrefix(s, "*.") || strings.HasPrefix(s, "."):
		return "name every domain by itself: subdomains are not included"
	case strings.HasSuffix(s, "."):
		return "leave out the final dot"
	case strings.Contains(s, "@"):
		return "leave out what is before the domain, and the @"
	case strings.ContainsFunc(s, func(c rune) bool { return c >= utf8.RuneSelf }):
		if a := address.Domain(s); a != s && domainFault(a) == fine {
			return fmt.Sprintf("write its A-label form: %q", a)
		}
		return `write its A-label form, which begins with "xn--"`
	case s != lower:
		return fmt.Sprintf("write it in lower case: %s", quote(lower))
	case len(s) > 253: // RFC 1035 §2.3.4, without the length octets at both ends
		return "a domain has at most 253 characters"
	}
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return "each part has 1 to 63 characters a-z, 0-9 and -, no - at its ends"
		}
	}
	if strings.Trim(labels[len(labels)-1], "0123456789") == "" {
		return "an address is not a domain"
	}
	return fine
}

func domain() kind[string] {
	return text("domain, lower case, A-labels", `a domain such as "example.jp"`, domainFault)
}

// ownAddress is what a login may write as. The domain is taken in any case.
func ownAddress() kind[string] {
	k := kind[string]{
		name:   `"user@domain", "@domain" or "*"`,
		wanted: `"user@domain", "@domain" for all of a domain, or "*" for every address`,
		show:   showString,
	}
	return one(k, aString, func(s string) (string, string, bool) {
		if s == "*" {
			return s, "", true
		}
		local, dom, at := cutLast(s, "@")
		dom = strings.ToLower(dom)
		switch {
		case !at && domainFault(strings.ToLower(s)) == fine && strings.Contains(s, "."):
			return "", fmt.Sprintf("write %q for all of the domain", "@"+strings.ToLower(s)), false
		case !at:
			return "", "add the domain", false
		case local == "*":
			return "", fmt.Sprintf("write %q for all of the domain", "@"+dom), false
		case unprintable(local) || len(local) > 64 || strings.ContainsAny(local, " \"<>()[],;:\\@"): // RFC 5321 §4.5.3.1.1
			return "", "before the @ stands a local part as it is in the envelope, without quotes and of at most 64 bytes", false
		}
		if remedy := domainFault(dom); remedy != fine {
			return "", remedy, false
		}
		return local + "@" + dom, "", true
	})
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// loginFault says what keeps s from being a SASL login.
func loginFault(s string) (remedy string) {
	switch {
	case s == "":
		return "name the login as the MTA reports it"
	case len(s) > 255 || unprintable(s) || strings.ContainsAny(s, " \t"):
		return "a login has at most 255 bytes, no white space and no control characters"
	}
	return fine
}

func login() kind[string] {
	k := kind[string]{name: "login", wanted: "a login as the MTA reports it", show: showString}
	return one(k, aString, func(s string) (string, string, bool) {
		remedy := loginFault(s)
		return strings.ToLower(s), remedy, remedy == fine
	})
}

// logins is the table of free keys address.logins.
func logins() kind[map[string][]string] {
	addresses := list(ownAddress(), false)
	k := kind[map[string][]string]{
		name:   "table: login = " + addresses.name,
		wanted: `a table such as [address.logins], a login on each line`,
	}
	k.read = func(v *value) (map[string][]string, []fault) {
		if v.kind != aTable {
			return nil, []fault{{at: v.at, found: v.String()}}
		}
		var all map[string][]string
		var faults []fault
		first := map[string]*entry{}
		for _, e := range v.table.entries {
			name := strings.ToLower(e.name)
			fs := loginFaults(e, first[name])
			own, ofs := loginAddresses(addresses, e)
			if faults = append(append(faults, fs...), ofs...); len(fs)+len(ofs) > 0 {
				continue
			}
			if all == nil {
				all = map[string][]string{}
			}
			all[name], first[name] = own, e
		}
		return all, faults
	}
	k.show = showLogins
	return k
}

// showLogins writes the lines below the table's header.
func showLogins(m map[string][]string) string {
	show := list(ownAddress(), false).show
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		lines = append(lines, strconv.Quote(name)+" = "+show(m[name]))
	}
	return strings.Join(lines, "\n")
}

func loginFaults(e, first *entry) []fault {
	if remedy := loginFault(e.name); remedy != fine {
		return []fault{{e.at, quote(e.name), "a login as the MTA reports it", remedy}}
	}
	if first != nil {
		return []fault{{e.at, quote(e.name), "each login once", fmt.Sprintf("%s is the same login: case does not matter; join them", quote(first.name))}}
	}
	return nil
}

func loginAddresses(k kind[[]string], e *entry) ([]string, []fault) {
	if e.val.kind == aTable { // taro.yamada = ... without quotes
		return nil, []fault{{e.at, "a table", "a list of addresses", "put a login with a dot into quotes"}}
	}
	own, faults := k.read(e.val)
	for i := range faults {
		f := &faults[i]
		if f.wanted == "" {
			f.wanted = k.wanted
		}
		if f.remedy == "" {
			f.remedy = "mend or delete the line"
		}
		if len(e.val.elems) == 0 {
			f.at = e.at
		}
		f.found += " for " + quote(e.name)
	}
	return own, faults
}

// fileMaps are the Postfix tables that are files, and so need a path;
// otherMaps the rest of DATABASE_README.
var (
	fileMaps  = []string{"btree", "cdb", "cidr", "dbm", "hash", "ldap", "lmdb", "memcache", "mongodb", "mysql", "pcre", "pgsql", "regexp", "sdbm", "sqlite", "texthash"}
	otherMaps = []string{"environ", "fail", "inline", "internal", "nis", "nisplus", "pipemap", "proxy", "randmap", "socketmap", "static", "tcp", "unionmap", "unix"}
)

func postfixMap() kind[string] {
	return text(`"type:table" of Postfix`, `a Postfix table such as "hash:/etc/postfix/sender_login"`, mapFault)
}

func mapFault(s string) (remedy string) {
	kind, name, _ := strings.Cut(s, ":")
	switch {
	case unprintable(s):
		return "write it without control characters"
	case name == "":
		return "write type:table, as `postconf smtpd_sender_login_maps` does"
	case kind == "proxy":
		return mapFault(name)
	case slices.Contains(fileMaps, kind) && (!filepath.IsAbs(name) || filepath.Clean(name) != name):
		return "name the table's file by its absolute path"
	case !slices.Contains(fileMaps, kind) && !slices.Contains(otherMaps, kind):
		if near := nearest(kind, slices.Concat(fileMaps, otherMaps)); near != "" {
			return fmt.Sprintf("Postfix has no tables of that type; did you mean %q?", near+":"+name)
		}
		return "Postfix has no tables of that type; `postconf -m` lists them"
	}
	return fine
}
