package systemtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/policy/origin/stamp"
	"relayguard/systemtest/relay"
)

// shop is a web site whose mail is handed in by relayguard-sendmail.
var shop = stamp.Site{Name: "shop.example.jp", UID: news, KeyID: "0a1b2c3d", Key: bytes.Repeat([]byte{7}, stamp.KeySize)}

// registerShop tells the guard of the site.
func registerShop(t *testing.T, r *relay.Relay) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"name": shop.Name, "uid": shop.UID, "key_id": shop.KeyID, "key": []byte(shop.Key)})
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{Dial: func(string, string) (net.Conn, error) {
		return net.Dial("unix", filepath.Join(r.StateDir(), "control.sock"))
	}}}
	defer client.CloseIdleConnections()
	answer, err := client.Post("http://relayguard/v1/sites", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("register %s: %s", shop.Name, answer.Status)
	}
}

// wrapperOf makes relayguard's own program under its other name, with settings for
// this relay. They have one place only: it is put there where the program alone
// sees it.
func wrapperOf(t *testing.T, r *relay.Relay) (settings, program string) {
	t.Helper()
	const place = "/etc/relayguard"
	if err := os.Mkdir(place, 0o755); err == nil {
		t.Cleanup(func() { os.Remove(place) })
	} else if !os.IsExist(err) {
		t.Fatal(err)
	}
	settings, program = filepath.Join(r.Dir, "wrapper"), filepath.Join(r.Dir, "relayguard-sendmail")
	text := fmt.Sprintf("sendmail = \"/usr/sbin/sendmail\"\nsocket = %q\ntimeout = \"10s\"\n", r.CallSocket())
	if err := errors.Join(os.Mkdir(settings, 0o755), os.WriteFile(filepath.Join(settings, "sendmail.conf"), []byte(text), 0o644), os.Symlink(guardBinary, program)); err != nil {
		t.Fatal(err)
	}
	return settings, program
}

// shopMail is a message of the site with its stamp.
func shopMail(id, plugin string) string {
	to := []string{id + "@example.net"}
	value := stamp.Make(time.Now(), &shop, &stamp.Stamp{Plugin: plugin, Entry: "ajax", Script: "share.php:7"}, to, id, fmt.Sprintf("%016x", time.Now().UnixNano()))
	return letter(id, "From: shop@example.jp", "To: "+to[0], "Subject: "+id, stamp.Header+": "+value)
}

func TestWrapperIsRefusedWhatIsSuspended(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{})
	registerShop(t, r)
	settings, program := wrapperOf(t, r)
	group, err := user.LookupGroup("postdrop")
	if err != nil {
		t.Fatal(err)
	}
	handIn := func(message string) (status int, stderr string) {
		t.Helper()
		const script = `mount --bind "$1" /etc/relayguard && shift && exec setpriv --reuid "$1" --regid "$2" --clear-groups -- "$3" -t -i -f shop@example.jp`
		cmd := exec.CommandContext(soon(t), "unshare", "--mount", "sh", "-c", script, "sh", settings, fmt.Sprint(news), group.Gid, program)
		cmd.Dir, cmd.Env, cmd.Stdin = "/", append(os.Environ(), "MAIL_CONFIG="+r.ConfigDir), strings.NewReader(message)
		var errs strings.Builder
		cmd.Stderr = &errs
		var exit *exec.ExitError
		if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), errs.String()
	}
	passes := func(id, plugin string) {
		t.Helper()
		if status, stderr := handIn(shopMail(id, plugin)); status != 0 {
			t.Fatalf("%s: exit %d, %s", id, status, stderr)
		}
		mail := wantArrived(t, r.Postfix, id+"@example.net")
		if left := headerLines(mail, "X-Relayguard"); len(left) > 0 {
			t.Errorf("left with the mail: %q", left)
		}
		wantVerdict(t, r, id, "accept", "", "local_user:news")
	}
	passes("before", "share")

	if s := ask[suspended](t, r, 0, "suspend", "plugin:share@shop.example.jp", "--reason", "abused"); len(s.Remarks) != 0 || !strings.Contains(s.Local, "75") {
		t.Errorf("suspend: %+v", s)
	}
	status, stderr := handIn(shopMail("abused", "share"))
	said := regexp.MustCompile(`^relayguard-sendmail: Sending from this account is suspended, ask the postmaster \((\w{13})\)\n$`).FindStringSubmatch(stderr)
	if status != 75 || said == nil {
		t.Fatalf("exit %d, %q", status, stderr)
	}
	e := ask[[]explained](t, r, 0, "explain", said[1])
	if len(e) != 1 || e[0].Decision == nil || e[0].Decision.Stage != "call" || e[0].Decision.Verdict != "defer" || e[0].Decision.Rule != "suspended" {
		t.Errorf("explain: %+v", e)
	}
	passes("reset", "") // its own software sends
	passes("order", "cart")

	// Who calls the MTA's own program is held.
	sendmail(t, r.Postfix, news, shopMail("round", "share"), "-t", "-i", "-f", "shop@example.jp")
	wantVerdict(t, r, "round", "hold", "suspended", "local_user:news")
	if held := heldOf(t, r, "--plugin", "share@shop.example.jp"); len(held) != 1 {
		t.Errorf("held: %+v", held)
	}
	for _, to := range []string{"abused", "round"} {
		if n := recipientsAtSink(r.Postfix)[to+"@example.net"]; n != 0 {
			t.Errorf("%s left %d times", to, n)
		}
	}

	if done := ask[resumed](t, r, 0, "resume", "plugin:share@shop.example.jp", "--cause", "updated"); !done.Was || done.Held != 1 {
		t.Errorf("resume: %+v", done)
	}
	passes("after", "share")

	ask[suspended](t, r, 0, "suspend", "plugin:share@shop.example.jp", "--reason", "abused again")
	if err := r.StopGuard(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if status, stderr := handIn(shopMail("dead", "share")); status != 0 {
		t.Errorf("the daemon is dead: exit %d, %s", status, stderr)
	}
	if _, err := r.WaitLog(soon(t), `pickup\[\d+\]: \w+: uid=9 from=<shop@example\.jp>`); err != nil {
		t.Error(err)
	}
	if err := r.StartGuard(soon(t)); err != nil {
		t.Fatal(err)
	}
	pickUp(t, r)
	wantVerdict(t, r, "dead", "hold", "suspended", "local_user:news") // what was ordered outlives the daemon
}

// Without the wrapper a suspended site's mail is held, as much as there is room
// for, and above that sent back.
func TestSuspendedSiteWithoutTheWrapper(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{Config: "[hold]\norigin_messages = 2\n", Postfix: postfixtest.Options{}})
	registerShop(t, r)
	ask[suspended](t, r, 0, "suspend", "site:shop.example.jp", "--reason", "abused")
	for i, want := range []string{"hold", "hold", "reject"} {
		id := fmt.Sprintf("site-%d", i)
		sendmail(t, r.Postfix, news, letter(id, "From: shop@example.jp"), "-f", "shop@example.jp", id+"@example.net")
		if v := verdictOn(t, r, id); v.Verdict != want {
			t.Errorf("%s: %s", id, v.Raw)
		}
	}
	if stdout, _ := order(t, r, 1, "status"); !strings.Contains(stdout, "site:shop.example.jp") {
		t.Errorf("status:\n%s", stdout)
	}
	if held := heldOf(t, r, "--account", "site:shop.example.jp"); len(held) != 2 {
		t.Errorf("held: %+v", held)
	}
}
