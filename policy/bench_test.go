package policy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin/fingerprint"
)

// BenchmarkMessage is a message to one or ten recipients under three limits of
// two windows each. The clock goes on, so that all of them pass.
func BenchmarkMessage(b *testing.B) {
	for _, recipients := range []int{1, 10} {
		b.Run(fmt.Sprintf("limits=3/recipients=%d", recipients), func(b *testing.B) {
			windows := []limit.Window{burst(1e9, 10*time.Minute), window(1e9, time.Hour)}
			h := newHouse(policy.Enforce, limited("login", limit.Login, policy.Hold, windows...),
				limited("domain", limit.SenderDomain, policy.Hold, windows...), limited("server", limit.Server, policy.Hold, windows...))
			m := h.mail("taro@example.jp", to(recipients)...)
			b.ReportAllocs()
			at := now
			for i := 0; b.Loop(); i++ {
				m.QueueID = ""
				at = at.Add(time.Millisecond)
				if d := h.Message(b.Context(), at, m); d.Verdict != policy.Accept {
					b.Fatal(d.Verdict, d.Reason)
				}
			}
		})
	}
}

// BenchmarkAttribution is what it adds to a message of 4 kB from a web site to find
// out where it is from: stamped; or not, so that its text is read.
func BenchmarkAttribution(b *testing.B) {
	line := "The quick brown fox jumps over the lazy dog, and says something about it each time.\r\n"
	body := []byte(strings.Repeat(line, 40) + "https://shop.example.jp/2026/03/bargains/\r\n")
	for _, name := range []string{"none", "stamped", "template"} {
		b.Run(name, func(b *testing.B) {
			h := hosting(b, policy.Enforce, limited("account", limit.Account, policy.Hold, window(1e9, time.Hour)))
			if name == "none" {
				h.Attribution = nil
			} else {
				h.Attribution.Fingerprints = fingerprint.Default()
			}
			if name == "template" {
				rule := limited("template", limit.Template, policy.Hold, window(1e9, time.Hour))
				rule.Counts, rule.Scope = limit.FirstTime, policy.OutsideOnly
				h.limit(policy.Enforce, limit.NewPeaks(0), append(defaults()[:1], rule)...)
			}
			m := h.local(33, "Bargains", "friend@example.net")
			for i := range 12 {
				field(m, fmt.Sprintf("X-Field-%d", i), "something of some length, as header fields are")
			}
			if name == "stamped" {
				h.stamped(m, now, blog, "share")
			}
			m.Body = body
			b.ReportAllocs()
			at := now
			for b.Loop() {
				m.QueueID = ""
				at = at.Add(time.Millisecond)
				if d := h.Message(b.Context(), at, m); d.Verdict != policy.Accept {
					b.Fatal(d.Verdict, d.Reason)
				}
			}
		})
	}
}
