package commandline

import (
	"path"
	"slices"
	"strings"

	"relayguard/forward"
)

// Argv reads a list of arguments, the program first.
func Argv(argv []string, env Env) Result {
	if env.depth > maxDepth || len(argv) == 0 {
		return Result{Harmless: len(argv) == 0}
	}
	env.depth++
	program := argv[0]
	args := argv[1:]
	name := path.Base(program)
	if run, ok := wrapper(name, args, env); ok {
		return run
	}
	result := Result{}
	switch kind := mailer(name); {
	case program == env.Sendmail || kind == likeSendmail || strings.Contains(program, forward.Unknown):
		result.add(sendmailArgs(args)...)
	case kind == likeMail:
		result.add(mailArgs(args)...)
	case kind == likeForward:
		result.add(plainArgs(args)...)
	case name == "formail" || name == "reformail":
		return formail(program, args, env)
	case name == "mailbot":
		return mailbot(args, env)
	default:
		result.Harmless = harmless[name] && env.trusted(program) && !slices.ContainsFunc(args, device)
	}
	return result
}

type mailerKind int

const (
	noMailer mailerKind = iota
	likeSendmail
	likeMail
	likeForward // addresses and nothing else
)

func mailer(name string) mailerKind {
	switch name {
	case "exim", "exim4", "msmtp", "ssmtp", "esmtp", "dma", "nullmailer-inject", "nullmailer-send", "rmail",
		"qmail-inject", "qmail-remote", "postsendmail", "mini_sendmail", "masqmail", "courier-sendmail", "opensmtpd":
		return likeSendmail
	case "mail", "mailx", "Mail", "bsd-mailx", "s-nail", "nail", "heirloom-mailx", "mutt", "neomutt", "mail.mailutils", "swaks":
		return likeMail
	case "forward", "condredirect", "resend", "bounce":
		return likeForward
	}
	if strings.HasPrefix(name, "sendmail") || strings.HasSuffix(name, "sendmail") {
		return likeSendmail
	}
	return noMailer
}

// System reports whether a path is of a program that the system's administrator
// installs.
func System(program string) bool {
	switch path.Dir(program) {
	case "/bin", "/usr/bin", "/sbin", "/usr/sbin":
		return path.Clean(program) == program
	}
	return false
}

func (e *Env) trusted(program string) bool {
	if e.Trusted != nil {
		return e.Trusted(program)
	}
	return System(program)
}

// device is an argument that may be a connection.
func device(arg string) bool {
	return strings.Contains(arg, "/dev/") && !strings.Contains(arg, "/dev/null")
}

// harmless programs print or compute; they run no other program, whatever their
// arguments, and open no connection.
var harmless = set("date", "echo", "printf", "expr", "test", "[", "true", "false", ":", "hostname", "uname", "basename",
	"dirname", "cat", "head", "tail", "cut", "tr", "wc", "uniq", "grep", "egrep", "fgrep", "sleep", "id", "whoami",
	"md5sum", "sha1sum", "sha256sum", "mkdir", "rm", "rmdir", "mv", "cp", "touch", "lockfile", "cd", "exit", "umask", "pwd", "ls", "chmod")

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, name := range names {
		m[name] = true
	}
	return m
}

// wrapper reads programs that run the rest of their arguments.
func wrapper(name string, args []string, env Env) (Result, bool) {
	switch name {
	case "exec", "command", "nohup", "builtin", "eval", "setsid", "stdbuf", "ionice", "chronic":
		args = afterOptions(args, "")
	case "nice":
		args = afterOptions(args, "n")
	case "env":
		args = afterOptions(args, "uCS")
		for len(args) > 0 && strings.Contains(args[0], "=") {
			args = args[1:]
		}
	case "timeout":
		if args = afterOptions(args, "ks"); len(args) > 0 {
			args = args[1:]
		}
	case "sudo", "doas":
		args = afterOptions(args, "ugpCh")
	case "xargs":
		args = append(slices.Clone(afterOptions(args, "aEILnPsd")), forward.Unknown)
		if len(args) == 1 {
			return Result{}, true
		}
	case "sh", "bash", "dash", "ksh", "zsh", "ash", "csh", "tcsh":
		for n, arg := range args {
			if strings.HasPrefix(arg, "-") && strings.HasSuffix(arg, "c") && n+1 < len(args) {
				return Shell(args[n+1], env), true
			}
		}
		return Result{}, true
	default:
		return Result{}, false
	}
	if len(args) == 0 {
		return Result{Harmless: true}, true
	}
	if name == "eval" {
		return Shell(strings.Join(args, " "), env), true
	}
	result := Argv(args, env)
	if name == "sudo" || name == "doas" {
		result.Harmless = false
	}
	return result, true
}

// afterOptions skips options; those letters take a value.
func afterOptions(args []string, valued string) []string {
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			break
		}
		if len(arg) == 2 && strings.Contains(valued, arg[1:]) && len(args) > 0 {
			args = args[1:]
		}
	}
	return args
}
