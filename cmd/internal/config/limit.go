package config

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
)

// Limit is how much one key may send before its mail is stopped.
type Limit struct {
	Name    string // the rule that verdicts cite
	Per     string // "login", "local_user", "shared_user", "network", "machine", "sender_domain" or "server"
	Counts  string // "recipients" or "messages"
	Windows []Window
	Burst   Window // shorter than all of Windows; zero: none
	Kind    string // "volume" or "abuse"
	Then    policy.Verdict
	Observe bool // decides and records, and lets pass
}

// Window is how many may pass in every interval of a length. The zero value is
// none.
type Window struct {
	Count  int64 // at least 1
	Length time.Duration
}

// String is the window as the configuration writes it: "300/1h".
func (w Window) String() string { return fmt.Sprintf("%d/%s", w.Count, showDuration(w.Length)) }

// all are the windows and, last, the burst.
func (l *Limit) all() []Window {
	if l.Burst == (Window{}) {
		return l.Windows
	}
	return append(slices.Clone(l.Windows), l.Burst)
}

func newLimit() *Limit { return &Limit{Counts: "recipients", Kind: "volume", Then: policy.Hold} }

// defaultLimits are those of a file that names none. They hold, but for trusted
// machines, which have a queue.
func defaultLimits() []Limit {
	var all []Limit
	for _, shipped := range limit.Defaults() {
		l := *newLimit()
		l.Name, l.Per, l.Counts, l.Kind = shipped.Name, shipped.Per.String(), shipped.Counts.String(), shipped.Kind.String()
		if shipped.Per == limit.Machine {
			l.Then = policy.Defer
		}
		for _, w := range shipped.Windows {
			if w.Burst {
				l.Burst = Window{w.Count, w.Length}
			} else {
				l.Windows = append(l.Windows, Window{w.Count, w.Length})
			}
		}
		all = append(all, l)
	}
	return all
}

// limitDoc names the default limits, so that the manual, too, has them.
func limitDoc() string {
	var names []string
	for _, l := range defaultLimits() {
		var windows []string
		for _, w := range l.all() {
			windows = append(windows, w.String())
		}
		names = append(names, fmt.Sprintf("%q (per %s, %s, then %s)", l.Name, l.Per, strings.Join(windows, ", "), l.Then))
	}
	last := len(names) - 1
	return `How much one sender may send; one section for each limit. What passes, an exact count over every interval of the window's length allows. Without any, there are those of a fresh install: ` +
		strings.Join(names[:last], ", ") + " and " + names[last] + `. With one, there are only those that are named: to change one of these, write them all.`
}

// Bounds of windows. A bucket has room for six, the burst among them, and keeps
// sixteen slots of each; a window of more than a month would outlast what
// anybody remembers.
const (
	maxCount       = 1_000_000_000
	shortestWindow = time.Second
	longestWindow  = 31 * day
	maxWindows     = 5
)

// window is COUNT/DURATION.
func window() kind[Window] {
	k := kind[Window]{
		name:   fmt.Sprintf(`"COUNT/DURATION", 1 to %d in %q to %q`, maxCount, showDuration(shortestWindow), showDuration(longestWindow)),
		wanted: fmt.Sprintf(`a count and the time that it is for, such as "300/1h": 1 to %d in %q to %q`, maxCount, showDuration(shortestWindow), showDuration(longestWindow)),
		show:   func(w Window) string { return strconv.Quote(w.String()) },
	}
	k = one(k, aString, func(s string) (Window, string, bool) {
		w, remedy := parseWindow(s)
		return w, remedy, remedy == fine
	})
	read := k.read
	k.read = func(v *value) (Window, []fault) {
		w, faults := read(v)
		if v.kind == anInteger {
			faults[0].remedy = fmt.Sprintf("write it with its time and in quotes: %q if it is for an hour", v.text+"/1h")
		}
		return w, faults
	}
	return k
}

func parseWindow(s string) (w Window, remedy string) {
	count, length, found := strings.Cut(s, "/")
	n, err := strconv.ParseInt(count, 10, 64)
	d, derr := ParseDuration(length)
	switch {
	case !found || err != nil && strings.Trim(count, "0123456789") != "":
		return w, `write the count, / and the time: "300/1h"`
	case err == nil && n == 0:
		return w, zeroRemedy + `for a limit that stops nothing give it observe = true`
	case err != nil || n < 1 || n > maxCount:
		return w, "give a count within the bounds"
	case derr != nil && slices.Contains([]string{"s", "m", "h", "d"}, length):
		return w, fmt.Sprintf("write the time with its number: %q", count+"/1"+length)
	case derr != nil:
		return w, durationUnits
	case d < shortestWindow || d > longestWindow:
		return w, "give a time within the bounds"
	case d%time.Second != 0:
		return w, "give whole seconds"
	}
	return Window{n, d}, fine
}

