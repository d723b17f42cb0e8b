package stamp

import (
	"crypto/hmac"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Node is a web node whose word about the origin of its mail is believed.
type Node struct {
	Name      string // "web3": lower-case letters, digits, ".", "-", "_"
	Key       Key
	Addresses []netip.Prefix
}

// NodeStamp is what a web node says of one message.
type NodeStamp struct {
	Node      string
	Queue     string // the node's queue id
	Time      time.Time
	UID       int // of the Unix account there, -1 if unknown
	LocalUser string
	Site      string // empty: not known
	Labelled  bool   // Plugin is proven
	Plugin    string // empty and Labelled: the site's own software
	Call      NodeCall
}

// NodeCall are the particulars, for people to read.
type NodeCall struct {
	Entry, Script, WebClient, Pool, Software string
	Blog                                     int
}

// nodeLife is how long a node's queue tries, as MTAs do by default.
const nodeLife = 5 * 24 * time.Hour

// mostOthers is how many times another message than the first may come with the
// same stamp to the same recipient. What is tried again is the same one, unless
// the node adds to it on its way.
const mostOthers = 3

// Nodes verifies what nodes sign. The zero value knows none. Safe for concurrent
// use.
type Nodes struct {
	byName    map[string]*Node
	addresses map[netip.Addr]string
	prefixes  []nodePrefix // longer than one address; longest prefix first
	replays   *Replays
}

type nodePrefix struct {
	prefix netip.Prefix
	node   string
}

// NewNodes makes ready what nodes there are; Replays is as with NewBook. It
// returns every error found, joined.
func NewNodes(nodes []Node, replays *Replays) (*Nodes, error) {
	if replays == nil {
		replays = NewReplays(0)
	}
	n := &Nodes{byName: map[string]*Node{}, addresses: map[netip.Addr]string{}, replays: replays}
	var errs []error
	keys, prefixes := taken{}, taken{}
	for i, node := range nodes {
		at := fmt.Sprintf("node[%d]", i)
		if node.Name != "" {
			at = fmt.Sprintf("node %q", node.Name)
		}
		if fault := n.nameFault(node.Name); fault != "" {
			errs = append(errs, fmt.Errorf("%s: %s", at, fault))
		}
		if fault := keyFault(node.Key, at, keys); fault != "" {
			errs = append(errs, fmt.Errorf("%s: %s", at, fault))
		}
		if len(node.Addresses) == 0 {
			errs = append(errs, fmt.Errorf("%s: no addresses; a node is believed only from its own", at))
		}
		for _, p := range node.Addresses {
			if err := n.addPrefix(p, node.Name, at, prefixes); err != nil {
				errs = append(errs, err)
			}
		}
		n.byName[node.Name] = &node
	}
	slices.SortStableFunc(n.prefixes, func(a, b nodePrefix) int { return b.prefix.Bits() - a.prefix.Bits() })
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return n, nil
}

// nameFault says what is wrong with the name of a further node, "" for nothing.
func (n *Nodes) nameFault(name string) string {
	switch {
	case name == "":
		return "no name; call it as its host is called, web3"
	case !isNodeName(name):
		return fmt.Sprintf(`a name of other than lower-case letters, digits, ".", "-" and "_", or longer than %d; write it as web3`, longestNode)
	case n.byName[name] != nil:
		return "name used twice; join the two entries"
	}
	return ""
}

func isNodeName(s string) bool {
	for i := range len(s) {
		if !isNameByte(s[i]) || 'A' <= s[i] && s[i] <= 'Z' {
			return false
		}
	}
	return len(s) <= longestNode
}

func (n *Nodes) addPrefix(p netip.Prefix, node, at string, seen taken) error {
	if !p.IsValid() || p.Bits() == 0 {
		return fmt.Errorf("%s: an address that is none, or all; write it as 192.0.2.7/32 or 2001:db8::7/128", at)
	}
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	p = p.Masked()
	switch other := seen.by(p.String(), at); {
	case other == at:
		return fmt.Errorf("%s: %s is named twice; delete one", at, p)
	case other != "":
		return fmt.Errorf("%s: %s is also an address of %s; an address has one node", at, p, other)
	case p.IsSingleIP():
		n.addresses[p.Addr()] = node
	default:
		n.prefixes = append(n.prefixes, nodePrefix{p, node})
	}
	return nil
}

// Find is the node of that address, "" if there is none; of several the one with
// the longest prefix.
func (n *Nodes) Find(client netip.Addr) string {
	client = client.Unmap().WithZone("")
	if name, ok := n.addresses[client]; ok {
		return name
	}
	for _, p := range n.prefixes {
		if p.prefix.Contains(client) {
			return p.node
		}
	}
	return ""
}

// Verify believes what the node at an address signed, or says why not, as
// Book.Verify does. Of m it needs RcptTo, which may be fewer than were signed, and
// Digest.
func (n *Nodes) Verify(now time.Time, client netip.Addr, fields []string, m *Mail) (NodeStamp, error) {
	why := ErrNone
	if len(fields) == 0 {
		return NodeStamp{}, why
	}
	here := n.Find(client)
	if here == "" {
		return NodeStamp{}, fmt.Errorf("%w: %s is no node's address", ErrNode, client)
	}
	for _, field := range fields[:min(len(fields), mostFields)] {
		s, err := n.verify(now, here, field, m)
		if err == nil {
			return s, nil
		}
		why = further(why, err)
	}
	return NodeStamp{}, why
}

func (n *Nodes) verify(now time.Time, here, field string, m *Mail) (NodeStamp, error) {
	var c nodeClaim
	if !c.read(field) {
		return NodeStamp{}, ErrForm
	}
	node, ok := n.byName[c.stamp.Node]
	if !ok {
		return NodeStamp{}, ErrKey
	}
	if here != node.Name {
		return NodeStamp{}, fmt.Errorf("%w: signed by node %s, sent by node %q", ErrNode, node.Name, here)
	}
	if !hmac.Equal(mac(node.Key, nodeContext, c.signed), c.mac[:]) {
		return NodeStamp{}, fmt.Errorf("%w: node %s", ErrSignature, node.Name)
	}
	if err := checkTime(now, c.time, nodeLife); err != nil {
		return NodeStamp{}, fmt.Errorf("%w: node %s", err, node.Name)
	}
	if c.expiry < now.Unix() || c.expiry > c.time+int64(nodeLife/time.Second) {
		return NodeStamp{}, fmt.Errorf("%w: node %s, for use before %s", ErrTime, node.Name, unix(c.expiry).Format(time.RFC3339))
	}
	uses, ok := c.usesFor(node.Key, m.RcptTo)
	if !ok {
		return NodeStamp{}, fmt.Errorf("%w: node %s, %d recipients", ErrRecipients, node.Name, len(m.RcptTo))
	}
	if !n.replays.take(now, sighting{scope: "node " + node.Name, life: nodeLife, time: c.time, uses: uses, digest: m.Digest, others: mostOthers}) {
		return NodeStamp{}, fmt.Errorf("%w: node %s, queue id %s", ErrReplay, node.Name, c.stamp.Queue)
	}
	return c.stamp, nil
}
