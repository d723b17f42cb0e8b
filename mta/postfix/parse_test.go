package postfix

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseMilters(t *testing.T) {
	for value, want := range map[string][]Milter{
		"":                               nil,
		"unix:a, inet:b:1\tinet:[::1]:2": {{Endpoint: "unix:a"}, {Endpoint: "inet:b:1"}, {Endpoint: "inet:[::1]:2"}},
		"{ inet:h:1, connect_timeout=10s, default_action=accept },unix:b": {
			{"inet:h:1", map[string]string{"connect_timeout": "10s", "default_action": "accept"}}, {Endpoint: "unix:b"}},
		"{unix:a,{ default_action = accept }}": {{"unix:a", map[string]string{"default_action": "accept"}}},
	} {
		if got, err := ParseMilters(value); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %v, %v, want %v", value, got, err, want)
		}
	}
	for _, bad := range []string{"{", "}", "{}", "{ }", "a{b}", "{a, b}", "{a, =b}", "{a{ }"} {
		if got, err := ParseMilters(bad); err == nil {
			t.Errorf("%q passed as %v", bad, got)
		}
	}
}

func TestEffectiveFollowsWhatAServiceOverrides(t *testing.T) {
	in := newInstance(t, "guard=unix:g\nsmtpd_milters=$guard inet:k:1\nrecipient_delimiter=+\n", "smtp inet n - y - - smtpd\n"+
		"26 inet n - n - - smtpd -v\n  -o guard=unix:h -o { milter_default_action = accept }\n  -o syslog_name=x\n"+
		"[::1]:27 inet n - - - - smtpd -o smtpd_milters=a -o smtpd_milters=b\n")
	i := in.load(t)
	for _, c := range []struct{ service, name, want string }{
		{"smtp", "smtpd_milters", "unix:g inet:k:1"},
		{"smtp", "milter_default_action", "tempfail"},
		{"26", "smtpd_milters", "unix:h inet:k:1"},
		{"26", "milter_default_action", "accept"},
		{"[::1]:27", "smtpd_milters", "b"},
	} {
		s := i.Service(c.service, "inet")
		if s == nil {
			t.Fatalf("no service %s in %v", c.service, i.Services)
		}
		if got := i.Effective(s, c.name); got != c.want {
			t.Errorf("%s of %s: got %q, want %q", c.name, c.service, got, c.want)
		}
	}
	if s := i.Service("26", "inet"); s.Chroot || !slices.Equal(s.Args, []string{"-v"}) {
		t.Errorf("got %+v", s)
	}
	if !i.Service("smtp", "inet").Chroot {
		t.Error("chroot of smtp not seen")
	}
}

func TestInsideDomains(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "list"), "# ours\nlist.example\n  "+dir+"/more texthash:"+dir+"/map\n")
	writeFile(t, filepath.Join(dir, "more"), "More.Example.\n")
	writeFile(t, filepath.Join(dir, "map"), "mapped.example x\n")
	writeFile(t, filepath.Join(dir, "valias"), "virtual.example anything\nuser@virtual.example a@b\n@catch.example x\nlocalname y\n")
	in := newInstance(t, "mydomain=example.jp\nmyorigin=$mydomain\nmydestination=$myhostname, localhost.$mydomain !no.example, no.example\n  "+dir+"/list, [192.0.2.1], /nosuch/file\n"+
		"virtual_mailbox_domains=mysql:/etc/postfix/d.cf, vbox.example\nvirtual_alias_maps=texthash:"+dir+"/valias\nrelay_domains=.sub.example regexp:/etc/postfix/r\n", masterCF)
	got, unread, err := in.load(t).InsideDomains(context.Background())
	want := []string{".sub.example", "list.example", "localhost.example.jp", "mapped.example", "more.example", "mx.example.jp", "vbox.example", "virtual.example"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	var items []string
	for _, u := range unread {
		items = append(items, u.Setting+" "+u.Item)
	}
	if want := []string{"mydestination /nosuch/file", "virtual_mailbox_domains mysql:/etc/postfix/d.cf", "relay_domains regexp:/etc/postfix/r"}; !slices.Equal(items, want) {
		t.Errorf("unread: got %q, want %q", items, want)
	}
	local, _, err := in.load(t).LocalDomains(context.Background())
	if err != nil || !slices.Contains(local, "example.jp") || slices.Contains(local, "vbox.example") {
		t.Errorf("local: got %q, %v", local, err)
	}
}

