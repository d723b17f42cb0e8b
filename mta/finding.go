package mta

// Severity says what a finding means for the guard's promise.
type Severity uint8

const (
	Info     Severity = iota + 1 // to know; nothing to do
	Warning                      // weakens the guard, or may do under other circumstances
	Critical                     // mail goes round the guard, or anybody may relay
)

func (s Severity) String() string {
	return [...]string{"unknown", "info", "warning", "critical"}[min(int(s), 3)]
}

// Finding is one weakness of a configuration. ID, Severity and Where are data;
// What, Why and Remedy are for people.
type Finding struct {
	ID       string // stable: "local-unguarded"
	Severity Severity
	Where    string // "main.cf", "submission/inet", a path
	What     string // what was found
	Why      string // what that lets happen
	Remedy   string
}
