package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Origin is how the guard finds out which site and which plugin mail is from.
type Origin struct {
	CallSocket      string        // where the sendmail wrapper asks
	CallTimeout     time.Duration // how long it waits
	Fingerprints    string        // absolute path of a file; "": only those shipped
	MaxPlugins      int           // names of plugins of one site
	TemplateParts   int           // parts of texts that are remembered
	BoilerplateDays int           // earlier days after which a part is no key
}

// Sign is how a web node's guard tells the relay where mail is from.
type Sign struct {
	Node    string // this node's name at the relay; "": this is no node
	KeyFile string // absolute
}

// Node is a web node whose word about the origin of its mail is taken.
type Node struct {
	Name     string
	Prefixes []netip.Prefix
	KeyFile  string // absolute
}

var originFields = []field[Config]{
	key("call_socket", socketPath(), func(c *Config) *string { return &c.Origin.CallSocket },
		`Where the sendmail wrapper asks the daemon. Every local account may connect: the kernel tells which it is.`),
	key("call_timeout", duration(10*time.Millisecond, 10*time.Second), func(c *Config) *time.Duration { return &c.Origin.CallTimeout },
		`How long the wrapper may be kept waiting; so long each mail() of PHP takes while the daemon hangs. Then the mail goes to the MTA as if there were no wrapper.`),
	key("fingerprints", optional(absolutePath("a file")), func(c *Config) *string { return &c.Origin.Fingerprints },
		`A file of fingerprints beside those that relayguard has: by what fields, subjects and sentences the mail of a program is known. Read again by SIGHUP.`),
	key("max_plugins", integer(5, 1000), func(c *Config) *int { return &c.Origin.MaxPlugins },
		`Names of plugins that one site may have. Mail under a further name counts as without a name.`),
	key("template_parts", integer(10_000, 10_000_000), func(c *Config) *int { return &c.Origin.TemplateParts },
		`Parts of texts (subjects, links, lines) that are remembered, of all senders together. Each takes about 200 octets.`),
	key("boilerplate_days", integer(1, 14), func(c *Config) *int { return &c.Origin.BoilerplateDays },
		`A part of a text that a sender sent on so many earlier days is boilerplate, such as a footer: that many get it says nothing.`),
}

var signFields = []field[Config]{
	key("node", optional(label("node")), func(c *Config) *string { return &c.Sign.Node },
		`This web node's name, as the relay's section [[node]] has it. Then the guard signs where mail is from, and leaves limits to the relay. Empty: it is no node.`),
	key("key_file", optional(absolutePath("a file")), func(c *Config) *string { return &c.Sign.KeyFile },
		`The file with the key, the same as on the relay: 64 hexadecimal digits, as "openssl rand -hex 32" writes them.`),
}

var nodes = section[Node]{"node", `A web node with a guard of its own; one section for each. What it signs about where mail is from is believed, from its addresses and with its key only. Its mail is taken without AUTH on listeners with the role "relay".`, zero[Node], sampleNodes, []field[Node]{
	required(key("name", label("node"), func(n *Node) *string { return &n.Name },
		`Its name, as its own sign.node has it.`)),
	required(key("cidr", list(prefix(), false), func(n *Node) *[]netip.Prefix { return &n.Prefixes },
		`Its addresses.`)),
	required(key("key_file", absolutePath("a file"), func(n *Node) *string { return &n.KeyFile },
		`The file with its key: 64 hexadecimal digits. Each node has a key of its own.`)),
}}

func sampleNodes() []Node {
	return []Node{{Name: "web3", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.13/32")}, KeyFile: "/etc/relayguard/web3.key"}}
}

// checkOrigin: a node has both a name and a key, and no key or address is
// another's.
func (r *report) checkOrigin(c *Config, sign *table, all []Node, tables []*table) {
	if sign.sure("node", "key_file") {
		s := c.Sign
		switch {
		case s.Node != "" && s.KeyFile == "":
			r.add(sign.place("node"), "sign.key_file", "nothing with node = "+quote(s.Node), "the file with the node's key", `add it: "openssl rand -hex 32" writes one, which the relay gets, too`)
		case s.Node == "" && s.KeyFile != "":
			r.add(sign.place("key_file"), "sign.node", "nothing with key_file = "+quote(s.KeyFile), "this node's name", "add it, as the relay's section [[node]] has it, or delete the key to sign nothing")
		case s.Node != "" && len(tables) > 0:
			r.add(tables[0].at, "node", "a section, and sign.node = "+quote(s.Node), "one of the two", "a machine is a web node or the relay of web nodes: delete the sections [[node]] on a node, and sign.node on the relay")
		}
	}
	r.distinct(tables, "name", func(i int) string { return all[i].Name })
	r.distinct(tables, "key_file", func(i int) string { return all[i].KeyFile })
	r.checkNodePrefixes(all, tables)
}

// nodePrefix is one entry of a node's cidr.
type nodePrefix struct {
	netip.Prefix
	node, elem int
}

// checkNodePrefixes: an address is one node's. Of two prefixes that overlap one
// has the other in it, so the wider of them is still open when the narrower comes.
func (r *report) checkNodePrefixes(all []Node, tables []*table) {
	var sorted []nodePrefix
	for i, t := range tables {
		for j, p := range all[i].Prefixes {
			if t.sure("cidr") {
				sorted = append(sorted, nodePrefix{p, i, j})
			}
		}
	}
	slices.SortStableFunc(sorted, func(a, b nodePrefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var open []nodePrefix
	for _, p := range sorted {
		for len(open) > 0 && !open[len(open)-1].Contains(p.Addr()) {
			open = open[:len(open)-1]
		}
		if len(open) > 0 && open[len(open)-1].node != p.node {
			here, there := p, open[len(open)-1]
			if here.node < there.node {
				here, there = there, here
			}
			r.add(tables[here.node].elem("cidr", here.elem), "node.cidr", showPrefix(here.Prefix), "addresses of one node only",
				fmt.Sprintf("the node of line %d has %s: an address has one node", r.line(tables[there.node].at), showPrefix(there.Prefix)))
			continue
		}
		open = append(open, p)
	}
}
