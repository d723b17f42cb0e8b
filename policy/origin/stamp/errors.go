package stamp

import "errors"

// Why a stamp is not believed. Verify returns them wrapped, with particulars.
var (
	ErrNone       = errors.New("no stamp")
	ErrForm       = errors.New("a stamp of no known form")
	ErrKey        = errors.New("a stamp with a key that is not registered")
	ErrNode       = errors.New("a node's stamp that came from elsewhere")
	ErrSignature  = errors.New("a stamp with a wrong signature")
	ErrAccount    = errors.New("a stamp of a site that another account runs")
	ErrTime       = errors.New("a stamp that is too old, or from the future")
	ErrRecipients = errors.New("a stamp that was made for other recipients")
	ErrSubject    = errors.New("a stamp that was made for another subject")
	ErrReplay     = errors.New("a stamp that was used before")
)

// refusals are the sentinels in the order of the checks.
var refusals = [...]struct {
	err  error
	name string
}{
	{ErrNone, "none"},
	{ErrForm, "form"},
	{ErrKey, "key"},
	{ErrNode, "node"},
	{ErrSignature, "signature"},
	{ErrAccount, "account"},
	{ErrTime, "time"},
	{ErrRecipients, "recipients"},
	{ErrSubject, "subject"},
	{ErrReplay, "replay"},
}

// Reasons are all that Reason returns but "", for counters.
func Reasons() []string {
	names := make([]string, len(refusals))
	for i, r := range refusals {
		names[i] = r.name
	}
	return names
}

// Reason is the short name of why a stamp was not believed: "signature". Empty
// for nil and for what is no error of this package.
func Reason(err error) string {
	if i := stage(err); i >= 0 {
		return refusals[i].name
	}
	return ""
}

// stage is how far a stamp came before it was refused, -1 for no refusal.
func stage(err error) int {
	if err == nil {
		return -1
	}
	for i, r := range refusals {
		if errors.Is(err, r.err) {
			return i
		}
	}
	return -1
}

// further is the refusal of the stamp that came further: one that fails only by
// its recipients tells more than the garbage before it.
func further(a, b error) error {
	if stage(b) > stage(a) {
		return b
	}
	return a
}
