package stamp

import (
	"net/netip"
	"strings"
)

// version is the first token of every stamp.
const version = "v1"

// latest is the largest time that is read: the end of the year 9999.
const latest = 253402300799

// claim is a site's field that was read and not yet believed:
//
//	v1 k=KEYID t=TIME n=NONCE b=BLOG p=PLUGIN e=ENTRY f=FILELINE c=CLIENT r=RECIPIENTS s=SUBJECT m=MAC
//
// in this order, one blank between. Names (p, f) are base64url without padding, r
// and s digests, TIME is Unix seconds. MAC signs all before " m=".
type claim struct {
	key        string // id
	time       int64  // Unix seconds
	nonce      use
	blog       int
	plugin     string // base64
	entry      string
	script     string // base64
	client     netip.Addr
	recipients string // digest
	subject    string // digest
	mac        [KeySize]byte
	signed     string // what mac signs
}

// read takes a field apart. Names are decoded only once they are believed.
func (c *claim) read(field string) bool {
	text, ok := Decode(field)
	if !ok {
		return false
	}
	rest, ok := strings.CutPrefix(text, version)
	end := strings.LastIndex(text, " m=")
	if !ok || end < 0 {
		return false
	}
	c.signed = text[:end]
	t := tokens{rest: rest, blank: " "}
	c.key = t.word('k', 8, isHex)
	c.time = t.number('t', latest)
	t.octets('n', c.nonce[:])
	c.blog = int(t.number('b', 1<<31-1))
	c.plugin = t.word('p', 4*(longestPlugin+2)/3, isBase64)
	c.entry = t.word('e', 16, isLetter)
	c.script = t.word('f', 4*(longestScript+2)/3, isBase64)
	c.client = t.client('c')
	c.recipients = t.word('r', 22, isBase64)
	c.subject = t.word('s', 22, isBase64)
	t.octets('m', c.mac[:])
	return !t.bad && t.rest == ""
}

// stamp is what a believed claim says.
func (c *claim) stamp(site string) (Stamp, bool) {
	plugin, ok1 := decodeName(c.plugin, longestPlugin)
	script, ok2 := decodeName(c.script, longestScript)
	return Stamp{
		Site:      site,
		Plugin:    strings.ToLower(plugin),
		Blog:      c.blog,
		Entry:     entry(c.entry),
		Script:    script,
		WebClient: c.client,
		Time:      unix(c.time),
	}, ok1 && ok2
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' }

func isBase64(c byte) bool {
	return isLetter(c) || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}
