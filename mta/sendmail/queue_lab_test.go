package sendmail_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/mta"
	"relayguard/mta/grace"
	"relayguard/mta/sendmail"
	"relayguard/mta/sendmail/sendmailtest"
)

// queueLab is a real Sendmail and its queue as this package sees it.
type queueLab struct {
	*testing.T
	*sendmailtest.Sendmail
	i    *sendmail.Instance
	keep *grace.Folder
	ctx  context.Context
}

func startQueue(t *testing.T, options sendmailtest.Options) queueLab {
	t.Helper()
	if len(options.Services) == 0 {
		options.Services = []sendmailtest.Service{{Name: "relay"}}
	}
	s := sendmailtest.StartTest(t, options)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	q := queueLab{t, s, nil, &grace.Folder{Dir: filepath.Join(t.TempDir(), "grace")}, ctx}
	// Queue runs are started from wherever a goroutine is: outside, where the name of
	// the machine has no domain.
	q.i = q.load(fmt.Sprintf("exec nsenter --mount --uts -t %d -- %s \"$@\"\n", s.PID(), s.Tool("sendmail")))
	return q
}

// load reads the settings anew; script stands for the sendmail(8) that runs queues.
func (q queueLab) load(script string) *sendmail.Instance {
	q.Helper()
	return loadWith(q.T, q.ConfigDir, script)
}

func loadWith(t *testing.T, configDir, script string) *sendmail.Instance {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "sendmail"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	i, err := sendmail.Load(t.Context(), sendmail.Tools{Dir: dir}, configDir)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// submit sends one message and returns its entry in the queue, which is new there.
func (q queueLab) submit(from string, to ...string) sendmailtest.Queued {
	q.Helper()
	return q.submitText(from, "Subject: t\r\nFrom: <a@example.jp>\r\n\r\nbody of "+to[0]+"\r\n", to...)
}

func (q queueLab) submitText(from, text string, to ...string) sendmailtest.Queued {
	q.Helper()
	before, err := q.Queue(q.ctx)
	if err != nil {
		q.Fatal(err)
	}
	client, err := q.Dial(q.ctx, "relay")
	if err != nil {
		q.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Ehlo("client.example.jp"); err != nil {
		q.Fatal(err)
	}
	sent, err := client.Send(from, to, text)
	if err != nil || !sent.Accepted() {
		q.Fatalf("mail from %s: %+v, %v", from, sent, err)
	}
	entry, err := q.WaitQueue(q.ctx, func(e sendmailtest.Queued) bool {
		return e.To(to[0]) && !slices.ContainsFunc(before, func(b sendmailtest.Queued) bool { return b.QueueID == e.QueueID })
	})
	if err != nil {
		q.Fatal(err)
	}
	return entry
}

// scan is all of the queue, by id.
func (q queueLab) scan() map[string]mta.QueueFile {
	q.Helper()
	all, err := scanAll(q.ctx, q.i)
	if err != nil {
		q.Fatal(err)
	}
	return all
}

func scanAll(ctx context.Context, i *sendmail.Instance) (map[string]mta.QueueFile, error) {
	all := map[string]mta.QueueFile{}
	var twice error
	err := i.ScanQueue(ctx, func(f mta.QueueFile) error {
		if _, there := all[f.ID]; there {
			twice = fmt.Errorf("%s is told twice", f.ID)
		}
		all[f.ID] = f
		return nil
	})
	return all, errors.Join(err, twice)
}

func (q queueLab) target(id string) mta.Target {
	q.Helper()
	f, there := q.scan()[id]
	if !there {
		q.Fatalf("%s is not in the queue", id)
	}
	return f.Target()
}

func (q queueLab) targets(queue string) (targets []mta.Target) {
	q.Helper()
	for _, f := range q.scan() {
		if f.Queue == queue {
			targets = append(targets, f.Target())
		}
	}
	return targets
}

// all wants every result to be that fate.
func all(t *testing.T, what string, want mta.Fate, results []mta.Result, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	for _, r := range results {
		if r.Fate != want {
			t.Fatalf("%s: %+v, want %v", what, r, want)
		}
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o640); err != nil {
		t.Fatal(err)
	}
}

// names are the files of a queue directory, or of its parts.
func names(t *testing.T, dirs ...string) (names []string) {
	t.Helper()
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !e.IsDir() {
				names = append(names, e.Name())
			}
		}
	}
	slices.Sort(names)
	return names
}

// edit changes lines of a control file: by their first letter.
func edit(t *testing.T, path string, lines map[byte]string) {
	t.Helper()
	var out bytes.Buffer
	for line := range strings.Lines(string(readFile(t, path))) {
		if to, change := lines[line[0]]; change {
			line = to + "\n"
		}
		out.WriteString(line)
	}
	write(t, path, out.Bytes())
}

func asHeld(path string) string {
	return filepath.Join(filepath.Dir(path), "h"+filepath.Base(path)[1:])
}

// tree is a hand-made Sendmail: settings and a queue, and nobody who delivers.
func tree(t *testing.T) (i *sendmail.Instance, queue string) {
	t.Helper()
	config, err := os.MkdirTemp("", "sm") // a fuzz test's own has a "#", which begins a comment
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(config) })
	queue = filepath.Join(config, "queue")
	if err := os.Mkdir(queue, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(config, "sendmail.cf"), []byte("V10/Berkeley\nDZ8.17.1\nO QueueDirectory="+queue+"\n"))
	return loadWith(t, config, "exit 0\n"), queue
}

const control = `V8
T1795396105
K0
N0
P30318
Fs
$_localhost [127.0.0.1]
$rESMTP
${daemon_flags}c u
S<sender@example.jp>
rRFC822; x@example.net
RPFD:<x@example.net>
H?P?Return-Path: <` + "\x81" + `g>
H??Received: from client (localhost [127.0.0.1])
	by relay.example.jp; Mon, 23 Nov 2026 01:08:25 GMT
H??Subject: t
.
`

// plant puts a message into a hand-made queue.
func plant(t *testing.T, queue, id, reason string) {
	t.Helper()
	text, name := control, "qf"
	if reason != "" {
		text, name = strings.Replace(text, "\nS<", "\nq"+reason+"\nS<", 1), "hf"
	}
	write(t, filepath.Join(queue, "df"+id), []byte("body\n"))
	write(t, filepath.Join(queue, name+id), []byte(text))
}

func target(id string) mta.Target {
	return mta.Target{ID: id, Sender: "sender@example.jp", Arrival: time.Unix(1795396105, 0).UTC(), Exact: true}
}
