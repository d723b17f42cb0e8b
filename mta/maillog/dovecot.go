package maillog

import "strings"

// Dovecot reads a line of Dovecot's delivery agents (lmtp, lda, and imap for
// imapsieve) about what a Sieve script did. Its Kind is None when the line is
// of no interest, or not Dovecot's. It takes what syslog has ("dovecot:
// lmtp(user)<pid><session>: sieve: ...") and what Dovecot's own log file has
// (log_path; "lmtp(user)<pid><session>: Info: sieve: ...", where ParseLine
// takes the prefix for a host).
func Dovecot(l Line) Event {
	e := Event{Time: l.Time, Host: l.Host, Service: l.Tag, PID: l.PID, Count: max(1, l.Count)}
	prefix, text := "", l.Text
	switch {
	case strings.HasPrefix(l.Tag, "dovecot"):
		var ok bool
		if prefix, text, ok = strings.Cut(l.Text, ": "); !ok {
			return e
		}
	case l.Tag == "Info" && strings.HasSuffix(l.Host, ":"):
		prefix, e.Host, e.Service = strings.TrimSuffix(l.Host, ":"), "", "dovecot"
	default:
		return e
	}
	if !e.agent(prefix) {
		return e
	}
	text = strings.TrimPrefix(text, "Info: ")
	if session, rest, ok := strings.Cut(text, ": "); ok && isSession(session) && session != "sieve" { // 2.2
		e.Session, text = session, rest
	}
	if s, ok := strings.CutPrefix(text, "sieve: msgid="); ok {
		e.sieve(s)
	}
	switch e.Kind {
	case None:
		e.Mailbox, e.Session = "", ""
	case Unreadable:
		e = Event{Time: e.Time, Host: e.Host, Service: e.Service, Program: e.Program, PID: e.PID, Count: e.Count, Kind: Unreadable}
	}
	return e
}

// agent reads "lmtp(user)<pid><session>" (2.3 and later), "lda(user)",
// "lmtp(pid, user)" (2.2). A user name with brackets or white space in it, which
// auth_username_chars forbids by default, is not believed.
func (e *Event) agent(s string) bool {
	program, s, ok := strings.Cut(s, "(")
	switch program {
	case "lmtp", "lda", "dovecot-lda", "imap":
	default:
		return false
	}
	user, s, ok2 := strings.Cut(s, ")")
	if pid, name, found := strings.Cut(user, ", "); found {
		n, isNumber := number(pid)
		if !isNumber || n > 1<<31-1 {
			return false
		}
		e.PID, user = int(n), name
	}
	if !ok || !ok2 || user == "" || strings.ContainsAny(user, " <>()\"") {
		return false
	}
	var fields []string
	for s != "" {
		field, rest, ok := strings.Cut(strings.TrimPrefix(s, "<"), ">")
		if s[0] != '<' || !ok || len(fields) == 2 {
			return false
		}
		fields, s = append(fields, field), rest
	}
	if len(fields) > 0 {
		if n, ok := number(fields[0]); ok && n < 1<<31 {
			e.PID = int(n)
		}
	}
	if len(fields) > 1 && isSession(fields[1]) {
		e.Session = fields[1]
	}
	e.Program, e.Mailbox = program, user
	return true
}

// isSession tells whether s looks like a session id: base64, with ":2" or the like
// for a further recipient.
func isSession(s string) bool {
	if len(s) < 4 || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c == '+', c == '/', c == ':', c == '-', c == '_', c == '=':
		default:
			return false
		}
	}
	return true
}

// sieveActions are what stands between the message and the target.
var sieveActions = []struct {
	kind Kind
	text string
	end  string
}{
	{SieveForwarded, ": redirect action: forwarded to <", ">"},
	{SieveForwarded, ": forwarded to <", ">"}, // Pigeonhole 0.4
	{SieveNotified, ": notify action: sent mail notification to <", ">"},
	{SieveNotified, ": sent mail notification to <", ">"},
	{SievePiped, ": pipe action: piped message to program `", "'"},
	{SievePiped, ": piped message to program `", "'"},
}

// sieve reads "<id>: redirect action: forwarded to <a@b>". The sender chooses
// the id, up to 80 characters of it: a text with more than one action in it is
// Unreadable.
func (e *Event) sieve(s string) {
	var kind Kind
	id, target, found := "", "", 0
	for _, marker := range []string{"forwarded to <", "sent mail notification to <", "piped message to program `"} {
		found += strings.Count(s, marker)
	}
	if found == 0 {
		return
	}
	e.Kind = Unreadable
	if found > 1 {
		return
	}
	for _, action := range sieveActions {
		before, after, ok := strings.Cut(s, action.text)
		if !ok {
			continue
		}
		if target, ok = strings.CutSuffix(after, action.end); !ok {
			return
		}
		kind, id = action.kind, before
		break
	}
	if kind == None {
		return
	}
	if id == "unspecified" {
		id = ""
	}
	if kind == SievePiped {
		e.Kind, e.MessageID, e.Command = kind, id, target
		return
	}
	all := targets("<" + target + ">")
	if len(all) == 0 || len(all) > 1 && kind != SieveNotified {
		return
	}
	e.Kind, e.MessageID, e.RcptTo = kind, id, all[0]
	if len(all) > 1 {
		e.Text = "<" + target + ">"
	}
}

// Targets are all addresses that a SieveNotified names: RcptTo, and those that
// Text has where there are several.
func (e *Event) Targets() []string {
	if e.Kind == SieveNotified && e.Text != "" {
		return targets(e.Text)
	}
	return []string{e.RcptTo}
}

// maxTargets bounds how many addresses one line names: a line of MaxLine has not
// many more.
const maxTargets = 1000

// targets reads "<a@b>, <c@d>"; nil: it is something else.
func targets(s string) (all []string) {
	for len(all) < maxTargets {
		rest, ok := strings.CutPrefix(s, "<")
		if !ok {
			return nil
		}
		address, rest, ok := cutAddress(rest)
		if !ok || address == "" {
			return nil
		}
		if all = append(all, address); rest == "" {
			return all
		}
		if s, ok = strings.CutPrefix(rest, ", "); !ok {
			return nil
		}
	}
	return nil
}
