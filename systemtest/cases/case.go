package cases

// Case is one file.
type Case struct {
	Name  string // of the file, without .case
	Path  string
	Title string // the first sentence of the comment that it begins with
	Steps []Step // in order
}

// The two mail servers, as cases name them.
const (
	Postfix  = "postfix"
	Sendmail = "sendmail"
)

// Step is one thing to do, or to wait for.
type Step struct {
	Line int    // in the file
	Text string // the line itself
	Only string // Postfix or Sendmail; "" beside both
	Do   any    // one of the types below
}

// Guard starts the guard with further configuration in a phase, or, after the
// beginning, gives a running one another.
type Guard struct {
	Phase  string
	Config string // TOML
}

// GuardDies ends the guard by kill -9, GuardReturns starts it again.
type (
	GuardDies    struct{}
	GuardReturns struct{}
)

// Site makes a WordPress that a Unix account runs, and has relayguard let it stamp
// its mail.
type Site struct{ Name, Account string }

// Client turns to an SMTP session. A Service opens it, with EHLO, and AUTH where
// there is a Login.
type Client struct {
	Name    string
	Service string // "" goes on with the one of that name
	From    string // its IP address; "" is loopback
	Account string // the Unix account that runs it; "" is root
	Login   string
}

// Say is something that the present client says in one write, and what it wants
// to be told then.
type Say struct {
	Lines []string
	Wants []Reply
}

// Reply is a wanted answer. Only Code is always there.
type Reply struct {
	Line     int // in the file
	Only     string
	Code     int
	Enhanced string
	Text     string // a part of it
}

// Mail is a whole transaction of the present client.
type Mail struct {
	ID      string // in its Message-ID
	From    string // "" is the null sender
	To      []string
	Message string // without Message-ID
	Want    Reply
	AtRCPT  bool // Want is the answer to every RCPT, else to the message
}

// Command is a program that somebody runs. In the standard input {stamp SITE PLUGIN}
// is a stamp for that message.
type Command struct {
	Account string   // the Unix account
	Args    []string // with the program: sendmail, or relayguard as root
	Stdin   string
	Exit    map[string]int // by mail server, "" for all others; 0 where none is named
	Out     []Pattern      // on standard output
	Err     []Pattern      // on standard error
}

// Pattern is a regular expression that must match, or must not.
type Pattern struct {
	Line       int
	Only       string
	Expression string
	Not        bool
}

// SinkAnswers makes the world answer RCPT for an address so; Code 0 takes mail
// again.
type SinkAnswers struct {
	Address string
	Code    int
	Text    string
}

// Arrives waits until mail for each of the addresses is where it should go.
type Arrives struct {
	Addresses []string
	Text      []Pattern // of each mail
}

// Absent says that nothing has arrived there so far.
type Absent struct{ Addresses []string }

// Held waits until the guard holds the mail to each of the addresses.
type Held struct {
	Addresses []string
	Rule      string
	Account   string
	Because   []Pattern // of the reason in the journal
}

// HeldByOthers waits until the mail server holds mail of which the guard says
// that it is not its own.
type HeldByOthers struct{ Addresses []string }

// AdminHolds has the mail server's own tools hold the mail to the addresses.
type AdminHolds struct{ Addresses []string }

// Deferred waits until mail to the addresses was tried and has to wait.
type Deferred struct{ Addresses []string }

// Gone waits until no mail to the addresses is in any queue.
type Gone struct{ Addresses []string }

// Verdict waits for the guard's verdict on a message.
type Verdict struct {
	ID      string // of the Message-ID
	Verdict string
	Rule    string // "" none
	Account string
}

// TryAgain has the mail server try all that waits, sendmail(1)'s mail too.
type TryAgain struct{}
