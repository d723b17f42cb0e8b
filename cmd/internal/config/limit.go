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
	Name        string   // the rule that verdicts cite
	Per         []string // one of policy/limit's keys, or several together; never empty
	Counts      string   // "recipients", "messages", "bytes", "distinct", "first_time" or "bounces"
	Windows     []Window
	Burst       Window // shorter than all of Windows; zero: none
	Kind        string // "volume" or "abuse"
	Then        policy.Verdict
	Observe     bool   // decides and records, and lets pass
	Recipients  string // which count: "all", "outside" or "inside"
	Warn        int    // per cent of a window
	ClientBits4 int    // of an IPv4 address that "client" tells apart
	ClientBits6 int    // of an IPv6 address
	Adapt       Window // Count times the largest day of Length; zero: as it is
	When        When
}

func newLimit() *Limit {
	return &Limit{Counts: "recipients", Kind: "volume", Then: policy.Hold, Recipients: "all", Warn: 80, ClientBits4: 32, ClientBits6: 64}
}

// all are the windows and, last, the burst.
func (l *Limit) all() []Window {
	if l.Burst == (Window{}) {
		return l.Windows
	}
	return append(slices.Clone(l.Windows), l.Burst)
}

// defaultLimits are those of a file that names none. They hold, but for trusted
// machines, which have a queue.
func defaultLimits() []Limit {
	var all []Limit
	for _, shipped := range limit.Defaults() {
		l := *newLimit()
		l.Name, l.Counts, l.Kind = shipped.Name, shipped.Counts.String(), shipped.Kind.String()
		for _, p := range shipped.Per {
			l.Per = append(l.Per, p.String())
		}
		if slices.Contains(shipped.Per, limit.Machine) {
			l.Then = policy.Defer
		}
		for _, w := range shipped.Windows {
			if w.Burst {
				l.Burst = Window{w.Count, w.Length}
			} else {
				l.Windows = append(l.Windows, Window{w.Count, w.Length})
			}
		}
		if shipped.Adapt.On() {
			l.Adapt = Window{shipped.Adapt.Times, time.Duration(shipped.Adapt.Days) * 24 * time.Hour}
		}
		if shipped.Outside {
			l.Recipients = "outside"
		}
		l.When.Origins = shipped.Origins
		all = append(all, l)
	}
	return all
}

// limitDoc names the default limits, so that the manual, too, has them.
func limitDoc() string {
	usual := newLimit()
	var names []string
	for _, l := range defaultLimits() {
		said := []string{"per " + strings.Join(l.Per, " and ")}
		for _, w := range l.all() {
			said = append(said, w.String())
		}
		if l.Counts != usual.Counts {
			said = append(said, "counts "+l.Counts)
		}
		if l.Kind != usual.Kind {
			said = append(said, l.Kind)
		}
		if l.Recipients != usual.Recipients {
			said = append(said, "recipients "+l.Recipients)
		}
		if l.Adapt != usual.Adapt {
			said = append(said, "adapt "+adapting().show(l.Adapt))
		}
		if len(l.When.Origins) > 0 {
			said = append(said, "of "+strings.Join(l.When.Origins, " and "))
		}
		names = append(names, fmt.Sprintf("%q (%s, then %s)", l.Name, strings.Join(said, ", "), l.Then))
	}
	last := len(names) - 1
	return `How much one sender may send; one section for each limit. What passes, an exact count over every interval of the window's length allows. Without any, there are those of a fresh install: ` +
		strings.Join(names[:last], ", ") + " and " + names[last] + `. With one, there are only those that are named: to change one of these, write them all. To change one for a single sender, write an [[override]].`
}

var hyphenated = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

