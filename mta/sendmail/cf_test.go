package sendmail_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/mta/sendmail"
	"relayguard/mta/sendmail/sendmailtest"
)

const cf = `# a comment
	that goes on
V10/Berkeley
Djrelay.example.jp
DZ8.17.1.9/Debian-2+deb12u2	# what follows a sharp sign is none
Dn"quoted, \"so\""
D{Long}of $j $?x unset $| else $. \#1
Cwlocalhost $j
Cw two
Troot daemon
C{TrustAuthMech}PLAIN LOGIN
Fw%[1]s %%[^\#]
FR-o /nowhere %%[^\#]
FP|/bin/echo x
F{VirtHost}@ldap:-k x
O QueueDirectory=/var/spool/mqueue/q*
O Timeout.queuereturn=5d
O Timeout.queuereturn.urgent = 2d
O DaemonPortOptions=Name=MTA-v4, Family=inet, Addr=127.0.0.1, Port=smtp, M=E a, InputMailFilters=one;two
O daemonportoptions=Family=inet6, port=587, D=q, InputMailFilters=
ODfamily=inet
O ClientPortOptions=Family=inet, Address=192.0.2.1
O InputMailFilters=guard,other
OL9
Pjunk=-100
Pspecial-delivery=100
Qslow, P=/var/spool/mqueue/slow, F=f, R=3
Kvirtuser hash -o /etc/mail/virtusertable
Xguard, S=local:/run/guard.sock, F=T, T=C:10s;S:10s;R:20s;E:2m
Mesmtp,		P=[IPC], F=mDFMuXa, S=EnvFromSMTP/HdrFromSMTP, R=EnvToSMTP, E=\r\n, L=990,
		T=DNS/RFC822/SMTP,
		A=TCP $h
R$* < @ $=w . >	$#local $: $1	a rule
`

