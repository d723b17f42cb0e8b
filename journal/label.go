package journal

import (
	"slices"
	"strings"

	"relayguard/policy/origin"
)

// label is what totals by site and plugin count under.
type label struct{ site, plugin, pluginBy string }

// How surely a site or a plugin has to be known to be counted: a sender must not
// be able to count for another's site. Of a plugin its form will do, for a list of
// sites that seem to use it.
var (
	provenBy     = []string{origin.Address.String(), origin.Signed.String(), origin.Wrapper.String(), origin.Kernel.String()}
	recognisedBy = append([]string{origin.Fingerprint.String()}, provenBy...)
)

func labelOf(d *Decision) (l label) {
	if d.Site != "" && slices.Contains(provenBy, d.SiteBy) {
		l.site = d.Site
	}
	if d.Plugin != "" && slices.Contains(recognisedBy, d.PluginBy) {
		l.plugin, l.pluginBy = d.Plugin, d.PluginBy
	}
	return l
}

// The same in SQL, of a row of decision.
var (
	countedSite   = "iif(site_by IN (" + quoted(provenBy) + "), site, '')"
	countedPlugin = "iif(plugin_by IN (" + quoted(recognisedBy) + "), plugin, '')"
)

func quoted(names []string) string { return "'" + strings.Join(names, "','") + "'" }
