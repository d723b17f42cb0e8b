package rbl

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// maxCodes bounds the codes of a zone: each is compared with each.
const maxCodes = 256

// codes are what answers mean: { code = "127.0.0.4-7", means = "..." }, or bit = 4 for
// those of the last octet.
func (s *section) codes(key string, bits bool) []Code {
	var all []Code
	subs := s.subs(key)
	if len(subs) > maxCodes {
		s.wrong(s.line(key), key, strconv.Itoa(len(subs))+" codes", "at most "+strconv.Itoa(maxCodes), "")
		return nil
	}
	for _, sub := range subs {
		c, ok := sub.code(key == "blocks", bits)
		if !ok {
			continue
		}
		if slices.ContainsFunc(all, c.overlaps) {
			sub.wrong(sub.t.line, "code", "an answer a second time", "each once", "")
			continue
		}
		all = append(all, c)
	}
	return all
}

func (s *section) code(block, bits bool) (Code, bool) {
	text, bit := s.value("code", aText, `"127.0.0.2"`), s.count("bit")
	c := Code{Means: s.text("means"), Severity: s.severity("severity"), Scope: s.scope("scope"), How: s.words("how", ways...)}
	s.done()
	if c.Means == "" && s.t.values["means"] == nil {
		s.missing("means", "what it says")
	}
	ok := true
	switch hasBit := s.t.values["bit"] != nil; {
	case hasBit == (s.t.values["code"] != nil), hasBit && !bits, !hasBit && bits && !block:
		s.wrong(s.t.line, "code", "neither the one nor the other, or the wrong one", `code = "127.0.0.2", or bit = 2 where the zone has bits = true`, "")
		return c, false
	case hasBit:
		if bit == 0 || bit > 128 || bit&(bit-1) != 0 {
			s.wrong(s.line("bit"), "bit", s.t.values["bit"].String(), "1, 2, 4, 8, 16, 32, 64 or 128", "")
			return c, false
		}
		c.Bit = uint8(bit)
	case text == nil:
		return c, false
	default:
		if c.From, c.To, ok = answers(text.text); !ok {
			s.wrong(text.line, "code", quote(text.text), `answers in 127.0.0.0/8, as "127.0.0.2" or "127.0.0.4-7"`, "")
			return c, false
		}
		if !block && errorCodes.Contains(c.To) {
			s.wrong(text.line, "code", quote(text.text), "a listing", "answers in 127.255.255.0/24 refuse the query: put it into blocks")
			return c, false
		}
	}
	return c, c.Means != ""
}

var octetRange = regexp.MustCompile(`^([0-9]{1,3})(?:-([0-9]{1,3}))?$`)

// answers reads an address in 127.0.0.0/8 of which each octet may be a range.
func answers(text string) (from, to netip.Addr, ok bool) {
	parts := strings.Split(text, ".")
	if len(parts) != 4 {
		return from, to, false
	}
	var low, high [4]byte
	for i, part := range parts {
		m := octetRange.FindStringSubmatch(part)
		if m == nil {
			return from, to, false
		}
		if m[2] == "" {
			m[2] = m[1]
		}
		a, errA := strconv.ParseUint(m[1], 10, 8)
		b, errB := strconv.ParseUint(m[2], 10, 8)
		if errA != nil || errB != nil || a > b {
			return from, to, false
		}
		low[i], high[i] = byte(a), byte(b)
	}
	return netip.AddrFrom4(low), netip.AddrFrom4(high), low[0] == 127 && high[0] == 127
}

// overlaps reports that an answer could be both.
func (c *Code) overlaps(other Code) bool {
	if c.Bit != 0 || other.Bit != 0 {
		return c.Bit == other.Bit
	}
	from, to := c.From.As4(), c.To.As4()
	low, high := other.From.As4(), other.To.As4()
	for i := range from {
		if from[i] > high[i] || to[i] < low[i] {
			return false
		}
	}
	return true
}

// test is what the zone answers to by agreement: what the standard says, unless the
// file says otherwise. "none": the zone has no such entry.
func (s *section) test(kinds []Kind) Test {
	t := usualTest(kinds)
	sub := s.sub("test")
	sub.testEntry(&t.Listed4, "listed4", IP4, kinds)
	sub.testEntry(&t.Clean4, "clean4", IP4, kinds)
	sub.testEntry(&t.Listed6, "listed6", IP6, kinds)
	sub.testEntry(&t.Clean6, "clean6", IP6, kinds)
	sub.testEntry(&t.ListedDomain, "listed_domain", Domain, kinds)
	sub.testEntry(&t.CleanDomain, "clean_domain", Domain, kinds)
	sub.done()
	return t
}

// Test points have labels with "_", and capitals in them.
var testLabels = regexp.MustCompile(`^[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63}){0,9}$`)

func (s *section) testEntry(into *string, key string, kind Kind, kinds []Kind) {
	text := s.text(key)
	if text == "" {
		return
	}
	addr, err := netip.ParseAddr(text)
	switch {
	case !slices.Contains(kinds, kind):
		s.wrong(s.line(key), key, "it", "it for "+kind.String()+" only", "delete it, or add the kind")
	case text == "none":
		*into = ""
	case kind == Domain && testLabels.MatchString(text):
		*into = text
	case kind != Domain && err == nil && addr.Zone() == "" && addr.Is4() == (kind == IP4):
		*into = reversed(addr)
	default:
		s.wrong(s.line(key), key, quote(text), "a test entry for "+kind.String()+`, or "none"`, "")
	}
}
