package main

import (
	"context"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/queue"
	"relayguard/cmd/internal/switches"
	"relayguard/mta"
	"relayguard/policy"
)

// well is a configuration whose surroundings are as they should be.
func well(t *testing.T) (s surroundings, settings map[string]string) {
	t.Helper()
	d := newFakeDaemon(t)
	d.always("GET /v1/switches", []struct{}{})
	dir := filepath.Dir(d.socket)
	helper, err := net.Listen("unix", filepath.Join(dir, "queue.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { helper.Close() })
	watcher, err := net.Listen("unix", filepath.Join(dir, "watch.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { watcher.Close() })
	c := config.Default()
	c.Forward.Helper, c.Alert.Webhook = filepath.Join(dir, "watch.sock"), "https://pager.example.jp/alert"
	c.Control.Socket, c.MTA.QueueHelper, c.MTA.Log = d.socket, filepath.Join(dir, "queue.sock"), filepath.Join(dir, "mail.log")
	c.Journal.Directory, c.Alert.Syslog, c.Alert.Command = filepath.Join(dir, "journal"), false, filepath.Join(dir, "alert")
	c.Hold.MinFree, c.Hold.MinFreeInodes = 1, 1
	c.RBL.Resolvers, c.RBL.Use, c.RBL.Enable = []string{"127.0.0.1:53"}, config.UseNonCommercial, []string{"b.barracudacentral.org"}
	for name, mode := range map[string]fs.FileMode{c.MTA.Log: 0o640, c.Alert.Command: 0o755} {
		if err := os.WriteFile(name, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(c.Journal.Directory, 0o700); err != nil {
		t.Fatal(err)
	}
	me := &account{User: &user.User{Uid: strconv.Itoa(os.Getuid()), Username: "me"}}
	settings = map[string]string{"info_log_addr_form": "external"}
	return surroundings{config: c, account: me, hand: &fakeQueue{}, queueDir: dir, setting: func(name string) string { return settings[name] }}, settings
}

func TestSurroundingsThatAreWellAreNoFinding(t *testing.T) {
	s, _ := well(t)
	if all := s.inspect(t.Context()); len(all) > 0 {
		t.Errorf("%+v", all)
	}
}

func TestSurroundingsThatAreNotWellAreNamed(t *testing.T) {
	nobody := &account{User: &user.User{Uid: "54321", Username: "nobody-else"}}
	for name, c := range map[string]struct {
		spoil    func(t *testing.T, s *surroundings, settings map[string]string)
		id, says string
		severity mta.Severity
	}{
		"daemon dead": {func(t *testing.T, s *surroundings, _ map[string]string) { s.config.Control.Socket += "x" },
			"daemon-dead", "does not run", mta.Critical},
		"no helper": {func(t *testing.T, s *surroundings, _ map[string]string) { s.config.MTA.QueueHelper += "x" },
			"queue-helper", "is not there", mta.Warning},
		"helper that does not take calls": {func(t *testing.T, s *surroundings, _ map[string]string) { s.config.MTA.QueueHelper = s.config.MTA.Log },
			"queue-helper", "cannot be reached", mta.Warning},
		"helper for others": {func(t *testing.T, s *surroundings, _ map[string]string) {
			chmod(t, s.config.MTA.QueueHelper, 0o400)
		}, "queue-helper", "me may not connect", mta.Warning},
		"helper that ends without an answer": {func(t *testing.T, s *surroundings, _ map[string]string) {
			s.hand = brokenHand{}
		}, "queue-helper", "does not do what it is asked", mta.Warning},
		"MTA that still stops": {func(t *testing.T, s *surroundings, _ map[string]string) {
			s.hand = &fakeQueue{stopped: true}
		}, "mta-stop", "still stops all mail", mta.Critical},
		"sendmail that refuses": {func(t *testing.T, s *surroundings, _ map[string]string) {
			s.hand = &fakeQueue{forbidden: []string{"games"}}
		}, "submit-forbidden", "games", mta.Warning},
		"switches that cannot be read": {func(t *testing.T, s *surroundings, _ map[string]string) {
			if err := os.WriteFile(switchesFile(s.config), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "switches", "switches.json", mta.Warning},
		"no log": {func(t *testing.T, s *surroundings, _ map[string]string) { s.config.MTA.Log += "x" },
			"mta-log", "is not there", mta.Warning},
		"log not wanted": {func(t *testing.T, s *surroundings, _ map[string]string) { s.config.MTA.Log = config.LogNone },
			"mta-log-none", "not read", mta.Info},
		"log for others": {func(t *testing.T, s *surroundings, _ map[string]string) { chmod(t, s.config.MTA.Log, 0o040) },
			"mta-log", "me may not read", mta.Warning},
		"no journalctl": {func(t *testing.T, s *surroundings, _ map[string]string) {
			s.config.MTA.Log = config.LogJournal
			t.Setenv("PATH", t.TempDir())
		}, "mta-log", "no journalctl", mta.Warning},
		"log elsewhere": {func(t *testing.T, _ *surroundings, settings map[string]string) {
			settings["maillog_file"] = "/var/log/postfix.log"
		},
			"mta-log-elsewhere", "/var/log/postfix.log", mta.Warning},
		"addresses": {func(t *testing.T, _ *surroundings, settings map[string]string) {
			settings["info_log_addr_form"] = "internal"
		},
			"log-addresses", `"internal"`, mta.Warning},
		"journal of others": {func(t *testing.T, s *surroundings, _ map[string]string) {
			s.account = nobody
			s.config.MTA.Log, s.config.MTA.QueueHelper, s.config.Alert.Command = everybodys(t, s.config.MTA.Log), everybodys(t, s.config.MTA.QueueHelper), ""
		}, "journal-directory", "not to the daemon's account nobody-else", mta.Critical},
		"journal that cannot be written": {func(t *testing.T, s *surroundings, _ map[string]string) { chmod(t, s.config.Journal.Directory, 0o500) },
			"journal-directory", "me may not write", mta.Critical},
		"journal that cannot be made": {func(t *testing.T, s *surroundings, _ map[string]string) {
			chmod(t, s.config.Journal.Directory, 0o500)
			s.config.Journal.Directory = filepath.Join(s.config.Journal.Directory, "a", "journal")
		}, "journal-directory", "me may not make it", mta.Critical},
		"journal that is a file": {func(t *testing.T, s *surroundings, _ map[string]string) {
			s.config.Journal.Directory = s.config.MTA.Log
		},
			"journal-directory", "no directory", mta.Critical},
		"journal for everybody": {func(t *testing.T, s *surroundings, _ map[string]string) { chmod(t, s.config.Journal.Directory, 0o755) },
			"journal-open", "mode 0755", mta.Warning},
		"no room": {func(t *testing.T, s *surroundings, _ map[string]string) { s.config.Hold.MinFree = 1 << 60 },
			"hold-room", "octets free", mta.Warning},
		"no group": {func(t *testing.T, s *surroundings, _ map[string]string) { s.config.Control.ReadGroup = "no-such-group" },
			"control-group", "no-such-group", mta.Warning},
		"no alert command": {func(t *testing.T, s *surroundings, _ map[string]string) { s.config.Alert.Command += "x" },
			"alert-command", "is not there", mta.Warning},
		"no watch": {func(t *testing.T, s *surroundings, _ map[string]string) { s.config.Forward.Watch = false },
			"forward-watch", "nobody watches", mta.Info},
		"no helper of the watch": {func(t *testing.T, s *surroundings, _ map[string]string) { s.config.Forward.Helper += "x" },
			"watch-helper", "cannot be reached", mta.Warning},
		"alerts stay here": {func(t *testing.T, s *surroundings, _ map[string]string) { s.config.Alert.Webhook = "" },
			"alert-outside", "do not leave this machine", mta.Info},
		"no token": {func(t *testing.T, s *surroundings, _ map[string]string) {
			s.config.Alert.WebhookTokenFile = filepath.Join(t.TempDir(), "none")
		}, "alert-webhook-token", "no such file", mta.Warning},
		"token of others": {func(t *testing.T, s *surroundings, _ map[string]string) {
			s.config.Alert.WebhookTokenFile = filepath.Join(filepath.Dir(s.config.Forward.Helper), "token")
			if err := os.WriteFile(s.config.Alert.WebhookTokenFile, []byte("x\n"), 0o200); err != nil {
				t.Fatal(err)
			}
		}, "alert-webhook-token", "me may not read it", mta.Warning},
		"forwarded mail that nobody sees": {func(t *testing.T, s *surroundings, _ map[string]string) { s.config.Forward.Stop = config.StopHold },
			"forward-stop", "no listener with the role egress", mta.Warning},
		"alert command that cannot run": {func(t *testing.T, s *surroundings, _ map[string]string) { chmod(t, s.config.Alert.Command, 0o644) },
			"alert-command", "cannot be executed", mta.Warning},
		"alert command of others": {func(t *testing.T, s *surroundings, _ map[string]string) { chmod(t, s.config.Alert.Command, 0o611) },
			"alert-command", "me may not execute", mta.Warning},
		"alert command for everybody": {func(t *testing.T, s *surroundings, _ map[string]string) { chmod(t, s.config.Alert.Command, 0o757) },
			"alert-command", "everybody may write", mta.Warning},
	} {
		t.Run(name, func(t *testing.T) {
			s, settings := well(t)
			c.spoil(t, &s, settings)
			all := s.inspect(context.Background())
			if len(all) != 1 || all[0].ID != c.id || all[0].Severity != c.severity || !strings.Contains(all[0].What, c.says) {
				t.Fatalf("%+v; want %v %s with %q", all, c.severity, c.id, c.says)
			}
			if f := all[0]; f.Where == "" || f.Why == "" || f.Remedy == "" {
				t.Errorf("half a finding: %+v", f)
			}
		})
	}
}

// brokenHand is a root helper that does not start.
type brokenHand struct{ queue.Operator }

func (brokenHand) Status(context.Context) (queue.Status, error) {
	return queue.Status{}, queue.ErrUnsure
}

func TestAStopInOrderIsNoFinding(t *testing.T) {
	s, _ := well(t)
	s.hand = &fakeQueue{stopped: true}
	f, err := switches.Open(switchesFile(s.config), &policy.Board{}, time.Now())
	if err == nil {
		_, err = f.Set(policy.Switch{Kind: policy.Stop, Since: time.Now()})
	}
	if err != nil {
		t.Fatal(err)
	}
	if all := s.inspect(t.Context()); len(all) > 0 {
		t.Errorf("%+v", all)
	}
}

func chmod(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// everybodys lets all accounts do all with a file.
func everybodys(t *testing.T, path string) string {
	t.Helper()
	chmod(t, path, 0o666)
	chmod(t, filepath.Dir(path), 0o755)
	return path
}

func TestAJournalThatTheUnitMakesIsNoFinding(t *testing.T) {
	s, _ := well(t)
	s.config.Journal.Directory = config.Default().Journal.Directory
	if _, err := os.Stat(s.config.Journal.Directory); err == nil {
		t.Skip("it is there")
	}
	if all := s.inspect(t.Context()); len(all) > 0 {
		t.Errorf("%+v", all)
	}
}

func TestWhatAnAccountMayReadGoesByModesOfFileAndDirectories(t *testing.T) {
	dir := t.TempDir()
	for d := dir; d != "/"; d = filepath.Dir(d) {
		if info, err := os.Stat(d); err != nil || info.Mode().Perm()&1 == 0 {
			if err := os.Chmod(d, 0o755); err != nil || !strings.HasPrefix(d, os.TempDir()) {
				t.Skipf("%s is closed to others", d)
			}
		}
	}
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	me := &account{User: &user.User{Uid: strconv.Itoa(os.Getuid())}}
	other := &account{User: &user.User{Uid: "54321"}}
	for _, c := range []struct {
		file, dir  fs.FileMode
		me, others bool
	}{{0o600, 0o755, true, false}, {0o644, 0o755, true, true}, {0o044, 0o755, false, true}, {0o644, 0o700, true, false}} {
		os.Chmod(file, c.file)
		os.Chmod(dir, c.dir)
		if me.may(reading, file) != c.me || other.may(reading, file) != c.others {
			t.Errorf("%o in %o: got %v and %v", c.file, c.dir, me.may(reading, file), other.may(reading, file))
		}
	}
	os.Chmod(dir, 0o755)
	if !other.may(reading, filepath.Join(dir, "nosuch")) {
		t.Error("a file that is not there")
	}
}
