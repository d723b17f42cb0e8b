// Package config reads relayguard's one configuration file.
//
// The file is strict TOML: an unknown key, a value out of its bounds and two
// keys that contradict each other are errors, and all of them are reported at
// once, each with its line, what was found, what was wanted and the remedy. A
// missing key or section means its default; Default holds them all. One table
// (schema.go) says which keys there are; the parser, the manual page and the
// example file are made from it.
//
// It opens nothing but that file: whether a group exists or a map can be read
// is for those who use it. Zero never means off, for any key.
package config

import (
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"relayguard/policy"
	"relayguard/policy/origin"
)

// DefaultPath is where the configuration lives unless the command line says
// otherwise.
const DefaultPath = "/etc/relayguard/relayguard.toml"

// Config is a checked configuration. Start from Default, Load or Parse: the
// zero value is none. Lists and maps without entries are nil.
type Config struct {
	Phase        policy.Phase
	Inside       Inside
	MTA          MTA
	Log          Log
	Milter       Milter
	Listeners    []Listener // at least one
	Networks     []origin.Network
	Certificates []origin.Certificate // logins in lower case
	Local        Local
	Address      Address
	Limits       []Limit // at least one
	Overrides    []Override
	Customers    []Customer
	Origin       Origin
	Sign         Sign
	Nodes        []Node
	Store        Store
	Redis        Redis
	Hold         Hold
	Journal      Journal
	Control      Control
	Alert        Alert
	Forward      Forward
	Databases    []Database
	RBL          RBL
	ZoneKeys     []ZoneKey
	Report       Report
}

// Inside says which domains are ours.
type Inside struct {
	Domains []string // lower case, A-labels
	FromMTA bool     // add those that the MTA's settings name
	Free    bool     // recipients in them do not count; Limit.Recipients follows it already
}

// MTA is the mail server on this machine.
type MTA struct {
	Kind            string // KindPostfix or KindSendmail
	ConfigDirectory string // absolute
	Log             string // absolute path, LogJournal or LogNone
	QueueHelper     string // absolute path of the root helper's Unix socket
	QueueState      string // absolute; the root helper's own directory
	SMTP            string // host:port, for the daemon's own mail
}

// What MTA.Kind may be.
const (
	KindPostfix  = "postfix"
	KindSendmail = "sendmail"
)

// What MTA.Log may be beside a path.
const (
	LogJournal = "journal" // systemd's
	LogNone    = "none"    // the MTA's log is not read
)

// Log is the daemon's own log on standard error.
type Log struct {
	Format string // "text" or "json"
	Level  slog.Level
}

// Milter bounds what one MTA connection may cost.
type Milter struct {
	DecisionTimeout time.Duration
	OnTimeout       policy.Verdict // Accept or Defer
	IdleTimeout     time.Duration  // between two frames
	FrameTimeout    time.Duration  // within a frame, either way
	DrainTimeout    time.Duration  // from SIGTERM to the end
	MaxConnections  int            // of all listeners together
	MaxHeaderBytes  int            // of one message
	MaxHeaderFields int
	MaxRecipients   int
	MaxMemory       int // octets, of all messages under way
	MaxBodyBytes    int // of one message, that are read to recognise its text
}

// Listener is a socket that the MTA connects to.
type Listener struct {
	Name     string
	Role     policy.Role
	Endpoint Endpoint
	Mode     fs.FileMode    // of a Unix socket; 0 with TCP
	Group    string         // of a Unix socket; "" with TCP
	Peers    []string       // Unix accounts on this machine that may connect; never empty
	Allow    []netip.Prefix // other machines that may connect; nil unless TCP beyond loopback
}

// Endpoint is where a listener listens: Path of a Unix socket, or else TCP.
type Endpoint struct {
	Path string
	TCP  netip.AddrPort
}

// Network is the first argument of net.Listen.
func (e Endpoint) Network() string {
	if e.Path != "" {
		return "unix"
	}
	return "tcp"
}

// Address is the second argument of net.Listen.
func (e Endpoint) Address() string {
	if e.Path != "" {
		return e.Path
	}
	return e.TCP.String()
}

// String is the endpoint as the configuration writes it.
func (e Endpoint) String() string { return e.Network() + ":" + e.Address() }

// Loopback reports that only this machine can reach the endpoint.
func (e Endpoint) Loopback() bool { return e.Path != "" || e.TCP.Addr().Unmap().IsLoopback() }

// Local is how mail of this machine's own accounts is known.
type Local struct {
	DaemonName  string
	SharedUsers []string // Unix accounts that many senders share
}

// Address says who may write as whom.
type Address struct {
	DefaultDomain      string // "" if the MTA's settings are to say
	RecipientDelimiter string // each of its characters begins a tag; "" for no tags
	Envelope           policy.Verdict
	HeaderFrom         policy.Verdict
	Files              []string // absolute
	PostfixMaps        []string // "type:table"
	MapTimeout         time.Duration
	MapSlow            policy.Verdict

	// Logins gives the addresses of a login (lower case): "user@domain",
	// "@domain" or "*". Domains are in lower case.
	Logins map[string][]string
}

// Hold bounds what the guard may keep waiting in the MTA's hold queue, and in
// the folder of deleted mail.
type Hold struct {
	OriginMessages int   // of one origin
	OriginBytes    int64 // of one origin
	ServerMessages int   // of all origins; at least OriginMessages
	MinFree        int64 // octets of the queue's file system that stay free
	MinFreeInodes  int64 // inodes of it that stay free
	ReconcileEvery time.Duration
	Grace          time.Duration // how long deleted mail can be had back
	GraceBytes     int64         // of all deleted mail

	Release       bool          // mail over a "volume" limit goes by itself when there is room
	MaxAge        time.Duration // older mail waits for an admin
	BouncePercent int           // of what was released; more stop it
	RemindAfter   time.Duration
	DeleteAfter   time.Duration // more than MaxAge and RemindAfter; 0: nothing is deleted by itself
}

