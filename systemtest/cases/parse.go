package cases

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// statement reads one.
func (p *parser) statement(s statement) {
	words := strings.Fields(s.text)
	verb := words[0]
	if read, ok := verbs[verb]; ok {
		if s.block != "" && !slices.Contains(withBlock, verb) {
			p.fault(s.line, "%s has nothing indented below it", verb)
		}
		read(p, s, words[1:])
		return
	}
	switch {
	case verb == "root#" || strings.HasSuffix(verb, "$") && verb != "$":
		p.command(s, strings.TrimRight(verb, "#$"), strings.TrimSpace(strings.TrimPrefix(s.text, verb)))
	default:
		p.fault(s.line, "%q begins no line of a case", verb)
	}
}

// verbs read what follows them.
var verbs = map[string]func(p *parser, s statement, words []string){
	"guard": (*parser).guard, "site": (*parser).site, "client": (*parser).client, "C:": (*parser).says, "S:": (*parser).told, "mail": (*parser).mail,
	"exit": (*parser).exit, "out": (*parser).out, "err": (*parser).out, "no": (*parser).out,
	"sink": (*parser).sink, "arrives": (*parser).arrives, "held": (*parser).held, "admin": (*parser).admin,
	"absent": (*parser).absent, "deferred": (*parser).deferred, "gone": (*parser).gone, "verdict": (*parser).verdict, "try": (*parser).try,
}

// withBlock are the verbs that may have lines below.
var withBlock = []string{"guard", "mail", "arrives", "held"}

func (p *parser) step(s statement, do any) {
	if len(p.c.Steps) == 0 {
		if _, ok := do.(Guard); !ok {
			p.c.Steps = append(p.c.Steps, Step{Line: s.line, Text: "guard", Do: Guard{Phase: "enforce"}})
		}
	}
	p.c.Steps = append(p.c.Steps, Step{Line: s.line, Text: s.text, Only: s.only, Do: do})
}

// last is the last step, if it is a T.
func last[T any](p *parser) (*T, bool) {
	if len(p.c.Steps) == 0 {
		return nil, false
	}
	do, ok := p.c.Steps[len(p.c.Steps)-1].Do.(*T)
	return do, ok
}

var phases = []string{"observe", "learning", "enforce"}

func (p *parser) guard(s statement, words []string) {
	switch {
	case len(words) == 1 && words[0] == "dies":
		p.step(s, GuardDies{})
	case len(words) == 1 && words[0] == "returns":
		p.step(s, GuardReturns{})
	case len(words) == 0:
		p.step(s, Guard{Phase: "enforce", Config: s.block})
	case len(words) == 2 && words[0] == "in" && slices.Contains(phases, words[1]):
		p.step(s, Guard{Phase: words[1], Config: s.block})
	default:
		p.fault(s.line, "guard %s: want nothing, dies, returns or in %s", strings.Join(words, " "), strings.Join(phases, "|"))
	}
}

// site reads NAME of ACCOUNT.
func (p *parser) site(s statement, words []string) {
	if len(words) != 3 || words[1] != "of" {
		p.fault(s.line, "want site NAME of ACCOUNT")
		return
	}
	p.step(s, Site{words[0], words[2]})
}

// Services that both mail servers have.
const (
	Submission = "submission" // AUTH
	Relay      = "relay"      // AUTH is offered; everybody may relay as far as the mail server goes
	Relay6     = "relay6"     // the same on ::1
	Inbound    = "inbound"
	Plain      = "plain" // AUTH, without the guard
	MX         = "mx"    // inbound, without the guard
)

var services = []string{Submission, Relay, Relay6, Inbound, Plain, MX}

