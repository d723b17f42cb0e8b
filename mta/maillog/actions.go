package maillog

import "strings"

// ruleActions are the actions of access maps and header and body checks that
// send mail elsewhere, by the word that begins their line.
var ruleActions = map[string]Kind{"redirect: ": Redirected, "bcc: ": Copied, "filter: ": Filtered}

// cutAction is the kind and the rest of a line about such an action.
func cutAction(s string) (kind Kind, rest string, ok bool) {
	for word, kind := range ruleActions {
		if rest, ok := strings.CutPrefix(s, word); ok {
			return kind, rest, true
		}
	}
	return None, "", false
}

// accessAction reads "RCPT from name[ip]:port: <what>: Recipient address
// triggers REDIRECT a@b; from=<...> to=<...> proto=ESMTP helo=<...>". The client
// chooses what stands in brackets, in front of the target and behind it: Postfix
// says "triggers REDIRECT" once, so a line that says it twice is Unreadable.
func (e *Event) accessAction(kind Kind, s string, cut bool) {
	e.Kind, e.By = Unreadable, ByAccess
	stage, s, ok := strings.Cut(s, " from ")
	if !ok || len(stage) > len("END-OF-MESSAGE") || strings.ContainsAny(stage, " :<") {
		return
	}
	name, ip, s, ok := cutClient(s)
	if !ok {
		return
	}
	marker := map[Kind]string{Redirected: " triggers REDIRECT ", Copied: " triggers BCC ", Filtered: " triggers FILTER "}[kind]
	_, target, ok := strings.Cut(s, marker)
	if !ok || strings.Contains(target, marker) {
		return
	}
	end := -1
	for _, next := range []string{"; from=<", "; to=<", "; proto="} {
		if at := strings.Index(target, next); at >= 0 && (end < 0 || at < end) {
			end = at
		}
	}
	if end < 0 && cut {
		return
	}
	if end >= 0 {
		target = target[:end]
	}
	if e.sendTo(kind, target) {
		e.Stage, e.ClientName, e.ClientIP = stage, name, ip
	}
}

// checkAction reads "header Subject: text from name[ip]; from=<...> to=<...>
// proto=ESMTP helo=<...>: a@b". Content and client come first and the target
// last, so what follows the last colon is the target, unless Postfix cut the
// line.
func (e *Event) checkAction(kind Kind, s string, cut bool) {
	e.Kind = Unreadable
	class, s, ok := strings.Cut(s, " ")
	at := strings.LastIndex(s, ": ")
	if !ok || cut || at < 0 || !strings.Contains(s[:at], " from ") {
		return
	}
	switch class {
	case "header", "body":
		if e.sendTo(kind, s[at+len(": "):]) {
			e.By = class
		}
	default: // milter headers and whatever comes
		e.sendTo(kind, s[at+len(": "):])
	}
}

// sendTo takes a target: an address, or a transport and next hop for FILTER.
func (e *Event) sendTo(kind Kind, target string) bool {
	if kind == Filtered {
		if target == "" || strings.ContainsAny(target, " <>;\"") {
			return false
		}
		e.Kind, e.Relay = kind, target
		return true
	}
	address, rest, ok := cutAddress(target + ">")
	if !ok || rest != "" || address == "" {
		return false
	}
	e.Kind, e.RcptTo = kind, address
	return true
}

// command is the program that a delivery was handed to, without what it
// answered; empty: it was none.
func command(program, status, reply string) string {
	if status != Sent {
		return ""
	}
	switch program {
	case "local":
		if command, ok := strings.CutPrefix(reply, "delivered to command: "); ok {
			return command
		}
	case "pipe":
		if rest, ok := strings.CutPrefix(reply, "delivered via "); ok {
			service, _, _ := strings.Cut(rest, " service")
			return service
		}
	}
	return ""
}
