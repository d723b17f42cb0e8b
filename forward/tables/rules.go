package tables

import (
	"regexp"
	"strings"
)

// rule is one of a regexp_table(5) or pcre_table(5).
type rule struct {
	op     ruleOp
	first  expression
	second *expression // regexp: "/a/!/b/", both have to hold
	value  replacement
	line   int
	// skipped says why Postfix ignores the rule.
	skipped string
	end     int // of an if: the index of its endif; the number of rules without one
}

type ruleOp byte

const (
	opMatch ruleOp = iota
	opIf
	opEndif
)

// expression is one pattern with its flags.
type expression struct {
	text    string // as written: "!/x/i"
	negated bool
	re      *regexp.Regexp // nil: not one that Go knows
	body    string         // in Go's syntax, with its flags
	need    string         // in lower case: without it, an ASCII key does not match; empty: not known
}

// dialect is a type of pattern table.
type dialect struct {
	second    bool // has "/a/!/b/"
	flags     string
	translate func(body, flags string) string
	longest   bool // POSIX takes the longest alternative
}

var dialects = map[string]dialect{
	"regexp": {second: true, flags: "imx", translate: fromPOSIX, longest: true},
	"pcre":   {flags: "imsxAEUX", translate: fromPCRE},
}

// parseRules reads the text of a pattern table. A line that Postfix cannot read
// is skipped, as there: also an if, so that what follows it is unconditional.
func parseRules(data string, d dialect) []rule {
	var rules []rule
	var open []int
	for _, l := range logicalLines(data) {
		text := strings.TrimRight(l.text, spaces)
		if text == "" {
			continue
		}
		r := rule{line: l.number}
		switch {
		case !isAlnum(text[0]):
			r.match(text, d)
		case keyword(text, "if"):
			r.op = opIf
			e, _, err := parseExpression(text[2:], d)
			if err != "" {
				continue
			}
			r.first = e
			open = append(open, len(rules))
		case keyword(text, "endif"):
			if len(open) == 0 {
				continue
			}
			r.op = opEndif
			rules[open[len(open)-1]].end = len(rules)
			open = open[:len(open)-1]
		default:
			continue
		}
		rules = append(rules, r)
	}
	for _, i := range open {
		rules[i].end = len(rules)
	}
	return rules
}

func keyword(text, word string) bool {
	return len(text) >= len(word) && strings.EqualFold(text[:len(word)], word) &&
		(len(text) == len(word) || !isAlnum(text[len(word)]))
}

// match reads a rule with a right side.
func (r *rule) match(text string, d dialect) {
	var err string
	var rest string
	if r.first, rest, err = parseExpression(text, d); err != "" {
		r.first.text, r.skipped = text, err
		return
	}
	if d.second && strings.HasPrefix(rest, "!") {
		e, after, err := parseExpression(rest, d)
		if err != "" {
			r.skipped = err
			return
		}
		r.second, rest = &e, after
	}
	value, ok := parseReplacement(strings.Trim(rest, spaces))
	switch {
	case !ok:
		r.skipped = "its right side has a $ without a number: Postfix skips the rule"
	case value.most > 0 && r.first.negated:
		r.skipped = "$1 after a negated pattern: Postfix skips the rule"
	case r.first.re != nil && value.most > r.first.re.NumSubexp():
		r.skipped = "$ with a number that the pattern has not: Postfix skips the rule"
	}
	r.value = value
}

// parseExpression reads "!/body/flags" and returns what follows.
func parseExpression(s string, d dialect) (e expression, rest, err string) {
	i := 0
	for i < len(s) && (s[i] == '!' || isSpace(s[i])) {
		if s[i] == '!' {
			e.negated = !e.negated
		}
		i++
	}
	if i == len(s) {
		return e, "", "no pattern: Postfix skips the rule"
	}
	delimiter, start := s[i], i+1
	for i = start; i < len(s) && s[i] != delimiter; i++ {
		if s[i] == '\\' {
			i++
		}
	}
	if i >= len(s) {
		return e, "", "a pattern that does not end: Postfix skips the rule"
	}
	end := i
	flags := ""
	for i++; i < len(s) && !isSpace(s[i]) && !(d.second && s[i] == '!'); i++ {
		if strings.IndexByte(d.flags, s[i]) < 0 {
			return e, "", "an unknown flag: Postfix skips the rule"
		}
		flags += s[i : i+1]
	}
	e.text = strings.TrimSpace(s[:i])
	if len(flags) <= 32 {
		e.compile(s[start:end], flags, d)
	}
	return e, s[i:], ""
}

func (e *expression) compile(body, flags string, d dialect) {
	e.body = d.translate(body, flags)
	if e.body == "" {
		return
	}
	re, err := regexp.Compile(e.body)
	if err != nil {
		return
	}
	if d.longest {
		re.Longest()
	}
	e.re, e.need = re, needed(e.body)
}

// askedKey is a key, prepared for many patterns.
type askedKey struct {
	key, lower string
	ascii      bool
}

func prepare(key string) askedKey {
	ascii := strings.IndexFunc(key, func(r rune) bool { return r >= 0x80 }) < 0
	return askedKey{key, strings.ToLower(key), ascii}
}

// holds reports whether a pattern holds for a key; known is false if only
// Postfix could tell.
func (e *expression) holds(k *askedKey) (is, known bool) {
	if e.re == nil {
		return false, false
	}
	if k.ascii && e.need != "" && !strings.Contains(k.lower, e.need) {
		return e.negated, true
	}
	return e.re.MatchString(k.key) != e.negated, true
}

// answer is what a pattern table says to a key.
type answer struct {
	value string
	rule  int
}

// ask returns the first rule's answer. Rules that Go cannot decide are passed
// over, their conditions taken for true: sure is false then.
func ask(rules []rule, key string) (a answer, found, sure bool) {
	sure = true
	k := prepare(key)
	for i := 0; i < len(rules); i++ {
		r := &rules[i]
		if r.op == opEndif || r.skipped != "" {
			continue
		}
		is, known := r.first.holds(&k)
		if r.op == opIf {
			sure = sure && known
			if known && !is {
				i = r.end
			}
			continue
		}
		if known && is && r.second != nil {
			is, known = r.second.holds(&k)
		}
		sure = sure && known
		if !known || !is {
			continue
		}
		return answer{r.answer(key), i}, true, sure
	}
	return answer{}, false, sure
}

func (r *rule) answer(key string) string {
	if r.value.most == 0 {
		return r.value.pattern()
	}
	groups := r.first.re.FindStringSubmatch(key)
	return r.value.fill(func(n int) string {
		if n < len(groups) {
			return groups[n]
		}
		return ""
	})
}

// undecided lists the rules that only Postfix can match.
func undecided(rules []rule) (list []int) {
	for i := range rules {
		if r := &rules[i]; r.op != opEndif && r.skipped == "" && (r.first.re == nil || r.second != nil && r.second.re == nil) {
			list = append(list, i)
		}
	}
	return list
}
