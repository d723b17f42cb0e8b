package wordpress_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"relayguard/systemtest/relay"
)

// label is what the guard's log says of where a mail is from.
type label struct {
	Account string `json:"account"`
	Site    string `json:"site"`
	Plugin  string `json:"plugin"`
	Entry   string `json:"entry"`
	Script  string `json:"script"` // without the line
}

var lineNumber = regexp.MustCompile(`:\d+$`)

// labels are those of so many mails since a mark, each once and in order.
func labels(t *testing.T, r *relay.Relay, mark, mails int) []label {
	t.Helper()
	var all []label
	for _, v := range verdicts(t, r, mark, mails) {
		var l label
		if err := json.Unmarshal([]byte(v.Raw), &l); err != nil {
			t.Fatal(err)
		}
		if l.Script != "" && !lineNumber.MatchString(l.Script) {
			t.Errorf("script %q has no line number", l.Script)
		}
		l.Script = lineNumber.ReplaceAllString(l.Script, "")
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b label) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return slices.Compact(all)
}

// With the must-use plugin the guard knows what each mail is from, in each way
// that it may leave.
func TestMailIsLabelled(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{})
	for i, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			shop := startShop(t, r, i, fmt.Sprintf("shop%d.example.jp", i))
			install(t, shop)
			mark := r.Mark()
			errands := append(shop.everyday(0), shop.friendly(0)...)
			if err := run(t.Context(), errands); err != nil {
				t.Fatal(err)
			}
			if err := shop.work(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			wantErrands(t, r, errands)

			account := fmt.Sprintf("local_user:uid:%d", shop.uid)
			share := label{account, shop.name, "share-by-mail", shop.entry(), "wp-content/plugins/share-by-mail/share-by-mail.php"}
			if !shop.labelled() {
				share = label{Account: account, Site: shop.name}
			}
			want := []label{
				share,
				{account, shop.name, "contact-form", "post", "wp-content/plugins/contact-form/contact-form.php"},
				{account, shop.name, "wordpress", "post", "wp-includes/user.php"},
			}
			got := labels(t, r, mark, len(errands))
			for _, w := range want {
				if !slices.Contains(got, w) {
					t.Errorf("no mail is known as %+v; there are %+v", w, got)
				}
			}
			if len(got) != len(want) {
				t.Errorf("mail of %d origins, want %d: %+v", len(got), len(want), got)
			}
		})
	}
}
