package nodes_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"relayguard/limitstore/redis/redistest"
	"relayguard/mta/postfix/postfixtest"
	"relayguard/policy/origin/stamp"
	"relayguard/systemtest/relay"
)

// machine is one of the house: the relay, or a web node.
type machine struct {
	*relay.Relay
	t       *testing.T
	name    string
	network *redistest.Network // to Redis
	way     *way               // of a node, to the relay
	key     stamp.Key          // of a node
}

// house is a hoster's: two web nodes, and the relay that sends for them.
type house struct {
	relay      *machine
	web1, web2 *machine
	redis      *redistest.Redis
}

// A node may read the relay's orders in Redis, and nothing else.
const (
	nodeUser = "user web-node on >secret resetkeys %R~{relayguard}:switches* resetchannels &{relayguard}:switches -@all +@connection +eval_ro +evalsha_ro +get +hscan +time +subscribe +unsubscribe"
	asNode   = "user = \"web-node\"\n"
)

// onRedis is the configuration of one that has its store there.
func onRedis(name, addr, more string) string {
	return fmt.Sprintf("\n[store]\nkind = \"redis\"\n\n[redis]\naddresses = [%q]\nrelay = %q\ntimeout = \"2s\"\n%s", addr, name, more)
}

// startHouse starts it. The relay has the limits that are shipped.
func startHouse(t *testing.T) *house {
	t.Helper()
	postfixtest.Need(t)
	h := &house{redis: redistest.Server(t, nodeUser)}
	password := filepath.Join(t.TempDir(), "redis.password")
	if err := os.WriteFile(password, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.relay = &machine{t: t, name: "relay", network: redistest.Proxy(t, h.redis.Addr)}
	h.web1, h.web2 = newNode(t, h, "web1", '1'), newNode(t, h, "web2", '2')
	config := onRedis("relay", h.relay.network.Addr, "")
	for i, n := range []*machine{h.web1, h.web2} {
		config += fmt.Sprintf("\n[[node]]\nname = %q\ncidr = [\"192.0.2.1%d/32\"]\nkey_file = %q\n", n.name, i+1, keyFile(t, n.key))
	}
	// Postfix itself takes no header off: what does not leave, the guard took off.
	plain := map[string]string{"smtp_header_checks": ""}
	h.relay.Relay = relay.StartTest(t, relay.Options{Binary: guardBinary, ShippedLimits: true, Config: config, Postfix: postfixtest.Options{Main: plain, Users: map[string]string{"taro@example.jp": "secret"}}})
	var each []relay.Options
	nodes := []*machine{h.web1, h.web2}
	for i, n := range nodes {
		n.way = openWay(t, netip.AddrFrom4([4]byte{192, 0, 2, byte(11 + i)}), h.relay.Addr(relay.Relaying))
		config := fmt.Sprintf("[sign]\nnode = %q\nkey_file = %q\n", n.name, keyFile(t, n.key)) + onRedis(n.name, n.network.Addr, asNode+fmt.Sprintf("password_file = %q\n", password)) + "\n[hold]\norigin_messages = 5000\n" // all of a soak
		_, port, _ := net.SplitHostPort(n.way.addr)
		main := map[string]string{"smtp_header_checks": "", "default_transport": "smtp:[127.0.0.1]:" + port, "relayhost": "[127.0.0.1]:" + port, "minimal_backoff_time": "1s", "queue_run_delay": "1s"}
		each = append(each, relay.Options{Binary: guardBinary, ShippedLimits: true, Config: config, Postfix: postfixtest.Options{Hostname: n.name + ".example.jp", Inside: []string{n.name + ".example.jp"}, Main: main,
			Services: []postfixtest.Service{{Name: relay.Inbound, Milters: []string{postfixtest.MilterName("inbound.sock")}}}}})
	}
	for i, r := range relay.StartTests(t, each...) {
		nodes[i].Relay = r
	}
	t.Cleanup(func() {
		for _, mail := range h.relay.Sink.All() {
			header, _, _ := bytes.Cut(mail.Data, []byte("\r\n\r\n"))
			if bytes.Contains(bytes.ToLower(header), []byte("x-relayguard")) {
				t.Errorf("left the house with a header of ours:\n%s", header)
				return
			}
		}
	})
	return h
}

func newNode(t *testing.T, h *house, name string, key byte) *machine {
	return &machine{t: t, name: name, network: redistest.Proxy(t, h.redis.Addr), key: slices.Repeat([]byte{key}, stamp.KeySize)}
}

func keyFile(t *testing.T, key stamp.Key) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(hex.EncodeToString(key)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// site is a web site on a node.
type site struct {
	stamp.Site
	on *machine
	n  int
}

// Unix accounts that Debian has, without mail of their own.
const (
	games = 5
	lp    = 7
)

// host puts a site on the node.
func (m *machine) host(name string, uid int, key byte) *site {
	m.t.Helper()
	s := &site{Site: stamp.Site{Name: name, UID: uid, KeyID: fmt.Sprintf("%08x", key), Key: slices.Repeat([]byte{key}, stamp.KeySize)}, on: m}
	m.post("/v1/sites", map[string]any{"name": s.Name, "uid": s.UID, "key_id": s.KeyID, "key": []byte(s.Key)})
	return s
}

// post asks the machine's guard for something that no command asks for.
func (m *machine) post(path string, what any) {
	m.t.Helper()
	body, err := json.Marshal(what)
	if err != nil {
		m.t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(m.StateDir(), "control.sock"))
	}}}
	resp, err := client.Post("http://guard"+path, "application/json", bytes.NewReader(body))
	if err != nil {
		m.t.Fatal(err)
	}
	defer resp.Body.Close()
	if said, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		m.t.Fatalf("POST %s: %s: %s", path, resp.Status, said)
	}
}
