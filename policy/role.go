package policy

import "fmt"

// Role says what kind of clients a listener serves, and so what is asked of
// them. The zero value is no role; a listener without one is a configuration
// error.
type Role uint8

const (
	Submission Role = iota + 1 // people and devices: AUTH always
	Local                      // sendmail(1) on this machine
	Relay                      // trusted machines and web nodes: AUTH or a trusted network
	Inbound                    // strangers writing to us: the MTA judges them, the guard tells
	Egress                     // only forwarding is judged
)

var roleNames = [...]string{Submission: "submission", Local: "local", Relay: "relay", Inbound: "inbound", Egress: "egress"}

// Roles are the names that ParseRole takes.
func Roles() []string { return roleNames[1:] }

func (r Role) String() string { return nameOf(roleNames[:], int(r), "role") }

// ParseRole reads a role by its name in the configuration.
func ParseRole(s string) (Role, error) {
	i, err := parseName(roleNames[:], s)
	return Role(i), err
}

// Phase says how far the guard's hand goes. The zero value is no phase.
type Phase uint8

const (
	Observe  Phase = iota + 1 // decides and records, lets everything pass
	Learning                  // AUTH and switches act, address rules tell
	Enforce                   // every rule acts
)

var phaseNames = [...]string{Observe: "observe", Learning: "learning", Enforce: "enforce"}

// Phases are the names that ParsePhase takes.
func Phases() []string { return phaseNames[1:] }

func (p Phase) String() string { return nameOf(phaseNames[:], int(p), "phase") }

// ParsePhase reads a phase by its name in the configuration.
func ParsePhase(s string) (Phase, error) {
	i, err := parseName(phaseNames[:], s)
	return Phase(i), err
}

func nameOf(names []string, i int, kind string) string {
	if i <= 0 || i >= len(names) {
		return fmt.Sprintf("%s(%d)", kind, i)
	}
	return names[i]
}

func parseName(names []string, s string) (int, error) {
	for i, name := range names[1:] {
		if s == name {
			return i + 1, nil
		}
	}
	return 0, fmt.Errorf("got %q, want one of %q", s, names[1:])
}
