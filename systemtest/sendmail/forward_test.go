package sendmail_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/forward"
	"relayguard/forward/files"
	"relayguard/forward/scan"
	"relayguard/forward/sendmail"
	"relayguard/mta/sendmail/sendmailtest"
	"relayguard/mta/smtptest"
	"relayguard/systemtest/forward/forwardtest"
)

// forwarding is a real Sendmail that forwards, and the guard's scanner over its files.
type forwarding struct {
	*sendmailtest.Sendmail
	t       *testing.T
	account forwardtest.Account
	tables  map[string]string // class by name
}

const aliasesOfAll = "postmaster: root\nmailer-daemon: root\nroot: /dev/null\n"

// startForwarding has the tables where the host sees them, too.
func startForwarding(t *testing.T) *forwarding {
	t.Helper()
	sendmailtest.Need(t)
	dir, err := os.MkdirTemp("/var/lib/relayguard-dev", "fw-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, sub := range []string{dir, filepath.Join(dir, "home")} {
		os.MkdirAll(sub, 0o755)
		os.Chmod(sub, 0o755)
	}
	f := &forwarding{t: t, account: forwardtest.AddAccount(t, "nogroup", filepath.Join(dir, "home", "user"))}
	f.account.Dir(t, f.account.Home, 0o755)
	config := filepath.Join(dir, "config")
	f.tables = map[string]string{"virtusertable": "hash", "mailertable": "btree", "genericstable": "hash", "access": "hash"}
	f.Sendmail = sendmailtest.StartTest(t, sendmailtest.Options{
		Dir: dir, Inside: []string{"corp.test"}, Services: []sendmailtest.Service{{Name: "relay"}},
		Hosts: []string{"127.0.0.1 mx.evil.test luser.evil.test"},
		Files: map[string]string{"aliases": aliasesOfAll},
		MC: []string{"undefine(`MAIL_HUB')dnl", "VIRTUSER_DOMAIN(`virt.test')dnl",
			"FEATURE(`mailertable', `btree -o " + config + "/mailertable')dnl",
			"FEATURE(`genericstable', `hash -o " + config + "/genericstable')dnl", "GENERICS_DOMAIN(`corp.test')dnl",
			"FEATURE(`masquerade_envelope')dnl",
			"FEATURE(`access_db', `hash -T<TMPF> -o " + config + "/access')dnl",
			"define(`confFORWARD_PATH', `$z/.forward.$w+$h:$z/.forward+$h:$z/.forward.$w:$z/.forward')dnl",
			"define(`LUSER_RELAY', `relay:catchall@luser.evil.test')dnl",
		},
	})
	for name := range f.tables {
		f.table(name, "")
	}
	f.must(f.Reload(f.ctx()))
	return f
}

func (f *forwarding) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *forwarding) ctx() context.Context {
	ctx, cancel := context.WithTimeout(f.t.Context(), 2*time.Minute)
	f.t.Cleanup(cancel)
	return ctx
}

func (f *forwarding) path(name string) string { return filepath.Join(f.ConfigDir, name) }

// table makes a table with the real makemap, and its text.
func (f *forwarding) table(name, text string) {
	f.t.Helper()
	f.must(os.WriteFile(f.path(name), []byte(text), 0o644))
	cmd := exec.Command(f.Tool("makemap"), f.tables[name], f.path(name))
	cmd.Stdin = strings.NewReader(text)
	f.must(f.StartCommand(cmd))
	f.must(cmd.Wait())
}

func (f *forwarding) aliases(text string) {
	f.t.Helper()
	f.must(os.WriteFile(f.path("aliases"), []byte(aliasesOfAll+f.fill(text)), 0o644))
	_, err := f.Command(f.ctx(), "newaliases")
	f.must(err)
}

// found is what the scanner finds: "owner mechanism target verdict mode".
func (f *forwarding) found() []string {
	f.t.Helper()
	root, err := files.Rooted("/")
	f.must(err)
	defer root.Close()
	accounts, err := files.ReadAccounts(f.t.Context(), root)
	f.must(err)
	host := &forward.Host{Files: root, Accounts: accounts, Hostname: "relay.example.jp"}
	scanner := scan.New(func(ctx context.Context, _ func() []string) forward.Plan {
		return sendmail.Plan(ctx, host, sendmail.Options{Config: f.path("sendmail.cf")})
	}, scan.Options{Workers: 2})
	_, err = scanner.All(f.t.Context())
	f.must(err)
	var all []string
	for _, finding := range scanner.Graph().Findings() {
		all = append(all, strings.Join([]string{finding.Owner, string(finding.Mechanism), finding.Target, string(finding.Verdict), string(finding.Mode)}, " "))
	}
	slices.Sort(all)
	return all
}

