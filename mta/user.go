package mta

import (
	"errors"
	"strings"
)

// ValidUser tells whether a name can be a Unix account's: letters, digits,
// ".", "_", "-", and "@", "+", "\" of directory services. What main.cf or a match
// list would take for something else (a setting, a file, a table, an exception)
// is none.
func ValidUser(name string) bool {
	if name == "" || len(name) > maxUserName || strings.IndexByte("-+@.\\", name[0]) >= 0 {
		return false
	}
	for n := range len(name) {
		c := name[n]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("._-@+\\", c) >= 0 {
			continue
		}
		return false
	}
	return true
}

// maxUserName is LOGIN_NAME_MAX of Linux without its NUL.
const maxUserName = 255

// ErrNoSuchUser says that a name cannot be an account of this machine.
var ErrNoSuchUser = errors.New("not the name of a Unix account")

// ErrUnsupported says that this MTA has nothing with which to do that.
var ErrUnsupported = errors.New("this mail server cannot do that")
