package aliases

import (
	"context"
	"path"
	"slices"
	"strings"

	"relayguard/forward"
)

// HomesOptions are what local(8) does with .forward files.
type HomesOptions struct {
	ForwardPath string // as postconf prints it; empty: there are none
	Delimiters  string // recipient_delimiter
	Filter      string // forward_expansion_filter; empty: ExpansionFilter
	// Domains are those of mydestination, for a forward_path with $domain or
	// $recipient.
	Domains []string
	// Instance names a further Postfix instance in the units' IDs; empty for
	// the first.
	Instance string
	// Prefix is of the units' IDs; empty: "forward".
	Prefix string
	Settings
}

// Homes are the units of all accounts' .forward files, one an account: its
// Owner and Writer are the account. Nothing is read before a unit's Read.
//
// Paths name the files that exist or may; one that ends with "*" stands for
// all that begin so (extensions).
func Homes(h *forward.Host, o HomesOptions) []forward.Unit {
	patterns := strings.FieldsFunc(o.ForwardPath, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) })
	if len(patterns) == 0 {
		return nil
	}
	if o.Filter == "" {
		o.Filter = ExpansionFilter
	}
	units := make([]forward.Unit, 0, len(h.Accounts))
	have := make(map[string]bool, len(h.Accounts))
	for _, account := range h.Accounts {
		if have[account.Name] || account.Name == "" {
			continue // the first of a name counts, as for getpwnam(3)
		}
		have[account.Name] = true
		home := &home{host: h, options: &o, patterns: patterns, account: account}
		home.account.Groups = nil // local(8) takes on none
		units = append(units, home.unit())
	}
	return units
}

// home is one account's .forward files.
type home struct {
	host     *forward.Host
	options  *HomesOptions
	patterns []string
	account  forward.Account
}

func (m *home) unit() forward.Unit {
	prefix := m.options.Prefix
	if prefix == "" {
		prefix = "forward"
	}
	if m.options.Instance != "" {
		prefix += " " + m.options.Instance
	}
	u := forward.Unit{ID: prefix + " " + m.account.Name, Writer: m.account.UID, Owner: m.account.Name, Read: m.read}
	for _, domain := range m.domains() {
		for _, candidate := range m.candidates(recipient{domain: domain}) {
			u.Paths = append(u.Paths, candidate.path)
		}
		for _, search := range m.searches(domain) {
			u.Paths = append(u.Paths, path.Join(search.dir, search.before)+"*")
		}
	}
	slices.Sort(u.Paths)
	u.Paths = slices.Compact(u.Paths)
	return u
}

// domains are those that the path depends on: one that says nothing, if it
// depends on none.
func (m *home) domains() []string {
	if m.byDomain() && len(m.options.Domains) > 0 {
		return m.options.Domains
	}
	return []string{""}
}

// byDomain tells whether forward_path asks for the domain of the address.
func (m *home) byDomain() bool {
	for _, pattern := range m.patterns {
		values := m.values(recipient{extended: true, extension: "x", delimiter: "+"})
		_, defined, err := expandPath(pattern, values, m.options.Filter)
		if err == nil && !defined && (strings.Contains(pattern, "domain") || strings.Contains(pattern, "recipient")) {
			return true
		}
	}
	return false
}

// recipient is whom mail is for.
type recipient struct {
	domain    string
	delimiter string // the one in the address
	extension string
	extended  bool // there is an extension, which may be empty
}

// owner is how rules name him.
func (m *home) owner(r recipient) string {
	name := m.account.Name
	if r.extended {
		name += r.delimiter + r.extension
	}
	if r.domain != "" {
		name += "@" + r.domain
	}
	return name
}

func (m *home) values(r recipient) mapping {
	user := m.account.Name
	local := user
	values := mapping{"user": user, "home": m.account.Home, "shell": m.account.Shell}
	if delimiters := m.options.Delimiters; delimiters != "" {
		values["recipient_delimiter"] = delimiters[:1]
	}
	if r.extended {
		values["extension"], values["recipient_delimiter"] = r.extension, r.delimiter
		local += r.delimiter + r.extension
	}
	values["local"] = local
	if r.domain != "" {
		values["domain"], values["recipient"] = r.domain, local+"@"+r.domain
	}
	return values
}