// Journal is the record of what the guard did and why.
type Journal struct {
	Directory         string // absolute; the daemon's alone
	KeepAddresses     time.Duration
	KeepTotals        time.Duration // at least KeepAddresses
	KeepAdmin         time.Duration
	AcceptedPerSecond int   // rows about accepted mail; those beyond are counted only
	MaxLog            int64 // octets of the log files that are not in the database yet
}

// Control is the socket by which commands speak to the daemon. A group is ""
// if none was named.
type Control struct {
	Socket       string // absolute
	AdminGroup   string // may read and act
	ReadGroup    string // may read
	InspectGroup string // may see headers and content of held mail; no other right
}

// Alert says who is told of incidents.
type Alert struct {
	Syslog         bool
	Command        string // absolute; "" if none was named
	CommandTimeout time.Duration
	Quiet          time.Duration // without a stop for so long an incident ends
	UpdateEvery    time.Duration // of one incident
	PerHour        int           // of all incidents

	Webhook          string // URL; "": none
	WebhookTokenFile string // absolute; "": no token
	SyslogServer     string // "tls://host:port"; "": none
}

// Default is the configuration of an empty file.
func Default() *Config {
	listen := func(role policy.Role) Listener {
		l := defaultListener()
		l.Name, l.Role = role.String(), role
		l.Endpoint.Path = "/var/spool/postfix/relayguard/" + l.Name + ".sock" // Postfix's chroot on Debian
		return l
	}
	return &Config{
		Phase:  policy.Learning,
		Inside: Inside{FromMTA: true},
		MTA:    MTA{Kind: KindPostfix, ConfigDirectory: "/etc/postfix", Log: "/var/log/mail.log", QueueHelper: "/run/relayguard-queue/queue.sock", QueueState: "/var/lib/relayguard-queue", SMTP: "127.0.0.1:25"},
		Log:    Log{Format: "text", Level: slog.LevelInfo},
		Milter: Milter{
			DecisionTimeout: 5 * time.Second,
			OnTimeout:       policy.Defer,
			IdleTimeout:     2 * time.Hour,
			FrameTimeout:    time.Minute,
			DrainTimeout:    30 * time.Second,
			MaxConnections:  2000,
			MaxHeaderBytes:  256 << 10,
			MaxHeaderFields: 1000,
			MaxRecipients:   10000,
			MaxMemory:       128 << 20,
			MaxBodyBytes:    32 << 10,
		},
		Listeners: []Listener{listen(policy.Submission), listen(policy.Local), listen(policy.Relay), listen(policy.Inbound)},
		Origin:    Origin{CallSocket: "/run/relayguard-call/socket", CallTimeout: 300 * time.Millisecond, MaxPlugins: 40, TemplateParts: 200_000, BoilerplateDays: 3},
		Local:     Local{DaemonName: "LOCAL-PICKUP", SharedUsers: []string{"www-data", "apache", "nginx"}},
		Address: Address{
			RecipientDelimiter: "+",
			Envelope:           policy.Hold,
			HeaderFrom:         policy.Tell,
			MapTimeout:         time.Second,
			MapSlow:            policy.Hold,
		},
		Limits: defaultLimits(),
		Store:  Store{Kind: StoreSQLite, MaxBuckets: 1_000_000, DistinctExact: 1000, KnownPerAccount: 50_000, Known: 2_000_000},
		Redis:  Redis{Mode: "single", Prefix: "relayguard", Timeout: 50 * time.Millisecond, Share: 50, LocalUsers: "own"},
		Hold: Hold{
			OriginMessages: 500,
			OriginBytes:    200_000_000,
			ServerMessages: 20_000,
			MinFree:        500_000_000,
			MinFreeInodes:  10_000,
			ReconcileEvery: 5 * time.Minute,
			Grace:          7 * day,
			GraceBytes:     1_000_000_000,
			Release:        true,
			MaxAge:         12 * time.Hour,
			BouncePercent:  5,
			RemindAfter:    24 * time.Hour,
		},
		Journal: Journal{
			Directory:         "/var/lib/relayguard/journal",
			KeepAddresses:     30 * day,
			KeepTotals:        400 * day,
			KeepAdmin:         3 * 365 * day,
			AcceptedPerSecond: 500,
			MaxLog:            1 << 30,
		},
		Control: Control{Socket: "/run/relayguard/control.sock"},
		Alert: Alert{
			Syslog:         true,
			CommandTimeout: 10 * time.Second,
			Quiet:          time.Hour,
			UpdateEvery:    time.Hour,
			PerHour:        30,
		},
		Forward: defaultForward(),
		RBL:     defaultRBL(),
		Report:  defaultReport(),
	}
}

// defaultListener is what a [[listener]] need not say.
func defaultListener() Listener {
	return Listener{Mode: 0o660, Group: "postfix", Peers: []string{"postfix"}}
}

// maxFile is far above any configuration that people write: long lists of
// addresses belong into address.files.
const maxFile = 1 << 20

// Load reads and checks the file. The error is Errors if the file could be
// read.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, data)
}

// Parse checks a configuration; name is what problems call it. The error is
// Errors, with every problem, in order of position.
func Parse(name string, data []byte) (*Config, error) {
	r := newReport(name, data)
	c := r.read()
	if err := r.err(); err != nil {
		return nil, err
	}
	return c, nil
}