func (p *parser) client(s statement, words []string) {
	if len(words) == 0 {
		p.fault(s.line, "client: want a name")
		return
	}
	c := Client{Name: words[0]}
	fields := map[string]*string{"on": &c.Service, "from": &c.From, "account": &c.Account, "login": &c.Login}
	for rest := words[1:]; len(rest) > 0; rest = rest[min(2, len(rest)):] {
		field := fields[rest[0]]
		if field == nil || *field != "" || len(rest) < 2 {
			p.fault(s.line, "client: %q: want on SERVICE, from IP, account UNIX, login LOGIN, each once", strings.Join(rest, " "))
			return
		}
		*field = rest[1]
	}
	switch {
	case c.Service == "" && len(words) > 1:
		p.fault(s.line, "client %s: on which service?", c.Name)
	case c.Service == "" && !p.clients[c.Name]:
		p.fault(s.line, "client %s is not connected: want on SERVICE", c.Name)
	case c.Service != "" && !slices.Contains(services, c.Service):
		p.fault(s.line, "service %q: want one of %s", c.Service, strings.Join(services, ", "))
	}
	if p.clients == nil {
		p.clients = map[string]bool{}
	}
	p.clients[c.Name], p.talking = true, true
	p.step(s, c)
}

func (p *parser) says(s statement, _ []string) {
	line := long(strings.TrimPrefix(strings.TrimPrefix(s.text, "C:"), " "))
	switch say, ok := last[Say](p); {
	case !p.talking:
		p.fault(s.line, "nobody is connected: want client NAME on SERVICE before")
	case ok && len(say.Wants) == 0 && s.only == p.c.Steps[len(p.c.Steps)-1].Only:
		say.Lines = append(say.Lines, line)
	default:
		p.step(s, &Say{Lines: []string{line}})
	}
}

var repeated = regexp.MustCompile(`\{(.)\*([0-9]{1,6})\}`)

// long writes {x*1000} out.
func long(line string) string {
	return repeated.ReplaceAllStringFunc(line, func(s string) string {
		match := repeated.FindStringSubmatch(s)
		n, _ := strconv.Atoi(match[2]) // six digits are a number
		return strings.Repeat(match[1], n)
	})
}

func (p *parser) told(s statement, words []string) {
	say, ok := last[Say](p)
	reply, good := p.reply(s, words)
	switch {
	case !ok:
		p.fault(s.line, "S: after no C:")
	case p.elsewhere(s):
	case good:
		say.Wants = append(say.Wants, reply)
	}
}

// elsewhere tells whether the last step is another mail server's alone; that is a
// fault of what belongs to it.
func (p *parser) elsewhere(s statement) bool {
	only := p.c.Steps[len(p.c.Steps)-1].Only
	if only == "" || only == s.only || s.only == "" {
		return false
	}
	p.fault(s.line, "for %s below a line for %s", s.only, only)
	return true
}

var enhanced = regexp.MustCompile(`^[245]\.[0-9]{1,3}\.[0-9]{1,3}$`)

// reply reads CODE [ENHANCED] [TEXT...].
func (p *parser) reply(s statement, words []string) (Reply, bool) {
	r := Reply{Line: s.line, Only: s.only}
	var err error
	if len(words) > 0 && len(words[0]) == 3 {
		r.Code, err = strconv.Atoi(words[0])
	}
	if err != nil || r.Code < 200 || r.Code > 599 {
		p.fault(s.line, "%q: want a code, perhaps an enhanced code, perhaps a part of the text", strings.Join(words, " "))
		return r, false
	}
	words = words[1:]
	if len(words) > 0 && enhanced.MatchString(words[0]) {
		r.Enhanced, words = words[0], words[1:]
	}
	r.Text = strings.Join(words, " ")
	return r, true
}

// mail reads ID from ADDRESS to ADDRESS... [is REPLY [at RCPT]].
func (p *parser) mail(s statement, words []string) {
	if len(words) < 5 || words[1] != "from" || words[3] != "to" {
		p.fault(s.line, "want mail ID from ADDRESS to ADDRESS..., perhaps is REPLY")
		return
	}
	m := Mail{ID: words[0], From: strings.Trim(words[2], "<>"), Want: Reply{Line: s.line, Code: 250}}
	to := words[4:]
	if i := slices.Index(to, "is"); i >= 0 {
		reply := to[i+1:]
		to = to[:i]
		if n := len(reply); n > 2 && reply[n-2] == "at" && reply[n-1] == "RCPT" {
			m.AtRCPT, reply = true, reply[:n-2]
		}
		m.Want, _ = p.reply(statement{line: s.line}, reply)
	}
	m.To = p.addresses(s, to)
	if !p.talking {
		p.fault(s.line, "nobody is connected: want client NAME on SERVICE before")
	}
	m.Message = s.block
	if s.block == "" && m.From != "" {
		m.Message = "From: " + m.From + "\n"
	}
	m.Message = complete(m.Message)
	p.step(s, m)
}

