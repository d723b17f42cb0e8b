package forward_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/systemtest/relay"
)

// world is a mail server of the domains corp.test (accounts of this machine and
// aliases) and vbox.test (mailboxes that the sink stands for), with a guard. All
// else is outside, and the sink, too.
type world struct {
	*relay.Relay
	t     *testing.T
	hook  *webhook
	dir   string
	names []string // accounts, each with a home of its own below dir
}

const inbound = "inbound"

// worldOptions are what a test may want otherwise. The zero value is a guard that
// tells of every new rule.
type worldOptions struct {
	accounts int               // so many accounts are made
	forward  string            // further lines of [forward]
	policy   string            // lines of [forward.policy]; "" = alert of all
	config   string            // further sections
	files    map[string]string // of the configuration directory, beside the empty tables
	main     map[string]string
	master   []string
	services []postfixtest.Service
}

// firstAliases are there before the guard is. %d is the world's directory.
const firstAliases = "old: old@evil.test\ninc: :include:%d/list\n"

// tables are those that main.cf names and that are empty at first.
var tables = []string{"virtual", "canonical", "rbcc", "sbcc", "generic", "transports", "access", "checks"}

func startWorld(t *testing.T, o worldOptions) *world {
	t.Helper()
	postfixtest.Need(t)
	need(t, "useradd", "userdel", "postalias")
	w := &world{t: t, hook: newWebhook(t)}
	var err error
	if w.dir, err = os.MkdirTemp("", "forward-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if os.Getenv("RELAYGUARD_KEEP") == "" {
			os.RemoveAll(w.dir)
		}
	})
	w.must(os.Chmod(w.dir, 0o755))
	for i := range o.accounts {
		w.addAccount(i)
	}
	w.Relay = relay.StartTest(t, relay.Options{Binary: guardBinary, Config: w.config(o), Postfix: w.postfix(o)})
	w.must(os.WriteFile(filepath.Join(w.QueueDir, "etc", "hosts"), []byte("127.0.0.1 localhost mx.evil.test\n"), 0o644))
	_, err = w.hook.wait(soon(t), 0, func(a *alert) bool { return a.Detail.Kind == "baseline" })
	w.must(err)
	return w
}

func (w *world) postfix(o worldOptions) postfixtest.Options {
	files := map[string]string{}
	for _, name := range tables {
		files[name] = ""
	}
	maps.Copy(files, o.files)
	aliases := filepath.Join(w.dir, "aliases")
	w.must(os.WriteFile(filepath.Join(w.dir, "list"), nil, 0o644))
	w.must(os.WriteFile(aliases, []byte(w.fill(firstAliases)), 0o644))
	bare := filepath.Join(w.dir, "bare") // a configuration: the host's own may not be there
	w.must(os.Mkdir(bare, 0o755))
	w.must(os.WriteFile(filepath.Join(bare, "main.cf"), []byte("compatibility_level = 3.6\n"), 0o644))
	if out, err := exec.Command("postalias", "-c", bare, "hash:"+aliases).CombinedOutput(); err != nil {
		w.t.Fatalf("postalias: %v: %s", err, out)
	}
	const config = "$config_directory/"
	parameters := map[string]string{
		"myorigin": "corp.test", "mydestination": "corp.test", "local_recipient_maps": "", "virtual_mailbox_maps": "static:x",
		"alias_maps": "hash:" + aliases, "alias_database": "hash:" + aliases, "virtual_alias_maps": "texthash:" + config + "virtual",
		"recipient_canonical_maps": "texthash:" + config + "canonical", "recipient_bcc_maps": "texthash:" + config + "rbcc",
		"sender_bcc_maps": "texthash:" + config + "sbcc", "smtp_generic_maps": "texthash:" + config + "generic",
		"transport_maps": "texthash:" + config + "transports", "header_checks": "regexp:" + config + "checks",
		"smtpd_recipient_restrictions": "check_recipient_access texthash:" + config + "access",
		"mail_spool_directory":         w.dir + "/spool/",
		"recipient_delimiter":          "+",
	}
	maps.Copy(parameters, o.main)
	var master []string
	for _, line := range o.master {
		master = append(master, w.fill(line))
	}
	w.must(os.Mkdir(filepath.Join(w.dir, "spool"), 0o777))
	w.must(os.Chmod(filepath.Join(w.dir, "spool"), 0o777))
	return postfixtest.Options{
		Dir: w.dir, Inside: []string{"vbox.test"}, Main: parameters, Files: files, Master: master,
		Services: append([]postfixtest.Service{{Name: inbound}}, o.services...),
	}
}

