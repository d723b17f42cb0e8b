package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"relayguard/policy/address"
	"relayguard/rbl"
)

// RBL is how the own addresses and domains are checked on DNS blocklists.
type RBL struct {
	Watch      bool
	Every      time.Duration // between two rounds
	Confirm    time.Duration // between a new result and the second look at it
	Resolvers  []string      // host:port, numeric; nil: the machine's own
	Timeout    time.Duration // of one question
	Addresses  []string      // numeric, in their short form
	FromMTA    bool
	Domains    []string // lower case, A-labels
	Use        string   // UseCommercial or UseNonCommercial
	ZonesFile  string   // absolute; "": none
	Enable     []string // zones, lower case
	Disable    []string
	Neighbours bool
	Alert      rbl.Severity
	Tighten    string // TightenOff, TightenObserve or TightenOn
}

// What RBL.Use may be.
const (
	UseCommercial    = "commercial"
	UseNonCommercial = "noncommercial"
)

// What RBL.Tighten may be.
const (
	TightenOff     = "off"
	TightenObserve = "observe"
	TightenOn      = "on"
)

// ZoneKey is the key with which an operator's blocklists are asked.
type ZoneKey struct {
	Operator string // "spamhaus": what the table of zones has as key
	File     string // absolute
}

// Report is the daily report.
type Report struct {
	At        string // "06:30"; "": serve makes none
	Language  string // "en", "ja"
	Directory string // absolute; "": see ReportDirectory
	Keep      time.Duration
	To        []string // addresses; nil: it is not mailed
	From      string   // address; "": postmaster of the MTA's own domain
}

func defaultRBL() RBL {
	return RBL{
		Watch: true, Every: 6 * time.Hour, Confirm: 10 * time.Minute, Timeout: 5 * time.Second, FromMTA: true,
		Use: UseCommercial, Neighbours: true, Alert: rbl.Medium, Tighten: TightenObserve,
	}
}

func defaultReport() Report {
	return Report{At: "06:30", Language: "en", Keep: 400 * day}
}

// RBLDirectory is where the history of listings is.
func (c *Config) RBLDirectory() string {
	return filepath.Join(filepath.Dir(c.Journal.Directory), "blocklists")
}

// ReportDirectory is where the daily reports are.
func (c *Config) ReportDirectory() string {
	if c.Report.Directory != "" {
		return c.Report.Directory
	}
	return filepath.Join(filepath.Dir(c.Journal.Directory), "reports")
}

var rblFields = []field[Config]{
	key("watch", boolean(), func(c *Config) *bool { return &c.RBL.Watch },
		`Whether the daemon checks on schedule. "relayguard rbl check" checks in any case.`),
	key("every", duration(15*time.Minute, 7*day), func(c *Config) *time.Duration { return &c.RBL.Every },
		`How often everything is asked, give or take a tenth. Lists have terms of use: the default asks each of them a few times a day.`),
	key("confirm", duration(time.Minute, 6*time.Hour), func(c *Config) *time.Duration { return &c.RBL.Confirm },
		`How long after a listing, or its end, was seen it is looked at again, through another resolver if there is one. Nobody is told before.`),
	key("resolvers", list(nameServer(), true), func(c *Config) *[]string { return &c.RBL.Resolvers },
		`The recursive name servers that are asked, in this order: address:port. Without it those of this machine (/etc/resolv.conf), but none that is known as a public one: lists refuse to answer those, or answer wrongly. Best is one of your own, such as unbound at 127.0.0.1:53.`),
	key("timeout", duration(100*time.Millisecond, 30*time.Second), func(c *Config) *time.Duration { return &c.RBL.Timeout },
		`How long one question may take.`),
	key("addresses", list(publicAddress(), true), func(c *Config) *[]string { return &c.RBL.Addresses },
		`The addresses from which receivers see this server's mail, if it cannot see them itself: behind NAT, or with a relay host. They replace those that are found.`),
	key("from_mta", boolean(), func(c *Config) *bool { return &c.RBL.FromMTA },
		`Find the addresses that really send in the MTA's settings.`),
	key("domains", list(domain(), true), func(c *Config) *[]string { return &c.RBL.Domains },
		`Sending domains to check beside the inside ones.`),
	key("use", words(UseCommercial, UseNonCommercial), func(c *Config) *string { return &c.RBL.Use },
		`Whether this server works for a business. Some lists are free for others only: with "commercial" they are asked with a key, see [[zone_key]], or not at all.`),
	key("zones_file", optional(absolutePath("a file")), func(c *Config) *string { return &c.RBL.ZonesFile },
		`A file of further lists, or of others in place of those that are built in; docs/blocklists.md shows its form.`),
	key("enable", list(zoneName(), true), func(c *Config) *[]string { return &c.RBL.Enable },
		`Lists to ask that are not asked by themselves: "relayguard rbl zones --all" shows them.`),
	key("disable", list(zoneName(), true), func(c *Config) *[]string { return &c.RBL.Disable },
		`Lists not to ask.`),
	key("neighbours", boolean(), func(c *Config) *bool { return &c.RBL.Neighbours },
		`Whether lists of ranges are asked once a week about the addresses beside ours (IPv4: the /24). It is reported apart and never alerts.`),
	key("alert", choice(rbl.Low, rbl.Medium, rbl.High, rbl.Critical), func(c *Config) *rbl.Severity { return &c.RBL.Alert },
		`From which severity on a listing of one of our addresses or domains is told at once. The others are in the daily report, as are listings of whole ranges and networks.`),
	key("tighten", words(TightenOff, TightenObserve, TightenOn), func(c *Config) *string { return &c.RBL.Tighten },
		`What becomes of the limits of whom a listing is most likely due to: "on" halves them for 7 days, as after a resume; "observe" only reports whose it would halve.`),
}

