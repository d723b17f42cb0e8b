package config_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/policy"
	"relayguard/policy/limit"
)

// TestLimitsTakeNoRuleName: a verdict's rule says which one it was.
func TestLimitsTakeNoRuleName(t *testing.T) {
	for _, name := range policy.Rules() {
		_, err := config.Parse("x", []byte("[[limit]]\nname = \""+name+"\"\nper = \"server\"\nwindows = [\"9/1h\"]\n"))
		if err == nil || !strings.Contains(err.Error(), "another rule has this name") {
			t.Errorf("limit %q: got %v", name, err)
		}
	}
}

// TestDefaultLimits has the limits of a fresh install, in the order of the example.
func TestDefaultLimits(t *testing.T) {
	var got []string
	for _, l := range config.Default().Limits {
		got = append(got, strings.TrimSpace(fmt.Sprintln(l.Name, l.Per, l.Counts, l.Windows, l.Burst, l.Kind, l.Then, l.Observe, l.Recipients, l.Adapt, l.When.Origins)))
	}
	want := []string{
		"login-volume [login] recipients [300/1h 1500/24h] 150/10m volume hold false all 0/0s []",
		"local-user-volume [local_user] recipients [300/1h 2000/24h] 150/10m volume hold false all 0/0s []",
		"shared-user-volume [shared_user] recipients [3000/1h 20000/24h] 1500/10m volume hold false all 0/0s []",
		"site-volume [site] recipients [300/1h 2000/24h] 150/10m volume hold false all 0/0s []",
		"machine-volume [machine] recipients [500/1h] 250/10m volume defer false all 0/0s []",
		"plugin-first-time [plugin] first_time [40/24h] 25/10m abuse hold false all 3/21d []",
		"template-first-time [template] first_time [40/24h] 25/10m abuse hold false outside 3/21d [local_user:* node:*]",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestLimitsTakeAllNames: what policy/limit can count, and by what, can be configured.
func TestLimitsTakeAllNames(t *testing.T) {
	const whole = "[[limit]]\nname = \"whole\"\nper = \"server\"\nwindows = [\"9/1h\"]\n\n"
	for key, names := range map[string][]string{"per": limit.Pers(), "counts": limit.Units(), "kind": limit.Kinds()} {
		for _, name := range names {
			values := map[string]string{"per": "account", "counts": "messages", "kind": "volume"}
			values[key] = name
			file := whole + fmt.Sprintf("[[limit]]\nname = \"one\"\nper = %q\ncounts = %q\nkind = %q\nwindows = [\"9/1h\"]\n", values["per"], values["counts"], values["kind"])
			if _, err := config.Parse("x", []byte(file)); err != nil {
				t.Error(err)
			}
		}
		for _, k := range config.Keys() {
			if n := strings.Count(k.Type, `"`) / 2; k.Name == "limit."+key && n != len(names) {
				t.Errorf("%s has %d names, policy/limit %d", k.Name, n, len(names))
			}
		}
	}
}

// TestLimitsTOMLIsRead: what is written of limits means the same when it is read.
func TestLimitsTOMLIsRead(t *testing.T) {
	full, err := config.Load("testdata/good/full.toml")
	if err != nil {
		t.Fatal(err)
	}
	rest, _, _ := strings.Cut(string(read(t, "testdata/good/full.toml")), "[[limit]]")
	rest = strings.Replace(rest, "free = true\n", "", 1)
	for _, c := range []struct {
		limits []config.Limit
		rest   string
	}{{config.Default().Limits, ""}, {full.Limits, rest + "[[customer]]\nname = \"acme\"\ndomains = [\"example.jp\"]\n[[node]]\nname = \"web-3\"\ncidr = [\"192.0.2.13\"]\nkey_file = \"/etc/web-3.key\"\n"}} {
		got, err := config.Parse("x", []byte(c.rest+config.LimitsTOML(c.limits)))
		if err != nil || !reflect.DeepEqual(got.Limits, c.limits) {
			t.Errorf("got %+v, %v", got, err)
		}
	}
}

// TestInsideFree: limits that say nothing else count outside only.
func TestInsideFree(t *testing.T) {
	c, err := config.Parse("x", []byte("[inside]\nfree = true\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range c.Limits {
		if l.Recipients != "outside" {
			t.Errorf("%s counts %s", l.Name, l.Recipients)
		}
	}
}

// TestParseWindows: commands read windows as the file does, with its words.
func TestParseWindows(t *testing.T) {
	windows, burst, err := config.ParseWindows([]string{"600/1h", "3GB/1d"}, "300/10m")
	want := []config.Window{{600, time.Hour}, {3_000_000_000, 24 * time.Hour}}
	if err != nil || !reflect.DeepEqual(windows, want) || burst != (config.Window{300, 10 * time.Minute}) {
		t.Errorf("got %v, %v, %v", windows, burst, err)
	}
	for _, c := range []struct {
		windows     []string
		burst, want string
	}{
		{nil, "", "found an empty list, want at least one entry"},
		{[]string{"600"}, "", "write the count, / and the time"},
		{[]string{"600/1h", "500/1d"}, "", `found "500/24h" beside "600/1h", want no smaller count for the longer time`},
		{[]string{"600/1h"}, "300", "write the count, / and the time"},
		{[]string{"600/1h"}, "900/2h", "want a time shorter than those of windows; put it into windows"},
	} {
		if _, _, err := config.ParseWindows(c.windows, c.burst); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q, %q: got %v, want %s", c.windows, c.burst, err, c.want)
		}
	}
}

// TestParseUntil: a date is the whole day, in the machine's time zone.
func TestParseUntil(t *testing.T) {
	for text, want := range map[string]time.Time{
		"2027-03-31":                time.Date(2027, time.April, 1, 0, 0, 0, 0, time.Local),
		"2027-03-31T18:00":          time.Date(2027, time.March, 31, 18, 0, 0, 0, time.Local),
		"2027-03-31 18:00:00":       time.Date(2027, time.March, 31, 18, 0, 0, 0, time.Local),
		"2027-03-31t18:00:00z":      time.Date(2027, time.March, 31, 18, 0, 0, 0, time.UTC),
		"2027-03-31T18:00:00+09:00": time.Date(2027, time.March, 31, 9, 0, 0, 0, time.UTC),
	} {
		if got, err := config.ParseUntil(text); err != nil || !got.Equal(want) {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "tomorrow", "18:00:00", "2027-02-30", "1998-12-31", "9999-12-31"} {
		if got, err := config.ParseUntil(text); err == nil {
			t.Errorf("%s: got %v", text, got)
		}
	}
}
