package aliases

import "strings"

// external writes tokens as postalias(1) stores them: quotes and backslashes
// where they are needed, white space only where words would run together.
func external(tokens []token) string { return write(tokens, true) }

// internal writes tokens as the bare name that local(8) looks at.
func internal(tokens []token) string { return write(tokens, false) }

func write(tokens []token, quotes bool) string {
	var out strings.Builder
	for n, t := range tokens {
		switch {
		case t.kind == quoted && quotes:
			out.WriteByte('"')
			writeEscaped(&out, t.text, "\"\\\r\n")
			out.WriteByte('"')
		case t.kind == literal:
			out.WriteByte('[')
			if quotes {
				writeEscaped(&out, t.text, "\\\r\n")
			} else {
				out.WriteString(t.text)
			}
			out.WriteByte(']')
		case t.word():
			out.WriteString(t.text)
		default:
			out.WriteByte(byte(t.kind))
			if t.kind == ',' {
				out.WriteByte(' ')
			}
		}
		if n+1 < len(tokens) && spaced(t, tokens[n+1]) {
			out.WriteByte(' ')
		}
	}
	return out.String()
}

// spaced: does white space stand between the two?
func spaced(t, next token) bool {
	return t.word() && next.word() || next.kind == '<' && t.kind != ','
}

func writeEscaped(out *strings.Builder, text, special string) {
	for n := range len(text) {
		if strings.IndexByte(special, text[n]) >= 0 {
			out.WriteByte('\\')
		}
		out.WriteByte(text[n])
	}
}
