package commandline

import (
	"regexp"
	"slices"
	"strings"

	"relayguard/forward"
	"relayguard/forward/aliases"
)

// sendmailValued are the options of sendmail(1) that take a value, of Postfix,
// Sendmail and Exim together.
const sendmailValued = "ABCDFLMNORVXbefhopr"

// sendmailArgs are the recipients among arguments of sendmail(1). With -t, those
// of the message are among them: forward.Unknown.
func sendmailArgs(args []string) []string {
	var found []string
	for n := 0; n < len(args); n++ {
		arg := args[n]
		switch {
		case arg == "--":
			for _, rest := range args[n+1:] {
				found = append(found, Addresses(rest)...)
			}
			return found
		case len(arg) > 1 && arg[0] == '-':
			value, message := sendmailOption(arg)
			if message {
				found = append(found, forward.Unknown)
			}
			if value {
				n++
			}
		default:
			found = append(found, Addresses(arg)...)
		}
	}
	return found
}

// sendmailOption reads a cluster of options: whether the next argument is its
// value, and whether -t is in it.
func sendmailOption(arg string) (value, message bool) {
	for n := 1; n < len(arg); n++ {
		switch {
		case arg[n] == 't':
			message = true
		case strings.IndexByte(sendmailValued, arg[n]) >= 0:
			return n == len(arg)-1, message
		}
	}
	return false, message
}

// Addresses are those of one argument of sendmail(1): it may be a list. Blanks
// around them, and the carriage return that a file of another system leaves, are
// no part of them.
func Addresses(arg string) []string {
	arg = strings.Trim(arg, " \t\r\n,")
	if arg == "" {
		return nil
	}
	if !strings.ContainsAny(arg, " \t\r\n,;:<>()\"\\") {
		return []string{arg}
	}
	var found []string
	for _, target := range aliases.ParseTargets(arg) {
		if target.Kind == forward.Address && target.Text != "" {
			found = append(found, target.Text)
		}
	}
	if len(found) == 0 { // what another parser may take for an address
		return []string{arg}
	}
	return found
}

// mailArgs are the recipients among arguments of mail(1), mutt(1) and the like.
func mailArgs(args []string) []string {
	var found []string
	for n := 0; n < len(args); n++ {
		arg := args[n]
		switch {
		case arg == "--":
			return append(found, plainArgs(args[n+1:])...)
		case strings.HasPrefix(arg, "--"):
			if _, value, ok := strings.Cut(arg, "="); ok && strings.Contains(value, "@") {
				found = append(found, Addresses(value)...)
			}
		case len(arg) > 1 && arg[0] == '-':
			letter, value := arg[1], arg[2:]
			if !strings.ContainsRune("aAbcCeEFfhHiimqQrsSTuXx", rune(letter)) {
				break
			}
			if value == "" && strings.ContainsRune("aAbcCeFfHmrsSuX", rune(letter)) && n+1 < len(args) {
				n++
				value = args[n]
			}
			if letter == 'b' || letter == 'c' {
				found = append(found, Addresses(value)...)
			}
		default:
			found = append(found, Addresses(arg)...)
		}
	}
	return found
}

func plainArgs(args []string) []string {
	var found []string
	for _, arg := range args {
		if !strings.HasPrefix(arg, "-") {
			found = append(found, Addresses(arg)...)
		}
	}
	return found
}

// recipientHeader finds a header of recipients in the words of a pipeline that
// ends in "sendmail -t".
var recipientHeader = regexp.MustCompile(`(?i)(?:resent-)?\b(?:to|cc|bcc):[ \t]*([^\n\r/|:]{1,1000})`)

// headerAddresses are recipients that words put into headers.
func headerAddresses(words []string) []string {
	var found []string
	for _, word := range words {
		for _, match := range recipientHeader.FindAllStringSubmatch(word, 100) {
			for _, address := range Addresses(strings.ReplaceAll(match[1], `\n`, " ")) {
				if strings.Contains(address, "@") || strings.Contains(address, forward.Unknown) {
					found = append(found, address)
				}
			}
		}
	}
	return found
}

// formail reads the arguments of formail(1) and reformail(1): -s runs a program.
func formail(program string, args []string, env Env) Result {
	for n, arg := range args {
		if len(arg) < 2 || arg[0] != '-' || arg[len(arg)-1] != 's' || strings.IndexByte("AaIiRUuXxlm", arg[1]) >= 0 {
			continue
		}
		if n+1 < len(args) {
			return Argv(args[n+1:], env)
		}
		return Result{}
	}
	return Result{Harmless: env.trusted(program)}
}

// mailbot reads the arguments of mailbot(1): -f with an address, and the program
// that sends.
func mailbot(args []string, env Env) Result {
	result := Result{}
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		arg := args[0]
		args = args[1:]
		switch {
		case arg[1] == 'f':
			result.add(Addresses(arg[2:])...)
		case len(arg) == 2 && strings.ContainsRune("AtcmMRTSdDFlko", rune(arg[1])) && len(args) > 0:
			args = args[1:]
		}
	}
	if len(args) > 0 && !slices.Contains(args, "-t") {
		result.add(Argv(args, env).Addresses...)
	}
	return result
}
