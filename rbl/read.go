package rbl

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// file is a file of zones, read.
type file struct {
	*report
	base    *Table
	replace bool
	zones   []Zone
	closed  []Closed
	lines   map[string]int // where zones and closed lists begin
}

// Extend is a table with what a file has, as Load does it with the built-in one; name
// is that of the file, for the error: Problems. The table itself stays as it is.
func (t *Table) Extend(name string, data []byte) (*Table, error) {
	f := &file{report: newReport(name), base: t, lines: map[string]int{}}
	root := f.read(data)
	if root == nil {
		return nil, f.err()
	}
	top := f.section("", "", root)
	f.replace = top.flag("replace")
	for _, s := range top.subs("zone") {
		s.path = "" // its problems name the zone
		f.zone(s)
	}
	for _, s := range top.subs("closed") {
		s.path = ""
		f.closedList(s)
	}
	top.done()
	extended := f.merge()
	if err := f.err(); err != nil {
		return nil, err
	}
	return extended, nil
}

// name reads what a zone or closed list is called, and lets its problems say so.
// A name that may have a key in it is not said.
func (f *file) name(s *section) string {
	text := s.text("name")
	name := canonical(text)
	switch {
	case s.t.values["name"] == nil:
		s.missing("name", "the zone's name")
		return ""
	case text == "":
		return ""
	}
	if parent, secret := f.base.keyInName(name); secret {
		s.wrong(s.line("name"), "name", "a name below that of a zone of "+parent, "the zone's name without a key", "put the key into a file and name that in the configuration: [[zone_key]]")
		return ""
	}
	if !hostname(name) {
		s.wrong(s.line("name"), "name", quote(text), "a domain name of at least two parts, at most 120 octets", "write it without key and without the subject: bl.example.org")
		return ""
	}
	s.zone = name
	if before, twice := f.lines[name]; twice {
		s.wrong(s.line("name"), "name", "it a second time", "it once", "it is also on line "+strconv.Itoa(before)+": delete one of them")
		return ""
	}
	f.lines[name] = s.t.line
	return name
}

// keyInName reports that a name has more labels than a zone that is asked with a key:
// one of them is likely to be the key.
func (t *Table) keyInName(name string) (parent string, secret bool) {
	for _, parent := range t.keyed {
		if before, below := strings.CutSuffix(name, "."+parent); below && strings.Contains(before, ".") {
			return parent, true
		}
	}
	return "", false
}

var label = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)

// hostname reports that a name can be a zone's: with 64 octets of an address and a
// key before it, a name of the DNS has room for 120.
func hostname(name string) bool {
	labels := strings.Split(name, ".")
	_, err := netip.ParseAddr(name)
	return len(name) <= 120 && len(labels) > 1 && err != nil &&
		!slices.ContainsFunc(labels, func(l string) bool { return !label.MatchString(l) })
}

func (f *file) zone(s *section) {
	z := Zone{Name: f.name(s)}
	z.Operator = s.text("operator")
	z.Kinds = s.kinds()
	if z.Class = s.text("class"); z.Class == "" {
		z.Class = "spam"
	}
	if severity := s.severity("severity"); severity != nil {
		z.Severity = *severity
	} else if s.t.values["severity"] == nil {
		s.missing("severity", "one of "+either(severityNames[:]))
	}
	if scope := s.scope("scope"); scope != nil {
		z.Scope = *scope
	} else if len(z.Kinds) == 1 && z.Kinds[0] == Domain {
		z.Scope = ScopeDomain
	}
	z.Welcome, z.Hashed, z.Ranges = s.flag("welcome"), s.flag("hashed"), s.flag("ranges")
	z.Bits = s.flag("bits")
	z.Codes, z.Blocks = s.codes("codes", z.Bits), s.codes("blocks", z.Bits)
	z.Means = s.text("means")
	z.Test = s.test(z.Kinds)
	z.Key, z.Keyed = s.keyOf("key"), canonical(s.text("keyed"))
	z.Default = s.use(z.Key)
	z.Terms = s.terms()
	z.Removal = s.removal(z.Codes)
	z.Status, z.AsOf, z.Source, z.Note = s.evidence()
	s.done()
	if z.Name == "" {
		return
	}
	if parents, may := f.base.mayHave(z.Name, z.Key); !may {
		s.wrong(s.line("key"), "key", quote(z.Key), "a name that no built-in list uses", "that key is sent to zones below "+strings.Join(parents, " or ")+" alone: its operator gave it to you, and whoever else is asked with it learns it")
	}
	f.zones = append(f.zones, z)
}

