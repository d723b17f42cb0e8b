package files

import (
	"testing"

	"golang.org/x/sys/unix"

	"relayguard/forward"
)

// Whatever stands in the account files: every account has a name and numbers.
func FuzzAccounts(f *testing.F) {
	f.Add([]byte("root:x:0:0:root:/root:/bin/bash\nalice:x:5001:5001::/home/alice:\n"), []byte("mail:x:8:alice,alice,bob\n"))
	f.Add([]byte("+::::::\n:x:1:1::/:\nx:x:-1:99999999999::/:\r\n"), []byte("a:b:c:d:e\n::0:\n"))
	f.Fuzz(func(t *testing.T, passwd, group []byte) {
		all := parsePasswd(passwd)
		addGroups(all, group)
		seen := map[string]bool{}
		for _, a := range all {
			if a.Name == "" || seen[a.Name] || a.UID < 0 || a.GID < 0 {
				t.Fatalf("%+v", a)
			}
			seen[a.Name] = true
		}
	})
}

// Whatever the attribute of a file says: an entry is never read past its end.
func FuzzACL(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 0x89, 0x13, 0, 0, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255})
	f.Add([]byte{2, 0, 0, 0, 1})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, text []byte) {
		acl := parseACL(text)
		if len(acl)*8 > len(text) {
			t.Fatal(len(acl))
		}
		byACL(&forward.Account{UID: 5001, GID: 5001}, acl, &unix.Stat_t{}, mayRead)
	})
}

// Whatever a path or a link's text is: no element is empty, "." or has a slash.
func FuzzParts(f *testing.F) {
	for _, seed := range []string{"/a/b", "", "/", "a//../b/.", "...", "//", "a/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, p string) {
		for _, name := range parts(p) {
			if name == "" || name == "." {
				t.Fatalf("%q: %q", p, parts(p))
			}
		}
	})
}
