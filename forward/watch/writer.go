package watch

import (
	"bytes"
	"os"
	"strconv"
	"strings"

	"relayguard/forward"
)

// writers are who is behind the pids of some events that were read together.
type writers map[int]forward.Writer

// of asks /proc. A process that has ended is not known; that its number is
// another's by now is not to be expected within a moment.
func (w writers) of(pid int) forward.Writer {
	if by, asked := w[pid]; asked {
		return by
	}
	by := forward.UnknownWriter
	if pid > 0 { // 0: it is of another pid namespace
		by = readWriter("/proc/" + strconv.Itoa(pid))
	}
	if by.Known() {
		by.PID = pid
	}
	w[pid] = by
	return by
}

func readWriter(dir string) forward.Writer {
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return forward.UnknownWriter
	}
	by := forward.UnknownWriter
	by.UID = fileUID(status)
	if text, err := os.ReadFile(dir + "/loginuid"); err == nil {
		by.LoginUID = uid(strings.TrimSpace(string(text)))
	}
	if exe, err := os.Readlink(dir + "/exe"); err == nil {
		by.Process = strings.ToValidUTF8(exe, "?")
	} else {
		by.Process = processName(status)
	}
	return by
}

// fileUID is the uid that a process touches files with: the fourth of
// proc_pid_status(5)'s.
func fileUID(status []byte) int {
	for line := range bytes.Lines(status) {
		if rest, is := bytes.CutPrefix(line, []byte("Uid:")); is {
			if field := strings.Fields(string(rest)); len(field) == 4 {
				return uid(field[3])
			}
		}
	}
	return forward.NoUID
}

// processName is what a process calls itself: it may choose that.
func processName(status []byte) string {
	for line := range bytes.Lines(status) {
		if rest, is := bytes.CutPrefix(line, []byte("Name:")); is {
			return "[" + strings.ToValidUTF8(strings.TrimSpace(string(rest)), "?") + "]"
		}
	}
	return ""
}

func uid(s string) int {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 1<<32-1 {
		return forward.NoUID
	}
	return int(n)
}
