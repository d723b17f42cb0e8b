package postfix

import (
	"strings"

	"relayguard/forward"
)

// usualPrograms are what usually answers at an endpoint, by a part of its name.
// It is a hint for people: whatever listens there decides.
var usualPrograms = []struct{ part, program string }{
	{"opendkim", "OpenDKIM"}, {":8891", "OpenDKIM"}, {"opendmarc", "OpenDMARC"}, {":8893", "OpenDMARC"}, {"openarc", "OpenARC"},
	{"rspamd", "rspamd"}, {":11332", "rspamd"}, {"postgrey", "postgrey"}, {":10023", "postgrey"},
	{"policyd-spf", "an SPF policy service"}, {"policy-spf", "an SPF policy service"}, {"postsrsd", "postsrsd"}, {":10001", "postsrsd"}, {":10002", "postsrsd"},
	{"spamass", "spamass-milter"}, {"clamav", "ClamAV"}, {"clamd", "ClamAV"}, {"amavis", "amavis"}, {":10024", "amavis"},
	{"policyd-weight", "policyd-weight"}, {":12525", "policyd-weight"}, {":7777", "iRedAPD"}, {":10031", "PolicyD"}, {"quota-status", "Dovecot's quota service"}, {":12340", "Dovecot's quota service"},
}

// usualProgram names what usually answers at an endpoint; empty: not known.
func usualProgram(endpoint string) string {
	endpoint, _, _ = strings.Cut(strings.ToLower(endpoint), ",")
	for _, u := range usualPrograms {
		if strings.HasPrefix(u.part, ":") && !strings.HasSuffix(endpoint, u.part) {
			continue
		}
		if strings.Contains(endpoint, u.part) {
			return "usually " + u.program
		}
	}
	return ""
}

// noted joins notes.
func noted(notes ...string) string {
	text := ""
	for _, n := range notes {
		if n != "" {
			text += "; " + n
		}
	}
	return strings.TrimPrefix(text, "; ")
}

// unreadService is the rule for a service of which not all could be read: what it
// does with mail is not known.
func unreadService(base forward.Rule, s *service) forward.Reading {
	base.Kind, base.Target = forward.Asked, "service "+s.id()
	base.Note = noted(base.Note, "not all of its line in master.cf could be read: "+s.unread)
	base.Digest = digest(strings.Join(append([]string{s.command}, s.words...), "\x00"))
	return forward.Reading{Rules: []forward.Rule{bounded(base)}}
}
