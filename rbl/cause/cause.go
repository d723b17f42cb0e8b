// Package cause says who stood out in the hours before a listing began.
//
// It compares what each account, site, plugin, template and forwarding mailbox did
// with what is usual for it, and weighs that with bounces, recipients that were new
// to it, and what the guard stopped or would have stopped. Who counted all that is
// the caller's affair.
//
// The trap: the largest sender is seldom the cause. A newsletter that goes out every
// week stands out by size alone, so size alone counts for little: what counts is
// that it is more than usual.
package cause

// What an Activity is of.
const (
	Account  = "account"
	Site     = "site"
	Plugin   = "plugin"
	Template = "template"
	Forward  = "forward" // a mailbox or rule that forwards outside
)

// Activity is what one of them did in the hours that are looked at.
type Activity struct {
	Kind    string
	Name    string // "login:taro", "shop.example.jp", "share@shop.example.jp", a template, an owner
	Account string // whose mail it is; of several the one with most
	Site    string // of a plugin

	Messages, Recipients int64 // that passed
	Stopped              int64 // recipients held or refused
	Told                 int64 // recipients of would-be stops, of Recipients
	FirstTime            int64 // of Recipients; -1: not known
	Sent, Bounced        int64 // deliveries
	Held, Released       int64 // messages that wait; that were let go

	// Usual is a mean over as many hours before; -1: there is no time before.
	Usual, UsualBounced float64
	// UsualMost is the most Recipients of a day before, which tells who sends much at
	// once from time to time; 0 or less: not known.
	UsualMost float64
}

// Suspect is one that stood out.
type Suspect struct {
	Activity
	Score float64 // 0 to 1; larger is more likely
	Share float64 // of all Recipients, 0 to 1
}