var zoneKeys = section[ZoneKey]{"zone_key", `The key with which lists of one operator are asked (Spamhaus DQS, Abusix); one section for each. Keys are secrets: they are in files of their own, and are shown nowhere.`, zero[ZoneKey], sampleZoneKeys, []field[ZoneKey]{
	required(key("operator", label("operator"), func(k *ZoneKey) *string { return &k.Operator },
		`Whose lists: "spamhaus", "abusix", or what a list of rbl.zones_file names as its key.`)),
	required(key("file", unshown(absolutePath("a file")), func(k *ZoneKey) *string { return &k.File },
		`The file with the key, on the first line. Only the daemon's account and root should be able to read it.`)),
}}

func sampleZoneKeys() []ZoneKey {
	return []ZoneKey{{Operator: "spamhaus", File: "/etc/relayguard/spamhaus.key"}}
}

var reportFields = []field[Config]{
	key("at", optional(clock()), func(c *Config) *string { return &c.Report.At },
		`When the daemon makes the report of the day before, by the server's clock. Empty: it makes none by itself; "relayguard report" does in any case, and "relayguard report --mail", by a timer, makes the daily one.`),
	key("language", words("en", "ja"), func(c *Config) *string { return &c.Report.Language },
		`English or Japanese.`),
	key("directory", optional(absolutePath("a directory")), func(c *Config) *string { return &c.Report.Directory },
		`Where the reports are kept, as text, HTML and JSON: a directory of the daemon's own. Empty: "reports" beside journal.directory.`),
	key("keep", duration(day, 10*365*day), func(c *Config) *time.Duration { return &c.Report.Keep },
		`How long they are kept.`),
	key("to", list(mailbox(), true), func(c *Config) *[]string { return &c.Report.To },
		`Who gets it by mail, handed in at mta.smtp. None: nobody.`),
	key("from", optional(mailbox()), func(c *Config) *string { return &c.Report.From },
		`Its author. Empty: postmaster of the MTA's own domain.`),
}

// unshown is a kind whose value no message shows: a secret may stand in its place.
func unshown(k kind[string]) kind[string] {
	read := k.read
	k.read = func(v *value) (string, []fault) {
		s, faults := read(v)
		for i := range faults {
			faults[i].found = "something else"
		}
		return s, faults
	}
	return k
}

// nameServer is a recursive name server.
func nameServer() kind[string] {
	return text("address:port", "address:port of a name server", func(s string) string {
		a, err := netip.ParseAddrPort(s)
		if err != nil || a.Port() == 0 || a.Addr().IsUnspecified() || a.Addr().IsMulticast() {
			return `write it as "127.0.0.1:53" or "[::1]:53"`
		}
		return fine
	})
}

// publicAddress is one that the Internet can see: see rbl.Public.
func publicAddress() kind[string] {
	k := kind[string]{name: "address", wanted: "an address that the Internet can see", show: showString}
	return one(k, aString, func(s string) (string, string, bool) {
		a, err := netip.ParseAddr(s)
		switch {
		case err != nil || a.Zone() != "":
			return "", "write one address, without port and prefix length", false
		case !rbl.Public(a):
			return "", "write the address that receivers see, not one behind NAT or of a network that is not routed", false
		}
		return a.Unmap().String(), fine, true
	})
}

// zoneName is a blocklist by its name. One that is closed is refused with the reason.
func zoneName() kind[string] {
	k := kind[string]{name: "zone", wanted: "the name of a list", show: showString}
	return one(k, aString, func(s string) (string, string, bool) {
		name := strings.ToLower(strings.TrimSuffix(s, "."))
		if address.Domain(name) != name || !strings.Contains(name, ".") || unprintable(name) {
			return "", `write its name alone, such as "bl.spamcop.net"`, false
		}
		if closed, is := rbl.Builtin().IsClosed(name); is && !closed.Warn {
			return "", closed.Message, false
		}
		return name, fine, true
	})
}

// clock is a time of the day.
func clock() kind[string] {
	return text("time of the day", `a time of the day, such as "06:30"`, func(s string) string {
		if t, err := time.Parse("15:04", s); err != nil || t.Format("15:04") != s {
			return `write hours and minutes: "06:30"`
		}
		return fine
	})
}

// mailbox is one address.
func mailbox() kind[string] {
	return text("address", "an address: user@domain", func(s string) string {
		a, ok := address.Parse(s)
		if !ok || a.Local == "" || a.Domain == "" || unprintable(s) || strings.ContainsAny(s, " <>,;\"") {
			return "write one address, without a name and brackets"
		}
		return fine
	})
}

// checkZoneKeys: one key for each operator.
func (r *report) checkZoneKeys(all []ZoneKey, tables []*table) {
	r.distinct(tables, "operator", func(i int) string { return all[i].Operator })
}

// checkRBL: what is given for nothing is a mistake.
func (r *report) checkRBL(c *Config, t *table) {
	for _, on := range c.RBL.Enable {
		for _, off := range c.RBL.Disable {
			if on == off && t.sure("enable", "disable") {
				r.add(t.place("disable"), "rbl.disable", quote(off), "a list that rbl.enable has not", fmt.Sprintf("take %s out of one of them", on))
			}
		}
	}
}
