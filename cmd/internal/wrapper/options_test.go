package wrapper

import (
	"slices"
	"strings"
	"testing"

	"relayguard/cmd/internal/call"
)

func TestNullSenderIsNotNoSender(t *testing.T) {
	for _, args := range [][]string{{"-f", "", "b@example.net"}, {"-f", "<>", "b@example.net"}, {"-f<>", "b@example.net"}} {
		if got := parse(args); got.mailFrom != call.NullSender || !slices.Equal(got.rcptTo, []string{"b@example.net"}) {
			t.Errorf("%q: got %+v", args, got)
		}
	}
}

func TestOptionsAreReadAsFarAsTheyMatter(t *testing.T) {
	for line, want := range map[string]options{
		"":                                  {submits: true},
		"-t -i":                             {submits: true, fromHeader: true},
		"-ti":                               {submits: true, fromHeader: true},
		"-oi -f a@example.jp b@example.net": {submits: true, mailFrom: "a@example.jp", rcptTo: []string{"b@example.net"}},
		"-fa@example.jp -- -b@example.net":  {submits: true, mailFrom: "a@example.jp", rcptTo: []string{"-b@example.net"}},
		"-F Taro -r a@example.jp -N never -R hdrs -V x1 b c": {submits: true, mailFrom: "a@example.jp", rcptTo: []string{"b", "c"}},
		"-O DeliveryMode=b -B 8BITMIME b -t":                 {submits: true, fromHeader: true, rcptTo: []string{"b"}},
		"-bm b":                                              {submits: true, rcptTo: []string{"b"}},
		"-b m b":                                             {submits: true, rcptTo: []string{"b"}},
		"-bs":                                                {},
		"-b s":                                               {},
		"-bp":                                                {},
		"-bi":                                                {},
		"-bd -q1h":                                           {},
		"-bv b":                                              {rcptTo: []string{"b"}},
		"-ibs":                                               {},
		"-q":                                                 {},
		"-qIABC":                                             {},
		"-I":                                                 {},
		"-v -d0.1 - b":                                       {submits: true, rcptTo: []string{"-", "b"}},
		"-f":                                                 {submits: true},
	} {
		got := parse(strings.Fields(line))
		if got.submits != want.submits || got.fromHeader != want.fromHeader || got.mailFrom != want.mailFrom || !slices.Equal(got.rcptTo, want.rcptTo) {
			t.Errorf("%q: got %+v, want %+v", line, got, want)
		}
	}
}
