package policy_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/template"
)

// The cases in this file are of one account, www-data, that many sites share.

// posted is what a share button of the blog writes, with something in the field
// for the sender's name.
func (h *house) posted(name, from string, i int) *policy.Message {
	m := h.local(33, "[Shared Post] Wonderful bargains for all of you", h.person())
	if from != "" {
		field(m, "From", from)
	}
	m.Body = fmt.Appendf(nil, "%s (v%d@example.com) thinks you may be interested in the following post:\r\n\r\nWonderful bargains for all of you\r\nhttps://blog.example.jp/2026/03/bargains/\r\n", name, i)
	return m
}

// went counts messages, one each 1.4 s, that are not stopped.
func (h *house) went(t *testing.T, n int, mail func(i int) *policy.Message) (went int) {
	t.Helper()
	for i := range n {
		if at := now.Add(time.Duration(i) * 1400 * time.Millisecond); !h.Message(t.Context(), at, mail(i)).Verdict.Stops() {
			went++
		}
	}
	return went
}

func scribble(r *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + r.IntN(26))
	}
	return string(b)
}

func TestMadeUpHostsGiveNoNewSender(t *testing.T) {
	for _, c := range []struct {
		hosts int
		from  string // with %s, another one for each mail
	}{{0, ""}, {3, ""}, {4, ""}, {6, ""}, {31, ""}, {40, ""}, {6, "wordpress@blog.example.jp"}, {6, "visitor@%s"}} {
		t.Run(fmt.Sprintf("%d hosts, from %s", c.hosts, c.from), func(t *testing.T) {
			h := hosting(t, policy.Enforce, defaults()...)
			h.Attribution.Templates = template.New(template.Options{Parts: 200_000})
			r := rand.New(rand.NewPCG(1, 2))
			went := h.went(t, 1000, func(i int) *policy.Message {
				first, name := scribble(r, 8)+".to", ""
				for n := range c.hosts {
					if host := scribble(r, 8) + ".to"; n == 0 {
						name = "www." + first + " "
					} else {
						name += "www." + host + " "
					}
				}
				return h.posted(name+"Win", strings.ReplaceAll(c.from, "%s", first), i)
			})
			if went > 60 {
				t.Errorf("%d of 1000 went, want at most 60", went)
			}
		})
	}
}

func TestTextsAroundTheFormsOwn(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	unseen := func(s string) string {
		var b strings.Builder
		for _, c := range s {
			b.WriteRune(c)
			if r.IntN(3) == 0 {
				b.WriteRune([]rune{'\u200b', '\u00ad', '\u2060', '\ufe0f'}[r.IntN(4)])
			}
		}
		return b.String()
	}
	const form = "\r\n\r\nWonderful bargains for all of you\r\nhttps://blog.example.jp/2026/03/bargains/\r\n"
	noise := func(lines, links int) string {
		text := ""
		for range lines {
			text += scribble(r, 8) + " " + scribble(r, 8) + " " + scribble(r, 8) + "\r\n"
		}
		for range links {
			text += "http://blog.example.jp/" + scribble(r, 8) + "\r\n"
		}
		return text
	}
	for name, text := range map[string]func() (subject, body string){
		"behind the mark of a signature": func() (string, string) { return noise(0, 0), noise(1, 0) + "--" + form },
		"behind lines and links":         func() (string, string) { return scribble(r, 9), noise(16, 6) + form },
		"behind lines, links and a mark": func() (string, string) { return scribble(r, 9), noise(30, 9) + "-- " + form },
		"before lines and links":         func() (string, string) { return scribble(r, 9), form + noise(30, 9) },
		"with characters that show nothing": func() (string, string) {
			return unseen("Wonderful bargains"), unseen("Wonderful bargains for all of you") + "\r\n" + unseen("Come and get them at our house") + "\r\nhttps://blog.example.jp/" + scribble(r, 8) + "/\r\n"
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := hosting(t, policy.Enforce, defaults()...)
			h.Attribution.Templates = template.New(template.Options{Parts: 200_000})
			went := h.went(t, 1000, func(int) *policy.Message {
				subject, body := text()
				m := h.local(33, subject, h.person())
				m.Body = []byte(body)
				return m
			})
			if went > 60 {
				t.Errorf("%d of 1000 went, want at most 60", went)
			}
		})
	}
}

