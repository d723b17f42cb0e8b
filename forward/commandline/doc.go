// Package commandline finds the addresses that a delivery agent's command line
// sends mail to: the arguments of sendmail(1) and of programs like it, in a list
// of arguments or in shell text. It runs nothing and reads no file; that a
// program gets the mail is told by who found the command.
//
// The trap: a command line is a program. What the shell does with it can be
// followed only where it is plain; all else stays forward.Unknown, and the
// command as a whole is a target by itself, known by its hash. So nothing is
// hidden by what this package does not understand; it is only less exact.
package commandline

// Env is what a command line is read with. The zero value: no variables are
// known, no program is trusted.
type Env struct {
	// Lookup returns a variable's value, with forward.Unknown in place of what
	// is not known, and whether it is set. nil: all are unknown.
	Lookup func(name string) (value string, set bool)
	// Sendmail is a further program that is called like sendmail(1): what the
	// agent's SENDMAIL says.
	Sendmail string
	// Trusted reports whether a program is the distribution's own. nil: by its
	// path, System.
	Trusted func(program string) bool
	// Output returns what a substituted command prints. nil: not known.
	Output func(command string) string
	depth  int
}

// Result is what a command line does with mail.
type Result struct {
	// Addresses get the mail, as written; forward.Unknown stands for what only
	// a message decides.
	Addresses []string
	// Harmless: nothing in it sends mail, or runs a program that may.
	Harmless bool
}

// Bounds of one command line.
const (
	maxText      = 64 << 10 // octets; the rest is not read
	maxAddresses = 1000
	maxDepth     = 6 // sh -c "sh -c ...", $($())
	maxWords     = 10_000
)

func (r *Result) join(other Result) {
	r.Harmless = r.Harmless && other.Harmless
	r.add(other.Addresses...)
}

func (r *Result) add(addresses ...string) {
	for _, a := range addresses {
		if a != "" && len(r.Addresses) < maxAddresses {
			r.Addresses = append(r.Addresses, a)
		}
	}
}
