package sieve

import "strings"

// operation is how an operation of the machine code lies in a program: what
// comes first, what may come by a number, what always follows. The letters:
//
//	s  a string           S  strings, or one, or left out   o  a string, or left out
//	n  a number           b  an octet                       u  a plain number
//	j  a jump forward     J  a jump back                    m  modifiers
//	e  a side effect      v  a message override             c  a comparator
//	t  a match type       a  an address part                B  a transformation of body
//	g  numbers of variables
type operation struct {
	name     string
	pre      string
	optional map[int]string
	args     string
}

var (
	actionOptions = map[int]string{-1: "e"}
	matchOptions  = map[int]string{1: "c", 2: "t"}
	headerOptions = map[int]string{1: "c", 2: "t", 3: "a", -2: "v"}
)

func matchWith(more map[int]string) map[int]string {
	out := map[int]string{1: "c", 2: "t"}
	for k, v := range more {
		out[k] = v
	}
	return out
}

// coreOperations are by their code.
var coreOperations = []operation{
	{name: ""},
	{name: "jmp", pre: "j"}, {name: "jmptrue", pre: "j"}, {name: "jmpfalse", pre: "j"},
	{name: "stop"},
	{name: "keep", optional: actionOptions},
	{name: "discard", optional: actionOptions},
	{name: "redirect", optional: actionOptions, args: "s"},
	{name: "address", optional: headerOptions, args: "SS"},
	{name: "header", optional: headerOptions, args: "SS"},
	{name: "exists", optional: headerOptions, args: "S"},
	{name: "size", args: "n"}, {name: "size", args: "n"},
}

// extensionOperations are those of an extension, by their code; an extension
// with one writes no code.
var extensionOperations = map[string][]operation{
	"envelope":     {{name: "envelope", optional: matchWith(map[int]string{3: "a"}), args: "SS"}},
	"fileinto":     {{name: "fileinto", optional: actionOptions, args: "s"}},
	"reject":       {{name: "reject", optional: actionOptions, args: "s"}},
	"ereject":      {{name: "reject", optional: actionOptions, args: "s"}},
	"body":         {{name: "body", optional: matchWith(map[int]string{3: "B"}), args: "S"}},
	"date":         {{name: "date", optional: dateOptions, args: "ssS"}, {name: "currentdate", optional: dateOptions, args: "sS"}},
	"duplicate":    {{name: "duplicate", optional: duplicateOptions}},
	"editheader":   {{name: "addheader", optional: map[int]string{1: ""}, args: "ss"}, {name: "deleteheader", optional: matchWith(map[int]string{3: "n", 4: ""}), args: "sS"}},
	"enotify":      {{name: "notify", optional: map[int]string{1: "s", 2: "S", 3: "s", 4: "n"}, args: "s"}, {name: "valid_notify_method", args: "S"}, {name: "notify_method_capability", optional: matchOptions, args: "ssS"}},
	"environment":  {{name: "environment", optional: matchOptions, args: "sS"}},
	"ihave":        {{name: "ihave", args: "S"}, {name: "error", args: "s"}},
	"imap4flags":   {{name: "setflag", args: "oS"}, {name: "addflag", args: "oS"}, {name: "removeflag", args: "oS"}, {name: "hasflag", optional: matchWith(map[int]string{3: "S"}), args: "S"}},
	"include":      {{name: "include", pre: "ub"}, {name: "return"}, {name: "global", pre: "g"}},
	"mailbox":      {{name: "mailboxexists", args: "S"}},
	"mboxmetadata": {{name: "metadata", optional: matchOptions, args: "ssS"}, {name: "metadataexists", args: "sS"}},
	"servermetadata": {{name: "servermetadata", optional: matchOptions, args: "sS"},
		{name: "servermetadataexists", args: "S"}},
	"foreverypart":          {{name: "foreverypart", pre: "j"}, {name: "endpart", pre: "J"}, {name: "break", pre: "j"}},
	"extracttext":           {{name: "extracttext", optional: map[int]string{1: "n"}, args: "sm"}},
	"notify":                {{name: "oldnotify", optional: map[int]string{1: "s", 2: "n", 3: "S", 4: "s"}}, {name: "denotify", optional: map[int]string{1: "n", 2: "t", 3: "s"}}},
	"spamtest":              {{name: "spamtest", optional: matchWith(map[int]string{3: ""}), args: "s"}},
	"spamtestplus":          {{name: "spamtest", optional: matchWith(map[int]string{3: ""}), args: "s"}},
	"virustest":             {{name: "virustest", optional: matchWith(map[int]string{3: ""}), args: "s"}},
	"special-use":           {{name: "specialuse_exists", args: "oS"}},
	"vacation":              {{name: "vacation", optional: map[int]string{1: "n", 2: "s", 3: "s", 4: "S", 5: ""}, args: "ss"}},
	"variables":             {{name: "set", args: "ssm"}, {name: "string", optional: matchOptions, args: "SS"}},
	"vnd.dovecot.debug":     {{name: "debug_log", args: "s"}},
	"vnd.dovecot.duplicate": {{name: "duplicate", optional: duplicateOptions}},
	"vnd.dovecot.report":    {{name: "report", optional: map[int]string{1: ""}, args: "sss"}},
	"vnd.dovecot.pipe":      {{name: "pipe", optional: map[int]string{-1: "e", 1: ""}, args: "sS"}},
	"vnd.dovecot.filter":    {{name: "filter", pre: "b", optional: actionOptions, args: "sS"}},
	"vnd.dovecot.execute":   {{name: "execute", pre: "b", optional: map[int]string{-1: "e", 1: "o", 2: "s"}, args: "sS"}},
}

