package incident

import (
	"time"

	"relayguard/policy"
)

// Rule says when stops for a cause become an incident. The zero value: at the
// first one.
type Rule struct {
	Never  bool          // it is not worth one, whatever the number
	After  int           // stops of one origin within Within that open it; below 2: the first
	Within time.Duration // from the first of them
	Whole  bool          // the trouble is the server's: all origins make one incident, of OriginServer
}

// DefaultRules are the rules by cause. A cause that is not named opens an
// incident at its first stop: limits are named by the admin, and a tripped limit
// or an envelope address that is not the login's is what incidents are for.
//
// Strangers who are refused (no AUTH, denied) never open one: they are the
// weather, and could open as many as they like. What the admin has ordered
// (stop) needs no alert.
func DefaultRules() map[string]Rule {
	return map[string]Rule{
		policy.RuleAuth:      {Never: true},
		policy.RuleDenied:    {Never: true},
		policy.RuleStopped:   {Never: true},
		policy.RuleForward:   {Never: true}, // of the rule by which it goes somebody is told already, and nobody who sends it has done anything
		policy.RuleFrom:      {After: 5, Within: time.Hour},
		policy.RuleHeader:    {After: 5, Within: time.Hour},
		policy.RuleRecipient: {After: 5, Within: time.Hour},
		policy.RuleSuspended: {After: 100, Within: time.Hour}, // known, but whoever goes on at this rate is a machine
		policy.RuleMap:       {After: 5, Within: 10 * time.Minute, Whole: true},
	}
}
