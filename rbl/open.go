package rbl

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// ReadFile reads a file that a configuration names, of at most that many octets. What
// is no regular file is refused, not waited for: a FIFO without a writer would hang
// whoever opens it, a device has no end. It says what was read, never what stands there.
func ReadFile(path string, most int64) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %q: not a regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(file, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("read %q: larger than %d octets, want a smaller file", path, most)
	}
	return data, nil
}
