package watch

import (
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	maxDepth = 200  // of a path, or of what lies below a tree
	maxLink  = 4096 // octets of a link's text (PATH_MAX)
)

// resolve looks at what is there now, and has the kernel tell of changes of it,
// from a node downwards. It is called with mu held. What is not there is watched
// by the directory that would have it.
//
// A directory is registered before what lies in it is looked at: what changes
// between makes an event, and that brings us here again.
func (w *Watcher) resolve(n *node, depth int) {
	if depth > maxDepth {
		w.blind.add("nested too deep", n.path())
		return
	}
	n.seen = w.round
	at := n.real()
	var st unix.Stat_t
	if at == "" || n.lost() || w.slow(at) || !w.stat(at, &st) {
		w.vanish(n)
		return
	}
	dir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	w.trie.setFID(n, w.identify(at, &st))
	if n.fid == "" {
		n.fid = present
	}
	switch {
	case dir:
		w.unlink(n)
		w.setKey(n, w.register(at, &st))
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		w.setLink(n, at, depth)
	default:
		w.unlink(n)
		w.setKey(n, "")
	}
	if n.tree || n.auto && dir {
		w.list(n, depth)
	}
	for _, c := range n.children() {
		if c.seen != w.round && w.trie.has(c) {
			w.resolve(c, depth+1)
		}
	}
}

// look is resolve as a step of its own.
func (w *Watcher) look(n *node) {
	w.round++
	w.mounts.refresh()
	w.resolve(n, 0)
}

// present is the fid of what is there and has no handle. It is in no list.
const present = "-"

// stat is lstat(2). What may not be looked at cannot be watched either.
func (w *Watcher) stat(at string, st *unix.Stat_t) bool {
	err := unix.Lstat(at, st)
	if err == unix.EACCES || err == unix.EPERM {
		w.blind.add(err.Error(), path.Dir(at))
	}
	return err == nil
}

// slow reports whether a path must not be looked at, for it lies in a file
// system whose answers may never come (FUSE).
func (w *Watcher) slow(at string) bool {
	if len(w.mounts.slow) == 0 {
		return false
	}
	for up := at; ; up = path.Dir(up) {
		if kind := w.mounts.slow[up]; kind != "" {
			w.blind.add("a "+kind+" file system tells of no changes", up)
			return true
		}
		if up == "/" {
			return false
		}
	}
}

// vanish forgets what was known of a node that is not there (any more).
func (w *Watcher) vanish(n *node) {
	w.trie.setFID(n, "")
	w.unlink(n)
	w.setKey(n, "")
	for _, c := range n.children() {
		if w.trie.has(c) {
			w.vanish(c)
		}
	}
}

// setKey also ends the kernel's watch of a directory that is no node's any more.
func (w *Watcher) setKey(n *node, key string) {
	if gone := w.trie.setKey(n, key); gone != "" && w.ino != nil {
		w.ino.forget(gone)
	}
}

// identify is what events call the thing at a path; empty: nothing.
func (w *Watcher) identify(at string, st *unix.Stat_t) string {
	if w.fan == nil {
		return ""
	}
	fsid, err := w.fan.mark(at, st)
	if err != nil {
		return ""
	}
	return handleOf(at, fsid)
}

// register has the kernel tell of changes in a directory.
func (w *Watcher) register(at string, st *unix.Stat_t) string {
	if w.fan != nil {
		if key := w.identify(at, st); key != "" {
			return key
		}
	}
	if w.ino == nil {
		w.blind.add("neither fanotify nor inotify", at)
		return ""
	}
	key, err := w.ino.add(at)
	if err != nil && err != unix.ENOENT {
		w.blind.add(inotifyProblem(err), at)
	}
	return key
}

// setLink watches what a symbolic link leads to, as far as paths lead there.
func (w *Watcher) setLink(n *node, at string, depth int) {
	buf := make([]byte, maxLink)
	size, err := unix.Readlink(at, buf)
	if err != nil {
		w.vanish(n)
		return
	}
	target := string(buf[:size])
	if !strings.HasPrefix(target, "/") {
		target = path.Dir(at) + "/" + target
	}
	to, fresh := w.trie.insert(path.Clean(target))
	if to == nil {
		w.blind.add("too many paths", at)
		return
	}
	if n.to != to {
		w.unlink(n)
		n.to = to
		to.from = append(to.from, n)
	}
	switch {
	case fresh != nil:
		w.resolve(fresh, depth+1)
	case to.fid == "":
		w.resolve(to, depth+1)
	}
	if n.wanted || !n.auto || n.first != nil { // of a tree only what lies in it
		w.setKey(n, w.endKey(n))
	}
}

// endKey is the key of the directory that a chain of links ends at.
func (w *Watcher) endKey(n *node) string {
	end := n
	for range maxLinks {
		if end.to == nil {
			return end.key
		}
		end = end.to
	}
	return ""
}

// unlink forgets where a node led.
func (w *Watcher) unlink(n *node) {
	to := n.to
	if to == nil {
		return
	}
	n.to = nil
	to.from = slices.DeleteFunc(to.from, func(o *node) bool { return o == n })
	w.prune(to)
}

// list makes nodes of what lies in a directory of a tree.
func (w *Watcher) list(n *node, depth int) {
	if n.key == "" {
		return
	}
	fd, err := unix.Open(n.endWithin(maxLinks), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		w.blind.add(err.Error(), n.path())
		return
	}
	defer unix.Close(fd)
	buf := make([]byte, 32<<10)
	for {
		size, err := unix.ReadDirent(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || size <= 0 {
			return
		}
		_, _, names := unix.ParseDirent(buf[:size], -1, nil)
		for _, name := range names {
			c := w.autoChild(n, name)
			if c == nil {
				w.blind.add("too many files in a tree", n.path())
				return
			}
			w.resolve(c, depth+1)
		}
	}
}

// autoChild is the node of something in a tree; nil: no room.
func (w *Watcher) autoChild(n *node, name string) *node {
	c := w.trie.child[childName{n, name}]
	if c == nil {
		c = w.trie.add(n, name)
	}
	if c != nil {
		c.auto = true
	}
	return c
}

// dropAuto forgets what lies in a tree that is none any more.
func (w *Watcher) dropAuto(n *node) {
	for _, c := range n.children() {
		if !c.auto {
			continue
		}
		c.auto = false
		if !c.tree {
			w.dropAuto(c)
		}
		w.pruneOne(c)
	}
}

// sweep forgets what is gone from a tree, after it was told.
func (w *Watcher) sweep(n *node) {
	for _, c := range n.children() {
		w.sweep(c)
	}
	if n.auto && n.fid == "" {
		n.auto = false
		w.prune(n)
	}
}

// prune takes nodes out that nobody needs, from one upwards.
func (w *Watcher) prune(n *node) {
	for n != nil {
		up := n.parent
		if !w.pruneOne(n) {
			return
		}
		n = up
	}
}

func (w *Watcher) pruneOne(n *node) bool {
	if n.parent == nil || n.wanted || n.auto || n.first != nil || len(n.from) > 0 {
		return false
	}
	if !w.trie.has(n) {
		return false // it is out already
	}
	w.trie.remove(n)
	w.vanish(n)
	return true
}
