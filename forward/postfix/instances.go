package postfix

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"relayguard/forward"
)

// maxInstances bounds how many configurations of one machine are read.
const maxInstances = 64

// instances are all Postfix configurations of the machine: the one in dir, those
// that its multi_instance_directories and alternate_config_directories name,
// what lies beside it as NAME-suffix (where postmulti(1) makes them),
// registered or not, if dir is the default, whatever directory a master(8) runs with, and where
// MAIL_CONFIG in import_environment leads the programs of one. The first one is
// that of dir; none if there is none.
func instances(ctx context.Context, h *forward.Host, dir string) []*instance {
	first, exists := load(ctx, h, dir, "")
	if !exists {
		return nil
	}
	registered := splitList(first.value("multi_instance_directories"))
	for n := range registered {
		registered[n] = path.Clean(registered[n])
	}
	var run []string
	if first.dir == DefaultConfigDir { // who names another one means that Postfix, among others
		run = runningDirs(ctx, h)
	}
	a := &all{h: h, list: []*instance{first}, seen: map[string]bool{first.dir: true}}
	for _, d := range slices.Concat(run, registered, splitList(first.value("alternate_config_directories")), siblings(ctx, h, first.dir)) {
		i, exists := a.add(ctx, d, "")
		switch {
		case i == nil:
		case !exists && slices.Contains(registered, i.dir):
			first.gap(i.dir, fmt.Errorf("multi_instance_directories names it, and it has no main.cf"))
		case exists && !slices.Contains(run, i.dir):
			i.dormant = asleep(ctx, h, i, slices.Contains(registered, i.dir))
		}
	}
	for n := 0; n < len(a.list); n++ { // grows: one may lead to the next
		i := a.list[n]
		dir := i.configElsewhere()
		if elsewhere, exists := a.add(ctx, dir, i.master); exists {
			elsewhere.dormant = i.dormant
		}
		for _, other := range a.list { // read for another reason, too
			if other.dir == dir && i.dormant == "" {
				other.dormant = ""
			}
		}
	}
	return a.list
}

// all collects instances.
type all struct {
	h    *forward.Host
	list []*instance
	seen map[string]bool // by main.cf's directory and master.cf's, if that is another one
}

// add reads the instance in dir unless it was read; nil then. master is as load has
// it.
func (a *all) add(ctx context.Context, dir, master string) (i *instance, exists bool) {
	key := path.Clean(dir)
	if master != "" {
		key += "\x00" + master
	}
	if !path.IsAbs(dir) || a.seen[key] {
		return nil, false
	}
	a.seen[key] = true
	if first := a.list[0]; len(a.list) == maxInstances {
		first.gap(first.mainFile(), fmt.Errorf("more than %d instances: not all are read", maxInstances))
		return nil, false
	}
	if i, exists = load(ctx, a.h, dir, master); exists {
		a.list = append(a.list, i)
	}
	return i, exists
}

// siblings are directories beside dir that are named for it and have a main.cf.
func siblings(ctx context.Context, h *forward.Host, dir string) []string {
	parent, base := path.Split(dir)
	entries, _ := h.Files.ReadDir(ctx, path.Clean(parent), forward.ReadOptions{})
	var dirs []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name, base+"-") && (e.Mode.IsDir() || e.Mode&fs.ModeSymlink != 0) {
			dirs = append(dirs, path.Join(parent, e.Name))
		}
	}
	return dirs
}

// asleep says why a further instance is not in force. One that runs is, whether
// it is registered or not.
func asleep(ctx context.Context, h *forward.Host, i *instance, registered bool) string {
	if registered && i.value("multi_instance_enable") == "yes" || running(ctx, h, i) {
		return ""
	}
	if !registered {
		return "no multi_instance_directories names " + i.dir + ", and it does not run"
	}
	return "multi_instance_enable of " + i.dir + " is not yes, and it does not run"
}

// running looks for the master(8) that the lock file names. On a copied disk
// nothing runs.
func running(ctx context.Context, h *forward.Host, i *instance) bool {
	if !h.Live() {
		return false
	}
	data, _, err := h.Files.Read(ctx, path.Join(i.queueDir, "pid/master.pid"), forward.ReadOptions{Max: 64})
	if err != nil {
		return false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 0 {
		return false
	}
	info, err := h.Files.Lstat(ctx, "/proc/"+strconv.Itoa(pid))
	return err == nil && info.Name != ""
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
