package postfix

import (
	"context"
	"path"
	"slices"
	"strconv"
	"strings"

	"relayguard/forward"
)

// maxProcesses bounds how many processes are looked at.
const maxProcesses = 50_000

// runningDirs are the configuration directories of all master(8) that run on this
// machine, wherever they are: by "-c DIR" of their command lines, or MAIL_CONFIG of
// their environment, which only root may read. Those that have neither use the
// default.
func runningDirs(ctx context.Context, h *forward.Host) []string {
	if !h.Live() {
		return nil
	}
	processes, _ := h.Files.ReadDir(ctx, "/proc", forward.ReadOptions{MaxEntries: maxProcesses}) // without it, the registered ones
	var dirs []string
	for _, p := range processes {
		if _, err := strconv.Atoi(p.Name); err != nil {
			continue
		}
		data, _, err := h.Files.Read(ctx, path.Join("/proc", p.Name, "cmdline"), forward.ReadOptions{Max: 1 << 20})
		if err != nil {
			continue
		}
		args := strings.Split(strings.TrimRight(string(data), "\x00"), "\x00")
		if path.Base(args[0]) != "master" {
			continue
		}
		dir := optionC(args[1:])
		if dir == "" {
			env, _, _ := h.Files.Read(ctx, path.Join("/proc", p.Name, "environ"), forward.ReadOptions{Max: 1 << 20})
			for v := range strings.SplitSeq(string(env), "\x00") {
				if value, is := strings.CutPrefix(v, "MAIL_CONFIG="); is {
					dir = value
				}
			}
		}
		if dir = path.Clean(dir); path.IsAbs(dir) && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// optionC is the value of the option -c.
func optionC(args []string) string {
	for n, arg := range args {
		if value, is := strings.CutPrefix(arg, "-c"); is && value != "" {
			return value
		} else if is && n+1 < len(args) {
			return args[n+1]
		}
	}
	return ""
}
