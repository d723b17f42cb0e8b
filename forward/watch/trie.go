package watch

import "strings"

// maxNodes bounds the memory: paths, the directories on the way to them, and
// whatever lies in watched trees. About 250 octets each.
const maxNodes = 2_000_000

// maxLinks is how many links a path may go through: the kernel's MAXSYMLINKS.
const maxLinks = 40

// node is one element of a path that matters.
type node struct {
	parent *node
	name   string
	first  *node // child; the others by next
	next   *node
	prev   *node

	wanted bool // it was asked for
	tree   bool // with whatever lies below it
	auto   bool // it lies below a tree, and exists or has just gone

	key  string  // what events call it if it is a directory, or a link to one
	fid  string  // what events call the thing itself; empty: it is not there
	same *node   // the next with that key
	twin *node   // the next with that fid
	to   *node   // where it leads, if it is a symbolic link
	from []*node // the links that lead here
	seen uint64  // the round that looked at it last
	set  uint64  // the set that wanted it last
}

// trie is all paths, and who is who to the kernel.
type trie struct {
	root   *node
	child  map[childName]*node
	wanted map[string]*node
	dirs   map[string]*node // by key
	things map[string]*node // by fid
	count  int
}

type childName struct {
	parent *node
	name   string
}

func newTrie() *trie {
	return &trie{root: &node{}, child: map[childName]*node{}, wanted: map[string]*node{}, dirs: map[string]*node{}, things: map[string]*node{}}
}

// path is what the node is called by those who asked.
func (n *node) path() string {
	if n.parent == nil {
		return "/"
	}
	return join(n.parent.path(), n.name)
}

func join(dir, name string) string {
	if dir == "/" {
		return "/" + name
	}
	return dir + "/" + name
}

// real is a path to the same place without the links on the way; empty: they
// lead nowhere. The last element may be a link.
func (n *node) real() string {
	return n.realWithin(maxLinks)
}

func (n *node) realWithin(links int) string {
	if n.parent == nil {
		return "/"
	}
	dir := n.parent.endWithin(links)
	if dir == "" {
		return ""
	}
	return join(dir, n.name)
}

// endWithin is real with the last link followed, too.
func (n *node) endWithin(links int) string {
	if n.to == nil {
		return n.realWithin(links)
	}
	if links == 0 {
		return ""
	}
	return n.to.endWithin(links - 1)
}

// lost reports that there is no directory that the node could be in.
func (n *node) lost() bool {
	return n.parent != nil && n.parent.key == "" && n.parent.to == nil
}

func (n *node) children() []*node {
	var all []*node
	for c := n.first; c != nil; c = c.next {
		all = append(all, c)
	}
	return all
}

// has reports whether a node has not been taken out.
func (t *trie) has(n *node) bool {
	return n.parent == nil || t.child[childName{n.parent, n.name}] == n
}

// inTree reports whether whatever lies in it is watched.
func (n *node) inTree() bool { return n.tree || n.auto }

// insert finds or makes the node of a clean absolute path. fresh is the first
// one on the way that was made; nil: it was all there. n is nil if there is no
// room.
func (t *trie) insert(p string) (n, fresh *node) {
	n = t.root
	for name := range strings.SplitSeq(strings.Trim(p, "/"), "/") {
		if name == "" {
			continue
		}
		c := t.child[childName{n, name}]
		if c == nil {
			if c = t.add(n, name); c == nil {
				return nil, nil
			}
			if fresh == nil {
				fresh = c
			}
		}
		n = c
	}
	return n, fresh
}

// add makes a child; nil: no room.
func (t *trie) add(parent *node, name string) *node {
	if t.count >= maxNodes {
		return nil
	}
	t.count++
	c := &node{parent: parent, name: strings.Clone(name), next: parent.first}
	if parent.first != nil {
		parent.first.prev = c
	}
	parent.first = c
	t.child[childName{parent, c.name}] = c
	return c
}

// remove takes a node without children out.
func (t *trie) remove(n *node) {
	t.count--
	delete(t.child, childName{n.parent, n.name})
	if n.prev != nil {
		n.prev.next = n.next
	} else {
		n.parent.first = n.next
	}
	if n.next != nil {
		n.next.prev = n.prev
	}
}

// setKey changes what events call a directory. gone is the old key if no other
// node has it.
func (t *trie) setKey(n *node, key string) (gone string) {
	if n.key == key {
		return ""
	}
	if n.key != "" && drop(t.dirs, n.key, n, func(n *node) **node { return &n.same }) {
		gone = n.key
	}
	n.key, n.same = key, nil
	if key != "" {
		n.same, t.dirs[key] = t.dirs[key], n
	}
	return gone
}

func (t *trie) setFID(n *node, fid string) {
	if n.fid == fid {
		return
	}
	if n.fid != "" {
		drop(t.things, n.fid, n, func(n *node) **node { return &n.twin })
	}
	n.fid, n.twin = fid, nil
	if fid != "" {
		n.twin, t.things[fid] = t.things[fid], n
	}
}

// drop takes a node out of the list of a key, and reports whether that is empty.
func drop(lists map[string]*node, key string, n *node, next func(*node) **node) bool {
	first := lists[key]
	for at := &first; *at != nil; at = next(*at) {
		if *at == n {
			*at = *next(n)
			break
		}
	}
	if first == nil {
		delete(lists, key)
		return true
	}
	lists[key] = first
	return false
}
