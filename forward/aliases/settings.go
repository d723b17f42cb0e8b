package aliases

import (
	"strings"

	"relayguard/forward"
)

// Settings are what main.cf says about expansion. The zero value is Postfix's
// defaults, but that commands and files in :include: files are told as if they
// were allowed.
type Settings struct {
	LineLimit int // line_length_limit; 0: LineLimit
	// AllowCommands and AllowFiles are allow_mail_to_commands and
	// allow_mail_to_files, as postconf prints them; nil: not known, all is
	// told.
	AllowCommands, AllowFiles *string
	// Local tells whether mail to the domain is delivered by local(8)
	// (mydestination), so that alice@domain is alice. nil: only bare names are.
	Local func(domain string) bool
	// Sendmail: right sides and files are read as Sendmail reads them, which
	// follows symbolic links and whose rules of ownership depend on its
	// DontBlameSendmail: what it might refuse is told as in force.
	Sendmail bool
}

// parse reads a right side or record.
func (s *Settings) parse(right string) []Target {
	if s.Sendmail {
		return ParseSendmail(right)
	}
	return ParseTargets(right)
}

// stage is where a target stands: local(8) allows commands and files by it.
type stage string

const (
	inAlias   stage = "alias"
	inForward stage = "forward"
	inInclude stage = "include"
)

// refused says why local(8) bounces a target of that kind there; empty: it
// does not.
func (s *Settings) refused(kind forward.Kind, where stage) string {
	allow, setting := s.AllowFiles, "allow_mail_to_files"
	switch kind {
	case forward.Program:
		allow, setting = s.AllowCommands, "allow_mail_to_commands"
	case forward.File:
	default:
		return ""
	}
	if allow == nil {
		return ""
	}
	for _, word := range strings.FieldsFunc(*allow, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) }) {
		if strings.EqualFold(word, string(where)) {
			return ""
		}
	}
	return setting + " has no " + string(where) + ": local(8) bounces the mail"
}

// self tells whether an address is the owner himself: Postfix then delivers to
// his mailbox.
func (s *Settings) self(owner, address string) bool {
	name := strings.TrimSuffix(address, ".")
	if at := strings.LastIndexByte(name, '@'); at >= 0 {
		if s.Local == nil || !s.Local(strings.ToLower(name[at+1:])) {
			return false
		}
		name = name[:at]
	}
	return strings.EqualFold(name, owner)
}
