package config

import (
	"net/netip"
	"slices"
	"strings"

	"relayguard/policy/origin"
)

// Key documents one key, for the manual page and for commands that explain.
type Key struct {
	Name     string `json:"name"` // dotted: "milter.idle_timeout"
	Type     string `json:"type"`
	Default  string `json:"default"` // as the file would write it; empty for a table and where Required
	Doc      string `json:"doc"`
	Required bool   `json:"required"` // in each of its sections
}

// Section documents one section with its keys, in the order of the file. The
// first is the head of the file and has no name.
type Section struct {
	Name  string `json:"name"`
	Array bool   `json:"array"` // written [[name]], any number of times
	Doc   string `json:"doc"`
	Keys  []Key  `json:"keys"`
}

// Sections documents the whole file.
func Sections() []Section {
	all := describe(head)
	for _, s := range sections {
		all = append(all, describe(s)...)
	}
	return slices.Concat(all, describe(listeners), describe(limits), describe(overrides), describe(networks), describe(customers), describe(nodes), describe(databases), describe(zoneKeys), describe(certificates))
}

// Keys documents every key.
func Keys() []Key {
	var all []Key
	for _, s := range Sections() {
		all = append(all, s.Keys...)
	}
	return all
}

// describe documents a section, and the sections below it.
func describe[S any](s section[S]) []Section {
	all := []Section{{Name: s.name, Array: s.sample != nil, Doc: s.doc}}
	for _, f := range s.fields {
		if f.sub != nil {
			all = append(all, describe(s.under(f))...)
			continue
		}
		all[0].Keys = append(all[0].Keys, Key{join(s.name, f.name), f.typ, s.byDefault(f), f.doc, f.required})
	}
	return all
}

const preface = `relayguard.toml - what relayguard guards, and how

Each key stands here at its default, behind a "#" without a space: take that away to change it. A section that is missing means its defaults. Zero never means off: delete a key to get its default back. "relayguard check" names every mistake; relayguard.toml(5) says more.`

// Example is a configuration file with every key, commented out at its default
// (or a sample, where it has none), and its documentation. Prose follows "# ",
// a key "#": without these the file is valid, too.
func Example() string {
	var b strings.Builder
	comment(&b, preface)
	b.WriteString("\n")
	def := Default()
	exampleKeys(&b, head, def)
	for _, s := range sections {
		comment(&b, s.doc)
		b.WriteString("[" + s.name + "]\n\n")
		exampleKeys(&b, s, def)
	}
	exampleAll(&b, listeners)
	exampleAll(&b, limits)
	exampleAll(&b, overrides)
	exampleAll(&b, networks)
	exampleAll(&b, customers)
	exampleAll(&b, nodes)
	exampleAll(&b, databases)
	exampleAll(&b, zoneKeys)
	exampleAll(&b, certificates)
	return strings.TrimRight(b.String(), "\n") + "\n"
}

func exampleKeys[S any](b *strings.Builder, s section[S], of *S) {
	for _, f := range s.fields {
		comment(b, f.doc)
		if f.sub != nil {
			b.WriteString("#[" + join(s.name, f.name) + "]\n\n")
			exampleKeys(b, s.under(f), of)
			continue
		}
		if f.free {
			b.WriteString("[" + join(s.name, f.name) + "]\n")
			b.WriteString("#" + strings.ReplaceAll(showLogins(sampleLogins()), "\n", "\n#") + "\n\n")
			continue
		}
		b.WriteString("#" + f.name + " = " + f.show(of) + "\n\n")
	}
}

// exampleAll writes sections that come in numbers: the first with its
// documentation, the others with what they must say and what is not as usual.
func exampleAll[S any](b *strings.Builder, s section[S]) {
	comment(b, s.doc)
	usual := s.blank()
	for i, sample := range s.sample() {
		b.WriteString("#[[" + s.name + "]]\n\n")
		if i == 0 {
			exampleKeys(b, s, &sample)
			continue
		}
		b.WriteString("#" + strings.ReplaceAll(unusual(s, &sample, usual), "\n", "\n#") + "\n\n")
	}
}

// unusual are the lines of a section that are required or not as usual.
func unusual[S any](s section[S], of, usual *S) string {
	var lines []string
	for _, f := range s.fields {
		switch {
		case f.sub != nil:
			if below := unusual(s.under(f), of, usual); below != "" {
				lines = append(lines, "", "["+join(s.name, f.name)+"]", below)
			}
		case f.required || f.show(of) != f.show(usual):
			lines = append(lines, f.name+" = "+f.show(of))
		}
	}
	return strings.Join(lines, "\n")
}

// LimitsTOML writes limits as the configuration has them: what they must say,
// and what is not as usual. Recipients that are "all" are left to inside.free.
func LimitsTOML(all []Limit) string {
	var b strings.Builder
	for i := range all {
		if i > 0 {
			b.WriteString("\n")
		}
		b.WriteString("[[limit]]\n" + unusual(limits, &all[i], newLimit()) + "\n")
	}
	return b.String()
}

// comment writes prose, wrapped at 78 columns.
func comment(b *strings.Builder, text string) {
	for i, paragraph := range strings.Split(text, "\n\n") {
		if i > 0 {
			b.WriteString("#\n")
		}
		line := "#"
		for _, word := range strings.Fields(paragraph) {
			if len(line)+1+len(word) > 78 {
				b.WriteString(line + "\n")
				line = "#"
			}
			line += " " + word
		}
		b.WriteString(line + "\n")
	}
}

func sampleNetworks() []origin.Network {
	return []origin.Network{{
		Name:     "web-1",
		Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/28"), netip.MustParsePrefix("2001:db8::7/128")},
		Reason:   "the shop's web servers, which have no login",
		Owner:    "web team, ext. 4711",
	}}
}

func sampleCertificates() []origin.Certificate {
	return []origin.Certificate{{Subject: "printer-3.example.jp", Login: "printer-3@example.jp"}}
}

func sampleLogins() map[string][]string {
	return map[string][]string{"taro@example.jp": {"info@example.jp", "@example.org"}}
}