func (w *world) config(o worldOptions) string {
	policy := o.policy
	if policy == "" {
		policy = `customer = "alert"`
	}
	return fmt.Sprintf(`[alert]
syslog = false
webhook = %q
per_hour = 1000

[inside]
domains = ["corp.test", "vbox.test"]

[forward]
directory = %q
dovecot = ""
sendmail = ""
rescan = "24h" # what is not seen at once is not seen here
%s

[forward.policy]
%s

%s`, w.hook.URL, w.ledgerDir(), o.forward, policy, w.fill(o.config))
}

func (w *world) ledgerDir() string { return filepath.Join(w.dir, "state", "forwards") }

// addAccount makes an account of this machine that may hand in mail at a private
// Postfix, and takes it away at the end.
func (w *world) addAccount(n int) {
	w.t.Helper()
	name := fmt.Sprintf("rgforward%dx%d", os.Getpid(), counted.Add(1))
	home := filepath.Join(w.dir, "home"+strconv.Itoa(n))
	if out, err := exec.Command("useradd", "--no-log-init", "-M", "-N", "-g", "postdrop", "-d", home, "-s", "/bin/sh", name).CombinedOutput(); err != nil {
		w.t.Fatalf("useradd: %v: %s", err, out)
	}
	w.t.Cleanup(func() {
		if out, err := exec.Command("userdel", name).CombinedOutput(); err != nil {
			w.t.Errorf("userdel: %v: %s", err, out)
		}
	})
	w.names = append(w.names, name)
	w.must(os.Mkdir(home, 0o755))
	w.own(n, home)
}

// own gives a file to an account.
func (w *world) own(n int, path string) {
	w.t.Helper()
	u, err := user.Lookup(w.names[n])
	w.must(err)
	uid, err := strconv.Atoi(u.Uid)
	w.must(err)
	gid, err := strconv.Atoi(u.Gid)
	w.must(err)
	w.must(os.Chown(path, uid, gid))
}

// home is a path in an account's home.
func (w *world) home(n int, name string) string {
	return filepath.Join(w.dir, "home"+strconv.Itoa(n), name)
}

// plantHome writes a file into an account's home, as the account's own, in one step.
func (w *world) plantHome(n int, name, text string) {
	w.t.Helper()
	path := w.home(n, name)
	w.must(os.WriteFile(path+".new", []byte(text), 0o644))
	w.own(n, path+".new")
	w.must(os.Rename(path+".new", path))
}

// plant writes a file of the configuration directory.
func (w *world) plant(name, text string) {
	w.t.Helper()
	w.must(w.SetFile(w.t.Context(), name, w.fill(text)))
}

// set changes main.cf.
func (w *world) set(name, value string) {
	w.t.Helper()
	w.must(w.SetMain(w.t.Context(), map[string]string{name: value}))
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// soon bounds what comes within moments on a machine that is not busy.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// until asks again and again.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, tick := soon(t), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: it does not come", what)
		case <-tick.C:
		}
	}
}

// sent is a message that was sent.
type sent struct{ from, to, id string }

// counted makes names that are there once: of messages and accounts.
var counted atomic.Int64

// send sends a message by SMTP, from outside unless from is given.
func (w *world) send(to, from, subject string) sent {
	w.t.Helper()
	return w.sendBy(inbound, to, from, subject)
}

func (w *world) sendBy(service, to, from, subject string) sent {
	w.t.Helper()
	m := sent{from, to, fmt.Sprintf("m%d.%d@partner.test", os.Getpid(), counted.Add(1))}
	if m.from == "" {
		m.from = "cust@partner.test"
	}
	c, err := w.Dial(soon(w.t), service)
	w.must(err)
	defer c.Close()
	_, err = c.Ehlo("client.partner.test")
	w.must(err)
	text := fmt.Sprintf("From: %s\r\nTo: %s\r\nSubject: %s\r\nMessage-ID: <%s>\r\nDate: Mon, 02 Mar 2026 09:00:00 +0900\r\n\r\nhello\r\n", m.from, m.to, subject, m.id)
	done, err := c.Send(m.from, []string{m.to}, text)
	w.must(err)
	if !done.Accepted() {
		w.t.Fatalf("send to %s: %+v", to, done)
	}
	_, err = c.Quit()
	w.must(err)
	return m
}

// arrives waits until the message is at the sink for that address.
func (w *world) arrives(m sent, target string) {
	w.t.Helper()
	until(w.t, fmt.Sprintf("mail to %s at %s", m.to, target), func() bool { return w.arrived(m, target) > 0 })
}

