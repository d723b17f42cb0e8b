package policy_test

import (
	"fmt"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
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