func TestSettings(t *testing.T) {
	dir := t.TempDir()
	words := filepath.Join(dir, "local-host-names")
	write(t, words, []byte("# names\nexample.jp # ours\n\nexample.net more.example\n"))
	write(t, filepath.Join(dir, "sendmail.cf"), fmt.Appendf(nil, cf, words))
	i, err := sendmail.Load(t.Context(), sendmail.Tools{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string][2]any{
		"version":         {i.Version, "8.17.1.9"},
		"option":          {i.Option("queuedirectory"), "/var/spool/mqueue/q*"},
		"suboption":       {i.Option("Timeout.queuereturn.urgent"), "2d"},
		"old option":      {i.Option("LogLevel"), "9"},
		"unset option":    {i.Option("RunAsUser"), ""},
		"macro":           {i.Macro("j"), "relay.example.jp"},
		"quoted macro":    {i.Macro("n"), `quoted, "so"`},
		"long macro":      {i.Macro("Long"), "of relay.example.jp  else  #1"},
		"class":           {i.Class("w"), []string{"localhost", "relay.example.jp", "two", "example.jp", "example.net", "more.example"}},
		"long class":      {i.Class("TrustAuthMech"), []string{"PLAIN", "LOGIN"}},
		"trusted":         {i.Class("t"), []string{"root", "daemon"}},
		"queue directory": {i.QueueDirectory(), "/var/spool/mqueue/q*"},
		"no submit.cf":    {i.Submit + i.SubmitOption("QueueDirectory") + i.ClientQueueDirectory(), ""},
		"groups":          {i.QueueGroups(), []sendmail.QueueGroup{{Name: "mqueue", Path: "/var/spool/mqueue/q*"}, {Name: "slow", Path: "/var/spool/mqueue/slow", Flags: "f", Line: 27}}},
		"filters":         {i.Filters(), []sendmail.Filter{{Name: "guard", Socket: "local:/run/guard.sock", Flags: "T", Timeouts: "C:10s;S:10s;R:20s;E:2m", Line: 29}}},
		"clients":         {i.Clients(), []sendmail.Daemon{{Family: "inet", Addr: "192.0.2.1", Line: 22}}},
		"daemons": {i.Daemons(), []sendmail.Daemon{
			{Name: "MTA-v4", Family: "inet", Addr: "127.0.0.1", Port: "smtp", Modifiers: "Ea", InputMailFilters: []string{"one", "two"}, Own: true, Line: 19},
			{Name: "Daemon1", Family: "inet6", Port: "587", DeliveryMode: "q", InputMailFilters: []string{}, Own: true, Line: 20},
		}},
		"filters in force": {i.Settings().FiltersOf(sendmail.Daemon{}), []string{"guard", "other"}},
	} {
		if got, want := fmt.Sprintf("%#v", c[0]), fmt.Sprintf("%#v", c[1]); got != want {
			t.Errorf("%s: got %s, want %s", what, got, want)
		}
	}
	m, there := i.Settings().Mailer("esmtp")
	if !there || m.Path != "[IPC]" || m.Flags != "mDFMuXa" || m.Args != "TCP $h" || m.Fields['E'] != "\r\n" {
		t.Errorf("mailer: %+v", m)
	}
	var unread []string
	for _, u := range i.Unread() {
		unread = append(unread, u.Item)
	}
	if !slices.Equal(unread, []string{"|/bin/echo x", "@ldap:-k x"}) {
		t.Errorf("unread: %q", unread)
	}
	if err := os.Remove(words); err != nil {
		t.Fatal(err)
	}
	if i, err = sendmail.Load(t.Context(), sendmail.Tools{}, dir); err != nil || len(i.Unread()) != 3 {
		t.Errorf("without a file of members: %v, %v", i.Unread(), err)
	}
	if _, err := sendmail.Load(t.Context(), sendmail.Tools{}, t.TempDir()); err == nil {
		t.Error("loaded without sendmail.cf")
	}
}

// What Sendmail itself says of its settings is the measure.
func TestSettingsAreSendmails(t *testing.T) {
	q := startQueue(t, sendmailtest.Options{QueueDirs: 2, QueueGroups: []sendmailtest.QueueGroup{{Name: "slow", Dirs: 2}}, SplitQueue: true,
		Inside: []string{"example.jp", "example.org"}, MC: []string{"define(`confTO_QUEUERETURN', `4d')"}})
	cmd := exec.CommandContext(q.ctx, q.Tool("sendmail"), "-bt")
	cmd.Stdin = strings.NewReader("$j\n$Z\n$S\n$=w\n")
	var said bytes.Buffer
	cmd.Stdout = &said
	if err := q.StartCommand(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	theirs := strings.Fields(said.String())
	for _, word := range append(q.i.Class("w"), q.i.Macro("j"), q.i.Macro("Z"), q.i.Macro("S")) {
		if word == "" || !slices.Contains(theirs, word) {
			t.Errorf("%q is nothing that Sendmail says:\n%s", word, said.String())
		}
	}
	dirs, err := q.i.QueueDirs()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range dirs {
		if d.Client != (d.Path == q.ClientQueueDir) || !d.Client && (d.Qf != d.Path+"/qf" || d.Df != d.Path+"/df" || d.Xf != d.Path+"/xf") {
			t.Errorf("%+v", d)
		}
		if !d.Client {
			got = append(got, d.Group+" "+d.Name)
		}
	}
	slices.Sort(got)
	if want := []string{"mqueue q1", "mqueue q2", "slow slow1", "slow slow2"}; !slices.Equal(got, want) || len(dirs) != 5 {
		t.Errorf("queue directories %q of %d", got, len(dirs))
	}
	if d, ok := sendmail.ParseTime(q.i.Option("Timeout.queuereturn"), 24*time.Hour); !ok || d != 96*time.Hour {
		t.Errorf("Timeout.queuereturn %q", q.i.Option("Timeout.queuereturn"))
	}
	if q.i.SubmitOption("QueueDirectory") != q.ClientQueueDir || !strings.HasPrefix(q.i.Version, "8.") {
		t.Errorf("submit.cf %q, version %q", q.i.SubmitOption("QueueDirectory"), q.i.Version)
	}
}

func TestParseTime(t *testing.T) {
	for text, want := range map[string]time.Duration{"5d": 120 * time.Hour, "5": 120 * time.Hour, "1d12h": 36 * time.Hour, "2w": 336 * time.Hour, "30m": 30 * time.Minute, "7s": 7 * time.Second, "now": 0, " 4h ": 4 * time.Hour,
		"": -1, "x": -1, "-1d": -1, "1y": -1, "99999999999d": -1, "999999999w": -1} {
		if got, ok := sendmail.ParseTime(text, 24*time.Hour); ok != (want >= 0) || ok && got != want {
			t.Errorf("%q: got %v, %v", text, got, ok)
		}
	}
}

func FuzzParseSettings(f *testing.F) {
	f.Add([]byte(cf))
	for _, seed := range []string{"", "#", " x\n", "D", "D{", "D{}x", "C{w", "Cw$", "Cw$j$", "Dj$j", "Da$b\nDb$a\nCw$a", "Cw$?x$|$.", "Cw$.$|$?", "O", "O ", "O =x", "O x", "ODA=", "X", "X,", "Xa,S", "Xa, S=", `Xa, S="x`, `Dx\`, "M", "Q", "Qx", "Qmqueue, P=", "P", "P=1", "Px=-", "K", "Kx", "F", "Fw", "Fw-o", "Fw|", "Fw@", "T", "a#b\n#c", "Cw x\\#y", "Cw x$#y"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := sendmail.ParseSettings(data)
		s.Daemons()
		s.QueueGroups()
		s.Mailers()
		for _, name := range []string{"j", "x", "a", "Long"} {
			if n := len(s.Macro(name)); n > 64<<10 {
				t.Errorf("$%s has %d octets", name, n)
			}
		}
		for _, d := range s.Daemons() {
			if d.Name == "" || d.Family == "" && !strings.Contains(strings.ToLower(string(data)), "f") {
				t.Errorf("daemon %+v", d)
			}
		}
	})
}
