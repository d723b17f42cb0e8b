package stamp

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A node's field names its recipients by tags of 6 octets, 8 characters of
// base64: enough that none fits by chance, few enough for a header.
const (
	tagSize        = 8
	mostTags       = 1000
	allRecipients  = "*" // there are more than mostTags
	unlabelledMark = "-" // is no base64 of anything
)

// Sign is the field's value that a node puts on a message to the recipients of m:
// one line, whose blanks mean nothing.
//
//	v1 n=NODE t=TIME x=EXPIRY q=QUEUEID u=UID a=USER h=SITE p=PLUGIN e=ENTRY
//	f=FILELINE c=CLIENT l=POOL w=SOFTWARE b=BLOG r=TAGS m=MAC
//
// Times are Unix seconds; names (a, h, p, f, l, w) are base64url without padding;
// p is "-" of unlabelled mail. TAGS stand for the recipients, "*" if they are more
// than 1,000. MAC signs all before it without blanks. Names that are too long are
// cut, strange characters replaced. s.Time does not count, s.Queue must not be
// empty for the stamp to be believed.
func Sign(now time.Time, key []byte, s *NodeStamp, m *Mail) string {
	queue := name(s.Queue, longestQueue)
	plugin := unlabelledMark
	if s.Labelled {
		plugin = encodeName(strings.ToLower(cleaned(s.Plugin)), longestPlugin)
	}
	way := ""
	if s.Call.Entry != "" {
		way = entry(s.Call.Entry)
	}
	client := s.Call.WebClient
	if client == "" || len(client) > 64 || strings.ContainsFunc(client, func(r rune) bool { return r <= ' ' || r > '~' || r == '=' }) {
		client = "-"
	}
	value := strings.Join([]string{
		version,
		"n=" + name(s.Node, longestNode),
		"t=" + strconv.FormatInt(now.Unix(), 10),
		"x=" + strconv.FormatInt(now.Add(nodeLife).Unix(), 10),
		"q=" + queue,
		"u=" + strconv.Itoa(max(s.UID, -1)),
		"a=" + encodeName(s.LocalUser, longestUser),
		"h=" + encodeName(s.Site, longestHost),
		"p=" + plugin,
		"e=" + way,
		"f=" + encodeName(s.Call.Script, longestScript),
		"c=" + client,
		"l=" + encodeName(s.Call.Pool, longestPool),
		"w=" + encodeName(s.Call.Software, longestSoftware),
		"b=" + strconv.Itoa(max(s.Call.Blog, 0)),
		"r=" + recipientTags(key, queue, m.RcptTo),
	}, " ")
	return value + " m=" + b64.EncodeToString(mac(key, nodeContext, strings.ReplaceAll(value, " ", "")))
}

// recipientTags are the tags of the recipients, sorted, in groups that lines can
// be broken between.
func recipientTags(key []byte, queue string, rcpts []string) string {
	if len(rcpts) > mostTags {
		return allRecipients
	}
	tagger := newTagger(key, queue)
	tags := make([]string, 0, len(rcpts))
	for _, r := range rcpts {
		tags = append(tags, tagger.tag(r))
	}
	slices.Sort(tags)
	var b strings.Builder
	for i, tag := range slices.Compact(tags) {
		if i > 0 && i%8 == 0 {
			b.WriteByte(' ')
		}
		b.WriteString(tag)
	}
	return b.String()
}

// tagger makes the tags of one message's recipients.
type tagger struct {
	h      hash.Hash
	prefix []byte
	sum    [sha256.Size]byte
}

func newTagger(key []byte, queue string) *tagger {
	return &tagger{h: hmac.New(sha256.New, key), prefix: []byte("rcpt\n" + queue + "\n")}
}

func (t *tagger) tag(rcpt string) string {
	t.h.Reset()
	t.h.Write(t.prefix)
	t.h.Write([]byte(plainRecipient(rcpt)))
	return b64.EncodeToString(t.h.Sum(t.sum[:0])[:tagSize*3/4])
}

// nodeClaim is a node's field that was read and not yet believed.
type nodeClaim struct {
	stamp        NodeStamp
	time, expiry int64 // Unix seconds
	tags         string
	mac          [KeySize]byte
	signed       string // what mac signs
}

// read takes a field apart.
func (c *nodeClaim) read(field string) bool {
	text, ok := compact(field)
	if !ok {
		return false
	}
	rest, ok := strings.CutPrefix(text, version)
	end := strings.LastIndex(text, "m=")
	if !ok || end < 0 {
		return false
	}
	c.signed = text[:end]
	t := tokens{rest: rest}
	s := &c.stamp
	s.Node = t.word('n', longestNode, isNameByte)
	c.time = t.number('t', latest)
	c.expiry = t.number('x', latest)
	s.Queue = t.word('q', longestQueue, isNameByte)
	s.UID = t.uid('u')
	s.LocalUser = t.text('a', longestUser)
	s.Site = t.text('h', longestHost)
	if plugin := t.word('p', 4*(longestPlugin+2)/3, isBase64); plugin != unlabelledMark {
		name, ok := decodeName(plugin, longestPlugin)
		s.Labelled, s.Plugin = true, strings.ToLower(name)
		t.bad = t.bad || !ok
	}
	if s.Call.Entry = t.word('e', 16, isLetter); s.Call.Entry != "" {
		s.Call.Entry = entry(s.Call.Entry)
	}
	s.Call.Script = t.text('f', longestScript)
	if client := t.client('c'); client.IsValid() {
		s.Call.WebClient = client.String()
	}
	s.Call.Pool = t.text('l', longestPool)
	s.Call.Software = t.text('w', longestSoftware)
	s.Call.Blog = int(t.number('b', 1<<31-1))
	c.tags = t.next('r')
	t.octets('m', c.mac[:])
	s.Time = unix(c.time)
	return !t.bad && t.rest == "" && s.Queue != ""
}

// uid is the next token, a number or -1.
func (t *tokens) uid(name byte) int {
	if rest, ok := strings.CutPrefix(t.rest, t.blank+string(name)+"=-1"); ok && !t.bad {
		t.rest = rest
		return -1
	}
	return int(t.number(name, 1<<32-1))
}

// usesFor is what a message to these recipients uses up; false if one of them is
// not among those that were signed, or there is none.
func (c *nodeClaim) usesFor(key []byte, rcpts []string) ([]use, bool) {
	tagger := newTagger(key, c.stamp.Queue)
	uses := make([]use, 0, len(rcpts))
	for _, r := range rcpts {
		tag := tagger.tag(r)
		if c.tags != allRecipients && !hasTag(c.tags, tag) {
			return nil, false
		}
		// The tag is bound to the queue id; the time tells apart what a queue id was used for.
		var u use
		b64.Decode(u[:], []byte(tag))
		u2 := binary.BigEndian.AppendUint64(nil, uint64(c.time))
		copy(u[6:], u2[2:])
		uses = append(uses, u)
	}
	slices.SortFunc(uses, func(a, b use) int { return strings.Compare(string(a[:]), string(b[:])) })
	return slices.Compact(uses), len(uses) > 0
}

// hasTag finds a tag among those that are sorted.
func hasTag(tags, tag string) bool {
	low, high := 0, len(tags)/tagSize
	for low < high {
		middle := (low + high) / 2
		switch got := tags[middle*tagSize : (middle+1)*tagSize]; {
		case got == tag:
			return true
		case got < tag:
			low = middle + 1
		default:
			high = middle
		}
	}
	return false
}
