package cases

import (
	"context"
	"strings"
	"testing"

	"relayguard/mta/smtptest"
	"relayguard/systemtest/relay"
)

// server is a mail server with a guard, as far as cases differ in it.
type server interface {
	name() string
	guard() *relay.Guard
	sink() *smtptest.Sink
	// addr is the host:port of a service.
	addr(service string) string
	// submit runs sendmail(1).
	submit(ctx context.Context, uid int, args []string, message string) (status int, stderr string, err error)
	// mailbox is what was delivered to hanako.
	mailbox() ([]string, error)
	// queue is all that waits, sendmail(1)'s mail too.
	queue(ctx context.Context) ([]queued, error)
	// hold is what an admin does who does not know of the guard.
	hold(ctx context.Context, id string) error
	tryAgain(ctx context.Context) error
	// forget empties all queues, of which no process has a message.
	forget(ctx context.Context) error
	// settings is all of the mail server's configuration.
	settings() (string, error)
	log() string
	stop() error
}

// queued is a message of a queue.
type queued struct {
	id     string
	to     []string // who is still to be served
	held   bool
	reason string // why it is held, where the mail server keeps that
	tried  bool   // and has to wait
}

func (q queued) isTo(address string) bool {
	for _, to := range q.to {
		if strings.EqualFold(to, address) {
			return true
		}
	}
	return false
}

// The people that every server knows, with the password secret.
var people = map[string]string{"taro@example.jp": "secret", "hanako@example.jp": "secret"}

// box is the one address that has a mailbox here; all other mail of inside goes
// to the sink, too.
const box = "hanako@example.jp"

// starters start each mail server, or skip the test where it is missing.
var starters = map[string]func(t *testing.T) server{Postfix: startPostfix, Sendmail: startSendmail}
