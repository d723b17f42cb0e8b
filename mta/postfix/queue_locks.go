package postfix

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// locks are the inodes of files that some process has locked. The file system is
// not told apart, for some show another device here than in stat(2): what has a
// namesake elsewhere is taken for locked, too.
type locks map[uint64]bool

// readLocks reads /proc/locks (proc(5)). Every delivery agent of Postfix has its
// queue file locked from begin to end (src/global/deliver_request.c). To try a lock
// of our own instead would do harm: an agent that meets it dies, and the queue
// manager leaves its transport alone for a minute.
func readLocks() (locks, error) {
	f, err := os.Open("/proc/locks")
	if err != nil {
		return nil, fmt.Errorf("look which mail is being delivered: %w", err)
	}
	defer f.Close()
	all, err := parseLocks(f)
	if err != nil {
		return nil, fmt.Errorf("look which mail is being delivered: read /proc/locks: %w", err)
	}
	return all, nil
}

// parseLocks reads lines as "1: FLOCK ADVISORY READ 4711 fd:01:123456 0 EOF"; one
// that waits for a lock has "->" after the number.
func parseLocks(from io.Reader) (locks, error) {
	all := locks{}
	in := bufio.NewScanner(from)
	for in.Scan() {
		for _, field := range strings.Fields(in.Text()) {
			parts := strings.Split(field, ":")
			if len(parts) != 3 {
				continue
			}
			inode, err := strconv.ParseUint(parts[2], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("got %q", clip(in.Text()))
			}
			all[inode] = true
		}
	}
	return all, in.Err()
}
