package cases

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/smtptest"
	"relayguard/systemtest/relay"
)

// The ports of relay6. The name space is ours, and these are none that the
// kernel picks.
const (
	postfixPort6  = "2525"
	sendmailPort6 = "2526"
)

type postfix struct{ *relay.Relay }

func startPostfix(t *testing.T) server {
	postfixtest.Need(t)
	milter := postfixtest.MilterName("relay.sock")
	r, err := relay.Start(t.Context(), relay.Options{Binary: guardBinary, Postfix: postfixtest.Options{
		Users:     people,
		Mailboxes: []string{box},
		Services:  append(relay.Services(), postfixtest.Service{Name: Plain, Auth: true}, postfixtest.Service{Name: MX}),
		Main:      map[string]string{"inet_protocols": "all", "smtp_address_preference": "ipv4", "mynetworks": "127.0.0.0/8 " + ownAddress + "/32"},
		Master: []string{
			"[::1]:" + postfixPort6 + " inet n - y - - smtpd",
			"  -o { smtpd_milters = " + milter + " }",
			"  -o { smtpd_relay_restrictions = check_client_access static:permit, reject }",
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return postfix{r}
}

func (p postfix) name() string         { return Postfix }
func (p postfix) guard() *relay.Guard  { return p.Guard }
func (p postfix) sink() *smtptest.Sink { return p.Sink }
func (p postfix) log() string          { return p.Log() }
func (p postfix) stop() error          { return p.Stop() }

func (p postfix) addr(service string) string {
	if service == Relay6 {
		return "[::1]:" + postfixPort6
	}
	return p.Addr(service)
}

func (p postfix) submit(ctx context.Context, uid int, args []string, message string) (int, string, error) {
	sent, err := p.Sendmail(ctx, uid, args, strings.NewReader(message))
	return sent.ExitCode, sent.Stderr, err
}

func (p postfix) mailbox() ([]string, error) { return p.Maildir(box) }

func (p postfix) queue(ctx context.Context) ([]queued, error) {
	list, err := p.QueueList(ctx)
	var all []queued
	for _, q := range list {
		m := queued{id: q.QueueID, held: q.QueueName == "hold", tried: q.QueueName == "deferred"}
		for _, to := range q.Recipients {
			m.to = append(m.to, to.Address)
		}
		all = append(all, m)
	}
	return all, err
}

func (p postfix) hold(ctx context.Context, id string) error { return p.postsuper(ctx, "-h", id) }

func (p postfix) forget(ctx context.Context) error { return p.postsuper(ctx, "-d", "ALL") }

func (p postfix) postsuper(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "/usr/sbin/postsuper", append([]string{"-c", p.ConfigDir}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("postsuper %q: %w: %s", args, err, out)
	}
	return nil
}

func (p postfix) tryAgain(ctx context.Context) error {
	if _, err := p.Command(ctx, "postqueue", "-f"); err != nil {
		return err
	}
	// Some kicks die of SIGPIPE: a pickup process that ends at this moment hears
	// nothing.
	var err error
	for range 50 {
		if _, err = p.Command(ctx, "postkick", "public", "pickup", "W"); err == nil {
			return nil
		}
	}
	return err
}

func (p postfix) settings() (string, error) { return readAll(p.ConfigDir, "main.cf", "master.cf") }

// readAll is the text of some files.
func readAll(dir string, names ...string) (string, error) {
	var all strings.Builder
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "", err
		}
		all.Write(text)
	}
	return all.String(), nil
}
