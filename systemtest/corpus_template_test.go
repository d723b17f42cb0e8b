package systemtest

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"mime"
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/template"
	"relayguard/systemtest/corpus"
)

// post is a wanted mail of the corpus, as the guard would see it.
type post struct {
	name   string
	list   string // its List-Id, List-Post or first recipient
	thread string // its subject without "Re:" and the list's mark
	at     time.Time
	to     []uint64
	text   template.Text
}

// TestTemplatesOfRealMail measures how often wanted mail is taken for another's
// copy. All of it is read by one memory.
func TestTemplatesOfRealMail(t *testing.T) {
	t.Parallel()
	m := template.New(template.Options{})
	posts := hamOf(t, m, loadCorpus(t))
	slices.SortStableFunc(posts, func(a, b *post) int { return a.at.Compare(b.at) })

	t.Run("pairs", func(t *testing.T) { pairsOf(t, posts) })
	t.Run("lists", func(t *testing.T) { listsOf(t, posts, template.New(template.Options{})) })
	t.Run("one account", func(t *testing.T) { accountOf(t, posts, template.New(template.Options{})) })
}

// pairsOf counts pairs of mails that have a part in common without being of one
// list or of one thread: such a part would count two texts as one.
func pairsOf(t *testing.T, posts []*post) {
	byPart := map[[2]uint64][]*post{}
	for _, p := range posts {
		for kind, parts := range [][]uint64{{p.text.Skeleton}, p.text.Links, p.text.Lines, p.text.Shape} {
			for _, h := range parts {
				if h != 0 {
					byPart[[2]uint64{uint64(kind), h}] = append(byPart[[2]uint64{uint64(kind), h}], p)
				}
			}
		}
	}
	var pairs [4]map[[2]string]bool
	for part, sharing := range byPart {
		if pairs[part[0]] == nil {
			pairs[part[0]] = map[[2]string]bool{}
		}
		for i, a := range sharing {
			for _, b := range sharing[:i] {
				if a.list != b.list && a.thread != b.thread {
					pairs[part[0]][[2]string{min(a.name, b.name), max(a.name, b.name)}] = true
				}
			}
		}
	}
	all := 0
	for i, a := range posts {
		for _, b := range posts[:i] {
			if a.list != b.list && a.thread != b.thread {
				all++
			}
		}
	}
	for kind, name := range []string{"subject", "link", "line", "shape"} {
		share := float64(len(pairs[kind])) / float64(all)
		t.Logf("%s: %d of %d pairs of different lists and threads have one in common (%.5f)", name, len(pairs[kind]), all, share)
		// Mail of one person to two lists, and the footers of one list server, are
		// among them: one pair in a hundred. A hash that took texts for the same
		// that are not would give far more.
		if share > 0.01 {
			t.Errorf("%s: %.4f of the pairs, want at most 0.01", name, share)
		}
	}
}

// listsOf takes each list for a sender of its own and its posts for mail that it
// sent, to the recipients that they name.
func listsOf(t *testing.T, posts []*post, m *template.Memory) {
	recipients := map[string]map[string]map[uint64]bool{} // by list, name and day
	for _, p := range posts {
		match := m.Find(p.at, p.list, &p.text, p.to)
		m.Sent(p.at, p.list, &p.text)
		if match.Name == "" {
			continue
		}
		bucket := match.Name + match.Kind + p.at.UTC().Format(time.DateOnly)
		if recipients[p.list] == nil {
			recipients[p.list] = map[string]map[uint64]bool{}
		}
		if recipients[p.list][bucket] == nil {
			recipients[p.list][bucket] = map[uint64]bool{}
		}
		for _, r := range p.to {
			recipients[p.list][bucket][r] = true
		}
	}
	over, most := 0, 0
	for list, buckets := range recipients {
		largest := 0
		for _, to := range buckets {
			largest = max(largest, len(to))
		}
		if most = max(most, largest); largest > 40 {
			over++
			t.Logf("%s: %d recipients of one name on a day", list, largest)
		}
	}
	t.Logf("%d lists; one name went to at most %d recipients on a day; lists above 40: %d", len(recipients), most, over)
	if over > 0 {
		t.Errorf("%d lists would be held, want none", over)
	}
}

