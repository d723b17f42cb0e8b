package postfix

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"relayguard/mta"
	"relayguard/mta/backup"
)

// submitSetting says who may use sendmail(1) and postdrop(1): a match list,
// read from left to right, "!name" for who may not (postconf(5)). Both tools
// read it anew each time, so no reload is needed; but while main.cf is younger
// than two seconds they wait until it is not, and the first call after a change
// takes that long (observed, 3.7.11). Who may not gets exit status 75 and one
// line on standard error, and nothing is queued.
//
// Trap: it says nothing of the same account's SMTP connections to loopback.
const submitSetting = "authorized_submit_users"

// ForbidSubmit takes sendmail(1) away from Unix accounts, in front of whatever
// else the setting says. Who is forbidden already stays so. It needs root.
func (i *Instance) ForbidSubmit(ctx context.Context, users []string) error {
	for _, user := range users {
		if !mta.ValidUser(user) {
			return fmt.Errorf("forbid local mail of %q: %w", clip(user), mta.ErrNoSuchUser)
		}
	}
	err := i.changeSubmit(ctx, func(forbidden []string) []string {
		for _, user := range users {
			if !slices.Contains(forbidden, user) {
				forbidden = append(forbidden, user)
			}
		}
		return forbidden
	})
	if err != nil {
		return fmt.Errorf("forbid local mail of %s: %w", brief(users), err)
	}
	return nil
}

// AllowSubmit takes back what ForbidSubmit did to an account; one that the
// admin's own part of the setting excludes stays excluded. It needs root.
func (i *Instance) AllowSubmit(ctx context.Context, user string) error {
	if !mta.ValidUser(user) {
		return fmt.Errorf("allow local mail of %q: %w", clip(user), mta.ErrNoSuchUser)
	}
	err := i.changeSubmit(ctx, func(forbidden []string) []string {
		return slices.DeleteFunc(forbidden, func(name string) bool { return name == user })
	})
	if err != nil {
		return fmt.Errorf("allow local mail of %s: %w", user, err)
	}
	return nil
}

// Forbidden lists the accounts that ForbidSubmit took sendmail(1) away from.
func (i *Instance) Forbidden(ctx context.Context) ([]string, error) {
	value, _, err := i.submitUsers(ctx)
	if err != nil {
		return nil, fmt.Errorf("list whose local mail is forbidden: %w", err)
	}
	forbidden, _ := splitSubmit(value)
	return forbidden, nil
}

// submitUsers is the setting, and whether main.cf has it.
func (i *Instance) submitUsers(ctx context.Context) (value string, present bool, err error) {
	raw, err := i.explicit(ctx)
	if err != nil {
		return "", false, err
	}
	if value, present = raw[submitSetting]; present {
		return value, true, nil
	}
	value, err = i.builtIn(ctx, submitSetting)
	return value, false, err
}

func (i *Instance) changeSubmit(ctx context.Context, change func([]string) []string) error {
	unlock, err := backup.Lock(ctx, i.ConfigDir)
	if err != nil {
		return err
	}
	defer unlock()
	value, present, err := i.submitUsers(ctx)
	if err != nil {
		return err
	}
	forbidden, rest := splitSubmit(value)
	now := change(slices.Clone(forbidden))
	if slices.Equal(now, forbidden) {
		return nil
	}
	if len(now) == 0 {
		builtIn, err := i.builtIn(ctx, submitSetting)
		if err != nil {
			return err
		}
		if rest == builtIn && present {
			return i.unsetMain(ctx, submitSetting)
		}
	}
	return i.editMain(ctx, []string{submitSetting + "=" + joinSubmit(now, rest)})
}

// submitMark ends our own part of the list. It is an exception of its own for an
// account that cannot be.
const submitMark = "!--relayguard--"

// splitSubmit takes our own part off the list; without a mark there is none.
func splitSubmit(value string) (forbidden []string, rest string) {
	ours, rest, found := strings.Cut(value, submitMark)
	if !found {
		return nil, value
	}
	items, err := splitList(ours)
	if err != nil {
		return nil, value
	}
	for _, item := range items {
		name, not := strings.CutPrefix(item, "!")
		if not && mta.ValidUser(name) {
			forbidden = append(forbidden, name)
		} else {
			rest = item + ", " + strings.TrimLeft(rest, ", \t") // somebody wrote into our part
		}
	}
	return forbidden, strings.TrimLeft(rest, ", \t")
}

func joinSubmit(forbidden []string, rest string) string {
	if len(forbidden) == 0 {
		return rest
	}
	return "!" + strings.Join(forbidden, ", !") + ", " + submitMark + ", " + rest
}
