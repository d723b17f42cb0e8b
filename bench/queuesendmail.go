package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"relayguard/mta/sendmail/sendmailtest"
	"relayguard/mta/smtptest"
	"relayguard/systemtest/relay"
)

// sendmailQueue is Sendmail: it runs its queue only if a release starts that, and
// then nobody takes the mail.
//
// mailq has two lists, of mail that is quarantined and of the rest. Its own tool for
// both ways of quarantine is sendmail -Q, which chooses by a part of an address and
// starts no delivery. It has none that deletes: qtool.pl, which comes with it, locks
// each message as Sendmail does, and is the nearest.
var sendmailQueue = queueServer{
	name:  "sendmail",
	open:  openSendmail,
	model: modelOfSendmail,
	plant: plantSendmail,
	id:    idOfSendmail,
	count: func(h *queueHouse, held bool) (int, error) {
		if held {
			return countFiles("hf", h.smail.QueueDir)
		}
		return countFiles("qf", h.smail.QueueDir)
	},
	list: plainTool{name: "mailq", titles: 2, cmds: func(ctx context.Context, h *queueHouse) []*exec.Cmd {
		return []*exec.Cmd{h.tool(ctx, "mailq", "-Am"), h.tool(ctx, "mailq", "-Am", "-qQ")}
	}},
	held: &plainTool{name: "mailq", titles: 2, cmds: func(ctx context.Context, h *queueHouse) []*exec.Cmd {
		return []*exec.Cmd{h.tool(ctx, "mailq", "-Am", "-qQ")}
	}},
	acts: map[string]plainAct{
		"hold": {"sendmail-Q", func(ctx context.Context, h *queueHouse, _ []string) *exec.Cmd {
			return h.tool(ctx, "sendmail", "-Am", "-Qbench", "-qR"+toQueued)
		}},
		"release": {"sendmail-Q", func(ctx context.Context, h *queueHouse, _ []string) *exec.Cmd {
			return h.tool(ctx, "sendmail", "-Am", "-qQ", "-Q", "-qR"+toQueued)
		}},
		"delete": {"qtool.pl", func(ctx context.Context, h *queueHouse, _ []string) *exec.Cmd {
			return h.tool(ctx, "qtool.pl", "-d", h.smail.QueueDir) // all that is not quarantined
		}},
	},
}

// idOfSendmail is the model's time and a process's number.
func idOfSendmail(s *stock, n int) string { return fmt.Sprintf("%s%06d", s.id[:8], n) }

// tool is one of Sendmail's own.
func (h *queueHouse) tool(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, h.smail.Tool(name), args...)
	cmd.Dir = "/"
	return cmd
}

func openSendmail(ctx context.Context, guard, dir string) (*queueHouse, error) {
	if err := sendmailtest.Available(); err != nil {
		return nil, err
	}
	r, err := relay.StartSendmail(ctx, relay.Options{Binary: guard, Config: queueConfig, Sendmail: sendmailtest.Options{Dir: dir}})
	if err != nil {
		return nil, err
	}
	for _, to := range []string{toQueued, toHeld} { // what a release starts is tried, and stays
		r.Sink.Refuse(to, smtptest.Reply{Code: 451, Lines: []string{"4.2.0 come again"}})
	}
	path := filepath.Dir(r.Tool("sendmail")) + ":" + filepath.Dir(r.Tool("makemap")) + ":/usr/sbin:/usr/bin:/sbin:/bin"
	return &queueHouse{Guard: r.Guard, smail: r, start: r.StartCommand, env: append(os.Environ(), "PATH="+path)}, nil
}

// modelOfSendmail is a message that was tried once.
func modelOfSendmail(ctx context.Context, h *queueHouse) (paths []string, id string, err error) {
	r := h.smail
	if _, err := r.Sendmail.Sendmail(ctx, stockUID, []string{"-oi", "-f", stockFrom, toQueued}, strings.NewReader(stockText)); err != nil {
		return nil, "", err
	}
	tried := func(q sendmailtest.Queued) bool { return q.To(toQueued) && q.Delay != "" && q.Attempts != "0" }
	q, err := r.WaitQueue(ctx, tried)
	if err != nil {
		return nil, "", err
	}
	return []string{q.Path, filepath.Join(filepath.Dir(q.Path), "df"+q.QueueID)}, q.QueueID, nil
}

func plantSendmail(h *queueHouse, s *stock) error {
	control, body := s.files[0], s.files[1]
	before, after, ok := bytes.Cut(bytes.ReplaceAll(control.text, []byte(toQueued), []byte(toHeld)), []byte("\nS"))
	if !ok {
		return errors.New("the model's control file names no sender")
	}
	heldText := bytes.Join([][]byte{before, after}, []byte("\nqover 300 recipients an hour\nS"))
	for n := range 2 * s.each {
		name, text := "qf", control.text
		if n >= s.each {
			name, text = "hf", heldText
		}
		id := idOfSendmail(s, n)
		if err := body.write(filepath.Join(h.smail.QueueDir, "df"+id), body.text, time.Time{}); err != nil {
			return err
		}
		if err := control.write(filepath.Join(h.smail.QueueDir, name+id), text, time.Time{}); err != nil {
			return err
		}
	}
	return nil
}
