package commandline

import (
	"slices"
	"strings"

	"relayguard/forward"
)

// Shell reads shell text. Variables that it sets itself are followed as far as
// they are set once.
func Shell(text string, env Env) Result {
	if env.depth > maxDepth {
		return Result{}
	}
	env.depth++
	if len(text) > maxText {
		text = text[:maxText]
	}
	s := &shell{lexer: lexer{text: text}, env: env, local: map[string]string{}, result: Result{Harmless: true}}
	s.run()
	if s.message {
		s.result.add(headerAddresses(s.all)...)
	}
	return s.result
}

// shell follows one text.
type shell struct {
	lexer
	env     Env
	local   map[string]string
	result  Result
	all     []string // words of all commands, for "sendmail -t"
	message bool     // some command has its recipients from the message
}

// keywords stand before a command.
var keywords = set("if", "then", "elif", "else", "while", "until", "do", "!", "{", "}", "fi", "done", "esac", "time", "(", ")")

func (s *shell) run() {
	var words []string
	end := func() {
		s.command(words)
		words = nil
	}
	for len(s.all) < maxWords {
		token, ok := s.next(s)
		if !ok {
			break
		}
		switch {
		case token.operator && token.redirect:
			s.redirect()
		case token.operator:
			end()
		default:
			words = append(words, token.words...)
			s.all = append(s.all, token.words...)
		}
	}
	end()
}

// redirect takes the word after "<" or ">". Only a file that is no connection is
// harmless.
func (s *shell) redirect() {
	token, ok := s.next(s)
	if !ok {
		return
	}
	if token.operator && !token.redirect { // ">|", ">&"
		return
	}
	for _, word := range token.words {
		if device(word) || strings.Contains(word, forward.Unknown) {
			s.result.Harmless = false
		}
	}
}

// command follows one simple command.
func (s *shell) command(words []string) {
	for len(words) > 0 {
		switch name, value, ok := assignment(words[0]); {
		case ok:
			s.assign(name, value)
		case words[0] == "for" && len(words) > 3 && words[2] == "in":
			s.assign(words[1], strings.Join(words[3:], " "))
			return
		case words[0] == "case", words[0] == "for":
			return
		case keywords[words[0]]:
		default:
			s.call(words)
			return
		}
		words = words[1:]
	}
}

func (s *shell) call(words []string) {
	if words[0] == "export" || words[0] == "local" || words[0] == "readonly" {
		for _, word := range words[1:] {
			if name, value, ok := assignment(word); ok {
				s.assign(name, value)
			}
		}
		return
	}
	result := Argv(words, s.inner())
	if slices.Contains(result.Addresses, forward.Unknown) {
		s.message = true
	}
	s.result.join(result)
}

// assign sets a variable; one that is set to different values is not known.
func (s *shell) assign(name, value string) {
	if old, have := s.local[name]; have && old != value {
		value = forward.Unknown
	}
	if len(s.local) < 200 {
		s.local[name] = value
	}
}

func (s *shell) lookup(name string) (string, bool) {
	if value, have := s.local[name]; have {
		return value, true
	}
	if s.env.Lookup == nil || name == "" || name[0] < 'A' {
		return forward.Unknown, true
	}
	return s.env.Lookup(name)
}

// substitute reads a command within a word; its output is seldom known.
func (s *shell) substitute(text string) string {
	s.result.join(Shell(text, s.inner()))
	if s.env.Output != nil {
		return s.env.Output(text)
	}
	return forward.Unknown
}

// inner is what a shell within this one knows.
func (s *shell) inner() Env {
	env := s.env
	env.Lookup = s.lookup
	return env
}

func assignment(word string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(word, "=")
	if !ok || name == "" {
		return "", "", false
	}
	for n := range len(name) {
		if !nameByte(name[n]) || n == 0 && name[n] <= '9' {
			return "", "", false
		}
	}
	return name, value, true
}

func nameByte(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}
