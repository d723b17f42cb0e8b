package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Override is what one sender may send in place of what a limit says.
type Override struct {
	Limit   string // its name
	For     string // "KIND:NAME", as in overrideKinds; in lower case but for local_user, network, customer and key
	Windows []Window
	Burst   Window    // zero: none, whatever the limit has
	Until   time.Time // zero: no end. May be past: such an override is of no effect
	Reason  string
}

// overrideKinds are what override.for may begin with: "key" is any budget, as
// "relayguard limits list" names it.
var overrideKinds = []string{"login", "local_user", "network", "domain", "customer", "site", "plugin", "key"}

var overrides = section[Override]{"override", `What one sender may send in place of what a limit says; one section for each. If several are for a message, the narrowest counts: key, plugin, site, then login, local_user or network, then domain, then customer. One of "relayguard limits set" comes before one of this file for the same.`, zero[Override], sampleOverrides, []field[Override]{
	required(key("limit", limitName(), func(o *Override) *string { return &o.Limit },
		`The name of the limit.`)),
	required(key("for", overridden(), func(o *Override) *string { return &o.For },
		`Whose: "login:taro@example.jp", "local_user:site12", "network:web-1", "domain:example.jp" (each of its logins and sites by itself), "customer:acme" (each of what is the customer's), "site:shop.example.jp", "plugin:contact-form" (on each site), or "key:" and one budget as "relayguard limits list" names it.`)),
	required(key("windows", windows(), func(o *Override) *[]Window { return &o.Windows },
		`How many in which time, in place of all windows of the limit.`)),
	key("burst", optional(window()), func(o *Override) *Window { return &o.Burst },
		`Its burst, in place of the limit's. Empty: none.`),
	key("until", optional(until()), func(o *Override) *time.Time { return &o.Until },
		`When it ends: a date, of which it is the whole day, or a date and time; in this machine's time zone unless it names one. Then the limit's own windows are back. Empty: never.`),
	required(key("reason", sentence("why it differs"), func(o *Override) *string { return &o.Reason },
		`Why it differs, for the next admin.`)),
}}

func sampleOverrides() []Override {
	return []Override{{
		Limit:   "login-volume",
		For:     "login:newsletter@example.jp",
		Windows: []Window{{2000, time.Hour}, {8000, day}},
		Burst:   Window{800, 10 * time.Minute},
		Until:   time.Date(2027, time.April, 1, 0, 0, 0, 0, time.Local),
		Reason:  "invoices at the end of the business year, ticket 4711",
	}}
}

func overridden() kind[string] {
	k := kind[string]{
		name:   `"KIND:NAME", KIND one of ` + quoted(overrideKinds),
		wanted: `whose, such as "login:taro@example.jp" or "domain:example.jp"`,
		show:   showString,
	}
	return one(k, aString, func(s string) (string, string, bool) {
		what, name, remedy := whose(s, overrideKinds)
		switch {
		case remedy != fine:
		case name == "":
			remedy = "name one behind the colon"
		case strings.Contains(name, "*"):
			remedy = "name one: for all of several write one for their domain or customer, or another limit"
		case what == "login":
			remedy = loginFault(name)
		case what == "domain":
			remedy = domainFault(name)
		}
		return what + ":" + name, remedy, remedy == fine
	})
}

// until is a date or a date and time, as TOML has them.
func until() kind[time.Time] {
	k := kind[time.Time]{
		name:   "date, or date and time, without quotes",
		wanted: "a date such as 2027-03-31, or a date and time such as 2027-03-31T18:00:00+09:00",
		show:   showUntil,
	}
	k.read = func(v *value) (time.Time, []fault) {
		t, err := ParseUntil(v.text)
		f := fault{at: v.at, found: v.String()}
		switch {
		case v.kind == aString && err == nil:
			f.remedy = "write it without quotes"
		case v.kind == aTime && err == nil:
			return t, nil
		case v.kind == aTime:
			f.remedy = "write a day that the calendar has, from the year 2000 on, year first"
		}
		return time.Time{}, []fault{f}
	}
	return k
}

