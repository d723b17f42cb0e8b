package servertest

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"
)

// Account is a Unix account with its group by number.
type Account struct{ UID, GID int }

// LookUp finds an account by name.
func LookUp(name string) (Account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return Account{}, fmt.Errorf("look up account %s: %w", name, err)
	}
	uid, errUID := strconv.Atoi(u.Uid)
	gid, errGID := strconv.Atoi(u.Gid)
	return Account{uid, gid}, errors.Join(errUID, errGID)
}