// complete gives a message of header fields alone a body.
func complete(message string) string {
	if strings.HasPrefix(message, "\n") || strings.Contains(message, "\n\n") {
		return message
	}
	return message + "\nWorld\n"
}

var (
	address = regexp.MustCompile(`^[^@<>{}]+@[^@<>{}]+$`)
	ranged  = regexp.MustCompile(`\{([0-9]+)\.\.([0-9]+)\}`)
)

// addresses reads addresses; name-{1..3}@example.net are three.
func (p *parser) addresses(s statement, words []string) []string {
	var all []string
	for _, word := range words {
		match := ranged.FindStringSubmatch(word)
		if match == nil {
			all = append(all, word)
			continue
		}
		first, last, ok := p.bounds(s.line, match[1], match[2])
		for n := first; ok && n <= last; n++ {
			all = append(all, strings.Replace(word, match[0], strconv.Itoa(n), 1))
		}
	}
	for _, a := range all {
		if !address.MatchString(a) {
			p.fault(s.line, "%q is no address", a)
		}
	}
	if len(words) == 0 {
		p.fault(s.line, "want an address")
	}
	return all
}

func (p *parser) command(s statement, account, line string) {
	args, ok := split(line)
	switch {
	case !ok:
		p.fault(s.line, "a quotation mark is left open")
	case len(args) == 0:
		p.fault(s.line, "want a command")
	case args[0] == "relayguard" && (account != "root" || s.block != ""):
		p.fault(s.line, "relayguard is root's, and reads no input")
	case args[0] != "relayguard" && args[0] != "sendmail":
		p.fault(s.line, "command %q: want relayguard or sendmail", args[0])
	default:
		c := Command{Account: account, Args: args, Exit: map[string]int{}}
		if args[0] == "sendmail" {
			c.Stdin = complete(s.block)
		}
		p.step(s, &c)
	}
}

// split divides a command line into words, with "..." round some.
func split(line string) (words []string, ok bool) {
	var word strings.Builder
	quoted, begun := false, false
	flush := func() {
		if begun {
			words = append(words, word.String())
		}
		word.Reset()
		begun = false
	}
	for _, c := range line {
		switch {
		case c == '"':
			quoted, begun = !quoted, true
		case (c == ' ' || c == '\t') && !quoted && !strings.HasSuffix(word.String(), "{id"):
			flush()
		default:
			word.WriteRune(c)
			begun = true
		}
	}
	flush()
	return words, !quoted
}

func (p *parser) exit(s statement, words []string) {
	c, ok := last[Command](p)
	if !ok {
		p.fault(s.line, "exit: of which command?")
		return
	}
	if p.elsewhere(s) {
		return
	}
	if len(words) == 1 {
		if status, err := strconv.Atoi(words[0]); err == nil && status >= 0 && status <= 255 {
			c.Exit[s.only] = status
			return
		}
	}
	p.fault(s.line, "exit: want a status")
}

// out reads out PATTERN, err PATTERN, no out PATTERN, no err PATTERN.
func (p *parser) out(s statement, _ []string) {
	c, ok := last[Command](p)
	if !ok {
		p.fault(s.line, "%s: of which command?", s.text)
		return
	}
	if p.elsewhere(s) {
		return
	}
	rest, not := strings.CutPrefix(s.text, "no ")
	stream, expression, _ := strings.Cut(rest, " ")
	into := map[string]*[]Pattern{"out": &c.Out, "err": &c.Err}[stream]
	if into == nil {
		p.fault(s.line, "%q: want out or err, perhaps no before", s.text)
		return
	}
	if pattern, ok := p.pattern(s.line, s.only, expression, not); ok {
		*into = append(*into, pattern)
	}
}

