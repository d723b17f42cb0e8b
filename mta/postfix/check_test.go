package postfix

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/mta"
	"relayguard/policy"
)

const masterCF = `
smtp inet n - y - - smtpd
submission inet n - y - - smtpd
  -o syslog_name=postfix/submission
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_tls_auth_only=yes
  -o smtpd_recipient_restrictions=$mua_recipient_restrictions
pickup unix n - y 60 1 pickup
cleanup unix n - y - 0 cleanup
postlog unix-dgram n - n - 1 postlogd
qmgr unix n - n 300 1 qmgr
rewrite unix - - y - - trivial-rewrite
smtp unix - - y - - smtp
relay unix - - y - - smtp -o syslog_name=postfix/$service_name
`

var localMail = LocalMail{DaemonName: "LOCAL-PICKUP", UIDHeader: "X-Relayguard-Uid", Strip: []string{"X-Relayguard-Origin"}}

// instance is a private Postfix configuration, never started, with the guard's
// sockets in its queue directory.
type instance struct {
	dir, queue string
	listeners  []mta.Listener
}

func newInstance(t *testing.T, mainCF, master string) instance {
	t.Helper()
	needTool(t, "postconf")
	root, err := os.MkdirTemp("", "pf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	os.Chmod(root, 0o755)
	in := instance{dir: filepath.Join(root, "etc"), queue: filepath.Join(root, "queue")}
	for _, dir := range []string{in.dir, in.queue, filepath.Join(root, "data")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for role, name := range map[policy.Role]string{policy.Submission: "submission", policy.Relay: "relay", policy.Local: "local", policy.Inbound: "inbound", policy.Egress: "egress"} {
		in.listeners = append(in.listeners, mta.Listener{Role: role, Network: "unix", Address: filepath.Join(in.queue, "relayguard", name+".sock")})
	}
	slices.SortFunc(in.listeners, func(a, b mta.Listener) int { return int(a.Role) - int(b.Role) })
	if err := os.Mkdir(filepath.Join(in.queue, "relayguard"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, l := range in.listeners {
		writeFile(t, l.Address, "") // stands for a socket
	}
	writeFile(t, filepath.Join(in.dir, "main.cf"), `compatibility_level=3.6
queue_directory=`+in.queue+`
data_directory=`+filepath.Join(root, "data")+`
maillog_file=/dev/stdout
myhostname=mx.example.jp
mydestination=example.jp
mynetworks=127.0.0.0/8 [::1]/128
mua_recipient_restrictions=permit_sasl_authenticated,reject
alias_maps=
alias_database=
`+mainCF)
	writeFile(t, filepath.Join(in.dir, "master.cf"), master)
	writeFile(t, filepath.Join(in.dir, "uid-checks"), uidChecks(localMail.UIDHeader))
	return in
}

func (in instance) setup(t *testing.T) Setup {
	return Setup{ConfigDir: in.dir, Listeners: in.listeners, SMTP: policy.Relay, LocalMail: localMail, Backups: filepath.Join(filepath.Dir(in.dir), "backups")}
}

func (in instance) load(t *testing.T) *Instance {
	t.Helper()
	i, err := Load(context.Background(), Tools{}, in.dir)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// age makes the configuration old, so that Postfix's tools do not wait.
func (in instance) age() {
	past := time.Now().Add(-time.Minute)
	for _, name := range []string{"main.cf", "master.cf"} {
		os.Chtimes(filepath.Join(in.dir, name), past, past)
	}
}

const guarded = `smtpd_milters=unix:relayguard/relay.sock
non_smtpd_milters=unix:relayguard/local.sock
milter_default_action=tempfail
`

const guardedMaster = `
smtp inet n - y - - smtpd
pickup unix n - y 60 1 pickup -o cleanup_service_name=relayguard-cleanup
cleanup unix n - y - 0 cleanup
relayguard-cleanup unix n - y - 0 cleanup -o header_checks=regexp:$config_directory/uid-checks -o milter_macro_daemon_name=LOCAL-PICKUP
submission inet n - y - - smtpd -o smtpd_sasl_auth_enable=yes -o smtpd_tls_auth_only=yes -o smtpd_milters=unix:relayguard/submission.sock
`

func TestInspectFindsEachWayRound(t *testing.T) {
	maps := t.TempDir()
	writeFile(t, filepath.Join(maps, "hide"), "/^Received: .*from userid/ REPLACE Received: by us\n")
	writeFile(t, filepath.Join(maps, "fixed"), "/^Received: by [^ ]+ \\(Postfix, from userid ([0-9]+)\\)/ PREPEND X-Relayguard-Uid: $1\n")
	writeFile(t, filepath.Join(maps, "cidr"), "# none\n127.0.0.0/8 DISABLE\n192.0.2.1 { unix:relayguard/relay.sock,\n  default_action=accept }\n192.0.2.2 unix:relayguard/relay.sock\n")
	for name, c := range map[string]struct {
		main, master string
		want         []string // ID Severity Where
	}{
		"nothing": {},
		"local mail unguarded": {main: "non_smtpd_milters=\n",
			want: []string{"local-unguarded critical relayguard-cleanup/unix"}},
		"local mail with another milter": {main: "non_smtpd_milters=inet:localhost:8891\n",
			want: []string{"local-unguarded critical relayguard-cleanup/unix"}},
		"SMTP unguarded": {main: "smtpd_milters=inet:localhost:8891\n",
			want: []string{"service-unguarded critical smtp/inet"}},
		"default action": {main: "milter_default_action=accept\n",
			want: []string{"default-accept critical relayguard-cleanup/unix", "default-accept critical smtp/inet", "default-accept critical submission/inet"}},
		"default action of the entry": {main: "smtpd_milters={ unix:relayguard/relay.sock, default_action=accept, command_timeout=2s }\n",
			want: []string{"default-accept critical smtp/inet", "timeout-short warning smtp/inet"}},
		"default action in braces": {main: "smtpd_milters={ unix:relayguard/relay.sock, { default_action = accept } }\n",
			want: []string{"default-accept critical smtp/inet"}},
		"default action of a service": {master: "10025 inet n - n - - smtpd -o milter_default_action=accept\n",
			want: []string{"default-accept critical 10025/inet"}},
		"milter maps by cidr": {main: "smtpd_milter_maps=cidr:" + maps + "/cidr\n",
			want: []string{"default-accept critical main.cf", "milter-maps critical main.cf"}},
		"milter maps inline": {main: "smtpd_milter_maps=inline:{10.0.0.1=disable}\n",
			want: []string{"milter-maps critical main.cf"}},
		"milter maps of LDAP": {main: "smtpd_milter_maps=ldap:/etc/postfix/x.cf\n",
			want: []string{"milter-maps warning main.cf"}},
		"service with its own milters": {master: "10025 inet n - n - - smtpd -o smtpd_milters=inet:localhost:8891\n",
			want: []string{"service-unguarded critical 10025/inet"}},
		"service with no milters of its own": {master: "10025 inet n - n - - smtpd -o smtpd_milters=\n",
			want: []string{"service-unguarded critical 10025/inet"}},
		"service with milters in braces": {master: "10025 inet n - n - - smtpd -o { smtpd_milters = { unix:relayguard/relay.sock, default_action=accept } }\n",
			want: []string{"default-accept critical 10025/inet"}},
		"milters by a name that the service empties": {main: "guard=unix:relayguard/relay.sock\nsmtpd_milters=$guard\n",
			master: "10025 inet n - n - - smtpd -o guard=\n",
			want:   []string{"service-unguarded critical 10025/inet"}},
		"submissions": {master: "submissions inet n - n - - smtpd -o smtpd_milters=unix:elsewhere.sock -o smtpd_tls_wrappermode=yes -o smtpd_sasl_auth_enable=yes\n",
			want: []string{"service-unguarded critical submissions/inet"}},
		"behind postscreen": {master: "25 inet n - n - 1 postscreen\nsmtpd pass - - n - - smtpd -o smtpd_milters=\n",
			want: []string{"service-unguarded critical smtpd/pass"}},
		"pass service without postscreen": {master: "smtpd pass - - n - - smtpd -o smtpd_milters=\n"},
		"disabled service":                {main: "master_service_disable=10025.inet\n", master: "10025 inet n - n - - smtpd -o smtpd_milters=\n"},
		"stranger's service unguarded": {master: "10025 inet n - n - - smtpd -o smtpd_milters=inet:a:1 -o smtpd_relay_restrictions=reject_unauth_destination\n",
			want: []string{"service-unguarded info 10025/inet"}},
		"no_milters to the world": {master: "10025 inet n - n - - smtpd -o receive_override_options=no_address_mappings,no_milters\n",
			want: []string{"no-milters critical 10025/inet"}},
		"content filter's way back": {master: "127.0.0.1:10025 inet n - n - - smtpd -o receive_override_options=no_milters\n",
			want: []string{"no-milters warning 127.0.0.1:10025/inet"}},
		"content filter's way back by an empty list": {master: "localhost:10025 inet n - n - - smtpd -o smtpd_milters=\n",
			want: []string{"no-milters warning localhost:10025/inet"}},
		"pickup without milters": {master: "pickup unix n - y 60 1 pickup -o receive_override_options=no_milters -o cleanup_service_name=relayguard-cleanup\n",
			want: []string{"no-milters critical pickup/unix"}},
		"uid unseen": {master: "pickup unix n - y 60 1 pickup\n",
			want: []string{"uid-unseen warning cleanup/unix"}},
		"uid by another mail_name": {main: "mail_name=Mail of ours\nmyhostname=other.example.jp\n"},
		"uid hidden by another check": {master: "relayguard-cleanup unix n - y - 0 cleanup -o { header_checks = regexp:" + maps + "/hide, regexp:$config_directory/uid-checks } -o milter_macro_daemon_name=LOCAL-PICKUP\n",
			want: []string{"uid-unseen warning relayguard-cleanup/unix"}},
		"uid by a pattern for another mail_name": {main: "mail_name=Mail\n", master: "relayguard-cleanup unix n - y - 0 cleanup -o header_checks=regexp:" + maps + "/fixed -o milter_macro_daemon_name=LOCAL-PICKUP\n",
			want: []string{"uid-unseen warning relayguard-cleanup/unix"}},
		"uid by a table that is not there": {master: "relayguard-cleanup unix n - y - 0 cleanup -o header_checks=regexp:/nosuch/relayguard-uid.regexp -o milter_macro_daemon_name=LOCAL-PICKUP\n",
			want: []string{"uid-unseen warning relayguard-cleanup/unix"}},
		"local mail by another daemon name": {master: "relayguard-cleanup unix n - y - 0 cleanup -o header_checks=regexp:$config_directory/uid-checks -o milter_macro_daemon_name=LOCAL\n",
			want: []string{"uid-unseen warning relayguard-cleanup/unix"}},
		"local mail as submission": {main: "non_smtpd_milters=unix:relayguard/submission.sock\n",
			want: []string{"wrong-role critical relayguard-cleanup/unix"}},
		"local mail as relay, too": {main: "non_smtpd_milters=unix:relayguard/local.sock, unix:relayguard/relay.sock\n",
			want: []string{"wrong-role critical relayguard-cleanup/unix"}},
		"local mail as egress": {main: "non_smtpd_milters=unix:relayguard/egress.sock\n",
			want: []string{"wrong-role critical relayguard-cleanup/unix"}},
		"clients relay as egress": {main: "smtpd_milters=unix:relayguard/egress.sock\n",
			want: []string{"wrong-role critical smtp/inet"}},
		"inbound behind relay": {main: "smtpd_milters=unix:relayguard/relay.sock, unix:relayguard/inbound.sock\n",
			want: []string{"relay-as-inbound info smtp/inet"}},
		"content filter's way back as egress": {master: "127.0.0.1:10025 inet n - n - - smtpd -o smtpd_milters=unix:relayguard/egress.sock\n",
			want: []string{"wrong-role warning 127.0.0.1:10025/inet"}},
		"egress where nobody relays": {main: "smtpd_milters=unix:relayguard/egress.sock\nsmtpd_relay_restrictions=reject_unauth_destination\n"},
		"clients as local mail": {main: "smtpd_milters=unix:relayguard/local.sock\n",
			want: []string{"wrong-role warning smtp/inet"}},
		"submission as relay": {master: "submission inet n - y - - smtpd -o smtpd_sasl_auth_enable=yes -o smtpd_tls_auth_only=yes -o smtpd_milters=unix:relayguard/relay.sock\n",
			want: []string{"wrong-role warning submission/inet"}},
		"relay as inbound": {main: "smtpd_milters=unix:relayguard/inbound.sock\nmynetworks=127.0.0.0/8 192.0.2.0/24\n",
			want: []string{"relay-as-inbound critical smtp/inet"}},
		"relay as inbound, for whom a table permits": {main: "smtpd_milters=unix:relayguard/inbound.sock\nsmtpd_relay_restrictions=check_client_access static:ok, reject_unauth_destination\n",
			want: []string{"relay-as-inbound critical smtp/inet"}},
		"local accounts relay as inbound": {main: "smtpd_milters=unix:relayguard/inbound.sock\nmynetworks=127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128\n",
			want: []string{"relay-as-inbound info smtp/inet"}},
		"inbound": {main: "smtpd_milters=unix:relayguard/inbound.sock\nmynetworks=\nsmtpd_relay_restrictions=reject_unauth_destination\n"},
		"qmqpd": {master: "628 inet n - n - - qmqpd\n",
			want: []string{"qmqpd info 628/inet"}},
		"qmqpd for some": {main: "qmqpd_authorized_clients=10.0.0.0/8\n", master: "628 inet n - n - - qmqpd\n",
			want: []string{"qmqpd critical 628/inet"}},
		"mynetworks is the world": {main: "mynetworks=0.0.0.0/0, [2001:db8::]/29\n",
			want: []string{"mynetworks-wide critical main.cf", "mynetworks-wide warning main.cf"}},
		"mynetworks of a service": {master: "10025 inet n - n - - smtpd -o mynetworks=100.0.0.0/4\n",
			want: []string{"mynetworks-wide warning 10025/inet"}},
		"mynetworks unread": {main: "mynetworks=mysql:/etc/postfix/nets.cf 127.0.0.1\n",
			want: []string{"mynetworks-unread warning main.cf"}},
		"AUTH without TLS": {main: "smtpd_sasl_auth_enable=yes\n",
			want: []string{"auth-without-tls critical smtp/inet"}},
		"XCLIENT": {main: "smtpd_authorized_xclient_hosts=127.0.0.1\n",
			want: []string{"xclient warning smtp/inet", "xclient warning submission/inet"}},
		"impatient": {main: "milter_command_timeout=3s\nmilter_connect_timeout=1\n",
			want: []string{"timeout-short warning main.cf", "timeout-short warning main.cf"}},
		"old protocol": {main: "milter_protocol=2\n",
			want: []string{"protocol-old warning main.cf"}},
		"not first": {main: "smtpd_milters=inet:localhost:8891, unix:relayguard/relay.sock\n",
			want: []string{"guard-not-first warning smtp/inet"}},
		"braces": {main: "smtpd_milters={ unix:relayguard/relay.sock\n",
			want: []string{"milters-unreadable critical smtp/inet"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			master := guardedMaster
			for line := range strings.Lines(c.master) { // an entry replaces its namesake
				words := strings.Fields(line)
				var kept []string
				for old := range strings.Lines(master) {
					if f := strings.Fields(old); len(f) > 1 && f[0] == words[0] && f[1] == words[1] {
						continue
					}
					kept = append(kept, old)
				}
				master = strings.Join(kept, "") + line
			}
			in := newInstance(t, guarded+c.main, master)
			got := idsOf(Inspect(context.Background(), Inspection{Instance: in.load(t), Listeners: in.listeners, LocalMail: localMail}))
			slices.Sort(c.want)
			if !slices.Equal(got, c.want) {
				t.Errorf("got\n %s\nwant\n %s", strings.Join(got, "\n "), strings.Join(c.want, "\n "))
			}
		})
	}
}

// What a table, a class or an unknown word permits is not known: a service
// without the guard counts as one that lets them relay.
func TestInspectUnguardedServiceByItsRestrictions(t *testing.T) {
	for restrictions, relays := range map[string]bool{
		"reject_unauth_destination":                                            false,
		"defer_unauth_destination":                                             false,
		"permit_auth_destination, reject":                                      false,
		"reject_unauth_destination, check_client_access static:permit":         false,
		"reject_rbl_client bl.example.org, reject":                             false,
		"permit_dnswl_client wl.example.org, reject":                           false,
		"warn_if_reject, reject_unauth_destination":                            true,
		"warn_if_reject reject_unauth_destination, reject_unauth_destination":  false,
		"warn_if_reject reject_non_fqdn_sender, reject_unauth_destination":     false,
		"check_client_access hash:/etc/postfix/access, reject":                 true,
		"check_sender_access { inline:{a=permit} }, reject_unauth_destination": true,
		"check_policy_service unix:private/policy, reject":                     true,
		"hash:/etc/postfix/access, reject":                                     true,
		"friends, reject":                                                      true,
		"permit_mx_backup, reject":                                             true,
		"permit_tls_clientcerts, reject":                                       true,
		"permit_sasl_authenticated, reject":                                    false, // no AUTH there
		"permit":                                                               true,
		"reject_unlisted_recipient":                                            true,
	} {
		t.Run(restrictions, func(t *testing.T) {
			t.Parallel()
			in := newInstance(t, guarded+"smtpd_restriction_classes=friends\nfriends=permit\n", guardedMaster+
				"10025 inet n - n - - smtpd -o smtpd_milters=inet:localhost:8891 -o { smtpd_relay_restrictions = "+restrictions+" }\n")
			want := "service-unguarded info 10025/inet"
			if relays {
				want = "service-unguarded critical 10025/inet"
			}
			if got := idsOf(Inspect(context.Background(), Inspection{Instance: in.load(t), Listeners: in.listeners, LocalMail: localMail})); !slices.Equal(got, []string{want}) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func idsOf(findings []mta.Finding) []string {
	var ids []string
	for _, f := range findings {
		ids = append(ids, f.ID+" "+f.Severity.String()+" "+f.Where)
	}
	slices.Sort(ids)
	return ids
}

func TestInspectSockets(t *testing.T) {
	for name, c := range map[string]struct {
		dir, socket os.FileMode
		listener    mta.Listener
		want        string
	}{
		"well":                   {dir: 0o755, socket: 0o660},
		"anybody may replace it": {dir: 0o777, socket: 0o660, want: "socket-exposed"},
		"anybody may connect":    {dir: 0o755, socket: 0o666, want: "socket-exposed"},
		"Postfix may not pass":   {dir: 0o700, socket: 0o660, want: "socket-unreachable"},
		"outside":                {dir: 0o755, socket: 0o660, listener: mta.Listener{Role: policy.Relay, Network: "tcp", Address: "0.0.0.0:8891"}, want: "socket-outside"},
		"loopback":               {dir: 0o755, socket: 0o660, listener: mta.Listener{Role: policy.Relay, Network: "tcp", Address: "127.0.0.1:8891"}},
		"no directory":           {dir: 0o755, socket: 0o660, listener: mta.Listener{Role: policy.Egress, Network: "unix", Address: "/nosuch/dir/x.sock"}, want: "socket-missing"},
	} {
		t.Run(name, func(t *testing.T) {
			in := newInstance(t, guarded, guardedMaster)
			dir := filepath.Join(in.queue, "relayguard")
			for _, l := range in.listeners {
				os.WriteFile(l.Address, nil, 0o600)
				os.Chmod(l.Address, c.socket)
			}
			os.Chmod(dir, c.dir)
			listeners := in.listeners
			if c.listener.Role != 0 {
				listeners = append(listeners, c.listener)
			}
			var got []string
			for _, f := range Inspect(context.Background(), Inspection{Instance: in.load(t), Listeners: listeners, LocalMail: localMail}) {
				got = append(got, f.ID)
			}
			if got = slices.Compact(got); strings.Join(got, " ") != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestInspectFindsAGuardThatIsNotThere(t *testing.T) {
	for name, leave := range map[string]func(path string){
		"stopped": func(path string) { os.Remove(path) },
		"killed": func(path string) {
			os.Remove(path)
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			l.SetUnlinkOnClose(false)
			l.Close()
		},
	} {
		in := newInstance(t, guarded, guardedMaster)
		relay, _ := byRole(in.listeners, policy.Relay)
		inbound, _ := byRole(in.listeners, policy.Inbound) // of which nobody asks
		leave(relay.Address)
		os.Remove(inbound.Address)
		var got []string
		for _, f := range Inspect(context.Background(), Inspection{Instance: in.load(t), Listeners: in.listeners, LocalMail: localMail}) {
			if f.ID == "socket-missing" {
				got = append(got, f.Severity.String()+" "+filepath.Base(f.Where))
			}
		}
		if want := []string{"critical relay.sock", "warning inbound.sock"}; !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

// fakeProbe stands for an SMTP service.
type fakeProbe func(address string) (ProbeAnswer, error)

func (f fakeProbe) Relays(_ context.Context, address string, _ bool) (ProbeAnswer, error) {
	return f(address)
}

func TestInspectOpenRelay(t *testing.T) {
	for name, c := range map[string]struct {
		main   string
		answer ProbeAnswer
		err    error
		want   string
	}{
		"refuses":                            {answer: ProbeAnswer{Code: 454, At: "RCPT"}},
		"relays for mynetworks":              {answer: ProbeAnswer{Code: 250, At: "RCPT"}, want: "open-relay-unknown"},
		"relays for a stranger":              {answer: ProbeAnswer{Code: 250, At: "RCPT", Stranger: true}, want: "open-relay"},
		"relays, loopback not in mynetworks": {main: "mynetworks=192.0.2.0/24\n", answer: ProbeAnswer{Code: 250, At: "RCPT"}, want: "open-relay"},
		"refuses the sender":                 {answer: ProbeAnswer{Code: 550, At: "MAIL"}, want: "open-relay-unknown"},
		"not there":                          {err: errors.New("connection refused"), want: "open-relay-unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			in := newInstance(t, guarded+c.main, "127.0.0.1:10025 inet n - n - - smtpd\n")
			var asked []string
			probe := fakeProbe(func(address string) (ProbeAnswer, error) {
				asked = append(asked, address)
				return c.answer, c.err
			})
			var got string
			for _, f := range Inspect(context.Background(), Inspection{Instance: in.load(t), Listeners: in.listeners, LocalMail: localMail, Probe: probe}) {
				got += f.ID
			}
			if got != c.want || !slices.Equal(asked, []string{"127.0.0.1:10025"}) {
				t.Errorf("got %q of %v, want %q", got, asked, c.want)
			}
		})
	}
}
