package sendmail_test

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"relayguard/mta"
	"relayguard/mta/sendmail"
	"relayguard/mta/sendmail/sendmailtest"
)

// rules asks the real Sendmail what a ruleset makes of an address (-bt).
func rules(t *testing.T, s *sendmailtest.Sendmail, lines ...string) string {
	t.Helper()
	cmd := exec.Command(s.Tool("sendmail"), "-Am", "-bt")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := s.StartCommand(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// relaysTo asks whether Sendmail takes mail of a stranger for that address.
func relaysTo(t *testing.T, s *sendmailtest.Sendmail, to string) bool {
	t.Helper()
	out := rules(t, s, ".D{client_addr}192.0.2.99", ".D{client_name}stranger.example", "Rcpt_ok <"+to+">")
	return strings.Contains(out, "Rcpt_ok          returns: RELAY")
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func writeText(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func withTools(t *testing.T, s *sendmailtest.Sendmail, do func(context.Context, *sendmail.Instance) error) {
	t.Helper()
	var err error
	s.Inside(func() {
		var i *sendmail.Instance
		if i, err = sendmail.Load(t.Context(), sendmail.Tools{Dir: filepath.Join(s.Dir, "bin")}, s.ConfigDir); err == nil {
			err = do(t.Context(), i)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

func insideOf(t *testing.T, s *sendmailtest.Sendmail) (domains []string, unread []mta.Unread) {
	t.Helper()
	withTools(t, s, func(ctx context.Context, i *sendmail.Instance) (err error) {
		domains, unread, err = i.InsideDomains(ctx)
		return err
	})
	return domains, unread
}

const withAccess = "FEATURE(`access_db', `hash -T<TMPF> -o /etc/mail/access')dnl"

// What we call ours is what the real Sendmail takes from strangers.
func TestInsideDomainsAreThoseThatSendmailRelaysTo(t *testing.T) {
	t.Parallel()
	access := "To:to.example RELAY\nboth.example RELAY\nConnect:from.example RELAY\nTo:no.example REJECT\n10.1 RELAY\nFrom:a@b.example RELAY\nTo:one@single.example RELAY\n"
	for name, test := range map[string]struct {
		options sendmailtest.Options
		extra   []string // taken beside the domains that all have
		below   bool     // names below relay domains, too
	}{
		"usual":      {sendmailtest.Options{}, nil, true},
		"hosts only": {sendmailtest.Options{MC: []string{"FEATURE(`relay_hosts_only')dnl"}}, nil, false},
		"entire domain": {sendmailtest.Options{MC: []string{"FEATURE(`relay_entire_domain')dnl"}, Hostname: "mail.corp.example"},
			[]string{"corp.example"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			o := test.options
			o.MC = append(o.MC, withAccess, "RELAY_DOMAIN(`relayed.example')dnl", "VIRTUSER_DOMAIN(`virtual.example')dnl", withMailertable)
			o.Inside = []string{"example.jp", "Second.example"}
			s := startWithTools(t, o)
			makeMap(t, s, "hash", "access", access)
			makeMap(t, s, "hash", "mailertable", "routed.example relay:[127.0.0.1]\n")
			got, unread := insideOf(t, s)
			for _, u := range unread {
				t.Error(u)
			}
			want := append([]string{"example.jp", "second.example", "relayed.example", "virtual.example", "to.example", "both.example"}, test.extra...)
			for _, d := range append(want, "routed.example", "from.example", "no.example", "b.example", "single.example", "jp", "example") {
				is := slices.Contains(want, d)
				if slices.Contains(got, d) != is {
					t.Errorf("%s among %q: %v, want %v", d, got, !is, is)
				}
				if takes := relaysTo(t, s, "a@"+d); takes != is {
					t.Errorf("Sendmail takes mail to %s: %v, want %v", d, takes, is)
				}
			}
			for _, d := range got {
				if !slices.Contains(want, d) && d != "localhost" && !strings.HasPrefix(d, "relay.example.jp") && d != "mail.corp.example" {
					t.Errorf("%s is among our domains", d)
				}
			}
			if takes := relaysTo(t, s, "a@below.relayed.example"); takes != test.below {
				t.Errorf("Sendmail takes mail to names below relay domains: %v, want %v", takes, test.below)
			}
		})
	}
}

func TestInsideDomainsTellsWhatCannotBeListed(t *testing.T) {
	t.Parallel()
	s := startWithTools(t, sendmailtest.Options{MC: []string{withAccess}})
	cf := filepath.Join(s.ConfigDir, "sendmail.cf")
	text := readText(t, cf)
	text = strings.Replace(text, "Kaccess hash ", "Kaccess ldap ", 1) + "F{VirtHost}|/usr/bin/domains\n"
	writeText(t, cf, text)
	_, unread := insideOf(t, s)
	var items []string
	for _, u := range unread {
		items = append(items, u.Setting)
	}
	if len(items) != 2 || !strings.HasPrefix(items[0], "FVirtHost") || items[1] != "access" {
		t.Errorf("got %q", unread)
	}
}

func TestOriginIsSendmailsOwnName(t *testing.T) {
	t.Parallel()
	s := startWithTools(t, sendmailtest.Options{Hostname: "Web1.Example.jp"})
	withTools(t, s, func(ctx context.Context, i *sendmail.Instance) error {
		origin, err := i.Origin()
		if origin != "web1.example.jp" || i.Copies() != 0 {
			t.Errorf("got %q, %d copies", origin, i.Copies())
		}
		local, _, errLocal := i.LocalDomains(ctx)
		if !slices.Contains(local, "web1.example.jp") || !slices.Contains(local, "example.jp") || errLocal != nil {
			t.Errorf("got %q, %v", local, errLocal)
		}
		return err
	})
	if out := rules(t, s, ".X", "$j"); !strings.Contains(strings.ToLower(out), "web1.example.jp") {
		t.Errorf("Sendmail says %q", out)
	}
}

func sendingOf(t *testing.T, s *sendmailtest.Sendmail) (out mta.Sending) {
	t.Helper()
	withTools(t, s, func(ctx context.Context, i *sendmail.Instance) (err error) {
		out, err = i.Sending(ctx)
		return err
	})
	return out
}

// Each way is the one that the real Sendmail finds for an address.
func TestSendingFindsTheWaysOut(t *testing.T) {
	t.Parallel()
	table := "big.example esmtp:[192.0.2.7]\n.below.example esmtp:hub.example\nexample.jp relay:[192.0.2.8]\nrefused.example error:nohost no\nplain.example [192.0.2.10]\nsix.example [IPv6:2001:db8::1]\n"
	for name, test := range map[string]struct {
		mc   []string
		more string // further lines of mailertable
		want []string
		asks map[string]string // an address: what Sendmail resolves it to
	}{
		"smart host": {nil, "", []string{"SMART_HOST relay  [127.0.0.1]:SINK", "mailertable esmtp big.example [192.0.2.7]", "mailertable esmtp .below.example hub.example"},
			map[string]string{"a@elsewhere.example": "relay $@ [ 127 . 0 . 0 . 1 ]", "a@big.example": "esmtp $@ [ 192 . 0 . 2 . 7 ]", "a@x.below.example": "esmtp $@ hub . example", "a@plain.example": "relay $@ [ 127 . 0 . 0 . 1 ]", "a@six.example": "relay $@ [ 127 . 0 . 0 . 1 ]"}},
		"own servers": {[]string{"undefine(`SMART_HOST')dnl"}, "", []string{"MAILER(`smtp') esmtp  ", "mailertable esmtp big.example [192.0.2.7]", "mailertable esmtp .below.example hub.example"},
			map[string]string{"a@elsewhere.example": "esmtp $@ elsewhere . example"}},
		"all by table": {nil, ". relay:[192.0.2.9]\n", []string{"mailertable relay  [192.0.2.9]:SINK", "mailertable esmtp big.example [192.0.2.7]", "mailertable esmtp .below.example hub.example"},
			map[string]string{"a@elsewhere.example": "relay $@ [ 192 . 0 . 2 . 9 ]"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startWithTools(t, sendmailtest.Options{MC: append(test.mc, withMailertable)})
			makeMap(t, s, "hash", "mailertable", table+test.more)
			got := sendingOf(t, s)
			_, port, _ := net.SplitHostPort(s.Sink.Addr())
			var ways []string
			for _, w := range got.Ways {
				ways = append(ways, strings.Join([]string{w.Setting, w.Service, w.Key, strings.Replace(w.NextHop, port, "SINK", 1)}, " "))
			}
			slices.Sort(ways)
			slices.Sort(test.want)
			if !slices.Equal(ways, test.want) || len(got.Unread) > 0 || got.Hostname != "relay.example.jp" {
				t.Errorf("got %q, unread %v", ways, got.Unread)
			}
			for address, want := range test.asks {
				if out := rules(t, s, "3,0 "+address); !strings.Contains(out, "parse            returns: $# "+want) {
					t.Errorf("%s: Sendmail says\n%s", address, out)
				}
			}
		})
	}
}

// greeted is a server that notes who connects from where, and says no.
func greeted(t *testing.T) (port string, seen chan [2]string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	seen = make(chan [2]string, 10)
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conn.Write([]byte("220 here\r\n"))
			line, _ := bufio.NewReader(conn).ReadString('\n')
			host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
			seen <- [2]string{host, strings.TrimSpace(line)}
			conn.Write([]byte("421 closed\r\n"))
			conn.Close()
		}
	}()
	_, port, _ = net.SplitHostPort(ln.Addr().String())
	return port, seen
}

// The address and the name of the connection are those that the server sees.
func TestSendingKnowsAddressAndName(t *testing.T) {
	t.Parallel()
	port, seen := greeted(t)
	s := newStopping(t, sendmailtest.Options{CF: []string{smtpTo("capture", port)}, MC: []string{
		"define(`SMART_HOST', `capture:[127.0.0.1]')dnl", "define(`confHELO_NAME', `out.example.jp')dnl",
		"CLIENT_OPTIONS(`Family=inet, Address=127.0.0.9')dnl", "CLIENT_OPTIONS(`Family=inet6, Address=IPv6:2001:db8::9')dnl"}})
	got := sendingOf(t, s.Sendmail)
	if len(got.Ways) != 1 {
		t.Fatalf("got %+v", got)
	}
	w := got.Ways[0]
	if w.Bind4.Addr != netip.MustParseAddr("127.0.0.9") || w.Bind6.Addr != netip.MustParseAddr("2001:db8::9") || !w.Enforced || !w.Every() || w.NextHop != "[127.0.0.1]:"+port {
		t.Errorf("got %+v", w)
	}
	s.send("a@example.org")
	select {
	case is := <-seen:
		if is != [2]string{w.Bind4.Addr.String(), "EHLO " + w.Helo} {
			t.Errorf("the server saw %q, we say %+v", is, w)
		}
	case <-s.ctx().Done():
		t.Error("nobody came")
	}
}

func TestSendingTellsWhatItCannotFollow(t *testing.T) {
	t.Parallel()
	s := startWithTools(t, sendmailtest.Options{
		MC:       []string{withMailertable},
		Services: []sendmailtest.Service{{Name: "relay", Modifiers: "b"}},
	})
	cf := filepath.Join(s.ConfigDir, "sendmail.cf")
	writeText(t, cf, strings.Replace(readText(t, cf), "SParseLocal=98\n", "SParseLocal=98\nR$* < @ far . example . > $*\n\t$#esmtp $@ [192.0.2.5] $: $1 < @ far . example . > $2\n", 1))
	makeMap(t, s, "hash", "mailertable", "a.example prog:x\nb.example nosuch:y\n")
	got := sendingOf(t, s)
	var settings, services []string
	for _, u := range got.Unread {
		settings = append(settings, u.Setting)
	}
	for _, w := range got.Ways {
		services = append(services, w.Service)
	}
	slices.Sort(settings)
	if !slices.Equal(settings, []string{"DaemonPortOptions", "LOCAL_RULE_0", "mailertable"}) || !slices.Contains(services, "esmtp") || !slices.Contains(services, "relay") {
		t.Errorf("got %q, %q", settings, services)
	}
}

func TestSendingSaysThatMailIsStopped(t *testing.T) {
	t.Parallel()
	s := newStopping(t, sendmailtest.Options{})
	before := sendingOf(t, s.Sendmail)
	s.stop()
	got := sendingOf(t, s.Sendmail)
	if before.Stopped || !got.Stopped || len(got.Ways) != len(before.Ways) {
		t.Errorf("got %+v, then %+v", before, got)
	}
}
