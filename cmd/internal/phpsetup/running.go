package phpsetup

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// proc is what proc(5) says of one process.
type proc struct {
	pid, parent int
	name        string // at most 15 octets
	began       int64  // ticks after the machine's start
}

// ticks of proc(5) are a second: USER_HZ, the same on every Linux that Go runs on.
const ticks = 100

// slack is how exact the machine's start is known: to the second, twice rounded.
const slack = 2 * time.Second

// stale names a process that serves pages for one of the PHPs and began before
// its settings were changed; "" if there is none, or none can be seen.
//
// Only workers are looked at, which have a parent of the same name: that one
// stays the same process when it is reloaded. A pool that starts workers on demand
// may have none, and then nothing is known of it.
func stale(dir string, all []php) string {
	boot, procs := processes(dir)
	if boot.IsZero() {
		return ""
	}
	for _, p := range all {
		name := map[string]string{"fpm": "php-fpm" + p.version, "apache2": "apache2"}[p.sapi]
		if name == "" {
			continue
		}
		changed := p.changed()
		for _, one := range procs {
			began := boot.Add(time.Duration(one.began) * time.Second / ticks)
			if one.name == name && procs[one.parent].name == name && began.Add(slack).Before(changed) {
				return fmt.Sprintf("%s, process %d,", name, one.pid)
			}
		}
	}
	return ""
}

// changed is when the files changed that we write to.
func (p php) changed() (last time.Time) {
	pools, _ := filepath.Glob(filepath.Join(p.dir, "pool.d", "*.conf"))
	for _, path := range append(pools, filepath.Join(p.dir, "conf.d")) {
		if info, err := os.Stat(path); err == nil && info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last
}

// processes are all that can be seen, by their number, and when the machine
// started.
func processes(dir string) (boot time.Time, all map[int]proc) {
	text, _ := os.ReadFile(filepath.Join(dir, "stat"))
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, "btime "); found {
			seconds, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			boot = time.Unix(seconds, 0)
		}
	}
	files, _ := filepath.Glob(filepath.Join(dir, "[0-9]*", "stat"))
	all = make(map[int]proc, len(files))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if one, ok := parseStat(string(text)); err == nil && ok {
			all[one.pid] = one
		}
	}
	return boot, all
}

// parseStat reads /proc/PID/stat. The name, in parentheses, may have any octet.
func parseStat(text string) (one proc, ok bool) {
	begin, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if begin < 0 || end < begin {
		return one, false
	}
	const parent, began = 1, 19 // fields 4 and 22, from the one behind the name
	fields := strings.Fields(text[end+1:])
	if len(fields) <= began {
		return one, false
	}
	var errs [3]error
	one.name = text[begin+1 : end]
	one.pid, errs[0] = strconv.Atoi(strings.TrimSpace(text[:begin]))
	one.parent, errs[1] = strconv.Atoi(fields[parent])
	one.began, errs[2] = strconv.ParseInt(fields[began], 10, 64)
	return one, errs == [3]error{}
}