var (
	dateOptions      = map[int]string{1: "c", 2: "t", 3: "a", 4: "o", -2: "v"}
	duplicateOptions = map[int]string{1: "n", 2: "s", 3: "s", 4: "", 5: "s"}
)

// isTest: one of the operations that a conditional jump follows.
func (o *operation) isTest() bool {
	switch o.name {
	case "address", "header", "exists", "size", "envelope", "body", "date", "currentdate", "duplicate", "valid_notify_method",
		"notify_method_capability", "environment", "ihave", "hasflag", "mailboxexists", "metadata", "metadataexists",
		"servermetadata", "servermetadataexists", "spamtest", "virustest", "specialuse_exists", "string", "filter", "execute":
		return true
	}
	return false
}

// objects are how many an extension's operand may name: with one no code follows.
var objects = map[string]int{"relational": 12, "subaddress": 2}

// operand is a value of the machine code.
type operand struct {
	parts   []part   // of a string
	list    [][]part // of strings
	omitted bool
}

func (o operand) all() [][]part {
	if o.list != nil {
		return o.list
	}
	if o.parts != nil {
		return [][]part{o.parts}
	}
	return nil
}

// instruction is one operation with what it works on.
type instruction struct {
	*operation
	at      int // its address
	target  int // of a jump
	number  int // u
	options map[int][]operand
	args    []operand
	match   string // matches, regex, or another match type
	fold    bool   // i;ascii-casemap is asked for
	effects []string
	changes []string // modifiers
}

// codes of the operands of the base language.
const (
	operandOmitted = iota
	operandNumber
	operandString
	operandStrings
	operandComparator
	operandMatchType
	operandAddressPart
	operandCatenated
	operandExtension // and above: an extension's
)

const maxOperandDeep = 8

// decoder reads a program.
type decoder struct {
	cursor
	binary *compiled
}

var coreModifiers = []string{"lower", "upper", "lowerfirst", "upperfirst", "quotewildcard", "length"}

// instruction reads the next one.
func (d *decoder) instruction() instruction {
	in := instruction{at: d.at, target: -1}
	code := d.octet()
	if code < len(coreOperations) {
		in.operation = &coreOperations[code]
	} else {
		in.operation = d.extensionOperation(code - len(coreOperations))
	}
	if in.operation == nil || in.name == "" {
		d.fail(errUnknownCode)
		in.operation = &coreOperations[0]
		return in
	}
	for _, c := range in.pre {
		d.field(&in, c)
	}
	if in.optional != nil {
		d.options(&in)
	}
	for _, c := range in.operation.args {
		in.args = append(in.args, d.field(&in, c))
	}
	return in
}

func (d *decoder) extensionOperation(i int) *operation {
	name, _ := d.binary.extension(i)
	all := extensionOperations[name]
	code := 0
	if len(all) > 1 {
		code = d.octet()
	}
	if code >= len(all) {
		return nil
	}
	return &all[code]
}

func (d *decoder) options(in *instruction) {
	if d.at >= len(d.data) || d.data[d.at] != operandOmitted {
		return
	}
	d.at++
	for d.err == nil {
		code := int(int8(d.octet()))
		if code == 0 {
			return
		}
		letters, ok := in.optional[code]
		if !ok {
			d.fail(errUnknownCode)
			return
		}
		if in.options == nil {
			in.options = map[int][]operand{}
		}
		in.options[code] = append(in.options[code], operand{omitted: true})
		for _, letter := range letters {
			in.options[code][len(in.options[code])-1] = d.field(in, letter)
		}
	}
}

