package template

import (
	"bytes"
	"html"
)

// maxTag is the longest tag that is read; of a longer one the rest is text.
const maxTag = 4096

// fromHTML appends the text that a reader would see, a line for each block, and
// tells the targets of links. It follows no standard: it is there to see what is
// the same in two copies. It writes in b.
func fromHTML(to, b []byte, link func([]byte)) []byte {
	for len(b) > 0 && len(to) < maxText {
		i := bytes.IndexByte(b, '<')
		if i < 0 {
			i = len(b)
		}
		to = visible(to, b[:i])
		if b = b[i:]; len(b) == 0 {
			break
		}
		if bytes.HasPrefix(b, []byte("<!--")) {
			end := bytes.Index(b, []byte("-->"))
			if end < 0 {
				break
			}
			b = b[end+3:]
			continue
		}
		end := bytes.IndexByte(b[:min(len(b), maxTag)], '>')
		if end < 0 || !isTag(b) {
			to, b = append(to, '<'), b[1:]
			continue
		}
		tag := b[1:end]
		b = b[end+1:]
		name := tagName(tag)
		switch string(name) {
		case "style", "script", "title", "head":
			b = after(b, name)
		case "a":
			if target := attribute(tag, "href"); target != nil {
				link(lower(bytes.TrimSpace(target)))
			}
		case "b", "i", "u", "em", "strong", "span", "font", "/a", "/b", "/i", "/u", "/em", "/strong", "/span", "/font", "small", "/small", "sup", "/sup", "wbr":
		case "td", "/td", "th", "/th", "img":
			to = append(to, ' ')
		default:
			to = append(to, '\n')
		}
	}
	return to[:min(len(to), maxText)]
}

// visible appends text between tags; its line ends are blanks.
func visible(to, b []byte) []byte {
	if bytes.IndexByte(b, '&') >= 0 {
		b = []byte(html.UnescapeString(string(b)))
	}
	for _, c := range b {
		if c == '\n' || c == '\r' {
			c = ' '
		}
		to = append(to, c)
	}
	return to
}

func isTag(b []byte) bool {
	if len(b) < 2 {
		return false
	}
	c := b[1]
	return c == '/' || c == '!' || c == '?' || classes[c]&letter != 0
}

// tagName is the tag's name in lower case, with the slash of an end.
func tagName(tag []byte) []byte {
	n := 0
	if len(tag) > 0 && tag[0] == '/' {
		n = 1
	}
	for n < len(tag) && n < 12 && classes[tag[n]]&wordy != 0 {
		n++
	}
	return lower(tag[:n])
}

// after skips to behind the end of an element, or behind all.
func after(b, name []byte) []byte {
	for rest := b; ; {
		i := bytes.Index(rest, []byte("</"))
		if i < 0 {
			if string(name) == "head" {
				return b // it has no end: its elements speak for themselves
			}
			return nil
		}
		rest = rest[i+2:]
		if len(rest) >= len(name) && bytes.EqualFold(rest[:len(name)], name) {
			if end := bytes.IndexByte(rest, '>'); end >= 0 {
				return rest[end+1:]
			}
			return nil
		}
	}
}

// attribute is an attribute's value, decoded; nil: it has none.
func attribute(tag []byte, name string) []byte {
	for len(tag) > len(name) {
		i := bytes.IndexByte(tag, '=')
		if i < 0 {
			return nil
		}
		key := bytes.TrimSpace(tag[:i])
		value := bytes.TrimLeft(tag[i+1:], " \t\r\n")
		var rest []byte
		if len(value) > 0 && (value[0] == '"' || value[0] == '\'') {
			value, rest, _ = bytes.Cut(value[1:], value[:1])
		} else if end := bytes.IndexAny(value, " \t\r\n"); end >= 0 {
			value, rest = value[:end], value[end:]
		}
		if len(key) >= len(name) && bytes.EqualFold(key[len(key)-len(name):], []byte(name)) && (len(key) == len(name) || classes[key[len(key)-len(name)-1]]&blank != 0) {
			if bytes.IndexByte(value, '&') >= 0 {
				return []byte(html.UnescapeString(string(value)))
			}
			return value
		}
		tag = rest
	}
	return nil
}
