package stamp_test

import (
	"fmt"
	"testing"
	"time"

	"relayguard/policy/origin/stamp"
)

// BenchmarkVerify believes one stamp an operation, each a new one, with a memory
// that is full.
func BenchmarkVerify(b *testing.B) {
	for name, form := range map[string]func(string) string{
		"plain":   func(s string) string { return s },
		"encoded": func(s string) string { return phpMailer(s, "us-ascii", "\n") },
	} {
		b.Run(name, func(b *testing.B) {
			fields := make([]string, 1<<14)
			for i := range fields {
				fields[i] = form(made(now, i))
			}
			var book *stamp.Book
			m := mail()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%len(fields) == 0 {
					book, _ = stamp.NewBook([]stamp.Site{shop, blog}, stamp.NewReplays(1<<20))
				}
				if _, err := book.Verify(now, fields[i%len(fields):i%len(fields)+1], m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkNodeVerify(b *testing.B) {
	for _, rcpts := range []int{1, 100} {
		b.Run(fmt.Sprint(rcpts), func(b *testing.B) {
			m := to()
			for i := range rcpts {
				m.RcptTo = append(m.RcptTo, fmt.Sprintf("user%d@example.com", i))
			}
			n, field := nodes(b), stamp.Sign(now, web3.Key, &told, m)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := n.Verify(now, at3, []string{field}, m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkReplays has a memory that is full all the time, of a thousand sites.
func BenchmarkReplays(b *testing.B) {
	sites := make([]stamp.Site, 1000)
	for i := range sites {
		k := key(9)
		k[1], k[2] = byte(i), byte(i>>8)
		sites[i] = stamp.Site{Name: fmt.Sprintf("s%d.jp", i), UID: 6001, KeyID: fmt.Sprintf("%08x", i), Key: k}
	}
	book, err := stamp.NewBook(sites, stamp.NewReplays(10_000))
	if err != nil {
		b.Fatal(err)
	}
	m := mail()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		at := now.Add(time.Duration(i) * time.Second)
		field := stamp.Make(at, &sites[i%1000], &share, friend, "Hello", nonce(i))
		b.StartTimer()
		if _, err := book.Verify(at, []string{field}, m); err != nil {
			b.Fatal(err)
		}
	}
}
