package sieve

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"relayguard/forward"
)

var errUnknownCode = errors.New("it has code that is not known")

func itoa(n int) string { return strconv.Itoa(n) }

// runBinary runs a compiled script from s. What cannot be followed is a target
// of Kind Asked: it may send mail anywhere.
func (m *machine) runBinary(data []byte, name string, s *state) *state {
	b, err := readBinary(data)
	if err == nil {
		r := binaryRun{machine: m, binary: b, name: name}
		var out *state
		if out, err = r.program(blockMain, name, s); err == nil {
			return out
		}
	}
	m.asked(s, 0, name, "compiled script", fmt.Sprintf("the compiled script cannot be followed: %v", err))
	return s
}

// binaryRun goes through the programs of one compiled script.
type binaryRun struct {
	*machine
	binary *compiled
	name   string
	depth  int
}

// program runs one block from s.
func (r *binaryRun) program(block int, script string, s *state) (*state, error) {
	if r.octets += 16 * len(r.binary.blocks[block]); !r.step() {
		return s, nil
	}
	d := decoder{cursor: cursor{data: r.binary.blocks[block]}, binary: r.binary}
	r.head(&d)
	var code []instruction
	at := map[int]int{} // address to index
	for d.err == nil && d.at < len(d.data) {
		at[d.at] = len(code)
		code = append(code, d.instruction())
	}
	if d.err != nil {
		return nil, fmt.Errorf("program %d at %d: %w", block, d.at, d.err)
	}
	at[len(d.data)] = len(code)
	back := false
	for i := range code {
		if code[i].target < 0 {
			continue
		}
		to, ok := at[code[i].target]
		if !ok {
			return nil, fmt.Errorf("program %d at %d: a jump into the middle", block, code[i].at)
		}
		code[i].target = to
		back = back || to <= i
	}
	f := flow{binaryRun: r, script: script, block: block, code: code}
	return f.run(s, back), nil
}

// head passes the number of the debug block and the extensions, of which
// variables alone has more: the names of its scope.
func (r *binaryRun) head(d *decoder) {
	d.unsigned()
	for range d.unsigned() {
		name, ok := d.binary.extension(d.octet())
		d.octet() // deferred
		if !ok || d.err != nil {
			d.fail(errUnknownCode)
			return
		}
		if name == "variables" {
			count := d.unsigned()
			d.offset()
			for range count {
				if d.text(); d.err != nil {
					return
				}
			}
		}
	}
}

// flow carries states along the instructions of one program.
type flow struct {
	*binaryRun
	script   string
	block    int
	code     []instruction
	in       []*state // before each instruction, and at the end
	tested   int      // the instruction whose test the next jump looks at; -1: none
	yes, no  *state
	returned *state
	rounds   int
}

func (f *flow) run(s *state, back bool) *state {
	f.in = make([]*state, len(f.code)+1)
	f.in[0] = s
	const rounds = 4
	for known := -1; back && known != f.known(); {
		known = f.known()
		f.rounds++
		if f.rounds == rounds {
			// It does not settle: what changes in the loop is unknown.
			for i := range f.in[1:] {
				f.in[i+1] = forget(f.in[i+1])
			}
			break
		}
		f.pass()
	}
	f.pass()
	end := merge(f.in[len(f.code)], f.returned)
	if end == nil {
		end = s.killed("after stop")
	}
	return end
}

// known is how many values are known of variables, before all instructions.
func (f *flow) known() int {
	n := 0
	for _, s := range f.in {
		if s != nil {
			n++
			for _, v := range s.locals {
				n += len(v)
			}
			for _, v := range s.globals {
				n += len(v)
			}
		}
	}
	return n
}

// pass goes through all instructions once.
func (f *flow) pass() {
	f.tested = -1
	for i := range f.code {
		if f.in[i] == nil {
			continue
		}
		if !f.step() {
			return
		}
		f.one(i, f.in[i])
	}
}

// forget makes unknown whatever a loop may change.
func forget(s *state) *state {
	if s == nil {
		return nil
	}
	out := s.clone()
	for name, v := range s.locals {
		if len(v) > 1 {
			out.locals = out.locals.set(name, unknown)
		}
	}
	for name, v := range s.globals {
		if len(v) > 1 {
			out.globals = out.globals.set(name, unknown)
		}
	}
	return out
}

func (f *flow) to(i int, s *state) {
	if s != nil && s.dead == "" {
		f.in[i] = merge(f.in[i], s)
	}
}