func (f *forwarding) send(from, to string) {
	f.t.Helper()
	client, err := f.Dial(f.ctx(), "relay")
	f.must(err)
	defer client.Quit()
	_, err = client.Ehlo("client.example.jp")
	f.must(err)
	sent, err := client.Send(from, []string{to}, "From: <"+from+">\r\nSubject: hello\r\n\r\nhello\r\n")
	if err != nil || !sent.Accepted() {
		f.t.Fatalf("mail to %s: %+v, %v", to, sent, err)
	}
}

// sendmailMechanism is one way of mail: how the rule is planted, what is to be found,
// and one mail that goes by it.
type sendmailMechanism struct {
	name    string
	plant   func(f *forwarding)
	want    []string // %a is the account, %d the directory
	to      string
	from    string // "": somebody outside
	arrives string // at the sink
	file    string // or in this file
	sender  string // it is the sender that is another one
}

func sendmailMechanisms() []sendmailMechanism {
	return []sendmailMechanism{
		{name: "alias", plant: func(f *forwarding) { f.aliases("al: al1@evil.test\n") },
			want: []string{"al aliases al1@evil.test outside redirect"}, to: "al@corp.test", arrives: "al1@evil.test"},
		{name: "alias with a copy kept", plant: func(f *forwarding) { f.aliases("%a: \\%a, al2@evil.test\n") },
			want: []string{"%a aliases al2@evil.test outside copy"}, to: "%a@corp.test", arrives: "al2@evil.test"},
		{name: "chain of aliases", plant: func(f *forwarding) { f.aliases("one: two\ntwo: Three@Corp.test\nthree: al3@evil.test\n") },
			want: []string{"one aliases al3@evil.test outside redirect", "three aliases al3@evil.test outside redirect", "two aliases al3@evil.test outside redirect"},
			to:   "one@corp.test", arrives: "al3@evil.test"},
		{name: "include", plant: func(f *forwarding) {
			f.aliases("inc: :include:%d/list\n")
			f.must(os.WriteFile(filepath.Join(f.Dir, "list"), []byte("# members\ninc1@evil.test\n"), 0o644))
		}, want: []string{"inc aliases inc1@evil.test outside redirect"}, to: "inc@corp.test", arrives: "inc1@evil.test"},
		{name: "alias to a program", plant: func(f *forwarding) { f.aliases("prog: \"|/bin/cat > %d/room/prog\"\n") },
			want: []string{"prog aliases /bin/cat > %d/room/prog opaque redirect"}, to: "prog@corp.test", file: "prog"},
		{name: "alias to a file", plant: func(f *forwarding) { f.aliases("filed: %d/room/filed\n") },
			to: "filed@corp.test", file: "filed"},
		{name: "forward file", plant: func(f *forwarding) { f.home("fw1@evil.test\n") },
			want: []string{"%a forward fw1@evil.test outside redirect"}, to: "%a@corp.test", arrives: "fw1@evil.test"},
		{name: "forward file that keeps a copy", plant: func(f *forwarding) { f.home("\\%a, fw2@evil.test\n") },
			want: []string{"%a forward fw2@evil.test outside copy"}, to: "%a@corp.test", arrives: "fw2@evil.test"},
		{name: "forward file to a program", plant: func(f *forwarding) { f.home("\"|/bin/cat > %d/room/fwprog\"\n") },
			want: []string{"%a forward /bin/cat > %d/room/fwprog opaque redirect"}, to: "%a@corp.test", file: "fwprog"},
		{name: "virtual address", plant: func(f *forwarding) { f.table("virtusertable", "info@virt.test v1@evil.test\n") },
			want: []string{"info@virt.test virtual v1@evil.test outside redirect"}, to: "Info@Virt.test", arrives: "v1@evil.test"},
		{name: "virtual domain", plant: func(f *forwarding) {
			f.table("virtusertable", "@virt.test %1@evil.test\nno@virt.test error:nouser no\n")
		},
			want: []string{"@virt.test virtual @evil.test outside redirect"}, to: "anybody@virt.test", arrives: "anybody@evil.test"},
		{name: "virtual domain with a part", plant: func(f *forwarding) { f.table("virtusertable", "@virt.test x-%1@evil.test\n") },
			want: []string{"@virt.test virtual x-?@evil.test dynamic-outside redirect"}, to: "anybody@virt.test", arrives: "x-anybody@evil.test"},
		{name: "virtual to an alias", plant: func(f *forwarding) {
			f.table("virtusertable", "sales@virt.test al\n")
			f.aliases("al: al5@evil.test\n")
		}, want: []string{"al aliases al5@evil.test outside redirect", "sales@virt.test virtual al5@evil.test outside redirect"}, to: "sales@virt.test", arrives: "al5@evil.test"},
		{name: "virtual with a detail", plant: func(f *forwarding) { f.table("virtusertable", "info+*@virt.test d@evil.test\n") },
			want: []string{"info@virt.test virtual d@evil.test outside redirect"}, to: "info+x@virt.test", arrives: "d@evil.test"},
		{name: "virtual that only the compiled table has", plant: func(f *forwarding) {
			f.table("virtusertable", "hidden@virt.test v3@evil.test\n")
			f.must(os.WriteFile(f.path("virtusertable"), nil, 0o644))
		}, want: []string{"hidden@virt.test virtual v3@evil.test outside redirect"}, to: "hidden@virt.test", arrives: "v3@evil.test"},
		{name: "virtual with all parts", plant: func(f *forwarding) { f.table("virtusertable", "@virt.test %1%3@evil.test\n") },
			want: []string{"@virt.test virtual ??@evil.test dynamic-outside redirect"}, to: "who+ext@virt.test", arrives: "who+ext@evil.test"},
		{name: "forward file of a detail", plant: func(f *forwarding) {
			f.account.Plant(f.t, filepath.Join(f.account.Home, ".forward+ext"), "fw3@evil.test\n", 0o644)
		}, want: []string{"%a+ext forward fw3@evil.test outside redirect"}, to: "%a+ext@corp.test", arrives: "fw3@evil.test"},
		{name: "alias of a detail", plant: func(f *forwarding) { f.aliases("plus+ext: al7@evil.test\n") },
			want: []string{"plus+ext aliases al7@evil.test outside redirect"}, to: "plus+ext@corp.test", arrives: "al7@evil.test"},
		{name: "include of an include and a program", plant: func(f *forwarding) {
			f.aliases("inc: :include:%d/list\n")
			f.must(os.WriteFile(filepath.Join(f.Dir, "list"), []byte(":include:"+f.Dir+"/list2\n"), 0o644))
			f.must(os.WriteFile(filepath.Join(f.Dir, "list2"), []byte("inc2@evil.test (somebody)\n\"Name\" <inc3@evil.test>\n"), 0o644))
		}, want: []string{"inc aliases inc2@evil.test outside redirect", "inc aliases inc3@evil.test outside redirect"}, to: "inc@corp.test", arrives: "inc3@evil.test"},
		{name: "virtual for a local domain", plant: func(f *forwarding) { f.table("virtusertable", "info@corp.test v2@evil.test\n") },
			want: []string{"info@corp.test virtual v2@evil.test outside redirect"}, to: "info@corp.test", arrives: "v2@evil.test"},
		{name: "mailertable", plant: func(f *forwarding) { f.table("mailertable", "virt.test relay:mx.evil.test\n") },
			want: []string{"@virt.test transport relay:mx.evil.test outside redirect"}, to: "x1@virt.test", arrives: "x1@virt.test"},
		{name: "mailertable with a user", plant: func(f *forwarding) { f.table("mailertable", "virt.test relay:thief@mx.evil.test\n") },
			want: []string{"@virt.test transport thief@mx.evil.test outside redirect"}, to: "x2@virt.test", arrives: "thief@mx.evil.test"},
		{name: "mailertable to a local name", plant: func(f *forwarding) {
			f.table("mailertable", "virt.test local:al\n")
			f.aliases("al: al6@evil.test\n")
		}, want: []string{"@virt.test transport al6@evil.test outside redirect", "al aliases al6@evil.test outside redirect"}, to: "x3@virt.test", arrives: "al6@evil.test"},
		{name: "mailertable without a mailer", plant: func(f *forwarding) {
			f.table("mailertable", "far.test mx.evil.test\nother.test [IPv6:2001:db8::1]\n")
		}, to: "x@far.test", arrives: "x@far.test"},
		{name: "genericstable", plant: func(f *forwarding) { f.table("genericstable", "gen@corp.test genout@evil.test\n") },
			want: []string{"gen@corp.test generic genout@evil.test outside redirect"}, to: "x@far.test", from: "gen@corp.test", arrives: "x@far.test", sender: "genout@evil.test"},
		{name: "access refuses and relays", plant: func(f *forwarding) {
			f.table("access", "To:virt.test RELAY\nTo:no@virt.test ERROR:5.1.1:550 no\nspam.test REJECT\n")
		}, to: "x@far.test", arrives: "x@far.test"},
		{name: "unknown users", plant: func(*forwarding) {}, to: "nobody-here", arrives: "catchall@luser.evil.test"},
	}
}