// candidate is one path that local(8) looks for.
type candidate struct {
	path     string
	extended bool // its name has the extension
}

// candidates are the paths that local(8) looks for, in its order. What cannot
// be read of forward_path is left out; read tells of it.
func (m *home) candidates(r recipient) []candidate {
	var found []candidate
	plain := m.values(recipient{domain: r.domain})
	for _, pattern := range m.patterns {
		expanded, defined, err := expandPath(pattern, m.values(r), m.options.Filter)
		if err != nil || !defined || !strings.HasPrefix(expanded, "/") || strings.ContainsRune(expanded, 0) {
			continue
		}
		without, alike, _ := expandPath(pattern, plain, m.options.Filter)
		found = append(found, candidate{path.Clean(expanded), r.extended && (!alike || without != expanded)})
	}
	return found
}

// search is where names of extensions are looked for: in dir, with before and
// after around them, and below below.
type search struct {
	dir, before, after string
	delimiter          string
}

// searches are the directories whose names tell which extensions there are.
func (m *home) searches(domain string) []search {
	var found []search
	for _, delimiter := range m.options.Delimiters {
		r := recipient{domain: domain, delimiter: string(delimiter), extension: marker, extended: true}
		for _, pattern := range m.patterns {
			expanded, defined, err := expandPath(pattern, m.values(r), m.options.Filter)
			at := strings.Index(expanded, marker)
			if err != nil || !defined || at < 0 || !strings.HasPrefix(expanded, "/") {
				continue
			}
			slash := strings.LastIndexByte(expanded[:at], '/')
			after, _, _ := strings.Cut(expanded[at+1:], "/")
			if strings.Contains(after, marker) {
				after = "" // whatever follows: the candidates tell
			}
			found = append(found, search{
				dir: path.Clean(expanded[:slash+1]), before: expanded[slash+1 : at], after: after, delimiter: r.delimiter,
			})
		}
	}
	return found
}

// MaxExtensions bounds the .forward+extension files of one account.
const MaxExtensions = 1000

func (m *home) read(ctx context.Context) forward.Reading {
	var reading forward.Reading
	for _, pattern := range m.patterns {
		if _, _, err := expandPath(pattern, m.values(recipient{}), m.options.Filter); err != nil {
			reading.Gaps = append(reading.Gaps, forward.Gap{Source: "forward_path", Why: err.Error()})
		}
	}
	if m.byDomain() && len(m.options.Domains) == 0 {
		reading.Gaps = append(reading.Gaps, forward.Gap{Source: "forward_path", Why: "it asks for the domain, and no domains are known"})
	}
	for _, domain := range m.domains() {
		m.readFor(ctx, &reading, recipient{domain: domain})
		extensions := m.extensions(ctx, &reading, domain)
		if len(extensions) > MaxExtensions {
			reading.Gaps = append(reading.Gaps, forward.Gap{Source: m.account.Home,
				Why: "more than 1000 .forward files with extensions; the rest is not read"})
			extensions = extensions[:MaxExtensions]
		}
		for _, r := range extensions {
			m.readFor(ctx, &reading, r)
		}
	}
	return reading
}

// extensions are those that files are there for.
func (m *home) extensions(ctx context.Context, reading *forward.Reading, domain string) []recipient {
	var found []recipient
	lists := map[string][]forward.Info{}
	for _, s := range m.searches(domain) {
		list, have := lists[s.dir]
		if !have {
			var err error
			if list, err = m.host.Files.ReadDir(ctx, s.dir, forward.ReadOptions{}); err != nil && !absent(err) {
				reading.Gaps = append(reading.Gaps, forward.Gap{Source: s.dir, Why: err.Error()})
			}
			lists[s.dir] = list
		}
		for _, info := range list {
			extension, ok := strings.CutPrefix(info.Name, s.before)
			if !ok || !strings.HasSuffix(extension, s.after) {
				continue
			}
			extension = strings.TrimSuffix(extension, s.after)
			r := recipient{domain: domain, delimiter: s.delimiter, extension: extension, extended: true}
			if !slices.Contains(found[max(0, len(found)-8):], r) {
				found = append(found, r)
			}
		}
	}
	slices.SortFunc(found, func(a, b recipient) int {
		return strings.Compare(a.delimiter+a.extension, b.delimiter+b.extension)
	})
	return slices.Compact(found)
}
