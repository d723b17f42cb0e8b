// Package nodes remembers what web nodes have told of themselves by their mail:
// when each was last heard, and what the Unix accounts are called that it signs for.
// Trap: a name is what the node said; the account is its uid.
package nodes

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxAccounts bounds the accounts of all nodes together, of about 200 octets each.
// Of more, some are forgotten, and known again by their next mail.
const maxAccounts = 100_000

// Heard is what was heard of nodes. Safe for concurrent use.
type Heard struct {
	mu    sync.Mutex
	nodes map[string]*Node
	names map[string]string // by id, "1001@web3"
	ids   map[string]string // by name, "site12@web3"
}

// Node is one web node.
type Node struct {
	Name     string    `json:"name"`
	Signed   time.Time `json:"signed,omitzero"`   // its last mail that it had signed
	Unsigned time.Time `json:"unsigned,omitzero"` // the last that it had not
	Unknown  int64     `json:"unsigned_messages"` // how many such, since the start
	Known    int64     `json:"signed_messages"`   // how many that it had signed
}

// New remembers nothing yet.
func New() *Heard {
	return &Heard{nodes: map[string]*Node{}, names: map[string]string{}, ids: map[string]string{}}
}

// Note is told of a message of a configured node. uid and name are the account's
// that it signed, -1 and "" if it said none; name is as the guard has it,
// "site12@web3".
func (h *Heard) Note(now time.Time, node string, signed bool, uid int, name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.nodes[node]
	if n == nil {
		n = &Node{Name: strings.Clone(node)}
		h.nodes[n.Name] = n
	}
	if !signed {
		n.Unsigned = now.UTC()
		n.Unknown++
		return
	}
	n.Signed = now.UTC()
	n.Known++
	if uid >= 0 && strings.HasSuffix(name, "@"+node) && !strings.HasPrefix(name, "uid:") {
		h.learn(strconv.Itoa(uid)+"@"+node, name)
	}
}

func (h *Heard) learn(id, name string) {
	was, known := h.names[id]
	if known && was == name && h.ids[name] == id {
		return
	}
	if !known && len(h.names) >= maxAccounts {
		for some, name := range h.names { // in the order of chance
			h.forget(some, name)
			break
		}
	}
	h.forget(id, was)
	name = strings.Clone(name)
	h.names[id], h.ids[name] = name, id
}

func (h *Heard) forget(id, name string) {
	delete(h.names, id)
	if h.ids[name] == id {
		delete(h.ids, name)
	}
}

// ID is an account by its name: "1001@web3" of "site12@web3".
func (h *Heard) ID(name string) (id string, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	id, ok = h.ids[name]
	return id, ok
}

// Name is the name of an account, "" if it is not known.
func (h *Heard) Name(id string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.names[id]
}

// All are the nodes of these names, in order; one that was not heard has no times.
func (h *Heard) All(names []string) []Node {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]Node, len(names))
	for i, name := range names {
		all[i].Name = name
		if n := h.nodes[name]; n != nil {
			all[i] = *n
		}
	}
	slices.SortFunc(all, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Messages are how many all nodes have sent since the start, signed and not.
func (h *Heard) Messages() (signed, unsigned int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range h.nodes {
		signed += n.Known
		unsigned += n.Unknown
	}
	return signed, unsigned
}

// Save writes the accounts, a line each: id, a tab, name.
func (h *Heard) Save(w io.Writer) error {
	h.mu.Lock()
	names := maps.Clone(h.names)
	h.mu.Unlock()
	b := bufio.NewWriter(w)
	for _, id := range slices.Sorted(maps.Keys(names)) {
		if name := names[id]; !strings.ContainsAny(name, "\t\r\n") {
			fmt.Fprintf(b, "%s\t%s\n", id, name)
		}
	}
	return b.Flush()
}

// Load adds what Save wrote. With an error there is what could be read before.
func (h *Heard) Load(r io.Reader) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		id, name, _ := strings.Cut(lines.Text(), "\t")
		uid, node, _ := strings.Cut(id, "@")
		if _, err := strconv.ParseUint(uid, 10, 32); err != nil || node == "" || !strings.HasSuffix(name, "@"+node) {
			return fmt.Errorf("line %d: found %.100q, want 1001@NODE, a tab and NAME@NODE", n, lines.Text())
		}
		h.learn(id, name)
	}
	return lines.Err()
}