// accountOf takes all of the mail for that of one account, as if it were a server
// whose sites are all www-data, each mail being to another stranger. It is the
// hardest case: 40 strangers of one name are a false stop, unless they are told
// the same thing.
func accountOf(t *testing.T, posts []*post, m *template.Memory) {
	type bucket struct {
		mails, soft int
		kind        string
		threads     map[string]bool
	}
	names, named, first := map[string]*bucket{}, 0, posts[0].at
	for i, p := range posts {
		match := m.Find(p.at, "www-data", &p.text, []uint64{uint64(i)<<32 | 1})
		m.Sent(p.at, "www-data", &p.text)
		if match.Name == "" {
			continue
		}
		named++
		key := match.Name + p.at.UTC().Format(time.DateOnly)
		if names[key] == nil {
			names[key] = &bucket{kind: match.Kind, threads: map[string]bool{}}
		}
		names[key].mails++
		names[key].threads[p.thread] = true
	}
	over, kinds := 0, map[string]int{}
	for _, b := range names {
		kinds[b.kind]++
		if b.mails > 40 {
			over++
			t.Logf("a %s in %d mails of %d threads on a day", b.kind, b.mails, len(b.threads))
		}
	}
	t.Logf("%d mails since %v: %d have a name, %d names and days %v, of these above 40 a day: %d", len(posts), first.Format(time.DateOnly), named, len(names), kinds, over)
	if over > 5 {
		t.Errorf("%d names with more than 40 mails a day, want at most 5", over)
	}
}

var listMark = regexp.MustCompile(`^(?i:\s*((re|fwd?|aw)(\[\d+\])?:|\[[^\]]*\]))+\s*`)

func hamOf(t *testing.T, m *template.Memory, mails []corpus.Mail) (posts []*post) {
	t.Helper()
	var took time.Duration
	octets := 0
	for _, c := range mails {
		if strings.HasPrefix(c.Name, "spam") {
			continue
		}
		head, body, _ := bytes.Cut(bytes.ReplaceAll(c.Data, []byte("\r\n"), []byte("\n")), []byte("\n\n"))
		var h policy.Header
		for field := range strings.SplitSeq(regexp.MustCompile(`\n[ \t]+`).ReplaceAllString(string(head), " "), "\n") {
			if name, value, ok := strings.Cut(field, ":"); ok {
				h.Add([]byte(name), []byte(" "+value))
			}
		}
		at, err := mail.ParseDate(strings.TrimSpace(value(&h, "Date")))
		if err != nil || at.Year() < 2001 || at.Year() > 2004 {
			continue
		}
		p := &post{name: c.Name, at: at}
		for _, name := range []string{"To", "Cc"} {
			addresses, _ := mail.ParseAddressList(value(&h, name))
			for _, a := range addresses {
				f := fnv.New64a()
				fmt.Fprint(f, strings.ToLower(a.Address))
				p.to = append(p.to, f.Sum64())
				if p.list == "" {
					p.list = strings.ToLower(a.Address)
				}
			}
		}
		for _, name := range []string{"List-Post", "List-Id"} {
			if v := strings.TrimSpace(value(&h, name)); v != "" {
				p.list = strings.ToLower(v)
			}
		}
		subject, err := new(mime.WordDecoder).DecodeHeader(value(&h, "Subject"))
		if err != nil {
			subject = value(&h, "Subject")
		}
		p.thread = strings.ToLower(strings.TrimSpace(listMark.ReplaceAllString(subject, "")))
		start := time.Now()
		p.text = m.Read(&h, body)
		took += time.Since(start)
		octets += len(body)
		posts = append(posts, p)
	}
	if len(posts) < 3000 {
		t.Fatalf("%d wanted mails with a date, want most of the corpus", len(posts))
	}
	t.Logf("%d wanted mails of %d octets on average, read in %v each", len(posts), octets/len(posts), took/time.Duration(len(posts)))
	return posts
}

func value(h *policy.Header, name string) string { v, _ := h.Get(name); return v }
