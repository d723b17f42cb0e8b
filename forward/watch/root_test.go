package watch_test

import "testing"

// Some accounts have "/" as their home. It was taken for a tree: the whole disk was
// looked at, which took half a minute, and the kernel's queue ran over from then on.
func TestRootIsNoTree(t *testing.T) {
	bothMethods(t, func(t *testing.T, method string) {
		dir := t.TempDir()
		c := start(t, dir, method, "watched", "sentinel")
		ok(t, c.Watch([]string{"/", dir + "/watched", dir + "/sentinel/"}))
		c.mkdir("beside")
		c.write("beside/s", "x")
		c.write("watched", "x")
		c.only("watched")
	})
}
