package judge_test

import (
	"bufio"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"relayguard/mta/postfix/postfixtest"
)

// rewriter asks a running trivial-rewrite(8), as Postfix's own programs do.
type rewriter struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
}

func newRewriter(t testing.TB, p *postfixtest.Postfix) *rewriter {
	t.Helper()
	r := &rewriter{t: t}
	r.dial(p)
	return r
}

func (r *rewriter) dial(p *postfixtest.Postfix) {
	r.t.Helper()
	conn, err := net.Dial("unix", filepath.Join(p.QueueDir, "private", "rewrite"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	r.conn, r.in = conn, bufio.NewReader(conn)
	r.answer() // which protocol it speaks
}

// ask sends attributes and returns those of the answer.
func (r *rewriter) ask(pairs ...string) map[string]string {
	r.t.Helper()
	if _, err := r.conn.Write([]byte(strings.Join(pairs, "\x00") + "\x00\x00")); err != nil {
		r.t.Fatal(err)
	}
	return r.answer()
}

func (r *rewriter) answer() map[string]string {
	r.t.Helper()
	got := map[string]string{}
	for {
		name, err := r.in.ReadString(0)
		if err != nil {
			r.t.Fatal(fmt.Errorf("read from trivial-rewrite: %w", err))
		}
		if name == "\x00" {
			return got
		}
		value, err := r.in.ReadString(0)
		if err != nil {
			r.t.Fatal(fmt.Errorf("read from trivial-rewrite: %w", err))
		}
		got[strings.TrimSuffix(name, "\x00")] = strings.TrimSuffix(value, "\x00")
	}
}

// rewrite is the address in written form, rewritten, in written form.
func (r *rewriter) rewrite(address string) string {
	return r.ask("request", "rewrite", "rule", "local", "address", address)["address"]
}

// resolve is where an address in inner form goes.
func (r *rewriter) resolve(address string) map[string]string {
	return r.ask("request", "resolve", "sender", "", "address", address)
}
