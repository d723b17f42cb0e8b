package main

import (
	"github.com/spf13/cobra"
)

func newRBL() *cobra.Command {
	return group("rbl", "are our addresses and domains on DNS blocklists", `
Asks DNS blocklists about the addresses from which mail really leaves and about the
domains that it is from, and each list first whether it can be believed: its test
entries must be there, and a name that nobody lists must not.

There are four results, and they are never mixed: listed, clean, unknown (nobody
said anything that can be believed) and refused (the list, or the resolver, does not
answer us). A listing names an address (ip), a domain, a range of addresses around
ours (range) or the provider's whole network (asn); of the last two somebody else may
be the cause.

check asks now, with or without a daemon. The daemon asks on schedule and remembers:
status and history. Which lists are asked, with which keys and by which resolver,
stands in the section rbl of relayguard.toml(5).`,
		newRBLCheck(), newRBLStatus(), newRBLHistory(), newRBLZones(), newRBLAddresses())
}