// Debian's main.cf has myorigin = /etc/mailname.
func TestOrigin(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "mailname"), " example.jp \nmore.example\n")
	for value, want := range map[string]string{"$mydomain": "example.net", dir + "/mailname": "example.jp", dir: "", dir + "/nosuch": ""} {
		got, err := newInstance(t, "mydomain=example.net\nmyorigin="+value+"\n", masterCF).load(t).Origin()
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%s: got %q, %v, want %q", value, got, err, want)
		}
	}
}

func TestParseTime(t *testing.T) {
	for value, want := range map[string]time.Duration{"5": 5 * time.Second, "30s": 30 * time.Second, "2m": 2 * time.Minute, "1h": time.Hour, "1d": 24 * time.Hour, "1w": 168 * time.Hour} {
		if got, ok := parseTime(value); !ok || got != want {
			t.Errorf("%q: got %v, %v, want %v", value, got, ok, want)
		}
	}
	for _, bad := range []string{"", "s", "-1", "1x", "99999999999999999999w"} {
		if got, ok := parseTime(bad); ok {
			t.Errorf("%q passed as %v", bad, got)
		}
	}
}

func FuzzParseMilters(f *testing.F) {
	for _, seed := range []string{"unix:a, inet:b:1", "{ unix:a, default_action=accept, {x = y z} } inet:c:2", "{{}}", "}{", "a{b", "{a,=}", ",,\t{ }"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		milters, err := ParseMilters(value)
		if err != nil {
			return
		}
		for _, m := range milters {
			if m.Endpoint == "" || strings.ContainsAny(m.Endpoint, "{}, \t\r\n") {
				t.Fatalf("%q has the endpoint %q", value, m.Endpoint)
			}
			if _, unnamed := m.Settings[""]; unnamed {
				t.Fatalf("%q has a setting without a name", value)
			}
		}
	})
}

func FuzzParseServices(f *testing.F) {
	seeds, err := filepath.Glob("testdata/master/*.txt")
	if err != nil || len(seeds) == 0 {
		f.Fatal("no seeds in testdata/master")
	}
	for _, path := range seeds {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		services, err := parseServices(text)
		if err != nil {
			return
		}
		for _, s := range services {
			again, err := parseServices(s.with(map[string]string{"a": "b c"}))
			if err != nil || len(again) != 1 || again[0].Overrides["a"] != "b c" {
				t.Fatalf("%q became %q: %v", text, s.with(map[string]string{"a": "b c"}), err)
			}
		}
	})
}

func FuzzParseSettings(f *testing.F) {
	f.Add("a = b\nc =\n")
	f.Add("= x\n")
	f.Add("warning: x\n")
	f.Fuzz(func(t *testing.T, text string) {
		settings, err := parseSettings(text)
		if err == nil {
			for name := range settings {
				if name == "" || strings.ContainsAny(name, " \t\n") {
					t.Fatalf("name %q", name)
				}
			}
		}
	})
}

func FuzzKeysOf(f *testing.F) {
	for _, seed := range []string{"a+b@c", "@", "a@b@c", "owner-x@y", "+a@b", "a+@b", "\xff@x", "a\nb@c", "postmaster+x@y"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, address string) {
		for _, key := range keysOf(address, "+-", func(string) bool { return true }) {
			if key == "" || strings.ContainsAny(key, "\n\r\t\x00") {
				t.Fatalf("%q makes key %q", address, key)
			}
		}
	})
}

func TestOptionsEndWherePipesArgumentsBegin(t *testing.T) {
	in := newInstance(t, "master_service_disable = static:all !smtp/inet inet foo.unix\n", "smtp inet n - y - - smtpd\n"+
		"26 inet n - y - - smtpd\nfoo unix - n n - - pipe user=nobody argv=/bin/true\n"+
		"spam unix - n n - - pipe -v user=nobody argv=/usr/bin/spamc -e /usr/sbin/sendmail -oi -f ${sender}\n")
	i := in.load(t)
	spam := i.Service("spam", "unix")
	if spam == nil || spam.Args[len(spam.Args)-3] != "-oi" || len(spam.Overrides) != 0 {
		t.Errorf("got %+v", spam)
	}
	for name, there := range map[string]bool{"smtp/inet": true, "26/inet": false, "foo/unix": false} {
		at := strings.IndexByte(name, '/')
		if (i.Service(name[:at], name[at+1:]) != nil) != there {
			t.Errorf("%s runs: %v, want %v", name, !there, there)
		}
	}
}