// one runs instruction i from s.
func (f *flow) one(i int, s *state) {
	in := &f.code[i]
	yes, no := s, s
	if f.tested == i-1 && i > 0 {
		yes, no = f.yes, f.no
	}
	switch in.name {
	case "jmp", "break":
		f.to(in.target, s)
	case "jmptrue":
		f.to(in.target, yes)
		f.to(i+1, no)
	case "jmpfalse":
		f.to(in.target, no)
		f.to(i+1, yes)
	case "stop":
		f.pathEnd(s)
	case "error":
	case "return":
		f.returned = merge(f.returned, s)
	case "foreverypart":
		f.to(in.target, s)
		f.to(i+1, s)
	case "endpart":
		f.to(in.target, s)
		f.to(i+1, s)
	default:
		after := f.action(in, s)
		if !in.isTest() {
			f.to(i+1, after)
			return
		}
		f.tested, f.yes, f.no = i, after, after
		if in.match == "matches" || in.match == "regex" {
			f.yes = after.clone()
			f.yes.matches = f.matched(in, after)
		}
		f.to(i+1, merge(f.yes, f.no))
	}
}

func (f *flow) place(in *instruction) place {
	return place{script: f.script, at: f.block<<24 | in.at}
}

// action runs an instruction that is no jump.
func (f *flow) action(in *instruction, s *state) *state {
	copies := slices.Contains(in.effects, "copy")
	switch in.name {
	case "keep", "fileinto":
		return f.keep(s)
	case "discard", "reject":
		out := s.clone()
		out.cancel()
		return out
	case "redirect":
		return f.send(s, f.place(in), forward.Address, f.value(in, 0, s), "", !copies)
	case "report":
		return f.send(s, f.place(in), forward.Address, f.value(in, 2, s), "report", false)
	case "notify":
		return f.sendMailto(s, f.place(in), f.value(in, 0, s), "notification")
	case "oldnotify":
		return f.oldNotify(in, s)
	case "pipe", "filter", "execute":
		return f.command(in, s, in.name == "pipe" && !copies)
	case "set":
		return f.store(in.args[0], modify(f.value(in, 1, s), in.changes), s)
	case "extracttext":
		return f.store(in.args[0], unknown, s)
	case "include":
		return f.included(in, s)
	}
	return s
}

func (f *flow) value(in *instruction, i int, s *state) values {
	return f.evaluate(in.args[i].parts, s)
}

// store sets the variable that an operand names.
func (f *flow) store(to operand, v values, s *state) *state {
	if len(to.parts) != 1 || to.parts[0].name == "" {
		return s
	}
	name, global := strings.CutPrefix(to.parts[0].name, "global.")
	return f.assign(name, v, s, global)
}

func (f *flow) oldNotify(in *instruction, s *state) *state {
	const options = 3
	var all values
	for _, o := range in.options[options] {
		for _, parts := range o.all() {
			all = append(all, f.evaluate(parts, s)...)
		}
	}
	if len(all) == 0 {
		return s
	}
	return f.send(s, f.place(in), forward.Address, all, "notification", false)
}

// command is pipe, filter, execute.
func (f *flow) command(in *instruction, s *state, cancels bool) *state {
	command := f.value(in, 0, s)
	for _, parts := range in.args[1].all() {
		command = command.joined(values{" "}).joined(f.evaluate(parts, s))
	}
	if in.name == "execute" {
		const output = 2
		for _, o := range in.options[output] {
			s = f.store(o, unknown, s)
		}
	}
	return f.send(s, f.place(in), forward.Program, command, in.name, cancels)
}

// included runs the program of an included script.
func (f *flow) included(in *instruction, s *state) *state {
	number := in.number - 1 // 0 is the main script
	if number < 0 || number >= len(f.binary.includes) {
		f.asked(s, 0, f.script, "include", "an include that is not there")
		return s
	}
	inc := f.binary.includes[number]
	f.machine.included++
	switch {
	case inc.block == 0:
		return s
	case f.depth >= maxIncludeDeep || f.machine.included > maxIncludes:
		f.asked(s, 0, f.script, "include "+inc.name, "includes nest too deep or are too many")
		return s
	}
	f.depth++
	defer func() { f.depth-- }()
	label := inc.name
	if inc.global {
		label = "global " + label
	}
	inner := s.clone()
	inner.locals = nil
	out, err := f.program(inc.block, label, inner)
	if err != nil {
		f.asked(s, 0, f.script, "include "+inc.name, "the compiled script cannot be followed: "+err.Error())
		return s
	}
	out = out.clone()
	out.locals = s.locals
	return out
}

// matched are the match values where a test held.
func (f *flow) matched(in *instruction, s *state) []values {
	if in.name != "string" {
		return allUnknown
	}
	var sides [2]values
	for i := range sides {
		for _, parts := range in.args[i].all() {
			sides[i] = append(sides[i], f.evaluate(parts, s)...)
		}
	}
	return matchEach(sides[0], sides[1], in.match == "regex", !in.fold)
}