func (f *forwarding) home(text string) {
	f.account.Plant(f.t, filepath.Join(f.account.Home, ".forward"), f.fill(text), 0o644)
}

func (f *forwarding) fill(text string) string {
	return strings.NewReplacer("%a", f.account.Name, "%d", f.Dir).Replace(text)
}

// Each rule that the real Sendmail follows is found, and nothing beside it.
func TestScannerFindsWhatSendmailFollows(t *testing.T) {
	f := startForwarding(t)
	room := filepath.Join(f.Dir, "room")
	f.must(os.Mkdir(room, 0o755))
	before := f.found()
	if !slices.Contains(before, "* luser_relay catchall@luser.evil.test outside redirect") {
		t.Errorf("without a plant: %q", before)
	}
	for _, m := range sendmailMechanisms() {
		t.Run(m.name, func(t *testing.T) {
			f.in(t).plantAndProve(m, before, room)
		})
	}
}

func (f *forwarding) in(t *testing.T) *forwarding {
	inner := *f
	inner.t = t
	return &inner
}

func (f *forwarding) plantAndProve(m sendmailMechanism, before []string, room string) {
	f.t.Helper()
	f.clean(room, m.file)
	m.plant(f)
	var got, want []string
	for _, line := range f.found() {
		if !slices.Contains(before, line) {
			got = append(got, strings.ReplaceAll(line, forward.Unknown, "?"))
		}
	}
	for _, line := range m.want {
		want = append(want, f.fill(line))
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		f.t.Errorf("the scan finds\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	from := "somebody@elsewhere.test"
	if m.from != "" {
		from = m.from
	}
	if to := f.fill(m.to); strings.Contains(to, "@") {
		f.send(from, to)
	} else {
		sent, err := f.Sendmail.Sendmail(f.ctx(), 0, []string{"-Am", "-odb", to}, strings.NewReader("Subject: hello\n\nhello\n"))
		if err != nil || sent.ExitCode != 0 {
			f.t.Fatalf("mail to %s: %+v, %v", to, sent, err)
		}
	}
	if m.file != "" {
		f.waitFile(filepath.Join(room, m.file))
		return
	}
	mail, err := f.Sink.Wait(f.ctx(), func(mail smtptest.Mail) bool { return slices.Contains(mail.RcptTo, m.arrives) })
	if err != nil {
		f.t.Fatalf("mail to %s does not arrive at %s: %v", m.to, m.arrives, err)
	}
	if m.sender != "" && mail.MailFrom != m.sender {
		f.t.Errorf("the mail comes from %s, want %s", mail.MailFrom, m.sender)
	}
}

// clean takes away what the former one planted.
func (f *forwarding) clean(room, name string) {
	f.t.Helper()
	f.aliases("")
	for table := range f.tables {
		f.table(table, "")
	}
	for _, name := range []string{".forward", ".forward+ext"} {
		os.Remove(filepath.Join(f.account.Home, name))
	}
	f.Sink.Forget()
	if name != "" { // a program writes it as its recipient or as DefaultUser
		f.must(os.WriteFile(filepath.Join(room, name), nil, 0o666))
		f.must(os.Chmod(filepath.Join(room, name), 0o666))
	}
}

func (f *forwarding) waitFile(path string) {
	f.t.Helper()
	for ctx := f.ctx(); ; {
		text, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(text), "hello") {
			return
		}
		select {
		case <-ctx.Done():
			f.t.Fatalf("%s: %q, %v", path, text, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
