package fingerprint_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"relayguard/policy/origin/fingerprint"
)

// list looks for fields one after the other, as policy.Header does.
type list [][2]string

func (l list) Get(name string) (string, bool) {
	for _, f := range l {
		if len(f[0]) == len(name) && strings.EqualFold(f[0], name) {
			return f[1], true
		}
	}
	return "", false
}

// BenchmarkFind looks at messages of no known form, and at one of a known.
func BenchmarkFind(b *testing.B) {
	header := list{{"Received", "from a by b"}, {"Message-ID", "<20260714033320.GA1234@example.net>"}, {"X-Mailer", "Mutt"}, {"Subject", "Hello"}, {"From", "a@example.net"}}
	for i := range 15 {
		header = append(header, [2]string{fmt.Sprintf("X-Field-%d", i), "value"})
	}
	line := "The quick brown fox jumps over the lazy dog, and this line is of a letter that nobody knows.\r\n"
	for _, size := range []int{4 << 10, 8 << 10} {
		body := []byte(strings.Repeat(line, size/len(line)))
		b.Run(fmt.Sprintf("unknown-%d", size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if got := fingerprint.Default().Find(header, "Hello", body); got != "" {
					b.Fatal(got)
				}
			}
		})
	}
	b.Run("jetpack", func(b *testing.B) {
		raw, err := os.ReadFile("testdata/jetpack/subject.eml")
		if err != nil {
			b.Fatal(err)
		}
		_, subject, body := message(b, raw)
		b.ReportAllocs()
		for b.Loop() {
			if got := fingerprint.Default().Find(header, subject, body); got != "jetpack" {
				b.Fatal(got)
			}
		}
	})
}
