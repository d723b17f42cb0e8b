package cases

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"relayguard/mta/sendmail/sendmailtest"
	"relayguard/mta/smtptest"
	"relayguard/systemtest/relay"
)

type sendmail struct{ *relay.SendmailRelay }

func startSendmail(t *testing.T) server {
	sendmailtest.Need(t)
	r, err := relay.StartSendmail(t.Context(), relay.Options{Binary: guardBinary, Sendmail: sendmailtest.Options{
		Users:     people,
		Mailboxes: []string{box},
		Services:  append(relay.SendmailServices(), sendmailtest.Service{Name: Plain, Auth: true}, sendmailtest.Service{Name: MX}),
		MC: append([]string{
			"DAEMON_OPTIONS(`Name=" + Relay6 + ", Family=inet6, Addr=::1, Port=" + sendmailPort6 + ", M=AS, InputMailFilters=" + Relay + "')dnl",
			"LOCAL_DOMAIN(`[" + ownAddress + "]')dnl", // as Sendmail finds it itself where it may look
		}, relay.OpenSendmail(Submission, Relay, Relay6)...),
	}})
	if err != nil {
		t.Fatal(err)
	}
	return sendmail{r}
}

func (s sendmail) name() string         { return Sendmail }
func (s sendmail) guard() *relay.Guard  { return s.Guard }
func (s sendmail) sink() *smtptest.Sink { return s.Sink }
func (s sendmail) log() string          { return s.Log() }
func (s sendmail) stop() error          { return s.Stop() }

func (s sendmail) addr(service string) string {
	if service == Relay6 {
		return "[::1]:" + sendmailPort6
	}
	return s.Addr(service)
}

func (s sendmail) submit(ctx context.Context, uid int, args []string, message string) (int, string, error) {
	sent, err := s.Sendmail.Sendmail(ctx, uid, args, strings.NewReader(message))
	return sent.ExitCode, sent.Stderr, err
}

func (s sendmail) mailbox() ([]string, error) { return s.Mailbox(box) }

func (s sendmail) queue(ctx context.Context) ([]queued, error) {
	mta, err := s.Queue(ctx)
	msp, errMSP := s.ClientQueue(ctx)
	var all []queued
	for _, q := range append(mta, msp...) {
		all = append(all, queued{id: q.QueueID, to: q.RcptTo, held: q.Held, reason: q.Reason, tried: q.Delay != ""})
	}
	return all, errors.Join(err, errMSP)
}

func (s sendmail) hold(ctx context.Context, id string) error {
	_, err := s.Command(ctx, "sendmail", "-Am", "-Qan admin looks at it", "-qI"+id)
	return err
}

func (s sendmail) tryAgain(ctx context.Context) error {
	return errors.Join(s.RunClientQueue(ctx), s.RunQueue(ctx))
}

func (s sendmail) forget(context.Context) error {
	var err error
	for _, dir := range append(s.QueueDirs(), s.ClientQueueDir) {
		files, wrong := filepath.Glob(filepath.Join(dir, "[qhdtx]f*"))
		err = errors.Join(err, wrong)
		for _, file := range files {
			err = errors.Join(err, os.Remove(file))
		}
	}
	return err
}

func (s sendmail) settings() (string, error) { return readAll(s.ConfigDir, "sendmail.cf", "submit.cf") }
