package maillog

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// MaxLine is the longest line that is read, in octets without its line feed.
// Postfix cuts its own at a little over 2,000.
const MaxLine = 64 << 10

// Line is a log line taken apart at its syslog prefix. The strings share the
// line's memory.
type Line struct {
	Time  time.Time // UTC
	Host  string
	Tag   string // "postfix/submission/smtpd"; empty: syslog itself speaks
	PID   int    // 0: none
	Text  string
	Count int // 1, or how often syslog says that the text was repeated
}

// ParseLine takes a line without its line feed apart: the traditional form of
// syslog and of Postfix's maillog_file ("Nov 22 08:00:01 host tag[pid]: text")
// or the one of RFC 3339 that rsyslog writes ("2026-11-22T08:00:01.123456+00:00
// host tag[pid]: text"). The traditional form has no year and no zone: it is
// the latest time in zone that is not more than a day after now. False: it is
// no such line.
//
// "#011" and the like are left as they are: Postfix itself puts '?' for
// control characters, so in its lines that is what the sender wrote.
func ParseLine(line string, now time.Time, zone *time.Location) (Line, bool) {
	if len(line) > MaxLine {
		return Line{}, false
	}
	if !utf8.ValidString(line) {
		line = strings.ToValidUTF8(line, "?")
	}
	l := Line{Count: 1}
	rest, ok := "", false
	if l.Time, rest, ok = cutTime(line, now, zone); !ok {
		return Line{}, false
	}
	if l.Host, rest, ok = strings.Cut(rest, " "); !ok || l.Host == "" {
		return Line{}, false
	}
	rest = strings.TrimLeft(rest, " ")
	if count, ok := repeated(rest, "last message repeated ", " times"); ok { // sysklogd, BSD
		l.Count = count
		return l, true
	}
	if l.Tag, l.PID, l.Text, ok = cutTag(rest); !ok {
		return Line{}, false
	}
	// rsyslog: "message repeated 3 times: [ text]"
	if head, text, found := strings.Cut(l.Text, ": [ "); found {
		if count, ok := repeated(head, "message repeated ", " times"); ok {
			l.Count, l.Text = count, strings.TrimSuffix(text, "]")
		}
	}
	return l, true
}

// maxCount bounds what a line may claim to stand for.
const maxCount = 1_000_000

func repeated(text, before, after string) (int, bool) {
	text, ok := strings.CutPrefix(text, before)
	if !ok {
		return 0, false
	}
	text, ok = strings.CutSuffix(text, after)
	if !ok {
		return 0, false
	}
	count, ok := number(text)
	return int(count), ok && count > 0 && count <= maxCount
}

// cutTag reads "tag[pid]: text", "tag: text".
func cutTag(s string) (tag string, pid int, text string, ok bool) {
	end := strings.IndexAny(s, "[: ")
	if end <= 0 {
		return "", 0, "", false
	}
	tag, s = s[:end], s[end:]
	if s[0] == '[' {
		digits, rest, ok := strings.Cut(s[1:], "]")
		n, isNumber := number(digits)
		if !ok || !isNumber || n > 1<<31-1 {
			return "", 0, "", false
		}
		pid, s = int(n), rest
	}
	if text, ok = strings.CutPrefix(s, ":"); !ok {
		return "", 0, "", false
	}
	return tag, pid, strings.TrimPrefix(text, " "), true
}

// cutTime reads the time in front of a line, in either form.
func cutTime(line string, now time.Time, zone *time.Location) (t time.Time, rest string, ok bool) {
	if len(line) < len("Nov 22 08:00:01 ") {
		return t, "", false
	}
	if line[0] >= '0' && line[0] <= '9' {
		stamp, rest, found := strings.Cut(line, " ")
		if !found || len(stamp) > len("2026-11-22T08:00:01.123456789+00:00") {
			return t, "", false
		}
		t, err := time.Parse(time.RFC3339Nano, stamp)
		return t.UTC(), rest, err == nil
	}
	month, ok := monthOf(line[:3])
	if !ok || line[3] != ' ' || line[6] != ' ' || line[9] != ':' || line[12] != ':' || line[15] != ' ' {
		return t, "", false
	}
	day, ok1 := number(strings.TrimPrefix(line[4:6], " ")) // " 1" or "01"
	hour, ok2 := number(line[7:9])
	minute, ok3 := number(line[10:12])
	second, ok4 := number(line[13:15])
	if !ok1 || !ok2 || !ok3 || !ok4 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 60 {
		return t, "", false
	}
	latest := now.Add(24 * time.Hour) // clocks and zones differ
	for year := latest.In(zone).Year(); year > latest.Year()-9; year-- {
		t = time.Date(year, month, int(day), int(hour), int(minute), int(second), 0, zone)
		if !t.After(latest) && (t.Day() == int(day) || day < 29) { // 29 February: a leap year
			return t.UTC(), line[16:], true
		}
	}
	return t, "", false
}

func monthOf(name string) (time.Month, bool) {
	const names = "JanFebMarAprMayJunJulAugSepOctNovDec"
	i := strings.Index(names, name)
	return time.Month(i/3 + 1), i >= 0 && i%3 == 0
}

// number reads decimal digits only: no sign, no space.
func number(s string) (int64, bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = 10*n + int64(s[i]-'0')
	}
	return n, true
}

// seconds reads "9.4" or "0.02".
func seconds(s string) (time.Duration, bool) {
	if s == "" || s[0] < '0' || s[0] > '9' {
		return 0, false // no sign, no NaN
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f > 1e9 {
		return 0, false
	}
	return time.Duration(f * float64(time.Second)), true
}

// cutClient reads "name[address]" or "name[address]:port" in front of s.
func cutClient(s string) (name string, ip netip.Addr, rest string, ok bool) {
	name, s, ok = strings.Cut(s, "[")
	if !ok || name == "" || strings.ContainsAny(name, " ,;:<>()]\"") {
		return "", ip, "", false
	}
	address, rest, ok := strings.Cut(s, "]")
	if !ok || len(address) > 64 {
		return "", ip, "", false
	}
	if parsed, err := netip.ParseAddr(strings.TrimPrefix(address, "IPv6:")); err == nil {
		ip = parsed.Unmap()
	} else if address != "unknown" {
		return "", ip, "", false
	}
	if after, found := strings.CutPrefix(rest, ":"); found {
		end := 0
		for end < len(after) && after[end] >= '0' && after[end] <= '9' {
			end++
		}
		if end > 0 {
			rest = after[end:]
		}
	}
	return name, ip, rest, true
}
