package wordpress_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"relayguard/systemtest/relay"
)

// own is how many mails a site without a history may send in ten minutes, by the
// limits that are shipped: site-volume's burst.
const own = 150

// Somebody has taken a site over, with its key: whatever its mail pretends to
// be, the site's own budget is the end of it, and mail without a good stamp gets
// no more than a plugin.
func TestSiteLies(t *testing.T) {
	need(t)
	for _, lie := range []struct {
		how           string // as testdata/liar.php has it
		mails, atMost int
	}{
		{"core", posts() / 2, 30},
		{"few", posts(), own},
		{"many", posts(), own},
		{"nothing", posts() / 2, 30},
		{"copy", posts() / 2, 30},
		{"broken", posts() / 2, 30},
	} {
		t.Run(lie.how, func(t *testing.T) {
			t.Parallel()
			r := startRelay(t, relay.Options{})
			shop, neighbour := startSite(t, r, siteOptions{name: "shop.example.jp"}), startSite(t, r, siteOptions{name: "neighbour.example.jp"})
			install(t, shop)
			install(t, neighbour)

			to := addresses(strangers("victim", lie.mails))
			list := filepath.Join(filepath.Dir(shop.root), "victims")
			if err := os.WriteFile(list, []byte(strings.Join(to, "\n")+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			said, err := shop.run(t.Context(), script("liar.php"), shop.root, lie.how, list)
			if err != nil {
				t.Fatal(err)
			}
			refused := strings.Count(said, "refused ")
			f := settle(t, r, to, len(to)-refused)
			t.Logf("%d mails: %d left, %d are held, %d were refused", len(to), f.left, f.held, refused)
			if f.left > lie.atMost || f.left == 0 {
				t.Errorf("%d of %d mails left the house, want some, at most %d", f.left, len(to), lie.atMost)
			}

			var errands []errand
			for round := range rounds {
				errands = append(append(errands, neighbour.everyday(round)...), neighbour.friendly(round)...)
			}
			if err := run(t.Context(), errands); err != nil {
				t.Fatal(err)
			}
			wantErrands(t, r, errands)
		})
	}
}

// thief is the account of another tenant.
const thief = 61999

// Another tenant of the server has got hold of a stamped mail of a site, and
// writes whatever headers it likes. All its mail counts as its own, and the site
// can send as before.
func TestAnotherTenantForges(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{})
	shop := startSite(t, r, siteOptions{name: "shop.example.jp"})
	install(t, shop)
	stolen := shop.capture(t, "friend@example.net")
	stamp := field(stolen, "X-Relayguard-Origin")
	if stamp == "" {
		t.Fatalf("the site's mail has no stamp:\n%s", stolen)
	}
	victims := addresses(strangers("victim", 60))
	next := 0
	victim := func() string { next++; return victims[next-1] }
	var sent []string
	mark := r.Mark()
	hand := func(message, to string) {
		t.Helper()
		// The recipient of the stolen mail is among its signed ones; -t is not given.
		result, err := r.Sendmail(soon(t), thief, []string{"-i", "-f", "thief@thief.example.jp", to}, strings.NewReader(message))
		if err != nil || result.ExitCode != 0 {
			t.Fatalf("sendmail: %+v, %v", result, err)
		}
		sent = append(sent, to)
	}
	hand(string(stolen), "friend@example.net")
	for range 10 {
		hand(string(stolen), victim())
		for _, forged := range []string{
			stamp,
			fmt.Sprintf("X-Relayguard-Uid: %d\n", shop.uid),
			fmt.Sprintf("Received: by relay.example.jp (Postfix, from userid %d)\n\tid X; date\n", shop.uid),
			"X-Relayguard-Call: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n",
			"X-Relayguard-Node: v1 n=web1 t=1 x=2 q=X u=" + fmt.Sprint(shop.uid) + " a= h= p=- e=other f= c=- l= w= b=0 r=* m=AAAA\n",
		} {
			to := victim()
			hand(forged+"From: thief@thief.example.jp\nTo: "+to+"\nSubject: "+fmt.Sprintf("Greetings number %d", next)+"\n\nHello\n", to)
		}
	}
	settle(t, r, sent, len(sent))
	for _, v := range verdicts(t, r, mark, len(sent)) {
		if v.Account != fmt.Sprintf("local_user:uid:%d", thief) || v.Confidence != "kernel" || labelled.MatchString(v.Raw) {
			t.Errorf("mail of another tenant counts as the site's: %s", v.Raw)
		}
	}

	var errands []errand
	for round := range rounds {
		errands = append(append(errands, shop.everyday(round)...), shop.friendly(round)...)
	}
	if err := run(t.Context(), errands); err != nil {
		t.Fatal(err)
	}
	wantErrands(t, r, errands)
}

// labelled is a line of the guard's log that names a site or a plugin.
var labelled = regexp.MustCompile(`"(site|plugin)":"[^"]`)

// capture returns a mail of the share plugin as the site hands it to sendmail(1).
func (s *site) capture(t *testing.T, to string) []byte {
	t.Helper()
	file := filepath.Join(s.root, "captured")
	_, err := s.run(soon(t), "-d", "sendmail_path=sh -c 'cat >"+file+"' --", script("share.php"), s.root, to, s.name)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// field is a header field of a message as it stands there, with its line ends;
// empty if there is none.
func field(message []byte, name string) string {
	header, _, _ := bytes.Cut(bytes.ReplaceAll(message, []byte("\r\n"), []byte("\n")), []byte("\n\n"))
	at := bytes.Index(bytes.ToLower(append([]byte("\n"), header...)), []byte("\n"+strings.ToLower(name)+":"))
	if at < 0 {
		return ""
	}
	var b strings.Builder
	for i, line := range strings.SplitAfter(string(header[at:])+"\n", "\n") {
		if i > 0 && (line == "" || line[0] != ' ' && line[0] != '\t') {
			break
		}
		b.WriteString(line)
	}
	return b.String()
}
