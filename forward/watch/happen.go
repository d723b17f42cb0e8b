package watch

import "relayguard/forward"

type writer = forward.Writer

// happening is what an event says, whoever told it.
type happening struct {
	structural bool          // a name came or went
	dir        bool          // it is about a directory
	by         func() writer // asked only if somebody is to be told
}

// happened is the effect of an event on a name in a directory, which is one or
// more nodes'. It is called with mu held.
func (w *Watcher) happened(first *node, name string, what happening) {
	var dirs []*node
	for n := first; n != nil; n = n.same {
		dirs = append(dirs, n)
	}
	for _, n := range dirs {
		if !w.trie.has(n) {
			continue
		}
		if name == "" || name == "." {
			w.touch(n, what)
			continue
		}
		w.happenedIn(n, name, what)
	}
}

func (w *Watcher) happenedIn(n *node, name string, what happening) {
	if what.structural && n.wanted && !n.tree {
		w.report(n, what.by()) // a list of names, and one changed
	}
	c := w.trie.child[childName{n, name}]
	if c == nil {
		if !n.inTree() {
			return
		}
		if c = w.autoChild(n, name); c == nil {
			w.blind.add("too many files in a tree", n.path())
			w.report(n, what.by())
			return
		}
		what.structural = true // to us it is new
	} else if n.inTree() {
		c.auto = true
	}
	if what.structural {
		w.look(c)
		w.lookFrom(c, maxLinks)
	}
	w.touch(c, what)
	w.sweep(c)
}

// lookFrom looks at the links that lead to what has changed.
func (w *Watcher) lookFrom(n *node, links int) {
	if links == 0 {
		return
	}
	for _, from := range append([]*node(nil), n.from...) {
		if w.trie.has(from) {
			w.look(from)
			w.lookFrom(from, links-1)
		}
	}
	for _, c := range n.children() {
		w.lookFrom(c, links-1)
	}
}

// written is the effect of a change of a file's content or attributes, by
// whatever name.
func (w *Watcher) written(first *node, what happening) {
	for n := first; n != nil; n = n.twin {
		w.touch(n, what)
	}
}

// touch reports a node, whatever is below it, and the links that lead to any.
func (w *Watcher) touch(n *node, what happening) {
	w.touchOnce(n, what, map[*node]bool{})
}

func (w *Watcher) touchOnce(n *node, what happening, done map[*node]bool) {
	if done[n] {
		return
	}
	done[n] = true
	if n.wanted || n.auto {
		w.report(n, what.by())
	}
	for c := n.first; c != nil; c = c.next {
		w.touchOnce(c, what, done)
	}
	for _, from := range n.from {
		w.touchOnce(from, what, done)
	}
}