// field reads what one letter stands for.
func (d *decoder) field(in *instruction, letter rune) operand {
	switch letter {
	case 's', 'S', 'o', 'n':
		return d.operand(0)
	case 'b':
		d.octet()
	case 'u':
		in.number = d.unsigned()
	case 'j':
		at := d.at
		in.target = at + d.offset()
	case 'J':
		at := d.at
		in.target = at - d.offset()
	case 'm':
		for range d.octet() {
			in.changes = append(in.changes, d.modifier())
		}
	case 'g':
		for range d.unsigned() {
			if d.unsigned(); d.err != nil {
				break
			}
		}
	case 'e':
		d.effect(in)
	case 'v':
		d.override()
	case 'c':
		in.fold = d.comparator()
	case 't':
		in.match = d.matchType()
	case 'a':
		d.object(operandAddressPart)
	case 'B':
		const content = 1
		if d.octet() == content {
			d.operand(0)
		}
	}
	return operand{omitted: true}
}

// object reads an operand that names an object: of the base language by its own
// code, or an extension's.
func (d *decoder) object(core int) (extension string, code int) {
	kind := d.octet()
	if kind == core {
		return "", d.octet()
	}
	name, ok := d.binary.extension(kind - operandExtension)
	if !ok {
		d.fail(errUnknownCode)
		return "", 0
	}
	if objects[name] > 1 {
		code = d.octet()
	}
	return name, code
}

func (d *decoder) comparator() (fold bool) {
	const casemap = 1
	extension, code := d.object(operandComparator)
	return extension == "" && code == casemap
}

func (d *decoder) matchType() string {
	extension, code := d.object(operandMatchType)
	const matches = 2
	switch {
	case extension == "" && code == matches:
		return "matches"
	case extension == "":
		return "is"
	}
	return extension
}

func (d *decoder) effect(in *instruction) {
	extension, _ := d.object(-1)
	in.effects = append(in.effects, extension)
	switch extension {
	case "imap4flags", "special-use":
		d.operand(0)
	case "copy", "mailbox":
	default:
		d.fail(errUnknownCode)
	}
}

func (d *decoder) override() {
	const param = 4
	switch extension, _ := d.object(-1); extension {
	case "mime":
		d.octet()
		if d.octet() == param {
			d.operand(0)
		}
	case "index":
		d.number()
		d.octet()
	default:
		d.fail(errUnknownCode)
	}
}

// modifier is one of set: an operand of variables, or of an extension that has
// one.
func (d *decoder) modifier() string {
	const ofVariables = 3
	name, ok := d.binary.extension(d.octet() - operandExtension)
	switch {
	case ok && name == "enotify":
		return "encodeurl"
	case ok && name == "variables" && d.octet() == ofVariables:
		if code := d.octet(); code < len(coreModifiers) {
			return coreModifiers[code]
		}
	}
	d.fail(errUnknownCode)
	return ""
}

// operand reads a string, strings, a number, or one that is left out.
func (d *decoder) operand(deep int) operand {
	if deep > maxOperandDeep {
		d.fail(errUnknownCode)
		return operand{}
	}
	switch kind := d.octet(); kind {
	case operandOmitted:
		return operand{omitted: true}
	case operandNumber:
		d.number()
		return operand{omitted: true}
	case operandString:
		return operand{parts: []part{{text: d.text(), match: -1}}}
	case operandStrings:
		d.offset()
		out := operand{list: [][]part{}}
		for range d.unsigned() {
			if d.err != nil {
				break
			}
			out.list = append(out.list, d.operand(deep+1).parts)
		}
		return out
	case operandCatenated:
		out := operand{parts: []part{}}
		for range d.unsigned() {
			if d.err != nil {
				break
			}
			out.parts = append(out.parts, d.operand(deep+1).parts...)
		}
		return out
	default:
		if name, _ := d.binary.extension(kind - operandExtension); name == "variables" {
			return operand{parts: []part{d.variable()}}
		}
	}
	d.fail(errUnknownCode)
	return operand{}
}

// variable reads a variable: their names are "#" and a number here.
func (d *decoder) variable() part {
	const (
		plain = iota
		match
		namespace
	)
	switch d.octet() {
	case plain:
		scope := d.octet()
		name := "#" + itoa(d.unsigned())
		if scope > 0 {
			if ext, _ := d.binary.extension(scope - 1); ext != "include" {
				d.fail(errUnknownCode)
			}
			name = "global." + name
		}
		return part{name: name, match: -1}
	case match:
		return part{match: min(d.unsigned(), maxMatch)}
	case namespace:
		name, ok := d.binary.extension(d.octet() - operandExtension)
		if !ok || !strings.HasPrefix(name, "vnd.dovecot.environment") {
			d.fail(errUnknownCode)
		}
		return part{name: "env." + d.text(), match: -1}
	}
	d.fail(errUnknownCode)
	return part{match: -1}
}
