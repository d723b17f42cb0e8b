package wrapper

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"relayguard/cmd/internal/call"
	"relayguard/cmd/internal/phptest"
)

const mailScript = `<?php var_dump(mail("a@example.net", "Hello", "one\n\xff two\n", "From: taro@example.jp"));`

func TestMailOfPHPIsFalseWhereTheDaemonRefuses(t *testing.T) {
	php := phptest.CLI(t)
	p := install(t, recorder)
	var verdict atomic.Pointer[call.Verdict]
	var question atomic.Pointer[call.Request]
	calls := p.daemon(func(_ context.Context, r *call.Request) call.Answer {
		question.Store(r)
		return call.Answer{Verdict: *verdict.Load(), Text: "suspended"}
	})
	site := filepath.Join(p.dir, "site")
	script := filepath.Join(site, "contact.php")
	if err := os.Mkdir(site, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(script, []byte(mailScript), 0o644); err != nil {
		t.Fatal(err)
	}
	mail := func(sendmail string) string {
		t.Helper()
		os.Remove(filepath.Join(p.dir, "out", "message"))
		cmd := exec.CommandContext(t.Context(), php, "-n", "-d", "mail.add_x_header=1", "-d", "sendmail_path="+sendmail+" -t -i", script)
		cmd.Dir = site
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(strings.TrimPrefix(string(out), "out\n")) // the MTA's program says so
	}
	if got := mail(p.settings.Sendmail); got != "bool(true)" {
		t.Fatalf("without the wrapper: %s", got)
	}
	without, _ := p.got()
	for v, want := range map[call.Verdict]string{call.Defer: "bool(false)", call.Reject: "bool(false)", call.Accept: "bool(true)"} {
		verdict.Store(&v)
		if got := mail(p.program); got != want {
			t.Errorf("%s: got %s, want %s", v, got, want)
		}
		got, ok := p.got()
		if ok != (v == call.Accept) {
			t.Errorf("%s: the MTA got %q", v, got)
		}
		if !ok {
			continue
		}
		token, with := split(got)
		if with != without || !strings.Contains(with, "\xff two") {
			t.Errorf("got %q, without the wrapper %q", with, without)
		}
		if c, ok := calls.Call(token, [16]byte{1}); !ok || c.UID != os.Getuid() || c.Dir != site || c.Script != "contact.php" || c.Pool != "" {
			t.Errorf("got %+v, %v", c, ok)
		}
		if asked := question.Load(); !asked.FromHeader || !strings.Contains(string(asked.Header), "To: a@example.net") {
			t.Errorf("asked about %+v, header %q", asked, asked.Header)
		}
	}
	p.settings.Socket += ".none"
	p.configure()
	if got := mail(p.program); got != "bool(true)" {
		t.Errorf("daemon away: %s", got)
	}
	if got, _ := p.got(); got != without {
		t.Errorf("daemon away: got %q, without the wrapper %q", got, without)
	}
}

func TestPoolOfPHPFPMIsSeen(t *testing.T) {
	const nobody = 65534
	p := install(t, recorder)
	socket, conf := filepath.Join(p.dir, "fpm.sock"), filepath.Join(p.dir, "pool.conf")
	pool := fmt.Sprintf("[shop.example.jp]\nuser = %d\ngroup = %d\nlisten = %s\npm = static\npm.max_children = 1\nphp_admin_value[sendmail_path] = %s -t -i\n", nobody, nobody, socket, p.program)
	if err := os.WriteFile(conf, []byte(pool), 0o644); err != nil {
		t.Fatal(err)
	}
	phptest.FPM(t, conf, socket)
	refuse := false
	calls := p.daemon(func(_ context.Context, r *call.Request) call.Answer {
		if refuse && r.Pool == "shop.example.jp" {
			return call.Answer{Verdict: call.Defer}
		}
		return call.Answer{}
	})
	site := filepath.Join(p.dir, "site")
	script := filepath.Join(site, "contact.php")
	if err := os.Mkdir(site, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(script, []byte(mailScript), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := phptest.Request(t, socket, script); !strings.Contains(out, "bool(true)") {
		t.Fatalf("got %q", out)
	}
	got, _ := p.got()
	token, _ := split(got)
	c, ok := calls.Call(token, [16]byte{1})
	if !ok || c.UID != nobody || c.Pool != "shop.example.jp" || c.Dir != site {
		t.Errorf("got %+v, %v of %q", c, ok, got)
	}
	refuse = true
	if out := phptest.Request(t, socket, script); !strings.Contains(out, "bool(false)") {
		t.Errorf("got %q", out)
	}
}
