package postfix

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Instances loads all instances of Postfix on this machine, as postmulti(1) knows
// them: the one in configDir and those that its multi_instance_directories names,
// enabled or not, for there may be mail in the queues of either. Without that
// setting, and of a configDir that is itself a further instance, it is the one.
// Each has its own Name; a further one without multi_instance_name is called as
// its directory. An error that comes with instances tells which others could not be
// read.
//
// postmulti itself is not asked: it works from its built-in configuration
// directory only.
func Instances(ctx context.Context, tools Tools, configDir string) ([]*Instance, error) {
	first, err := Load(ctx, tools, configDir)
	if err != nil {
		return nil, err
	}
	all := []*Instance{first}
	dirs, err := splitList(first.Setting("multi_instance_directories"))
	if err != nil {
		return all, fmt.Errorf("read Postfix's multi_instance_directories: %w", err)
	}
	var errs []error
	for _, dir := range dirs {
		next, err := Load(ctx, tools, dir)
		if err == nil {
			err = next.join(all)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, next)
	}
	return all, errors.Join(errs...)
}

// join gives a further instance a name that no other has. Two with one queue
// would show and act upon every message twice.
func (i *Instance) join(others []*Instance) error {
	if i.Name == "" {
		i.Name = filepath.Base(i.ConfigDir)
	}
	if !validInstance(i.Name) {
		return fmt.Errorf("Postfix in %s: set multi_instance_name, of letters, digits, dot, dash, underscore", i.ConfigDir)
	}
	at := slices.IndexFunc(others, func(o *Instance) bool { return o.Name == i.Name || o.QueueDir == i.QueueDir })
	if at >= 0 {
		return fmt.Errorf("Postfix in %s: the one in %s has the same name or queue", i.ConfigDir, others[at].ConfigDir)
	}
	return nil
}

// validInstance takes what can be part of a file's name.
func validInstance(name string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	return name != "" && len(name) <= 64 && strings.Trim(name, letters) == ""
}
