package wrapper

import (
	"cmp"
	"strings"

	"relayguard/cmd/internal/call"
)

// options are what the wrapper must know of sendmail's command line. The MTA's
// own program reads it again.
type options struct {
	submits    bool // a message comes on standard input
	mailFrom   string
	rcptTo     []string
	fromHeader bool // -t
}

// Options with a value, in the same argument or the next: of sendmail(1) of
// Postfix and Sendmail together. -d, -q and -Q have one in the same argument
// only.
const valued = "ABCDFLMNOPRVXbefhopr"

// parse reads a command line. It asks for less than sendmail does: options may
// come after recipients, and those that nobody knows have no value. A mode that
// is not plain submission is not ours, and stays the MTA's alone.
func parse(args []string) options {
	o := options{submits: true}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			o.rcptTo = append(o.rcptTo, args...)
			return o
		case len(arg) < 2 || arg[0] != '-':
			o.rcptTo = append(o.rcptTo, arg)
			continue
		}
		for flags := arg[1:]; flags != ""; {
			flag := flags[0]
			flags = flags[1:]
			value := ""
			switch {
			case strings.IndexByte("dqQ", flag) >= 0:
				value, flags = flags, ""
			case strings.IndexByte(valued, flag) >= 0:
				if value, flags = flags, ""; value == "" && len(args) > 0 {
					value, args = cmp.Or(args[0], call.NullSender), args[1:]
				}
			}
			o.note(flag, value)
		}
	}
	return o
}

func (o *options) note(flag byte, value string) {
	switch flag {
	case 'b': // the mode: m delivers, all others serve, list, test or initialise
		o.submits = o.submits && value == "m"
	case 'q', 'Q', 'I', 'M': // runs the queue; makes aliases; Exim's verbs
		o.submits = false
	case 't':
		o.fromHeader = true
	case 'f', 'r':
		o.mailFrom = value
	}
}
