package template

import "bytes"

const (
	maxURL    = 1024 // octets; the rest of a longer one is not looked at
	maxParams = 8
	maxValue  = 24 // octets of a query's value; a longer one is a token
)

// urlLen is how long the URL is that b begins with; 0 for none. b is folded.
func urlLen(b []byte) int {
	switch {
	case len(b) < 4 || b[0] != 'h' && b[0] != 'w': // most words
		return 0
	case b[0] == 'h' && (bytes.HasPrefix(b, []byte("http://")) || bytes.HasPrefix(b, []byte("https://"))):
	case b[0] == 'w' && bytes.HasPrefix(b, []byte("www.")):
	default:
		return 0
	}
	n := 0
	for n < len(b) && classes[b[n]]&inURL != 0 {
		n++
	}
	for n > 0 && bytes.IndexByte([]byte(".,;:!?'*)]"), b[n-1]) >= 0 {
		if b[n-1] == ')' && bytes.IndexByte(b[:n], '(') >= 0 {
			break
		}
		n--
	}
	return n
}

// normalLink appends a URL without what tells nothing of the page: scheme,
// "www.", port, fragment, tokens, and the values of queries that track. Root
// tells that it is no page but the front of a site; to is nil if it is no link.
func normalLink(to, url []byte) (link []byte, root bool) {
	url = url[:min(len(url), maxURL)]
	if i := bytes.Index(url, []byte("://")); i >= 0 {
		url = url[i+3:]
	}
	url, _, _ = bytes.Cut(url, []byte("#"))
	url, query, _ := bytes.Cut(url, []byte("?"))
	host, path, _ := bytes.Cut(url, []byte("/"))
	if i := bytes.LastIndexByte(host, '@'); i >= 0 {
		host = host[i+1:]
	}
	host, _, _ = bytes.Cut(host, []byte(":"))
	host = bytes.TrimSuffix(bytes.TrimPrefix(host, []byte("www.")), []byte("."))
	if len(host) < 3 {
		return nil, false
	}
	to = append(to, host...)
	front := len(to)
	for segment := range bytes.SplitSeq(path, []byte("/")) {
		switch {
		case len(segment) == 0:
		case isToken(segment):
			to = append(to, '/', '*')
		default:
			to = append(append(to, '/'), segment...)
		}
	}
	mark := byte('?')
	for i, params := 0, bytes.ReplaceAll(query, []byte("&amp;"), []byte("&")); i < maxParams && len(params) > 0; i++ {
		var param []byte
		param, params, _ = bytes.Cut(params, []byte("&"))
		name, value, has := bytes.Cut(param, []byte("="))
		if len(name) == 0 || tracks(name) {
			continue
		}
		to = append(append(to, mark), name...)
		mark = '&'
		if has {
			to = append(to, '=')
			if len(value) > maxValue || isToken(value) || bytes.Contains(value, []byte("%40")) || bytes.IndexByte(value, '@') >= 0 {
				value = []byte{'*'}
			}
			to = append(to, value...)
		}
	}
	return to, len(to) == front
}

// isToken tells an id that is made for one copy from a name: eight digits and
// more, sixteen hexadecimal ones, or a long mixture.
func isToken(b []byte) bool {
	var letters, digits, hex, marks, changes int
	last := uint8(0)
	for _, c := range b {
		k := classes[c] & wordy
		switch {
		case k&digit != 0:
			digits++
		case k&letter != 0:
			letters++
		default:
			marks++
		}
		if classes[c]&hexadecimal != 0 {
			hex++
		}
		if k != last && last != 0 && k != 0 {
			changes++
		}
		last = k
	}
	switch n := len(b); {
	case letters == 0 && marks == 0:
		return n >= 8
	case n-hex <= 4 && marks == n-hex && digits > 0: // a UUID has four hyphens
		return n >= 16
	}
	return changes >= 4 && len(b) >= 12 && marks*6 <= len(b)
}

// tracks knows names of query values that differ from copy to copy, or tell
// where a visitor comes from.
func tracks(name []byte) bool {
	if bytes.HasPrefix(name, []byte("utm_")) || bytes.HasPrefix(name, []byte("mc_")) {
		return true
	}
	switch string(name) {
	case "_ga", "_gl", "_wpnonce", "auth", "click", "email", "fbclid", "from", "gclid", "hash", "key", "login", "mail", "msclkid", "nb", "nonce",
		"ref", "referrer", "rnd", "sess", "session", "share", "sid", "sig", "signature", "time", "token", "ts", "uid", "user", "yclid":
		return true
	}
	return false
}
