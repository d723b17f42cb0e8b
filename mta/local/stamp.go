package local

import (
	"os"
	"syscall"
	"time"
)

// fileStamp tells one state of a file from another.
type fileStamp struct {
	size  int64
	mtime time.Time
	inode uint64
}

// stampOf returns the zero stamp for a file that is not there.
func stampOf(path string) fileStamp {
	info, err := os.Stat(path)
	if err != nil {
		return fileStamp{}
	}
	s := fileStamp{size: info.Size(), mtime: info.ModTime()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = sys.Ino
	}
	return s
}
