package files

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"relayguard/forward"
)

// Bounds of the account files. More lines are not read.
const (
	maxAccounts = 1_000_000
	maxGroups   = 65_536 // of one account: NGROUPS_MAX
)

// ReadAccounts reads /etc/passwd and, for the further groups, /etc/group. Of two
// accounts with one name the first counts, as for getpwnam(3). A missing group
// file is none; one that cannot be read is an error beside the accounts.
func ReadAccounts(ctx context.Context, f forward.Files) ([]forward.Account, error) {
	text, _, err := f.Read(ctx, "/etc/passwd", forward.ReadOptions{})
	if err != nil {
		return nil, err
	}
	all := parsePasswd(text)
	text, _, err = f.Read(ctx, "/etc/group", forward.ReadOptions{})
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	addGroups(all, text)
	return all, err
}

// parsePasswd reads passwd(5). Lines that are no account are passed over, as
// libc does; so are those that stand for NIS ("+name").
func parsePasswd(text []byte) []forward.Account {
	var all []forward.Account
	seen := map[string]bool{}
	for line := range bytes.Lines(text) {
		if len(all) == maxAccounts {
			break
		}
		field := strings.Split(strings.TrimRight(strings.TrimLeft(string(line), " \t"), "\r\n"), ":")
		if len(field) < 6 || field[0] == "" || strings.ContainsAny(field[0][:1], "#+-") || seen[field[0]] {
			continue
		}
		uid, ok := number(field[2])
		gid, okGID := number(field[3])
		if !ok || !okGID {
			continue
		}
		seen[field[0]] = true
		a := forward.Account{Name: field[0], UID: uid, GID: gid, Home: field[5]}
		if len(field) > 6 {
			a.Shell = field[6]
		}
		all = append(all, a)
	}
	return all
}

// number is a uid or gid; the highest one stands for none.
func number(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return int(n), err == nil && n != 1<<32-1
}

// addGroups reads group(5) into accounts.
func addGroups(all []forward.Account, text []byte) {
	index := make(map[string]int, len(all))
	for n := range all {
		index[all[n].Name] = n
	}
	for line := range bytes.Lines(text) {
		field := strings.Split(strings.TrimRight(string(line), "\r\n"), ":")
		if len(field) < 4 {
			continue
		}
		gid, ok := number(field[2])
		if !ok {
			continue
		}
		for member := range strings.SplitSeq(field[3], ",") {
			n, known := index[strings.TrimSpace(member)]
			if !known {
				continue
			}
			a := &all[n]
			if gid != a.GID && len(a.Groups) < maxGroups && !slices.Contains(a.Groups, gid) {
				a.Groups = append(a.Groups, gid)
			}
		}
	}
}
