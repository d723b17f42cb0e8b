package rbl

import (
	"net/netip"
	"time"
)

// Zone is a blocklist: what it is, and how it is to be asked.
type Zone struct {
	Name     string `json:"zone"` // lower case, no final dot, no key
	Operator string `json:"operator"`
	Kinds    []Kind `json:"kinds"`

	Class    string   `json:"class"` // "spam", "exploit", "policy", "welcome", ...
	Severity Severity `json:"severity"`
	Scope    Scope    `json:"scope"`
	Welcome  bool     `json:"welcome,omitempty"` // being on it is good: every hit is Info
	Codes    []Code   `json:"codes,omitempty"`   // none: any answer inside 127.0.0.0/8 is a listing, but for Blocks and 127.0.0.1
	Means    string   `json:"means,omitempty"`   // what a listing says, where there are no Codes
	Bits     bool     `json:"bits,omitempty"`    // codes are bits of the last octet
	Blocks   []Code   `json:"blocks,omitempty"`  // answers that refuse the query
	Test     Test     `json:"test,omitzero"`

	// Hashed: it is asked for hashes of names, which is not built. It is known, and
	// can be asked about nothing.
	Hashed bool `json:"hashed,omitempty"`

	// Ranges: it lists ranges, and its terms let neighbours be asked for.
	Ranges bool `json:"ranges,omitempty"`

	Default Use    `json:"default"`
	Terms   Terms  `json:"terms"`
	Key     string `json:"key,omitempty"`   // whose key is asked for with: "spamhaus"; it stands before the zone
	Keyed   string `json:"keyed,omitempty"` // the zone that has the same data for who has a key: asked in place of this one

	Removal Removal `json:"removal"`

	Status string   `json:"status"` // how well this is evidenced: "verified", "unverified", "disputed", "own"
	AsOf   string   `json:"as_of,omitempty"`
	Source []string `json:"source,omitempty"`
	Note   string   `json:"note,omitempty"`
}

// Asks reports whether a zone can be asked about a kind.
func (z *Zone) Asks(k Kind) bool {
	if z.Hashed {
		return false
	}
	for _, has := range z.Kinds {
		if has == k {
			return true
		}
	}
	return false
}

// Code is an answer, or several, and what it means: every address of which each octet
// is between that of From and that of To.
type Code struct {
	From     netip.Addr `json:"from,omitzero"`      // 127.0.0.2
	To       netip.Addr `json:"to,omitzero"`        // inclusive; the same as From if it is one
	Bit      uint8      `json:"bit,omitempty"`      // with Zone.Bits: a bit of the last octet by its value (1, 2, 4 ... 128); From and To are not set
	Means    string     `json:"means"`              // "{n}" stands for the last octet
	Severity *Severity  `json:"severity,omitempty"` // nil: the zone's
	Scope    *Scope     `json:"scope,omitempty"`    // nil: the zone's
	How      []string   `json:"how,omitempty"`      // like Removal.How; none: the zone's
}

// Test is what a zone answers to by agreement (RFC 5782 §5), as labels in front of
// the zone. Empty: there is none, and its state is known by the others alone.
type Test struct {
	Listed4      string `json:"listed4,omitempty"` // "2.0.0.127"
	Clean4       string `json:"clean4,omitempty"`  // "1.0.0.127"
	Listed6      string `json:"listed6,omitempty"` // 32 nibbles
	Clean6       string `json:"clean6,omitempty"`
	ListedDomain string `json:"listed_domain,omitempty"` // "test"
	CleanDomain  string `json:"clean_domain,omitempty"`  // "invalid"
}

// Use is whether a zone is asked without being named in the configuration.
type Use uint8

const (
	Off Use = iota
	On
	WithKey // as soon as there is a key
	Never   // only if somebody names it in a command
)

var useNames = [...]string{"off", "on", "key", "never"}

// String is the name in the data file and JSON.
func (u Use) String() string { return useNames[u] }

// MarshalText writes the name.
func (u Use) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText reads the name.
func (u *Use) UnmarshalText(text []byte) error { return named(useNames[:], text, u, "default") }

// Terms are what its operator allows.
type Terms struct {
	// NonCommercial: free for others only; with commercial use it is not asked
	// without a key.
	NonCommercial bool `json:"non_commercial,omitempty"`
	// Register: the address of the resolver is to be registered, at URL.
	Register bool   `json:"register,omitempty"`
	Account  bool   `json:"account,omitempty"` // a paid or personal account
	URL      string `json:"url,omitempty"`
	PerDay   int    `json:"per_day,omitempty"` // queries; 0: nothing is said
	// PerSecond is how many queries in a second at most, to all zones of the Operator
	// together; 0: nothing is said.
	PerSecond float64 `json:"per_second,omitempty"`
}

// Removal is how a listing ends: facts, of which a report makes sentences.
type Removal struct {
	URL string `json:"url,omitempty"` // look up and remove
	// How, in the order in which to try: "expires", "form" (self-service), "email",
	// "isp" (only who owns the network can ask), "register" (become known to them),
	// "fix" (it goes by the cause: reverse name, open proxy), "none". Empty: not known.
	How     []string      `json:"how,omitempty"`
	Expires time.Duration `json:"expires,omitempty"` // after the last cause; 0: not known, or never by itself
	Paid    string        `json:"paid,omitempty"`    // "": no; "optional", "required": never a step that we advise
	// First is the code that has to go first: while a listing with it is there, others
	// cannot be removed. "127.0.0.2"
	First string `json:"first,omitempty"`
}

// Closed is a list that is not to be asked.
type Closed struct {
	Name    string   `json:"zone"`
	Suffix  bool     `json:"suffix,omitempty"` // all below it, too
	Died    string   `json:"died,omitempty"`
	Message string   `json:"message"`        // why, and what it answers now
	Warn    bool     `json:"warn,omitempty"` // not certain: it can be asked if it is named, with this warning
	Status  string   `json:"status"`         // like Zone.Status
	AsOf    string   `json:"as_of,omitempty"`
	Source  []string `json:"source,omitempty"`
	Note    string   `json:"note,omitempty"`
}
