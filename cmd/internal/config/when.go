package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// When says which mail a limit is about; the zero value: all. What is said must
// all be so.
type When struct {
	Origins       []string // "KIND:PATTERN", any of them; in the pattern * is any text
	MinSize       int64    // octets; 0: not said, as in the following
	MaxSize       int64
	MinRecipients int
	MaxRecipients int
	Hours         []Hours // local time; any of them
	Days          []time.Weekday
	Header        []string // lower case; any of them is there
	NoHeader      []string // lower case; none of them is there
}

// Hours are a time of day from From up to To, which is not in it: minutes since
// midnight. If To is not above From, they go beyond midnight.
type Hours struct{ From, To int }

// String is the hours as the configuration writes them: "22:00-06:00".
func (h Hours) String() string {
	return fmt.Sprintf("%02d:%02d-%02d:%02d", h.From/60, h.From%60, h.To/60, h.To%60)
}

const whenDoc = `Which mail the limit above it is about; without this section all mail. Each key narrows it further. Size and header fields are known when the whole message is there, so a limit that asks for them cannot refuse a recipient before.`

var whenFields = []field[Limit]{
	key("origins", list(originPattern(), true), func(l *Limit) *[]string { return &l.When.Origins },
		`Only mail of these: "login:*@example.jp", "local_user:www-data", "network:web-*", "node:web3", "domain:example.jp", "customer:acme", "site:shop.example.jp", "plugin:contact-form" or "template:*". "node" is mail of a web node that does not say whose it is. * stands for any text. Empty: of everybody.`),
	key("min_size", optional(size(1, maxMessage)), func(l *Limit) *int64 { return &l.When.MinSize },
		`Only messages of at least so many octets. Empty: of any size.`),
	key("max_size", optional(size(1, maxMessage)), func(l *Limit) *int64 { return &l.When.MaxSize },
		`Only messages of at most so many octets. Empty: of any size.`),
	key("min_recipients", optional(integer(1, 1_000_000)), func(l *Limit) *int { return &l.When.MinRecipients },
		`Only messages to at least so many recipients. Empty: to any number.`),
	key("max_recipients", optional(integer(1, 1_000_000)), func(l *Limit) *int { return &l.When.MaxRecipients },
		`Only messages to at most so many recipients. Empty: to any number.`),
	key("hours", list(hours(), true), func(l *Limit) *[]Hours { return &l.When.Hours },
		`Only at these times of day, in this machine's time zone: "22:00-06:00" goes beyond midnight, and 06:00 itself is not in it. Empty: at any time.`),
	key("days", list(choice(time.Monday, time.Tuesday, time.Wednesday, time.Thursday, time.Friday, time.Saturday, time.Sunday), true), func(l *Limit) *[]time.Weekday { return &l.When.Days },
		`Only on these days of the week. The hours after midnight belong to the new day. Empty: on any day.`),
	key("header", list(headerName(), true), func(l *Limit) *[]string { return &l.When.Header },
		`Only messages that have one of these header fields, such as "List-Id". Empty: whatever they have.`),
	key("no_header", list(headerName(), true), func(l *Limit) *[]string { return &l.When.NoHeader },
		`Only messages that have none of these header fields. Whoever sends can add one: better another limit for mail that has it than none. Empty: whatever they have.`),
}

// maxMessage is beyond what any MTA takes.
const maxMessage int64 = 1_000_000_000_000

// size is a number of octets, as an integer or with a unit.
func size(least, most int64) kind[int64] {
	plain := integer(least, most)
	k := kind[int64]{
		name:   fmt.Sprintf(`octets as an integer or "10MB", %d to %d`, least, most),
		wanted: fmt.Sprintf(`octets such as 2_000_000 or "10MB", %d to %d`, least, most),
		show:   plain.show,
	}
	k.read = func(v *value) (int64, []fault) {
		if v.kind != aString {
			return plain.read(v)
		}
		n, unit := parseCount(v.text)
		f := fault{at: v.at, found: v.String()}
		switch {
		case unit == v.text || unit != "" && sizeUnits[strings.ToUpper(unit)] == 0:
			f.remedy = sizeRemedy
		case unit == "":
			f.remedy = "write it without quotes"
		case n == 0:
			f.remedy = zeroRemedy
		case n >= least && n <= most:
			return n, nil
		}
		return 0, []fault{f}
	}
	return k
}

