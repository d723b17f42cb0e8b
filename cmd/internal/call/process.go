package call

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// maxPool bounds a pool's name.
const maxPool = 100

// maxAncestors is how far up php-fpm is looked for: PHP starts a shell, which
// starts the wrapper or becomes it; a site's program may stand between.
const maxAncestors = 6

// php-fpm's processes, as they call themselves: sapi/fpm/fpm/fpm_env.c,
// fpm_env_setproctitle.
const (
	poolTitle   = "php-fpm: pool "
	masterTitle = "php-fpm: master process"
)

// pools finds the php-fpm pool that a process belongs to.
type pools struct {
	proc string // "/proc"
}

// find goes up from a process to a worker of php-fpm that runs as uid, and whose
// parent is a master that root runs. "" if there is none, or where /proc does
// not show other accounts' processes (hidepid).
//
// A process may call itself what it likes, but not choose its parent: so the
// name is the word of a worker that root's php-fpm made, for this uid.
func (p pools) find(pid, uid int) string {
	for range maxAncestors {
		if pid <= 1 {
			return ""
		}
		parent, owner, ok := p.status(pid)
		if !ok || owner != uid {
			return ""
		}
		if name, isWorker := strings.CutPrefix(p.title(pid), poolTitle); isWorker {
			_, above, ok := p.status(parent)
			if !ok || above != 0 || !strings.HasPrefix(p.title(parent), masterTitle) {
				return ""
			}
			return clean(strings.TrimSpace(name), maxPool)
		}
		pid = parent
	}
	return ""
}

// status reads a process's parent and its real uid: proc(5), /proc/PID/status.
func (p pools) status(pid int) (parent, uid int, ok bool) {
	text, err := p.read(pid, "status")
	if err != nil {
		return 0, 0, false
	}
	found := 0
	for line := range bytes.Lines(text) {
		key, value, _ := strings.Cut(string(line), ":")
		fields := strings.Fields(value)
		if len(fields) == 0 {
			continue
		}
		switch key {
		case "PPid":
			parent, err = strconv.Atoi(fields[0])
		case "Uid": // real, effective, saved, file system
			uid, err = strconv.Atoi(fields[0])
		default:
			continue
		}
		if err != nil {
			return 0, 0, false
		}
		found++
	}
	return parent, uid, found == 2
}

// title is the beginning of a process's command line. php-fpm writes its title
// over it, followed by NULs or blanks.
func (p pools) title(pid int) string {
	text, err := p.read(pid, "cmdline")
	if err != nil {
		return ""
	}
	title, _, _ := bytes.Cut(text, []byte{0})
	return string(title)
}

// read reads the beginning of a file of a process.
func (p pools) read(pid int, name string) ([]byte, error) {
	f, err := os.Open(filepath.Join(p.proc, strconv.Itoa(pid), name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	buf := make([]byte, 4096) // a command line may have megabytes
	n, err := f.Read(buf)
	if n > 0 {
		err = nil
	}
	return buf[:n], err
}
