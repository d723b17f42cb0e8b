package mailfiles

import (
	"strconv"
	"strings"

	"relayguard/forward"
)

// Action is one that an Exim filter may do.
type Action struct {
	Kind    forward.Kind
	Target  string // with Unknown for what a message decides
	Dynamic bool
	Mode    forward.Mode
	Line    int
}

// IsEximFilter tells whether a .forward is a program for Exim.
func IsEximFilter(data []byte) bool { return header(data, "#eximfilter") }

// IsSieveFilter tells whether a .forward is a Sieve script that Exim runs.
func IsSieveFilter(data []byte) bool { return header(data, "#sievefilter") }

func header(data []byte, want string) bool {
	line, _, _ := strings.Cut(string(data[:min(len(data), 200)]), "\n")
	return strings.HasPrefix(strings.ToLower(strings.Join(strings.Fields(line), "")), want)
}

// ParseEximFilter lists what an Exim filter may do, whatever its conditions
// say: deliver, save, pipe, and those whom mail and vacation write to. It takes
// time and memory in proportion to data.
func ParseEximFilter(data []byte) []Action {
	words := filterWords(string(data))
	var actions []Action
	mode, mailing := forward.Redirect, false
	for n := 0; n < len(words); n++ {
		w := words[n]
		if w.quoted {
			continue
		}
		kind, takes := forward.Address, false
		name := strings.ToLower(strings.Trim(w.text, "()"))
		switch name {
		case "unseen":
			mode = forward.Copy
			continue
		case "seen", "noerror":
			continue
		case "deliver":
			takes = true
		case "pipe":
			kind, takes = forward.Program, true
		case "save":
			kind, takes = forward.File, true
		case "mail", "vacation":
			mailing = true
		case "to", "cc", "bcc":
			takes = mailing
		case "then", "else", "elif", "endif", "finish", "if":
			mailing = false
		}
		if !takes || n+1 == len(words) {
			if !mailing {
				mode = forward.Redirect
			}
			continue
		}
		n++
		a := Action{Kind: kind, Mode: mode, Line: words[n].line}
		if a.Target, a.Dynamic = expansion(words[n].text); mailing {
			a.Mode = forward.Copy // a mail about it
		} else {
			mode = forward.Redirect
		}
		if a.Target != "" {
			actions = append(actions, a)
		}
	}
	return actions
}

type filterWord struct {
	text   string
	quoted bool
	line   int
}

// filterWords cuts a filter into words; a comment begins with "#" where a word
// could.
func filterWords(s string) []filterWord {
	var words []filterWord
	line := 1
	for at := 0; at < len(s); {
		switch c := s[at]; {
		case c == '\n':
			line++
			at++
		case c == ' ' || c == '\t' || c == '\r':
			at++
		case c == '#':
			for at < len(s) && s[at] != '\n' {
				at++
			}
		case c == '"':
			text, end := quotedWord(s, at+1)
			words = append(words, filterWord{text, true, line})
			line += strings.Count(s[at:end], "\n")
			at = end
		default:
			end, braces := at, 0
			for end < len(s) && (braces > 0 || !strings.ContainsRune(" \t\r\n", rune(s[end]))) && s[end] != '\n' {
				switch s[end] {
				case '{':
					braces++
				case '}':
					braces--
				}
				end++
			}
			words = append(words, filterWord{s[at:end], false, line})
			at = end
		}
	}
	return words
}

// quotedWord reads up to the closing quote, with the escapes of C.
func quotedWord(s string, at int) (string, int) {
	var out strings.Builder
	for ; at < len(s); at++ {
		if s[at] == '"' {
			return out.String(), at + 1
		}
		if s[at] != '\\' || at+1 == len(s) {
			out.WriteByte(s[at])
			continue
		}
		at++
		switch c := s[at]; {
		case c == 'n' || c == 'r' || c == 't' || c == '\n':
			out.WriteByte(' ')
		case c == 'x' || '0' <= c && c <= '7':
			digits, base := s[at:min(at+3, len(s))], 8
			if c == 'x' {
				digits, base = s[at+1:min(at+3, len(s))], 16
			}
			for len(digits) > 0 {
				if v, err := strconv.ParseUint(digits, base, 8); err == nil {
					out.WriteByte(byte(v))
					break
				}
				digits = digits[:len(digits)-1]
			}
			if at += len(digits) - 1; base == 16 {
				at++
			}
		default:
			out.WriteByte(c)
		}
	}
	return out.String(), len(s)
}

// expansion puts Unknown in for what Exim would expand.
func expansion(s string) (string, bool) {
	var out strings.Builder
	dynamic := false
	for at := 0; at < len(s); at++ {
		if s[at] == '\\' && at+1 < len(s) {
			at++
			out.WriteByte(s[at])
			continue
		}
		if s[at] != '$' {
			out.WriteByte(s[at])
			continue
		}
		dynamic = true
		out.WriteString(forward.Unknown)
		at++
		if at < len(s) && s[at] == '{' {
			for depth := 0; at < len(s); at++ {
				if s[at] == '{' {
					depth++
				} else if s[at] == '}' {
					if depth--; depth == 0 {
						break
					}
				}
			}
			continue
		}
		end := at
		for end < len(s) && variableOctet(s[end]) {
			end++
		}
		if headerName(s[at:end]) { // "$h_reply-to:" has hyphens and ends with its colon
			for end < len(s) && (variableOctet(s[end]) || s[end] == '-') {
				end++
			}
			if end < len(s) && s[end] == ':' {
				end++
			}
		}
		at = end - 1
	}
	return out.String(), dynamic
}

func variableOctet(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
}

func headerName(name string) bool {
	kind, _, found := strings.Cut(strings.ToLower(name), "_")
	return found && (strings.HasSuffix(kind, "h") && len(kind) <= 2 || strings.HasSuffix(kind, "header"))
}
