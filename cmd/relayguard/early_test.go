package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayguard/cmd/internal/call"
	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/sites"
	"relayguard/policy/origin/stamp"
)

const daemonUID = 1 // an account of every Linux, called daemon

// served is a daemon with a socket for the sendmail wrapper.
type served struct {
	t           *testing.T
	dir, config string
	client      *control.Client
	site        stamp.Site
	stamps      int
}

const served0 = `[mta]
config_directory = %[1]q
log = "none"
queue_helper = "%[1]s/no-helper.sock"
[control]
socket = "%[1]s/control.sock"
[journal]
directory = "%[1]s/journal"
[forward]
watch = false
[rbl]
watch = false
[report]
at = ""
[alert]
syslog = false
command = "/bin/true"
[origin]
call_socket = "%[1]s/call/socket"
call_timeout = "10s"
[inside]
from_mta = false
domains = ["example.jp"]
[[listener]]
name = "local"
role = "local"
address = "unix:%[1]s/milter.sock"
`

// serveCallers runs a daemon to which a site of another account is known.
func serveCallers(t *testing.T) *served {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to ask as another account")
	}
	dir, err := os.MkdirTemp("", "rgc") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := &served{t: t, dir: dir, config: filepath.Join(dir, "relayguard.toml"), client: control.NewClient(filepath.Join(dir, "control.sock"))}
	s.site = stamp.Site{Name: "shop.example.jp", UID: daemonUID, KeyID: "0a1b2c3d", Key: bytes.Repeat([]byte{7}, stamp.KeySize), Root: "/srv/shop"}
	if err := os.WriteFile(s.config, fmt.Appendf(nil, served0, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(s.config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, c, s.config, io.Discard) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for _, socket := range []string{"control.sock", "call/socket"} {
		until(t, "the daemon serves "+socket, 20*time.Second, func() bool {
			conn, err := net.Dial("unix", filepath.Join(dir, socket))
			if err == nil {
				conn.Close()
			}
			return err == nil
		})
	}
	r := sites.Registration{Name: s.site.Name, UID: s.site.UID, KeyID: s.site.KeyID, Key: s.site.Key, Root: s.site.Root}
	if err := s.client.Post(t.Context(), "/v1/sites", r, new(sites.Info)); err != nil {
		t.Fatal(err)
	}
	return s
}

// ask asks about mail to a stranger, with a stamp of that plugin.
func (s *served) ask(plugin string) call.Answer {
	s.t.Helper()
	s.stamps++
	to := []string{"stranger@example.net"}
	field := stamp.Make(time.Now(), &s.site, &stamp.Stamp{Plugin: plugin, Entry: "ajax", Script: "share.php:7"}, to, "Look", fmt.Sprintf("%016d", s.stamps))
	q := call.Question{Dir: s.site.Root, FromHeader: true, Header: []byte("To: " + to[0] + "\r\nSubject: Look\r\n" + stamp.Header + ": " + field + "\r\n")}
	return s.answer(q)
}

func (s *served) answer(q call.Question) call.Answer {
	s.t.Helper()
	var a call.Answer
	err := as(s.site.UID, func() (err error) {
		a, err = call.Ask(s.t.Context(), filepath.Join(s.dir, "call", "socket"), q)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

// as does something as another account, which the kernel tells who is asked.
func as(uid int, do func() error) error {
	done := make(chan error)
	go func() { // its thread ends with it
		runtime.LockOSThread()
		const same = ^uintptr(0)
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, same, uintptr(uid), same); errno != 0 {
			done <- errno
			return
		}
		done <- do()
	}()
	return <-done
}

// command runs a command of relayguard.
func (s *served) command(args ...string) (status int, stdout string) {
	s.t.Helper()
	var out, errs strings.Builder
	status = run(s.t.Context(), append(args, "--config", s.config), &out, &errs)
	return status, out.String()
}

var decisionID = regexp.MustCompile(`\(([0-9a-hjkmnp-z]{13})\)$`)

func TestSuspendedPluginIsRefusedBeforeTheMTAHasItsMail(t *testing.T) {
	s := serveCallers(t)
	if a := s.ask("share"); a.Verdict != call.Accept || a.Token == "" {
		t.Fatalf("nobody is suspended: %+v", a)
	}
	status, out := s.command("suspend", "plugin:Share@Shop.example.jp", "--reason", "abused", "--json")
	var suspended desk.Suspended
	if err := json.Unmarshal([]byte(out), &suspended); err != nil || status != exitFinding || suspended.Account != "plugin:share@shop.example.jp" || !strings.Contains(suspended.Local, "status 75") { // the root helper is not there
		t.Fatalf("suspend: %d, %v\n%s", status, err, out)
	}
	first := s.ask("share")
	found := decisionID.FindStringSubmatch(first.Text)
	if first.Verdict != call.Defer || first.Token != "" || found == nil || !strings.HasPrefix(first.Text, "Sending from this account is suspended") {
		t.Fatalf("got %+v", first)
	}
	for range 110 { // a flood has one entry, and who goes on an incident
		if again := s.ask("share"); again != first {
			t.Fatalf("got %+v, want %+v", again, first)
		}
	}
	for name, a := range map[string]call.Answer{
		"the site's own software": s.ask(""), "another plugin": s.ask("cart"),
		"to our postmaster":   s.answer(call.Question{RcptTo: []string{"postmaster@example.jp"}}),
		"what cannot be read": s.answer(call.Question{FromHeader: true, Header: []byte("To: <unfinished\n")}),
	} {
		if a.Verdict != call.Accept {
			t.Errorf("%s: %+v", name, a)
		}
	}
	status, out = s.command("explain", found[1])
	for _, want := range []string{"defer, answered to the sendmail wrapper", "suspended: abused", "shop.example.jp", "share", "local_user:daemon"} {
		if status != exitFine || !strings.Contains(out, want) {
			t.Errorf("explain, status %d, does not say %q:\n%s", status, want, out)
		}
	}
	if _, out = s.command("decisions", "--stage", "call", "--json"); strings.Count(out, `"id"`) != 1 {
		t.Errorf("decisions:\n%s", out)
	}
	_, out = s.command("status")
	for _, want := range []string{"plugin:share@shop.example.jp", "abused"} {
		if !strings.Contains(out, want) {
			t.Errorf("status does not say %q:\n%s", want, out)
		}
	}
	until(t, "the incident is told", 20*time.Second, func() bool {
		var all []struct {
			Origin, Cause string
			Stops         int64
		}
		_, out = s.command("incident", "list", "--json")
		return json.Unmarshal([]byte(out), &all) == nil && len(all) == 1 && all[0].Cause == "suspended" && all[0].Stops >= 100
	})
	if status, out = s.command("resume", "plugin:share@shop.example.jp", "--cause", "updated"); status != exitFine {
		t.Errorf("resume: %d\n%s", status, out)
	}
	if a := s.ask("share"); a.Verdict != call.Accept {
		t.Errorf("resumed: %+v", a)
	}
}

func TestSuspendedSiteAndDeniedTargetAreRefusedToTheWrapper(t *testing.T) {
	s := serveCallers(t)
	s.command("suspend", "site:shop.example.jp", "--reason", "abused")
	plain := call.Question{Dir: "/srv/shop/wp-admin", RcptTo: []string{"stranger@example.net"}, Header: []byte("Subject: Look\n\n")}
	for name, a := range map[string]call.Answer{"a plugin": s.ask("cart"), "its own software": s.ask(""), "without a stamp": s.answer(plain)} {
		if a.Verdict != call.Defer {
			t.Errorf("%s: %+v", name, a)
		}
	}
	if status, out := s.command("resume", "site:shop.example.jp", "--cause", "cleaned"); status != exitFine {
		t.Errorf("resume: %d\n%s", status, out)
	}
	if a := s.answer(plain); a.Verdict != call.Accept {
		t.Errorf("resumed: %+v", a)
	}
	if status, out := s.command("deny", "add", "target-domain", "example.net", "--reason", "trap"); status != exitFine {
		t.Fatalf("deny: %d\n%s", status, out)
	}
	if a := s.answer(plain); a.Verdict != call.Reject || decisionID.FindString(a.Text) == "" {
		t.Errorf("denied: %+v", a)
	}
	plain.MailFrom = call.NullSender
	if a := s.answer(plain); a.Verdict != call.Defer {
		t.Errorf("a null sender that is denied: %+v", a)
	}
}