func limitName() kind[string] {
	return text("name: lower-case words with hyphens, up to 32 characters", `a name such as "login-volume": lower-case words with hyphens, up to 32 characters`, func(s string) string {
		switch {
		case slices.Contains(policy.Rules(), s) || s == policy.BulkName || s == "probe":
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
	required(key("per", per(), func(l *Limit) *[]string { return &l.Per }, perDoc)),
	required(key("windows", windows(), func(l *Limit) *[]Window { return &l.Windows },
		`How many in which time: "300/1h" lets 300 pass in any hour; of bytes "100MB/1h" does, or the plain number. With several, each must have room. In the learning phase those of a "volume" limit only tell. A message that is more than a whole window could never pass: it is refused with a text that says so, whatever "then" is.`)),
	key("burst", optional(window()), func(l *Limit) *Window { return &l.Burst },
		`One more window, shorter than the others, that acts in the learning phase already. Empty: none.`),
	key("counts", words("recipients", "messages", "bytes", "distinct", "first_time", "bounces"), func(l *Limit) *string { return &l.Counts },
		`What is counted. A message to 50 recipients is 50 "recipients". "messages" and "bytes", of header and body, count it once. "distinct" counts different recipients, so that ten messages to one are one. "first_time" counts recipients that this account never wrote to before. "bounces" counts what came back, as the MTA's log tells: once they are used up, new mail is stopped.`),
	key("kind", words("volume", "abuse"), func(l *Limit) *string { return &l.Kind },
		`"volume" has room again as time passes. "abuse" latches: once over it, that sender is stopped until an admin resumes it; one that counts "first_time" lets mail pass even then to whom the account knew before.`),
	key("then", choice(policy.Hold, policy.Defer, policy.Reject, policy.Tell), func(l *Limit) *policy.Verdict { return &l.Then },
		`What becomes of a message that is over it. "hold" keeps it: of a "volume" limit until there is room (see hold.release), else for an admin to look at. "defer" is for machines that have a queue and try again, not for mail programs and web sites, which lose the message.`),
	key("observe", boolean(), func(l *Limit) *bool { return &l.Observe },
		`Decide and record only: mail over it passes, and journal and alerts call it a would-be stop.`),
	key("recipients", words("all", "outside", "inside"), func(l *Limit) *string { return &l.Recipients },
		`Which recipients count: all, those outside, or those of our own domains (see inside). A message to none of them is not concerned. Where inside.free is true, the default is "outside".`),
	key("warn", integer(1, 100), func(l *Limit) *int { return &l.Warn },
		`Tell the admin when a window is so full, in per cent: before anything is stopped.`),
	key("client_bits4", integer(8, 32), func(l *Limit) *int { return &l.ClientBits4 },
		`Leading bits of IPv4 addresses that a limit per "client" tells apart: 24 counts all of 192.0.2.x together.`),
	key("client_bits6", integer(16, 128), func(l *Limit) *int { return &l.ClientBits6 },
		`The same of IPv6 addresses. One customer's line has a /64 at least: with more bits it has budgets without end.`),
	key("adapt", optional(adapting()), func(l *Limit) *Window { return &l.Adapt },
		`"3/21d" lets each budget grow to three times its own largest count on any of the last 21 days on which there was no abuse: a shop writes to new customers only. It never makes it smaller, and one that an override gives stays as it is. In the learning phase only the burst of such a limit stops anything during its first three days, while nothing is known of earlier ones. Empty: it stays as it is.`),
	subsection("when", whenDoc, whenFields),
}}

// maxLimits bounds the work on each message.
const maxLimits = 60 // policy/limit takes 1024 charges in one step, and one per "recipient_domain" makes many

func (r *report) checkLimits(c *Config, names named, tables []*table, mta *table) {
	all := c.Limits
	if len(tables) > maxLimits {
		r.add(tables[maxLimits].at, "limit", fmt.Sprintf("%d sections", len(tables)), fmt.Sprintf("at most %d", maxLimits), "delete some")
		return
	}
	r.distinct(tables, "name", func(i int) string { return all[i].Name })
	r.checkChosen(all, tables)
	for i, t := range tables {
		l := &all[i]
		if t.sure("counts") {
			r.checkWindows(t, l.Counts, l.Windows, l.Burst)
		}
		r.checkAdapt(l, t)
		r.checkWhen(l, t)
		r.checkNames(names, t.sub("when"), "origins", l.When.Origins)
		if t.sure("per") {
			r.checkPer(l, t)
			r.checkClientBits(l, t)
			r.checkThen(l, t)
			r.checkCounts(c, l, t, mta)
		}
	}
}

// checkThen: nobody is told to try again who does not.
func (r *report) checkThen(l *Limit, t *table) {
	local := slices.ContainsFunc(l.Per, func(p string) bool { return p == "local_user" || p == "shared_user" })
	if local && l.Then == policy.Defer && t.sure("then") {
		r.add(t.place("then"), "limit.then", `"defer" with `+showPer(l.Per), `"hold", "reject" or "tell"`,
			`web sites and scripts do not try again, so the message would be lost: write "hold"`)
	}
}

// checkCounts: what is counted can be known.
func (r *report) checkCounts(c *Config, l *Limit, t, mta *table) {
	if !t.sure("counts") {
		return
	}
	known := slices.ContainsFunc(l.Per, func(p string) bool { return slices.Contains(accountable, p) })
	if l.Counts == "first_time" && !known {
		r.add(t.place("counts"), "limit.counts", `"first_time" with `+showPer(l.Per), "a part of limit.per that only an account's mail has: "+quoted(accountable),
			`whom a sender wrote to is remembered by account: add "account" to limit.per`)
	}
	if l.Counts == "bounces" && mta.sure("log") && c.MTA.Log == LogNone {
		r.add(t.place("counts"), "limit.counts", `"bounces" with mta.log = "none"`, "a log that tells of bounces", "name the MTA's log in mta.log, or delete the limit")
	}
}

func (r *report) checkClientBits(l *Limit, t *table) {
	usual := newLimit()
	for _, k := range []struct {
		name       string
		bits, none int
	}{{"client_bits4", l.ClientBits4, usual.ClientBits4}, {"client_bits6", l.ClientBits6, usual.ClientBits6}} {
		if t.sure(k.name) && k.bits != k.none && !slices.Contains(l.Per, "client") {
			r.add(t.place(k.name), "limit."+k.name, strconv.Itoa(k.bits)+" with "+showPer(l.Per), `the key only with "client" in limit.per`, `delete the key, or add "client" to limit.per`)
		}
	}
}

// freeInside lets limits that do not say which recipients count leave those
// inside out.
func freeInside(limits []Limit, tables []*table) {
	for i := range limits {
		if i >= len(tables) || tables[i].index["recipients"] == nil {
			limits[i].Recipients = "outside"
		}
	}
}