func (p *parser) pattern(line int, only, expression string, not bool) (Pattern, bool) {
	if _, err := regexp.Compile(expression); err != nil || expression == "" {
		p.fault(line, "%q: want a regular expression", expression)
		return Pattern{}, false
	}
	return Pattern{Line: line, Only: only, Expression: expression, Not: not}, true
}

// patterns reads the lines below a statement, each of one of these words and an
// expression.
func (p *parser) patterns(s statement, with, without string) []Pattern {
	var all []Pattern
	n := s.line
	for line := range strings.Lines(s.block) {
		n++
		word, expression, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if word != with && (word != without || without == "") {
			p.fault(n, "%q: want %s", word, strings.TrimSuffix(with+" or "+without, " or "))
			continue
		}
		if pattern, ok := p.pattern(n, "", expression, word == without); ok {
			all = append(all, pattern)
		}
	}
	return all
}

func (p *parser) sink(s statement, words []string) {
	switch {
	case len(words) == 2 && words[0] == "takes":
		p.step(s, SinkAnswers{Address: p.addresses(s, words[1:])[0]})
	case len(words) >= 4 && words[0] == "answers" && words[2] == "with":
		if reply, ok := p.reply(s, words[3:]); ok {
			p.step(s, SinkAnswers{Address: p.addresses(s, words[1:2])[0], Code: reply.Code, Text: strings.Join(words[4:], " ")})
		}
	default:
		p.fault(s.line, "want sink answers ADDRESS with REPLY, or sink takes ADDRESS")
	}
}

func (p *parser) arrives(s statement, words []string) {
	p.step(s, Arrives{Addresses: p.addresses(s, words), Text: p.patterns(s, "with", "without")})
}

// held reads ADDRESS... by RULE for ACCOUNT, or ADDRESS... by others.
func (p *parser) held(s statement, words []string) {
	i := slices.Index(words, "by")
	switch {
	case i >= 0 && slices.Equal(words[i:], []string{"by", "others"}):
		p.step(s, HeldByOthers{p.addresses(s, words[:i])})
	case i >= 0 && len(words) == i+4 && words[i+2] == "for":
		p.step(s, Held{Addresses: p.addresses(s, words[:i]), Rule: words[i+1], Account: words[i+3], Because: p.patterns(s, "because", "")})
	default:
		p.fault(s.line, "want held ADDRESS... by RULE for ACCOUNT, or by others")
	}
}

func (p *parser) admin(s statement, words []string) {
	if len(words) < 2 || words[0] != "holds" {
		p.fault(s.line, "want admin holds ADDRESS...")
		return
	}
	p.step(s, AdminHolds{p.addresses(s, words[1:])})
}

func (p *parser) absent(s statement, words []string) { p.step(s, Absent{p.addresses(s, words)}) }

func (p *parser) deferred(s statement, words []string) { p.step(s, Deferred{p.addresses(s, words)}) }

func (p *parser) gone(s statement, words []string) { p.step(s, Gone{p.addresses(s, words)}) }

var verdictWords = []string{"accept", "tell", "hold", "defer", "reject"}

// verdict reads ID VERDICT [by RULE] for ACCOUNT.
func (p *parser) verdict(s statement, words []string) {
	v := Verdict{}
	if len(words) == 6 && words[2] == "by" {
		v.Rule = words[3]
		words = slices.Delete(slices.Clone(words), 2, 4)
	}
	if len(words) != 4 || words[2] != "for" || !slices.Contains(verdictWords, words[1]) {
		p.fault(s.line, "want verdict ID %s, perhaps by RULE, for ACCOUNT", strings.Join(verdictWords, "|"))
		return
	}
	v.ID, v.Verdict, v.Account = words[0], words[1], words[3]
	p.step(s, v)
}

func (p *parser) try(s statement, words []string) {
	if !slices.Equal(words, []string{"again"}) {
		p.fault(s.line, "want try again")
		return
	}
	p.step(s, TryAgain{})
}
