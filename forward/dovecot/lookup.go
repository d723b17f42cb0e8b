package dovecot

import (
	"slices"
	"strings"
)

// Settings are a configuration's entries, in their order.
type Settings []Entry

// everywhere are the blocks that do not narrow a setting.
func (e Entry) everywhere() bool {
	return len(e.Sections) == 0 || len(e.Sections) == 1 && e.Sections[0] == "plugin"
}

// delivers reports whether an entry may be in force where mail is delivered:
// everywhere, or in a block for lmtp, lda, or some addresses.
func (e Entry) delivers() bool {
	for _, s := range e.Sections {
		name, arg, _ := strings.Cut(s, " ")
		switch name {
		case "plugin", "local", "remote", "local_name":
		case "protocol":
			if !deliveryProtocol(arg) {
				return false
			}
		default:
			return false
		}
	}
	return true
}

func deliveryProtocol(arg string) bool {
	if strings.HasPrefix(arg, "!") {
		return true
	}
	for name := range strings.FieldsFuncSeq(arg, func(r rune) bool { return r == ' ' || r == '|' }) {
		if name == "lmtp" || name == "lda" || name == "sieve" {
			return true
		}
	}
	return false
}

// Get is a setting's value outside of any block but plugin; the last counts.
func (s Settings) Get(key string) string {
	value := ""
	for i := range s {
		if s[i].Key == key && s[i].everywhere() {
			value = s[i].Value
		}
	}
	return value
}

// Last is the entry behind Get; ok is false if there is none.
func (s Settings) Last(key string) (e Entry, ok bool) {
	for i := range s {
		if s[i].Key == key && s[i].everywhere() {
			e, ok = s[i], true
		}
	}
	return e, ok
}

// Delivery are all values that a setting may have where mail is delivered: the
// last one everywhere, and each of a narrower block. Empty ones are left out.
func (s Settings) Delivery(key string) []Entry {
	var out []Entry
	if e, ok := s.Last(key); ok && e.Value != "" {
		out = append(out, e)
	}
	for _, e := range s {
		if e.Key == key && e.Value != "" && !e.everywhere() && e.delivers() {
			out = append(out, e)
		}
	}
	return out
}

// block is one named block and what stands in it.
type block struct {
	kind, name string
	values     map[string]string
	file       string
	line       int
}

// inside reports whether an entry stands in a block of that kind.
func (e Entry) inside(kind string) bool {
	return slices.ContainsFunc(e.Sections, func(s string) bool { return s == kind || strings.HasPrefix(s, kind+" ") })
}

// blocks are those of a kind, wherever they stand; deeper blocks' keys are
// "section/key". A named one that comes twice is one; one without a name is
// another each time.
func (s Settings) blocks(kind string) []block {
	var out []block
	for i := range s {
		at := slices.IndexFunc(s[i].Sections, func(sec string) bool {
			return sec == kind || strings.HasPrefix(sec, kind+" ")
		})
		if at < 0 {
			continue
		}
		name := strings.TrimSpace(strings.TrimPrefix(s[i].Sections[at], kind))
		key := strings.Join(append(slices.Clone(s[i].Sections[at+1:]), s[i].Key), "/")
		b := findBlock(out, name)
		begins := s[i].Key == "" && at == len(s[i].Sections)-1
		if b == nil || name == "" && begins {
			out = append(out, block{kind: kind, name: name, values: map[string]string{}, file: s[i].File, line: s[i].Line})
			b = &out[len(out)-1]
		}
		if s[i].Key != "" {
			b.values[key] = s[i].Value
			b.line = max(b.line, s[i].Line)
		}
	}
	return out
}

func findBlock(all []block, name string) *block {
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].name == name {
			return &all[i]
		}
	}
	return nil
}

// sieveInUse reports whether deliveries run Sieve scripts.
func (s Settings) sieveInUse() bool { return s.plugin("sieve", "lmtp", "lda") }

// plugin reports whether a mail plugin is loaded for any of the protocols.
func (s Settings) plugin(name string, protocols ...string) bool {
	for _, e := range s {
		if !e.forProtocol(protocols) {
			continue
		}
		last := ""
		if len(e.Sections) > 0 {
			last = e.Sections[len(e.Sections)-1]
		}
		switch {
		case e.Key == "mail_plugins" && slices.Contains(strings.FieldsFunc(e.Value, isListGap), name):
			return true
		case last == "mail_plugins" && e.Key == name && isYes(e.Value):
			return true
		}
	}
	return false
}

func isListGap(r rune) bool { return r == ' ' || r == ',' || r == '\t' }

func isYes(v string) bool {
	return strings.EqualFold(v, "yes") || strings.EqualFold(v, "y") || v == "1" || strings.EqualFold(v, "true")
}

func (e Entry) forProtocol(protocols []string) bool {
	for _, s := range e.Sections {
		arg, ok := strings.CutPrefix(s, "protocol ")
		if !ok || strings.HasPrefix(arg, "!") {
			continue
		}
		if !slices.ContainsFunc(protocols, func(p string) bool {
			return slices.Contains(strings.FieldsFunc(arg, func(r rune) bool { return r == ' ' || r == '|' }), p)
		}) {
			return false
		}
	}
	return true
}