// arrived is how often it did.
func (w *world) arrived(m sent, target string) int {
	n := 0
	for _, mail := range w.Sink.To(target) {
		if strings.Contains(string(mail.Data), m.id) {
			n++
		}
	}
	return n
}

// rule is a finding as the JSON has it.
type rule struct {
	ID, Owner, Mechanism, Source, Target, Verdict, Mode, Status string

	Approved bool
}

func (r rule) String() string {
	return fmt.Sprintf("%s %s %s %s %s", r.Owner, r.Mechanism, r.Target, r.Verdict, r.Mode)
}

type listed struct {
	Findings []rule
	Broken   string
}

// shownMail is one mail in the evidence.
type shownMail struct {
	QueueID   string `json:"queue_id"`
	MessageID string `json:"message_id"`
	Status    string
	How       string
	Sure      string
}

// is reports whether it is that message.
func (m *shownMail) is(one sent) bool { return strings.Trim(m.MessageID, "<>") == one.id }

// shown is what forwards show prints.
type shown struct {
	rule
	Evidence struct {
		Mails int
		Gaps  []struct{ Why string }
	}
	Mails  []shownMail
	Report struct {
		Mails           int
		DistinctSenders int `json:"distinct_senders"`
		Delivered       int
		Handed          int
		NotKnown        []string `json:"not_known"`
		Gaps            []struct{ Why string }
	}
}

// ask runs a command of relayguard with --json. It must end with one of the statuses.
func ask[T any](w *world, statuses []int, args ...string) T {
	w.t.Helper()
	var answer T
	result, err := w.Relayguard(w.t.Context(), append(args, "--json")...)
	w.must(err)
	if !slices.Contains(statuses, result.ExitCode) {
		w.t.Fatalf("relayguard %s: status %d, want one of %v\n%s%s", strings.Join(args, " "), result.ExitCode, statuses, result.Stdout, result.Stderr)
	}
	if result.Stdout == "" {
		return answer
	}
	if err := json.Unmarshal([]byte(result.Stdout), &answer); err != nil {
		w.t.Fatalf("relayguard %s: %v\n%s", strings.Join(args, " "), err, result.Stdout)
	}
	return answer
}

var some = []int{0, 1}

// scanned are the rules that a fresh process finds in this world's files.
func (w *world) scanned() []rule {
	w.t.Helper()
	return w.ours(ask[listed](w, some, "forwards", "scan").Findings)
}

// known are those that the daemon knows.
func (w *world) known() []rule {
	w.t.Helper()
	return w.ours(ask[listed](w, some, "forwards", "list").Findings)
}

// ours leaves out what other places of this machine state.
func (w *world) ours(all []rule) []rule {
	return slices.DeleteFunc(all, func(r rule) bool { return !strings.Contains(r.Source, w.dir) && r.Mechanism != "traffic" })
}

// show shows a rule with its mails and the report.
func (w *world) show(id string) shown {
	w.t.Helper()
	return ask[shown](w, []int{0}, "forwards", "show", id, "--mail", "--report")
}

// proven waits until the evidence of a rule names so many mails that have left.
func (w *world) proven(id string, mails int) shown {
	w.t.Helper()
	var s shown
	until(w.t, fmt.Sprintf("%d mails of %s", mails, id), func() bool {
		s = w.show(id)
		return len(s.Mails) >= mails && !slices.ContainsFunc(s.Mails, func(m shownMail) bool { return m.Status == "" })
	})
	return s
}

// order runs a command that must succeed.
func (w *world) order(args ...string) {
	w.t.Helper()
	result, err := w.Relayguard(w.t.Context(), args...)
	w.must(err)
	if result.ExitCode != 0 {
		w.must(errors.New("relayguard " + strings.Join(args, " ") + ": " + result.Stderr))
	}
}

// in is the same world for a subtest.
func (w *world) in(t *testing.T) *world {
	other := *w
	other.t = t
	return &other
}

// fill puts the accounts (%a, %b), the sink's port (%p) and the directory (%d) into
// a text.
func (w *world) fill(text string) string {
	pairs := []string{"%d", w.dir}
	for i, name := range w.names {
		pairs = append(pairs, "%"+string(rune('a'+i)), name)
	}
	if w.Relay != nil {
		pairs = append(pairs, "%p", w.sinkPort())
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

func (w *world) sinkPort() string {
	addr := w.Sink.Addr()
	return addr[strings.LastIndexByte(addr, ':')+1:]
}
