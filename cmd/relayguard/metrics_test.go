package main

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/call"
	"relayguard/policy/origin/stamp"
)

// What tells where mail is from is counted, under labels that are known before.
func TestMetricsOfWhereMailIsFrom(t *testing.T) {
	s := serveCallers(t)
	for range 2 {
		if a := s.answer(call.Question{Dir: "/srv/shop", RcptTo: []string{"stranger@example.net"}, Header: []byte("Subject: Look\n\n")}); a.Verdict != call.Accept {
			t.Fatalf("%+v", a)
		}
	}
	s.command("suspend", "site:"+s.site.Name, "--reason", "abused")
	if a := s.ask("share"); a.Verdict != call.Defer {
		t.Fatalf("%+v", a)
	}
	conn, err := net.Dial("unix", filepath.Join(s.dir, "call", "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "no question\n"); err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadAll(conn) // it hangs up, and has counted
	want := []string{
		"relayguard_sites_registered 1", "relayguard_site_stamps_believed_total 0", "relayguard_node_stamps_believed_total 0", "relayguard_text_parts 0",
		`relayguard_wrapper_calls_total{outcome="accepted"} 2`, `relayguard_wrapper_calls_total{outcome="refused"} 1`,
		`relayguard_wrapper_calls_total{outcome="turned_away"} 0`, `relayguard_wrapper_calls_total{outcome="broken"} 1`,
		`relayguard_node_messages_total{signed="yes"} 0`, `relayguard_node_messages_total{signed="no"} 0`,
	}
	for _, reason := range stamp.Reasons() {
		want = append(want, `relayguard_site_stamps_refused_total{reason="`+reason+`"} 0`, `relayguard_node_stamps_refused_total{reason="`+reason+`"} 0`)
	}
	var text string
	until(t, "what is counted is told", 20*time.Second, func() bool {
		_, text = s.command("metrics")
		return strings.Contains(text, want[7])
	})
	for _, line := range want {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no %q in\n%s", line, text)
		}
	}
	manual, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sites_registered", "site_stamps_believed_total", "site_stamps_refused_total", "node_messages_total", "node_stamps_believed_total", "node_stamps_refused_total", "wrapper_calls_total", "text_parts", "forwards_watched", "forwards_due", "forwards_known", "forwards_gaps", "forwards_scan_seconds"} {
		if !strings.Contains(string(manual), "`relayguard_"+name) {
			t.Errorf("the manual does not know relayguard_%s", name)
		}
	}
}
