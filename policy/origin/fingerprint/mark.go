package fingerprint

import "strings"

// where a mark is looked for, the cheapest first.
type where uint8

const (
	inField where = iota
	inSubject
	inBody
)

// how a mark is compared.
type how uint8

const (
	isPresent how = iota
	isText
	startsWith
	endsWith
	hasText
	isAlnum
)

var hows = map[string]how{"present": isPresent, "is": isText, "starts": startsWith, "ends": endsWith, "has": hasText, "alnum": isAlnum}

// mark is one thing that a message must have.
type mark struct {
	where     where
	field     string // in which; as written
	how       how
	text      string
	low, high int // of isAlnum
	needle    int // of inBody
}

// key is the field in the form that all its spellings have.
func (k *mark) key() string { return strings.ToLower(k.field) }

// in reports whether a value has the mark.
func (k *mark) in(value string) bool {
	switch k.how {
	case isPresent:
		return true
	case isText:
		return value == k.text
	case startsWith:
		return strings.HasPrefix(value, k.text)
	case endsWith:
		return strings.HasSuffix(value, k.text)
	case hasText:
		return strings.Contains(value, k.text)
	case isAlnum:
		local, domain, ok := strings.Cut(strings.Trim(value, "<>"), "@")
		return ok && domain != "" && k.low <= len(local) && len(local) <= k.high && alnum(local)
	}
	return false
}

// alnum reports whether s is of ASCII letters and digits only, and has capitals,
// small letters and digits: no hexadecimal number does.
func alnum(s string) bool {
	var digit, upper, lower bool
	for i := range len(s) {
		switch c := s[i]; {
		case '0' <= c && c <= '9':
			digit = true
		case 'A' <= c && c <= 'Z':
			upper = true
		case 'a' <= c && c <= 'z':
			lower = true
		default:
			return false
		}
	}
	return digit && upper && lower
}
