package postfix_test

import (
	"errors"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"testing"

	"relayguard/mta"
	"relayguard/mta/postfix"
	"relayguard/mta/postfix/postfixtest"
)

func uidOf(t *testing.T, name string) int {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Skip(err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		t.Fatal(err)
	}
	return uid
}

// exit is what sendmail(1) ends with for an account.
func (s stopping) exit(name string) int {
	s.t.Helper()
	sent, err := s.Sendmail(s.t.Context(), uidOf(s.t, name), []string{"-f", "hanako@example.jp", "taro@example.jp"}, strings.NewReader("Subject: hello\n\nhello\n"))
	if err != nil {
		s.t.Fatal(err)
	}
	if refused := strings.Contains(sent.Stderr, "not allowed to submit mail"); refused != (sent.ExitCode != 0) {
		s.t.Errorf("%s: got %+v", name, sent)
	}
	return sent.ExitCode
}

func (s stopping) instance() *postfix.Instance { return s.redSwitch().Instance }

func (s stopping) forbidden(want ...string) {
	s.t.Helper()
	got, err := s.instance().Forbidden(s.t.Context())
	if err != nil || !slices.Equal(got, want) {
		s.t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestForbidSubmit(t *testing.T) {
	const tempFail = 75 // sysexits.h, EX_TEMPFAIL
	for name, c := range map[string]struct {
		own   string // the admin's
		games int    // exit status of games when nobody is forbidden
	}{
		"default":          {"", 0},
		"an exception":     {"!games, static:all", tempFail},
		"some accounts":    {"www-data, nobody, root", tempFail},
		"a table in front": {"!inline:{{games = yes}}, static:anyone", tempFail},
	} {
		t.Run(name, func(t *testing.T) {
			options := postfixtest.Options{}
			if c.own != "" {
				options.Main = map[string]string{"authorized_submit_users": c.own}
			}
			s := newStopping(t, options)
			before := s.postconf("-n")
			ctx := t.Context()
			s.forbidden()
			for range 2 {
				if err := s.instance().ForbidSubmit(ctx, []string{"www-data"}); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.instance().ForbidSubmit(ctx, []string{"bin", "games"}); err != nil {
				t.Fatal(err)
			}
			s.forbidden("www-data", "bin", "games")
			for account, want := range map[string]int{"www-data": tempFail, "games": tempFail, "nobody": 0} {
				if got := s.exit(account); got != want {
					t.Errorf("%s: exit status %d, want %d", account, got, want)
				}
			}
			for _, account := range []string{"games", "bin", "games"} {
				if err := s.instance().AllowSubmit(ctx, account); err != nil {
					t.Fatal(err)
				}
			}
			s.forbidden("www-data")
			for account, want := range map[string]int{"www-data": tempFail, "games": c.games, "nobody": 0} {
				if got := s.exit(account); got != want {
					t.Errorf("%s: exit status %d, want %d", account, got, want)
				}
			}
			if err := s.instance().AllowSubmit(ctx, "www-data"); err != nil {
				t.Fatal(err)
			}
			if got := s.exit("www-data"); got != 0 {
				t.Errorf("allowed again: exit status %d", got)
			}
			if after := s.postconf("-n"); after != before {
				t.Errorf("got\n%s\nwant\n%s", after, before)
			}
		})
	}
}

// What main.cf or a match list would read as something else is refused.
func TestForbidSubmitTakesOnlyNames(t *testing.T) {
	i := &postfix.Instance{ConfigDir: t.TempDir()}
	for _, name := range []string{
		"", "a b", "a,b", "a\nb", "!a", "/etc/passwd", "static:all", "$mail_owner", "a$", "{a", "a}", "#a", "-a", "a=b", "\x00", "ä", strings.Repeat("a", 300),
	} {
		if err := i.ForbidSubmit(t.Context(), []string{"www-data", name}); !errors.Is(err, mta.ErrNoSuchUser) {
			t.Errorf("forbid %q: %v", name, err)
		}
		if err := i.AllowSubmit(t.Context(), name); !errors.Is(err, mta.ErrNoSuchUser) {
			t.Errorf("allow %q: %v", name, err)
		}
	}
	for _, name := range []string{"www-data", "_apt", "web.1", "Site12", `EXAMPLE\taro`, "taro@example.jp"} {
		if !mta.ValidUser(name) {
			t.Errorf("%q is none", name)
		}
	}
}
