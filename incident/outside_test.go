package incident_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayguard/incident"
)

var now = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)

func warning() incident.Alert {
	return incident.NewWarning(now, "forward F1", "new rule\nof alice", map[string]string{"id": "F1"})
}

func TestWebhookPostsJSONWithItsToken(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var auth string
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		auth = r.Header.Get("Authorization")
		body, _ = io.ReadAll(r.Body)
	}))
	defer server.Close()
	hook := &incident.Webhook{URL: server.URL + "/in", TokenFile: token, Host: "relay.example.jp"}
	defer hook.Close()
	if err := hook.Deliver(context.Background(), warning()); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Host  string
		Alert struct {
			Event, Topic, Text string
			Detail             map[string]string
		}
	}
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	if auth != "Bearer s3cret" || got.Host != "relay.example.jp" || got.Alert.Event != "warning" || got.Alert.Detail["id"] != "F1" || strings.Contains(got.Alert.Text, "\n") {
		t.Errorf("%q %+v", auth, got)
	}
}

func TestWebhookFailuresNameNoSecret(t *testing.T) {
	moved := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			moved++
		}
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	}))
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	defer server.Close()
	for name, c := range map[string]struct {
		hook incident.Webhook
		want string
	}{
		"a redirect":   {incident.Webhook{URL: server.URL + "/k3y"}, "got status 307"},
		"nobody there": {incident.Webhook{URL: closed.URL + "/k3y"}, "connection refused"},
		"no token":     {incident.Webhook{URL: server.URL + "/k3y", TokenFile: "/nonexistent/token"}, "no such file"},
	} {
		err := c.hook.Deliver(context.Background(), warning())
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "k3y") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if moved > 0 {
		t.Error("a redirect was followed")
	}
}

func TestLogServerOverUDPAndTCP(t *testing.T) {
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	udp := &incident.LogServer{URL: "udp://" + packets.LocalAddr().String(), Host: "relay.example.jp"}
	defer udp.Close()
	if err := udp.Deliver(context.Background(), warning()); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	packets.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, _, err := packets.ReadFrom(buf)
	if err != nil {
		t.Fatal(err)
	}
	line := string(buf[:n])
	if !strings.HasPrefix(line, "<20>1 2026-11-22T03:00:00.000000Z relay.example.jp relayguard ") || !strings.Contains(line, " warning - new rule") || strings.Contains(line, "\n") {
		t.Errorf("%q", line)
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	tcp := &incident.LogServer{URL: "tcp://" + listener.Addr().String()}
	defer tcp.Close()
	for range 2 { // the server closes in between: nothing is lost to a dead connection
		frames := make(chan string, 1)
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			r := bufio.NewReader(conn)
			size, _ := r.ReadString(' ')
			var n int
			for _, c := range strings.TrimSpace(size) {
				n = 10*n + int(c-'0')
			}
			frame := make([]byte, n)
			io.ReadFull(r, frame)
			frames <- string(frame)
		}()
		if err := tcp.Deliver(context.Background(), warning()); err != nil {
			t.Fatal(err)
		}
		if frame := <-frames; !strings.HasPrefix(frame, "<20>1 ") || !strings.HasSuffix(frame, "of alice") {
			t.Errorf("%q", frame)
		}
		<-closed
	}
}
