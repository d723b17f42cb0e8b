package postfix

import "relayguard/mta/grace"

// Grace, Kept and ValidKept are mta/grace's.
type (
	Grace = grace.Folder
	Kept  = grace.Kept
)

// ValidKept is grace.ValidName.
func ValidKept(name string) bool { return grace.ValidName(name) }