// windows is a list of windows that each can be the first to say no.
func windows() kind[[]Window] {
	k := list(window(), false)
	k.name = fmt.Sprintf("list of 1 to %d: %s", maxWindows, window().name)
	read := k.read
	k.read = func(v *value) ([]Window, []fault) {
		ws, faults := read(v)
		if len(faults) > 0 {
			return nil, faults
		}
		if len(ws) > maxWindows {
			return nil, []fault{{v.elems[maxWindows].at, fmt.Sprintf("%d windows", len(ws)), fmt.Sprintf("at most %d", maxWindows), "delete some: two or three are plenty"}}
		}
		for i, w := range ws {
			for _, other := range ws[:i] {
				if f := contradiction(w, other); f != nil {
					f.at = v.elems[i].at
					faults = append(faults, *f)
					break
				}
			}
		}
		return ws, faults
	}
	return k
}

// contradiction says why one of two windows can never be the first to say no.
func contradiction(w, other Window) *fault {
	long, short := w, other
	if long.Length < short.Length {
		long, short = short, long
	}
	found := fmt.Sprintf("%q beside %q", w, other)
	switch {
	case w.Length == other.Length:
		return &fault{found: found, wanted: "each time once", remedy: "delete the one that you do not mean"}
	case long.Count < short.Count:
		return &fault{found: found, wanted: "no smaller count for the longer time",
			remedy: fmt.Sprintf("%q never comes to matter: lower or delete it, or raise %q", short, long)}
	}
	return nil
}

var hyphenated = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

func limitName() kind[string] {
	return text("name: lower-case words with hyphens, up to 32 characters", `a name such as "login-volume": lower-case words with hyphens, up to 32 characters`, func(s string) string {
		switch {
		case slices.Contains(policy.Rules(), s):
			return "another rule has this name: choose one of your own"
		case len(s) > 32 || !hyphenated.MatchString(s):
			return "rename the limit"
		}
		return fine
	})
}

var limits = section[Limit]{"limit", limitDoc(), newLimit, defaultLimits, []field[Limit]{
	required(key("name", limitName(), func(l *Limit) *string { return &l.Name },
		`Names it in verdicts, logs and metrics, as the rule that stopped a message.`)),
	required(key("per", words("login", "local_user", "shared_user", "network", "machine", "sender_domain", "server"), func(l *Limit) *string { return &l.Per },
		`Whose mail is counted together: each "login"; each "local_user", that is Unix account, outside local.shared_users; each "shared_user" in it; each trusted "network" as a whole; each "machine" of these (an IPv6 address by its /64); each "sender_domain" of envelope senders; or all mail of the "server". Mail that a login vouches for counts for the login, not for its network or machine.`)),
	required(key("windows", windows(), func(l *Limit) *[]Window { return &l.Windows },
		`How many in which time: "300/1h" lets 300 pass in any hour. With several, each must have room. In the learning phase those of a "volume" limit only tell.`)),
	key("burst", optional(window()), func(l *Limit) *Window { return &l.Burst },
		`One more window, shorter than the others, that acts in the learning phase already. Empty: none.`),
	key("counts", words("recipients", "messages"), func(l *Limit) *string { return &l.Counts },
		`What is counted. A message to 50 recipients is 50 "recipients".`),
	key("kind", words("volume", "abuse"), func(l *Limit) *string { return &l.Kind },
		`"volume" has room again as time passes. "abuse" latches: once over it, that sender is stopped until an admin resumes it.`),
	key("then", choice(policy.Hold, policy.Defer, policy.Reject, policy.Tell), func(l *Limit) *policy.Verdict { return &l.Then },
		`What becomes of a message that is over it. "hold" keeps it for an admin to look at; "defer" is for machines that have a queue and try again, not for mail programs and web sites, which lose the message.`),
	key("observe", boolean(), func(l *Limit) *bool { return &l.Observe },
		`Decide and record only: mail over it passes, and journal and alerts call it a would-be stop.`),
}}

// maxLimits bounds the work on each message.
const maxLimits = 60 // policy/limit takes 64 charges in one step

func (r *report) checkLimits(all []Limit, tables []*table) {
	if len(tables) > maxLimits {
		r.add(tables[maxLimits].at, "limit", fmt.Sprintf("%d sections", len(tables)), fmt.Sprintf("at most %d", maxLimits), "delete some")
		return
	}
	r.distinct(tables, "name", func(i int) string { return all[i].Name })
	for i, t := range tables {
		l := &all[i]
		if l.Burst != (Window{}) && t.sure("windows", "burst") {
			r.checkBurst(l, t)
		}
		if (l.Per == "local_user" || l.Per == "shared_user") && l.Then == policy.Defer && t.sure("per", "then") {
			r.add(t.place("then"), "limit.then", fmt.Sprintf(`"defer" with per = %q`, l.Per), `"hold", "reject" or "tell"`,
				`web sites and scripts do not try again, so the message would be lost: write "hold"`)
		}
	}
}

func (r *report) checkBurst(l *Limit, t *table) {
	for _, w := range l.Windows {
		f := contradiction(l.Burst, w)
		if f == nil && l.Burst.Length > w.Length {
			f = &fault{found: fmt.Sprintf("%q beside %q", l.Burst, w), wanted: "a time shorter than those of limit.windows", remedy: "put it into limit.windows, and name a shorter one here"}
		}
		if f != nil {
			r.add(t.place("burst"), "limit.burst", f.found, f.wanted, f.remedy)
			return
		}
	}
}
