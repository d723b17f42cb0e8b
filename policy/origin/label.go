package origin

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// OwnSoftware is the Plugin of mail that the site's own software sent.
const OwnSoftware = "wordpress"

// longestLabel bounds the octets of a label: a host name has 253 (RFC 1035
// §2.3.4), and names of plugins are far shorter.
const longestLabel = 255

// attribute fills in what attribution found.
func (o *Origin) attribute(e *Evidence) {
	site := strings.ReplaceAll(strings.TrimSuffix(e.Site, "."), "@", "_") // buckets are for plugin@site
	o.Site = label(strings.ToLower(site), e.SiteConfidence)
	plugin := strings.ToLower(e.Plugin)
	if plugin == "" && e.PluginConfidence != Unknown {
		plugin = OwnSoftware
	}
	o.Plugin = label(plugin, e.PluginConfidence)
	o.Template = label(e.Template, e.TemplateConfidence)
}

// label is a name that a site may have chosen, of bounded length and without
// blanks, control characters and what cannot be seen. It is cut and cleaned, not
// refused: a bad name is no way out of the limits on names.
func label(s string, c Confidence) Key {
	if s == "" {
		return Key{}
	}
	if strings.ContainsFunc(s, unseen) || !utf8.ValidString(s) {
		s = strings.Map(func(r rune) rune {
			if unseen(r) {
				return '_'
			}
			return r
		}, strings.ToValidUTF8(s, "_"))
	}
	if len(s) > longestLabel {
		end := longestLabel
		for !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end]
	}
	return Key{s, max(c, Claimed)}
}

func unseen(r rune) bool { return r == ' ' || !unicode.IsPrint(r) }
