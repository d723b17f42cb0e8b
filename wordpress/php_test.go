package wordpress_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// nobody is who the PHP of these tests runs as if they run as root: root may read
// every file, so that nothing could be tested of rights.
const nobody = 65534

// php is the interpreter's path. Without it a test is skipped, or fails where
// nothing may be missing.
func php(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("php")
	if err != nil {
		missing(t, "php is not installed (Debian package php-cli)")
	}
	return path
}

func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") != "" || os.Getenv("RELAYGUARD_REQUIRE") != "" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// withExtension skips a test that needs one.
func withExtension(t *testing.T, name, debian string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), php(t), "-r", "echo extension_loaded('"+name+"') ? 'yes' : 'no';").Output()
	if err != nil || string(out) != "yes" {
		missing(t, "php has no "+name+" (Debian package "+debian+")")
	}
}

// credential is nobody's, if somebody else can be played here.
func credential() *syscall.SysProcAttr {
	if os.Geteuid() != 0 {
		return nil
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
}

// openDir is a directory that other accounts may pass.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "rgwp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// given makes the files of dir those of who runs PHP.
func given(t *testing.T, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, nobody, nobody)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// put writes a file and the directories to it.
func put(t *testing.T, path string, text []byte, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	os.Remove(path)
	if err := os.WriteFile(path, text, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// copyTree copies testdata.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// webServer is PHP's own, on a document root.
type webServer struct {
	t    *testing.T
	addr string
}

// serve starts a web server with PHP settings; it ends with the test.
func serve(t *testing.T, root string, settings ...string) *webServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	args := []string{"-n", "-S", addr, "-t", root, "-d", "display_errors=1", "-d", "error_reporting=-1", "-d", "log_errors=0"}
	args = append(args, extensions(t)...)
	for _, s := range settings {
		args = append(args, "-d", s)
	}
	cmd := exec.Command(php(t), args...)
	cmd.SysProcAttr, cmd.Dir = credential(), root
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("php -S: %s", said.String())
		}
	})
	w := &webServer{t, addr}
	w.wait()
	return w
}

// extensions loads mbstring, which Debian has as a module, where it is there.
func extensions(t *testing.T) []string {
	if out, err := exec.CommandContext(t.Context(), php(t), "-n", "-d", "display_errors=0", "-d", "extension=mbstring", "-r", "echo extension_loaded('mbstring') ? 1 : 0;").Output(); err == nil && strings.TrimSpace(string(out)) == "1" {
		return []string{"-d", "extension=mbstring"}
	}
	return nil
}

// wait returns when the server takes connections.
func (w *webServer) wait() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", w.addr)
		if err == nil {
			c.Close()
			return
		}
		select {
		case <-ctx.Done():
			w.t.Fatalf("php -S %s: %v", w.addr, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// do sends a request and returns what the page says.
func (w *webServer) do(method, path string) string {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), method, "http://"+w.addr+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Sprintf("HTTP %d\n%s", resp.StatusCode, text)
	}
	return string(text)
}