func (f *file) closedList(s *section) {
	c := Closed{Name: f.name(s), Suffix: s.flag("suffix"), Died: s.text("died"), Message: s.text("message"), Warn: s.flag("warn")}
	if s.t.values["message"] == nil {
		s.missing("message", "why it is not to be asked")
	}
	c.Status, c.AsOf, c.Source, c.Note = s.evidence()
	s.done()
	if c.Name != "" {
		f.closed = append(f.closed, c)
	}
}

// evidence is how well a row is known.
func (s *section) evidence() (status, asOf string, source []string, note string) {
	if status = s.word("status", "verified", "unverified", "disputed", "own"); status == "" {
		status = "own"
	}
	return status, s.text("as_of"), s.texts("source"), s.text("note")
}

func (s *section) kinds() []Kind {
	var kinds []Kind
	words := s.words("kinds", kindNames[:]...)
	for _, word := range words {
		kinds = append(kinds, Kind(slices.Index(kindNames[:], word)))
	}
	if v := s.t.values["kinds"]; v == nil || v.kind == aList && len(v.list) == 0 {
		s.wrong(s.line("kinds"), "kinds", "nothing", "some of "+either(kindNames[:]), "say what the zone can be asked about")
	}
	slices.Sort(kinds)
	return kinds
}

func (s *section) severity(key string) *Severity {
	word := s.word(key, severityNames[:]...)
	if word == "" {
		return nil
	}
	severity := Severity(slices.Index(severityNames[:], word))
	return &severity
}

func (s *section) scope(key string) *Scope {
	word := s.word(key, scopeNames[:]...)
	if word == "" {
		return nil
	}
	scope := Scope(slices.Index(scopeNames[:], word))
	return &scope
}

var keyName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)

// keyOf is the name of whose key a zone is asked with.
func (s *section) keyOf(key string) string {
	text := s.text(key)
	if text != "" && !keyName.MatchString(text) {
		// What stands here may be the key itself.
		s.wrong(s.line(key), key, "what is no name", `a name such as "spamhaus"`, "the key itself belongs into a file that the configuration names: [[zone_key]]")
		return ""
	}
	return text
}

// use is whether a zone is asked; a file names those that are to be.
func (s *section) use(key string) Use {
	word := s.word("default", useNames[:]...)
	switch {
	case word == "key" && key == "" && s.t.values["key"] == nil:
		s.wrong(s.line("default"), "default", `"key"`, "a key to wait for", "say whose: key")
	case word != "":
		return Use(slices.Index(useNames[:], word))
	case key != "":
		return WithKey
	}
	return On
}

func (s *section) terms() Terms {
	sub := s.sub("terms")
	t := Terms{
		NonCommercial: sub.flag("non_commercial"), Register: sub.flag("register"), Account: sub.flag("account"),
		URL: sub.link("url"), PerDay: sub.count("per_day"), PerSecond: sub.rate("per_second"),
	}
	sub.done()
	return t
}

// ways are how a listing can end: Removal.How.
var ways = []string{"expires", "form", "email", "isp", "register", "fix", "none"}

func (s *section) removal(codes []Code) Removal {
	sub := s.sub("removal")
	r := Removal{
		URL: sub.link("url"), Expires: sub.duration("expires"), First: sub.text("first"),
		How:  sub.words("how", ways...),
		Paid: sub.word("paid", "optional", "required"),
	}
	if r.First != "" {
		addr, err := netip.ParseAddr(r.First)
		if err != nil || !addr.Is4() || !slices.ContainsFunc(codes, func(c Code) bool { return c.matches(addr) }) {
			sub.wrong(sub.line("first"), "first", quote(r.First), "an answer of codes", "")
			r.First = ""
		}
	}
	sub.done()
	return r
}
