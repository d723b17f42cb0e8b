package incident

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"relayguard/policy"
	"relayguard/policy/origin"
)

// Details are what is known of where an incident's mail comes from: of the mail
// of web sites. Scripts, entries and clients are the site's own word, where its
// stamp says so.
type Details struct {
	Site       string  `json:"site,omitempty"`
	Plugin     string  `json:"plugin,omitempty"`   // of Site; empty: not one alone, or not known
	Template   string  `json:"template,omitempty"` // what the text looks like
	Node       string  `json:"node,omitempty"`     // web node
	Software   string  `json:"software,omitempty"` // what its form looks like
	Plugins    []Count `json:"plugins,omitempty"`
	Entries    []Count `json:"entries,omitempty"` // how the site was called: "ajax", "cron", "page"
	Scripts    []Count `json:"scripts,omitempty"` // file:line
	WebClients []Count `json:"web_clients,omitempty"`
}

// Count is one value, and in how many stops it was seen. Few are remembered: a new
// one takes the place of the rarest, whose number it takes over as well; Over is
// how much of Count may be such.
type Count struct {
	Value string    `json:"value"`
	Count int64     `json:"count"`
	Over  int64     `json:"over,omitempty"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
}

// Bounds of the details.
const (
	maxFew     = 5
	maxClients = 10
	maxScript  = 220
	maxLabel   = 128

	// keepClients is how long an address is remembered that was not seen again: as
	// long as the journal keeps addresses by default.
	keepClients = 30 * 24 * time.Hour

	maxAccounts = 16
)

// Where is where a stopped message came from, as far as that is known.
type Where struct {
	Site, Plugin, Template, Node, Software, Entry, Script, WebClient string
}

// whereOf is what an origin says. A site or a plugin that is only claimed is left
// out: it would lay the blame on another.
func whereOf(o *origin.Origin) Where {
	w := Where{Node: o.Node.Value, Software: o.Call.Software, Entry: o.Call.Entry, Script: o.Call.Script, WebClient: o.Call.WebClient}
	if o.Site.Proven() {
		w.Site = o.Site.Value
	}
	if o.Plugin.Confidence >= origin.Fingerprint {
		w.Plugin = o.Plugin.Value
	}
	if o.Template.Confidence >= origin.Fingerprint {
		w.Template = o.Template.Value
	}
	return w
}

// ofBuckets are the kinds of buckets whose incidents are theirs, not the
// account's: an account may have a thousand sites. The narrowest first.
var ofBuckets = []string{"plugin:", "template:", "site:"}

// originOf is whose trouble a stop is: of the plugin, the template or the site
// that the limit counts, else of the account.
func originOf(account string, buckets []string) string {
	for _, kind := range ofBuckets {
		for _, b := range buckets {
			for part := range strings.SplitSeq(b, " ") {
				if strings.HasPrefix(part, kind) {
					return part
				}
			}
		}
	}
	return account
}

// SiteOf is the site and the plugin that a bucket is of, empty if it is not:
// "plugin:share@shop.example.jp", "site:shop.example.jp".
func SiteOf(bucket string) (site, plugin string) {
	if name, ok := strings.CutPrefix(bucket, "plugin:"); ok {
		if at := strings.LastIndexByte(name, '@'); at >= 0 {
			return name[at+1:], name[:at]
		}
		return "", name
	}
	site, ok := strings.CutPrefix(bucket, "site:")
	if !ok {
		return "", ""
	}
	return site, ""
}

// see takes in where a stop came from.
func (i *Incident) see(now time.Time, w *Where) {
	d := i.Details
	site, plugin := SiteOf(i.Origin)
	if *w == (Where{}) && site == "" && plugin == "" {
		return
	}
	if d == nil {
		d = &Details{Site: site, Plugin: plugin}
		i.Details = d
		if t, ok := strings.CutPrefix(i.Origin, "template:"); ok {
			d.Template = t
		}
	}
	whole := site == "" // of an account or a text: the newest site that is known
	fill(&d.Site, w.Site, whole)
	fill(&d.Node, w.Node, true)
	fill(&d.Software, w.Software, true)
	if !strings.HasPrefix(i.Origin, "template:") {
		fill(&d.Template, w.Template, true)
	}
	now = now.UTC()
	count(&d.Plugins, maxFew, now, bounded(w.Plugin, maxLabel))
	count(&d.Entries, maxFew, now, bounded(w.Entry, maxLabel))
	count(&d.Scripts, maxFew, now, bounded(w.Script, maxScript))
	count(&d.WebClients, maxClients, now, bounded(w.WebClient, maxLabel))
}

func fill(to *string, value string, newest bool) {
	if value = bounded(value, maxName); value != "" && value != *to && (newest || *to == "") {
		*to = strings.Clone(value)
	}
}

// bounded is bound for what goes into JSON.
func bounded(s string, limit int) string {
	if s = bound(s, limit); !utf8.ValidString(s) {
		s = bound(strings.ToValidUTF8(s, string(utf8.RuneError)), limit)
	}
	return s
}

// count counts a value among the most frequent ones (Metwally, Agrawal, El Abbadi:
// space-saving). The list is the incident's own: copies are deep.
func count(list *[]Count, most int, now time.Time, value string) {
	if value == "" {
		return
	}
	all := *list
	for n := range all {
		if all[n].Value == value {
			all[n].Count++
			all[n].Last = now
			return
		}
	}
	c := Count{Value: strings.Clone(value), Count: 1, First: now, Last: now}
	if len(all) < most {
		*list = append(all, c)
		return
	}
	least := 0
	for n := range all {
		if all[n].Count < all[least].Count || all[n].Count == all[least].Count && all[n].Last.Before(all[least].Last) {
			least = n
		}
	}
	c.Over = all[least].Count
	c.Count += c.Over
	all[least] = c
}

// copy is a copy that shares nothing, the most frequent of each list first.
func (d *Details) copy() *Details {
	if d == nil {
		return nil
	}
	c := *d
	for _, list := range []*[]Count{&c.Plugins, &c.Entries, &c.Scripts, &c.WebClients} {
		*list = slices.Clone(*list)
		slices.SortStableFunc(*list, func(a, b Count) int { return int(min(max(b.Count-a.Count, -1), 1)) })
	}
	return &c
}

// loaded bounds what comes from outside.
func (d *Details) loaded() *Details {
	if c := d.copy(); c != nil {
		c.Plugins, c.Entries, c.Scripts = c.Plugins[:min(len(c.Plugins), maxFew)], c.Entries[:min(len(c.Entries), maxFew)], c.Scripts[:min(len(c.Scripts), maxFew)]
		c.WebClients = c.WebClients[:min(len(c.WebClients), maxClients)]
		return c
	}
	return nil
}

// forget drops addresses that were not seen for long, and reports whether there
// were any.
func (d *Details) forget(now time.Time) bool {
	if d == nil {
		return false
	}
	before := len(d.WebClients)
	d.WebClients = slices.DeleteFunc(d.WebClients, func(c Count) bool { return now.Sub(c.Last) >= keepClients })
	return len(d.WebClients) < before
}

// join remembers whose mail it is, and reports whether that is news.
func (i *Incident) join(account string) bool {
	if account == "" || account == i.Account || slices.Contains(i.Others, account) || len(i.Others) >= maxAccounts {
		return false
	}
	if account = strings.Clone(account); i.Account == "" {
		i.Account = account
	} else {
		i.Others = append(slices.Clip(i.Others), account)
	}
	return true
}

// Accounts are all whose mail it is.
func (i *Incident) Accounts() []string {
	if i.Account == "" {
		return []string{i.Origin}
	}
	return append([]string{i.Account}, i.Others...)
}

// Concerns reports whether an incident is about an account, a site, a plugin or a
// template as it is named: "site:shop.example.jp".
func (i *Incident) Concerns(who string) bool {
	if who == "" {
		return false
	}
	if i.Origin == who || i.Account == who || slices.Contains(i.Others, who) || policy.HasPart(i.Origin, who) {
		return true
	}
	if d := i.Details; d != nil && d.Site != "" {
		site, plugin := SiteOf(who)
		if at := strings.Contains(who, "@"); plugin != "" {
			return (site == d.Site || !at) && (plugin == d.Plugin || slices.ContainsFunc(d.Plugins, func(c Count) bool { return c.Value == plugin }))
		}
		return site != "" && site == d.Site
	}
	return false
}