// The same answer of 100 sites, which has no link.
func TestLinklessMailIsOfItsAuthorsSite(t *testing.T) {
	answer := func(h *house, from string) *policy.Message {
		m := h.local(33, "We have received your message", h.person())
		field(m, "From", from)
		m.Body = []byte("Thank you for your message. It has been sent.\r\nWe will answer as soon as we can.\r\n")
		return m
	}
	h := hosting(t, policy.Enforce, defaults()...)
	for i := range 100 {
		if d := h.Message(t.Context(), now.Add(time.Duration(i)*5*time.Minute), answer(h, fmt.Sprintf("info@site%d.example.jp", i))); d.Verdict.Stops() {
			t.Fatalf("answer %d: %v by %s: %s", i, d.Verdict, d.Rule, d.Reason)
		}
	}
	h = hosting(t, policy.Enforce, defaults()...)
	if went := h.went(t, 1000, func(i int) *policy.Message { return answer(h, fmt.Sprintf("visitor@x%d.example.net", i)) }); went > 140 {
		t.Errorf("%d of 1000 from made-up domains went, want at most 140", went)
	}
}

// Somebody writes a standing link of the garden shop into the blog's form, 400
// times. The shop's own mail goes as before, that day and later.
func TestPoisonTakesNoBoilerplateAway(t *testing.T) {
	for _, n := range []int{10, 30, 60} {
		for name, c := range map[string]struct {
			from string // of the blog
			days int    // on which the blog had sent before
		}{
			"no author": {"", 0}, "a blog that never sent": {"wordpress@blog.example.jp", 0}, "a blog that did": {"wordpress@blog.example.jp", 7},
			"in the garden's name": {"info@garden.example.jp", 7},
		} {
			t.Run(fmt.Sprintf("%d a day, %s", n, name), func(t *testing.T) {
				peaks := limit.NewPeaks(0)
				h := hosting(t, policy.Learning)
				h.limit(policy.Learning, peaks, defaults()...)
				h.Attribution.Templates = template.New(template.Options{Parts: 200_000})
				left := 0
				for day := range 11 {
					start := now.AddDate(0, 0, day)
					if day == 7 {
						h.limit(policy.Enforce, peaks, defaults()...)
					}
					if day < c.days {
						h.Message(t.Context(), start, h.posted("Ann", c.from, day))
					}
					for i := range n {
						at := start.Add(time.Duration(i) * 10 * time.Minute)
						for j := 0; day == 7 && i == 3 && j < 400; j++ {
							m := h.posted("https://garden.example.jp/terms-and-conditions", c.from, j)
							if !h.Message(t.Context(), at.Add(time.Duration(j)*time.Second), m).Verdict.Stops() {
								left++
							}
						}
						m := h.local(33, fmt.Sprintf("Invoice %d of the garden shop", i), h.person())
						field(m, "From", "info@garden.example.jp")
						m.Body = fmt.Appendf(nil, "Dear customer %d,\r\nyour order of seeds left our house today and should arrive tomorrow.\r\nOur terms are at https://garden.example.jp/terms-and-conditions\r\nThank you for buying at the garden shop\r\n", i)
						if d := h.Message(t.Context(), at.Add(9*time.Minute), m); d.Verdict.Stops() {
							t.Fatalf("day %d, invoice %d: %v by %s: %s", day, i, d.Verdict, d.Rule, d.Reason)
						}
					}
				}
				if left > 60 {
					t.Errorf("%d of the attack left, want at most 60", left)
				}
			})
		}
	}
}
