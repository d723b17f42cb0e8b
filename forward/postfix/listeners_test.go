package postfix

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"relayguard/forward"
	"relayguard/mta/postfix/postfixtest"
)

// TestWhoListensOnLoopbackIsTold: a next hop on this machine is as good as the
// program that listens there.
func TestWhoListensOnLoopbackIsTold(t *testing.T) {
	postfixtest.Need(t)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	socket := filepath.Join(t.TempDir(), "store")
	unix, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	_, port, _ := net.SplitHostPort(tcp.Addr().String())
	dir := plant(t, map[string]string{
		"main.cf":   "content_filter = smtp:[127.0.0.1]:" + port + "\nvirtual_transport = lmtp:unix:" + socket + "\nsmtp_fallback_relay = [127.0.0.1]:10025\nmailbox_transport = lmtp:unix:private/nobody\n",
		"master.cf": "127.0.0.1:10025 inet n - n - - smtpd\n",
	})
	want := map[string]forward.Kind{
		"smtp:[127.0.0.1]:" + port: forward.Asked, "lmtp:unix:" + socket: forward.Asked,
		"smtp:[127.0.0.1]:10025": forward.NextHop, "lmtp:unix:private/nobody": forward.NextHop,
	}
	for _, u := range Plan(t.Context(), host(t, true), Options{ConfigDir: dir}).Units {
		for _, rule := range u.Read(t.Context()).Rules {
			kind, is := want[rule.Target]
			if !is {
				continue
			}
			delete(want, rule.Target)
			if rule.Kind != kind || kind == forward.Asked && (rule.Digest == "" || !strings.Contains(rule.Note, "listens there")) {
				t.Errorf("got %+v, want kind %d", rule, kind)
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("no rule for %v", want)
	}
}

func TestDirectoryOfARunningMaster(t *testing.T) {
	for args, want := range map[string]string{"-w": "", "-c /etc/x": "/etc/x", "-w -c/etc/y": "/etc/y", "-c": ""} {
		if got := optionC(strings.Fields(args)); got != want {
			t.Errorf("master %s: got %q, want %q", args, got, want)
		}
	}
}

// TestEveryRunningPostfixIsFound looks for one that nothing but its process names.
func TestEveryRunningPostfixIsFound(t *testing.T) {
	postfixtest.Need(t)
	p, err := postfixtest.Start(t.Context(), postfixtest.Options{Hostname: "mx.corp.test", Inside: []string{"corp.test"}, Services: []postfixtest.Service{{Name: "smtp"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	found := runningDirs(t.Context(), host(t, true))
	for _, dir := range found {
		if dir == p.ConfigDir {
			return
		}
	}
	t.Errorf("%s is not among %v", p.ConfigDir, found)
}
