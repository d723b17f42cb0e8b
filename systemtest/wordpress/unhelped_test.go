package wordpress_test

import (
	"fmt"
	"testing"

	"relayguard/systemtest/relay"
)

// All sites run as www-data and nobody installed anything: the template of the
// attacked site's mail is stopped, other mail flows.
func TestNothingInstalled(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{})
	var all []*site
	for i := range 4 {
		all = append(all, startSite(t, r, siteOptions{name: fmt.Sprintf("site%d.example.jp", i), uid: wwwData, title: titles[i]}))
	}
	wantStopped(t, all[0], 100, func(round int) []errand {
		var errands []errand
		for _, s := range all {
			errands = append(errands, s.everyday(round)...)
		}
		for _, s := range all[1:] {
			errands = append(errands, s.friendly(round)...)
		}
		return errands
	})
}

// titles are of posts of sites that have nothing to do with each other.
var titles = []string{"Autumn tea harvest: what we learnt this year", "秋の新茶まつりのお知らせ", "Ten walks around the lake", "How to sharpen a kitchen knife"}