// ParseUntil reads the end of a term: a date, of which the term has the whole
// day, or a date and time; in local time unless it names an offset.
func ParseUntil(text string) (time.Time, error) {
	upper := strings.Replace(strings.ToUpper(text), " ", "T", 1)
	for i, form := range []string{time.DateOnly, time.RFC3339, "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05", "2006-01-02T15:04"} {
		t, err := time.ParseInLocation(form, upper, time.Local)
		if err == nil && i == 0 {
			t = t.AddDate(0, 0, 1)
		}
		if err == nil && t.Year() >= 2000 && t.Year() <= 9999 { // else it is a slip, or JSON cannot have it
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("got %q, want a date such as 2027-03-31, or a date and time such as 2027-03-31T18:00:00+09:00", text)
}

func showUntil(t time.Time) string {
	if t.Location() == time.Local && t.Equal(time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.Local)) {
		return t.AddDate(0, 0, -1).Format(time.DateOnly)
	}
	return t.Format(time.RFC3339Nano)
}

// checkOverrides: each is of a limit that there is, and of mail that the limit
// is about.
func (r *report) checkOverrides(c *Config, names named, tables, limitTables []*table) {
	there := names["limit"]
	if len(there) == 0 {
		return // a limit of no known name may be the one that is meant
	}
	first := map[[2]string]*table{}
	for i, t := range tables {
		o := &c.Overrides[i]
		if !t.sure("limit") {
			continue
		}
		j := slices.Index(there, o.Limit)
		if j < 0 {
			r.add(t.place("limit"), "override.limit", quote(o.Limit), "the name of a limit", noneNamed(o.Limit, "limit", there))
			continue
		}
		r.checkOverride(o, t, &c.Limits[j], j >= len(limitTables) || limitTables[j].sure("counts", "per"))
		if !t.sure("for") {
			continue
		}
		r.checkNames(names, t, "for", []string{o.For})
		what := [2]string{o.Limit, o.For}
		if other := first[what]; other != nil {
			r.add(t.place("for"), "override.for", quote(o.For)+" a second time for "+quote(o.Limit), "each once for a limit", fmt.Sprintf("line %d has it too: delete one of them", r.line(other.place("for"))))
			continue
		}
		first[what] = t
	}
}

// checkOverride holds an override against its limit; sure says whether the limit
// is what the file means.
func (r *report) checkOverride(o *Override, t *table, l *Limit, sure bool) {
	if !sure {
		return
	}
	r.checkWindows(t, l.Counts, o.Windows, o.Burst)
	what, _, _ := strings.Cut(o.For, ":")
	for _, p := range l.Per {
		shared := what == "local_user" && p == "shared_user" // such an account is one, too
		if t.sure("for") && slices.Contains(apart[what], p) && !shared {
			r.add(t.place("for"), "override.for", fmt.Sprintf("%s of a limit with %s", quote(o.For), showPer(l.Per)), "one whose mail that limit counts", "name the limit that is meant, or whom it counts")
			return
		}
	}
}

// named are the names that sections of a kind have: "limit", "network",
// "customer" or "node". A kind is missing if one of its sections has none that is known.
type named map[string][]string

func nameAll[S any](n named, s section[S], all []S, tables []*table, name func(*S) string) {
	names := []string{}
	for i := range all {
		if i < len(tables) && !tables[i].sure("name") {
			return
		}
		names = append(names, name(&all[i]))
	}
	n[s.name] = names
}

// checkNames: the networks, customers and nodes that a key speaks of are there.
func (r *report) checkNames(names named, t *table, key string, said []string) {
	if !t.sure(key) {
		return
	}
	for i, s := range said {
		what, name, _ := strings.Cut(s, ":")
		if what != "limit" && !strings.Contains(name, "*") {
			r.checkName(names, t.elem(key, i), join(t.path, key), s, what, name)
		}
	}
}

// checkName: there is a section of that kind and name, if that can be told.
func (r *report) checkName(names named, at int, key, said, kind, name string) {
	if there, known := names[kind]; known && !slices.Contains(there, name) {
		r.add(at, key, quote(said), "the name of a section [["+kind+"]]", noneNamed(name, kind, there))
	}
}

// noneNamed says what to do about a name that no section has.
func noneNamed(name, section string, there []string) string {
	if near := nearest(name, there); near != "" {
		return "did you mean " + strconv.Quote(near) + "?"
	}
	if len(there) == 0 || len(there) > 20 {
		return "there is no such " + section + ": add it, or mend the name"
	}
	return "there is no such " + section + ", only " + strings.Join(there, ", ")
}
