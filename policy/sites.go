package policy

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Unlabelled is the plugin to whose bucket a site's mail without a valid label is
// charged where no plugin of the site is shut.
const Unlabelled = "unlabelled"

const (
	DefaultPlugins     = 40      // names of one site
	DefaultPluginNames = 100_000 // of all sites together, of about 200 octets each

	pluginTerm = 21 * 24 * time.Hour // how long a name is remembered that is not seen
)

// Sites remembers the names of the plugins from which each site has sent mail: so
// that a site cannot open budgets without end, and that mail without a name ends
// with a plugin that is shut. Safe for concurrent use.
type Sites struct {
	perSite int
	most    int

	mu    sync.Mutex
	sites map[string]map[string]*seenPlugin
	names int // of all sites
}

type seenPlugin struct {
	first, last int64 // seconds
	shut        bool  // a bucket of it was when somebody last looked
}

// PluginOf is a plugin from which a site has sent mail.
type PluginOf struct {
	Site, Plugin string
	First, Last  time.Time
}

// NewSites remembers at most so many names of one site, and of all together. 0:
// the default.
func NewSites(perSite, most int) *Sites {
	return &Sites{perSite: cmp.Or(max(perSite, 0), DefaultPlugins), most: cmp.Or(max(most, 0), DefaultPluginNames), sites: map[string]map[string]*seenPlugin{}}
}

// SetMost changes how many names one site may have; 0: the default. Those that are
// remembered stay.
func (s *Sites) SetMost(perSite int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.perSite = cmp.Or(max(perSite, 0), DefaultPlugins)
}

// Admit notes that a site sends mail of a plugin, and reports whether that is one
// of as many as the site may have. Names that were not seen for 21 days make room,
// unless their bucket is shut.
func (s *Sites) Admit(now time.Time, site, plugin string) bool {
	at := now.Unix()
	s.mu.Lock()
	defer s.mu.Unlock()
	plugins := s.sites[site]
	if p := plugins[plugin]; p != nil {
		p.last = max(p.last, at)
		return true
	}
	if plugin != Unlabelled {
		if labels(plugins) >= s.perSite {
			s.age(site, at)
		}
		if labels(s.sites[site]) >= s.perSite {
			return false
		}
	}
	if s.names >= s.most && !s.makeRoom(site) {
		return false
	}
	if s.sites[site] == nil {
		s.sites[site] = map[string]*seenPlugin{}
	}
	s.sites[site][plugin] = &seenPlugin{first: at, last: at}
	s.names++
	return true
}

// admits is Admit that notes nothing: false if a name is surely one too many.
func (s *Sites) admits(now time.Time, site, plugin string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	plugins := s.sites[site]
	if plugins[plugin] != nil || labels(plugins) < s.perSite {
		return true
	}
	for _, p := range plugins {
		if p.old(now.Unix()) {
			return true
		}
	}
	return false
}

// old reports whether a name makes room for another.
func (p *seenPlugin) old(now int64) bool {
	return !p.shut && now-p.last > int64(pluginTerm/time.Second)
}

// labels is how many of them are names.
func labels(plugins map[string]*seenPlugin) int {
	n := len(plugins)
	if plugins[Unlabelled] != nil {
		n--
	}
	return n
}

// age forgets names of a site that are long unseen.
func (s *Sites) age(site string, now int64) {
	for name, p := range s.sites[site] {
		if p.old(now) {
			s.forget(site, name)
		}
	}
}

func (s *Sites) forget(site, plugin string) {
	delete(s.sites[site], plugin)
	s.names--
	if len(s.sites[site]) == 0 {
		delete(s.sites, site)
	}
}

// makeRoom forgets a name of another site: of some the one that was last seen the
// longest ago.
func (s *Sites) makeRoom(but string) bool {
	const looked = 16
	site, plugin, last, n := "", "", int64(0), 0
	for name, plugins := range s.sites { // in the order of chance
		if name == but {
			continue
		}
		for one, p := range plugins {
			if !p.shut && (site == "" || p.last < last) {
				site, plugin, last = name, one, p.last
			}
		}
		if n++; n == looked {
			break
		}
	}
	if site == "" {
		return false
	}
	s.forget(site, plugin)
	return true
}

// Names are those of a site, in order.
func (s *Sites) Names(site string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := make([]string, 0, len(s.sites[site]))
	for name := range s.sites[site] {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// setShut notes whether a bucket of a plugin is shut.
func (s *Sites) setShut(site, plugin string, shut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.sites[site][plugin]; p != nil {
		p.shut = shut
	}
}

// All lists what is remembered, by site and plugin.
func (s *Sites) All() []PluginOf {
	s.mu.Lock()
	all := make([]PluginOf, 0, s.names)
	for site, plugins := range s.sites {
		for name, p := range plugins {
			all = append(all, PluginOf{site, name, time.Unix(p.first, 0).UTC(), time.Unix(p.last, 0).UTC()})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b PluginOf) int {
		return cmp.Or(strings.Compare(a.Site, b.Site), strings.Compare(a.Plugin, b.Plugin))
	})
	return all
}
