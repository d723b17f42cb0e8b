package postfix

import (
	"strings"
)

// The letters of long queue ids: no vowels, and z is between the time and the
// inode (Postfix, src/global/mail_queue.h).
const longIDLetters = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"

// ValidQueueID tells whether Postfix could have given that queue id: a short
// one (microseconds in five upper-case hexadecimal digits, inode) or a long one
// (seconds, four letters of microseconds, z, inode). Postfix's own check of
// names is wider.
func ValidQueueID(id string) bool {
	if len(id) > 100 {
		return false
	}
	if len(id) >= 6 && strings.Trim(id, "0123456789ABCDEF") == "" {
		return true
	}
	z := strings.LastIndexByte(id, 'z')
	return z >= 10 && z+1 < len(id) && strings.Trim(id, longIDLetters) == ""
}