// hours are "HH:MM-HH:MM".
func hours() kind[Hours] {
	k := kind[Hours]{
		name:   `time of day "HH:MM-HH:MM"`,
		wanted: `a time of day such as "08:00-18:30" or "22:00-06:00"`,
		show:   func(h Hours) string { return strconv.Quote(h.String()) },
	}
	return one(k, aString, func(s string) (h Hours, remedy string, ok bool) {
		from, to, found := strings.Cut(s, "-")
		var first, second bool
		h.From, first = minutes(from)
		h.To, second = minutes(to)
		switch {
		case !found || !first || !second:
			return h, `write two times of four digits with a - between them, "24:00" the last`, false
		case h.From == 24*60:
			return h, `write "00:00" for midnight at the start`, false
		case h.From == h.To:
			return h, `name two different times; for the whole day leave the hours out`, false
		case h.To == 0:
			h.To = 24 * 60
		}
		return h, fine, true
	})
}

// minutes since midnight of "HH:MM", to "24:00".
func minutes(s string) (n int, ok bool) {
	h, m, _ := strings.Cut(s, ":")
	if len(h) != 2 || len(m) != 2 {
		return 0, false
	}
	hour, err := strconv.ParseUint(h, 10, 8)
	minute, merr := strconv.ParseUint(m, 10, 8)
	n = int(hour)*60 + int(minute)
	return n, err == nil && merr == nil && minute < 60 && n <= 24*60
}

// headerName is the name of a header field, in lower case (RFC 5322 §2.2).
func headerName() kind[string] {
	k := kind[string]{name: "name of a header field", wanted: `the name of a header field such as "List-Id"`, show: showString}
	return one(k, aString, func(s string) (string, string, bool) {
		switch {
		case strings.HasSuffix(s, ":"):
			return "", "leave out the colon", false
		case s == "" || len(s) > 76 || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == ':' }):
			return "", "write the name alone, as it stands before the colon", false
		}
		return strings.ToLower(s), fine, true
	})
}

// originKinds are what a pattern of limit.when.origins may begin with.
var originKinds = []string{"login", "local_user", "network", "node", "domain", "customer", "site", "plugin", "template"}

func originPattern() kind[string] {
	k := kind[string]{
		name:   `"KIND:PATTERN", KIND one of ` + quoted(originKinds),
		wanted: `whose mail, such as "login:*@example.jp" or "local_user:www-data"`,
		show:   showString,
	}
	return one(k, aString, func(s string) (string, string, bool) {
		what, name, remedy := whose(s, originKinds)
		if remedy == fine && name == "" {
			remedy = fmt.Sprintf("name one behind the colon, or write %q for all", what+":*")
		}
		return what + ":" + name, remedy, remedy == fine
	})
}

// whose takes "KIND:NAME" apart; the names of which case does not matter come in
// lower case. The remedy is what to do about a text that is none.
func whose(s string, kinds []string) (what, name, remedy string) {
	what, name, found := strings.Cut(s, ":")
	switch near := nearest(what, kinds); {
	case found && !slices.Contains(kinds, what) && near != "":
		return "", "", fmt.Sprintf("did you mean %s?", quote(near+":"+name))
	case !slices.Contains(kinds, what):
		return "", "", "begin it with one of " + strings.Join(kinds, ":, ") + ":"
	case len(name) > 512 || unprintable(name):
		return "", "", "write at most 512 bytes behind the colon, without control characters"
	}
	switch what {
	case "login", "node", "domain", "site", "plugin", "template":
		name = strings.ToLower(name)
	}
	return what, name, fine
}

// checkWhen: the conditions leave something over.
func (r *report) checkWhen(l *Limit, t *table) {
	t = t.sub("when")
	w := l.When
	if t.sure("min_size", "max_size") && w.MaxSize != 0 && w.MinSize > w.MaxSize {
		r.add(t.place("min_size"), "limit.when.min_size", fmt.Sprint(w.MinSize), fmt.Sprintf("at most limit.when.max_size, %d", w.MaxSize), "no message is of both: lower the one or raise the other")
	}
	if t.sure("min_recipients", "max_recipients") && w.MaxRecipients != 0 && w.MinRecipients > w.MaxRecipients {
		r.add(t.place("min_recipients"), "limit.when.min_recipients", fmt.Sprint(w.MinRecipients), fmt.Sprintf("at most limit.when.max_recipients, %d", w.MaxRecipients), "no message has both: lower the one or raise the other")
	}
	if !t.sure("header", "no_header") {
		return
	}
	for i, name := range w.NoHeader {
		if slices.Contains(w.Header, name) {
			r.add(t.elem("no_header", i), "limit.when.no_header", quote(name)+", as limit.when.header has it", "each header field in one of them", "delete it from one of them")
		}
	}
}
