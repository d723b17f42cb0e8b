package config

import (
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"relayguard/policy"
	"relayguard/policy/origin"
)

// field is one row of the table of keys: a key of the section S.
type field[S any] struct {
	name     string
	typ      string
	doc      string
	required bool
	free     bool       // a table of free keys, under a header of its own
	sub      []field[S] // a table of these keys, likewise
	read     func(v *value, into *S) []fault
	show     func(*S) string
	wanted   string
}

// key makes a row; at says where in the section's struct the value lives.
func key[S, T any](name string, k kind[T], at func(*S) *T, doc string) field[S] {
	return field[S]{
		name: name, typ: k.name, doc: doc, wanted: k.wanted,
		show: func(s *S) string { return k.show(*at(s)) },
		read: func(v *value, into *S) []fault {
			t, faults := k.read(v)
			if len(faults) == 0 {
				*at(into) = t
			}
			return faults
		},
	}
}

// required is a row without a default.
func required[S any](f field[S]) field[S] { f.required = true; return f }

// free is a row whose value is a table of free keys.
func free[S any](f field[S]) field[S] { f.free = true; return f }

// subsection is a row whose value is a table of keys of its own.
func subsection[S any](name, doc string, fields []field[S]) field[S] {
	return field[S]{name: name, doc: doc, sub: fields}
}

// section is a table of the file, or, as array, one of several alike.
type section[S any] struct {
	name   string // "" for the head of the file
	doc    string
	blank  func() *S  // what an empty one means
	sample func() []S // for the example file, of sections that come in numbers
	fields []field[S]
}

func (s section[S]) names() []string {
	all := make([]string, len(s.fields))
	for i, f := range s.fields {
		all[i] = f.name
	}
	return all
}

// under is a row with keys of its own as the section that it is.
func (s section[S]) under(f field[S]) section[S] {
	return section[S]{name: join(s.name, f.name), doc: f.doc, blank: s.blank, fields: f.sub}
}

// byDefault is the default of a key as the file would write it, "" if it has
// none or a table.
func (s section[S]) byDefault(f field[S]) string {
	if f.required {
		return ""
	}
	return f.show(s.blank())
}

// The table of keys. Parser, manual and example follow it.

var head = section[Config]{"", "", Default, nil, []field[Config]{
	key("phase", choice(policy.Observe, policy.Learning, policy.Enforce), func(c *Config) *policy.Phase { return &c.Phase },
		`How far the guard's hand goes. "observe" decides and records, and lets everything pass. "learning" asks for AUTH where it is due, while rules about addresses only tell. "enforce" lets every rule act.`),
}}

var sections = []section[Config]{
	{"inside", `Which domains are ours. Mail between them is inside; everything else is outside.`, Default, nil, []field[Config]{
		key("domains", list(domain(), true), func(c *Config) *[]string { return &c.Inside.Domains },
			`Exactly our domains; subdomains are not included.`),
		key("from_mta", boolean(), func(c *Config) *bool { return &c.Inside.FromMTA },
			`Add the domains that the MTA's settings name as its own.`),
		key("free", boolean(), func(c *Config) *bool { return &c.Inside.Free },
			`Let limits count only recipients outside, where they do not say otherwise by limit.recipients. A stolen login can then flood our own users.`),
	}},
	{"mta", `The mail server that this guard serves.`, Default, nil, []field[Config]{
		key("kind", words(KindPostfix, KindSendmail), func(c *Config) *string { return &c.MTA.Kind },
			`Its name. With "sendmail" the defaults of mta.config_directory and of the listeners are others: "/etc/mail", and sockets in /run/relayguard to which root alone may connect, as which Sendmail runs.`),
		key("config_directory", absolutePath("a directory"), func(c *Config) *string { return &c.MTA.ConfigDirectory },
			`Where its settings are: main.cf, or sendmail.cf and submit.cf.`),
		key("log", mtaLog(), func(c *Config) *string { return &c.MTA.Log },
			`The log that it writes: a file, "journal" for systemd's journal, or "none" to leave it unread. From it come deliveries, bounces, the accounts behind sendmail(1), and what became of aliases and lists: with "none" the guard sees none of these.`),
		key("queue_helper", socketPath(), func(c *Config) *string { return &c.MTA.QueueHelper },
			`The socket of the root helper (relayguard-queue.socket), which alone may hold, release and delete queued mail.`),
		key("queue_state", absolutePath("a directory"), func(c *Config) *string { return &c.MTA.QueueState },
			`Where the root helper keeps what the red switch changed, and deleted mail for as long as hold.grace. It and all above it must be root's alone.`),
		key("smtp", hostPort(), func(c *Config) *string { return &c.MTA.SMTP },
			`Where the daemon hands in its own few messages, such as those to owners of mailboxes with a new forwarding.`),
	}},
	{"log", `The daemon's log, on standard error.`, Default, nil, []field[Config]{
		key("format", words("text", "json"), func(c *Config) *string { return &c.Log.Format },
			`"text" is key=value; "json" is one object on each line.`),
		key("level", choice(slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError), func(c *Config) *slog.Level { return &c.Log.Level },
			`The least important lines to write. Verdicts are "info".`),
	}},
	{"milter", `What the MTA's connections may cost, and what becomes of a message when the guard cannot decide.`, Default, nil, milterFields},
	{"local", `Mail that accounts of this machine hand in by sendmail(1).`, Default, nil, []field[Config]{
		key("daemon_name", text("text without spaces", "a name without spaces", daemonNameFault), func(c *Config) *string { return &c.Local.DaemonName },
			`The {daemon_name} of Postfix's cleanup service for pickup. Only that service's word about the Unix account is believed.`),
		key("shared_users", list(account("account"), true), func(c *Config) *[]string { return &c.Local.SharedUsers },
			`Unix accounts that many web sites share. Limits per "shared_user" count their mail, those per "local_user" do not. Mail of a suspended one is held instead of refused by sendmail(1), for the account sends for others, too.`),
	}},
	{"address", `Which addresses a login may use, in the envelope and in From. Its own name is always among them.`, Default, nil, addressFields},
	{"store", `Where is kept what was used of the limits.`, Default, nil, storeFields},
	{"redis", `The Redis server that several relays share, so that a limit holds for all of them together. It is used with store.kind = "redis" only.`, Default, nil, redisFields},
	{"hold", `How much mail may wait in the MTA's hold queue, and when it goes. At a bound, new mail that would be held is refused at its source until there is room: nothing that waits is lost.`, Default, nil, holdFields},
	{"journal", `The record of what was decided and done, and why: "relayguard decisions" and "relayguard explain" read it. It never holds the text of a message.`, Default, nil, journalFields},
	{"control", `The socket by which commands speak to the daemon. The kernel tells who calls. root and the daemon's own account may always read and act; these keys name Unix groups that may, too.`, Default, nil, controlFields},
	{"origin", `How the guard finds out which web site and which plugin local mail is from.`, Default, nil, originFields},
	{"sign", `For a web node whose mail goes out through a relay with a guard of its own.`, Default, nil, signFields},
	{"forward", `Forwarding rules that send mail outside: where they are looked for, who is told of new ones, and what becomes of the mail.`, Default, nil, forwardFields},
	{"rbl", `Whether our own addresses and domains are on DNS blocklists.`, Default, nil, rblFields},
	{"report", `The daily report: what has changed, what is to be done, who was active.`, Default, nil, reportFields},
	{"alert", `Who is told of incidents, and how often. One incident is one alert, with updates and an end, however many messages it has.`, Default, nil, alertFields},
}

// MTAs give a milter 30 s (Postfix milter_content_timeout, milter_command_timeout): the answer must be there before.
const longestDecision = 25 * time.Second

var milterFields = []field[Config]{
	key("decision_timeout", duration(time.Millisecond, longestDecision), func(c *Config) *time.Duration { return &c.Milter.DecisionTimeout },
		`How long a decision may take. Postfix itself gives up after 30 s.`),
	key("on_timeout", choice(policy.Accept, policy.Defer), func(c *Config) *policy.Verdict { return &c.Milter.OnTimeout },
		`What becomes of a message whose decision took longer.`),
	key("idle_timeout", duration(time.Second, 24*time.Hour), func(c *Config) *time.Duration { return &c.Milter.IdleTimeout },
		`How long a connection of the MTA may be silent. Keep it above the MTA's own time-outs for SMTP clients.`),
	key("frame_timeout", duration(time.Second, 10*time.Minute), func(c *Config) *time.Duration { return &c.Milter.FrameTimeout },
		`How long one frame of the protocol may take from its first byte to its last.`),
	key("drain_timeout", duration(time.Second, 10*time.Minute), func(c *Config) *time.Duration { return &c.Milter.DrainTimeout },
		`How long running transactions may go on after SIGTERM. At least decision_timeout.`),
	key("max_connections", integer(1, 100_000), func(c *Config) *int { return &c.Milter.MaxConnections },
		`MTA connections at a time, over all listeners.`),
	key("max_header_bytes", integer(4<<10, 16<<20), func(c *Config) *int { return &c.Milter.MaxHeaderBytes },
		`Header bytes of a message that are kept for the decision.`),
	key("max_header_fields", integer(50, 100_000), func(c *Config) *int { return &c.Milter.MaxHeaderFields },
		`Header fields of a message that are kept for the decision.`),
	key("max_recipients", integer(100, 1_000_000), func(c *Config) *int { return &c.Milter.MaxRecipients }, // RFC 5321 §4.5.3.1.8: at least 100
		`Recipients of one message. Those beyond get 452 over SMTP; local mail with more is held.`),
	key("max_memory", integer(16<<20, 1<<30), func(c *Config) *int { return &c.Milter.MaxMemory },
		`Octets that headers, recipients and read bodies of all messages under way may take together, beyond 16 KiB for each connection. Over it a recipient gets 452, and a header counts as too large.`),
	key("max_body_bytes", integer(1<<10, 64<<10), func(c *Config) *int { return &c.Milter.MaxBodyBytes },
		`Octets of the body of local mail, and of mail of web nodes, that are read to recognise its text: at most 65536. Of the text that is in them, decoded, the first 16384 are looked at. Nothing of it is kept.`),
}

var addressFields = []field[Config]{
	key("default_domain", optional(domain()), func(c *Config) *string { return &c.Address.DefaultDomain },
		`A login without @ owns its name at this domain. Empty: at the MTA's myorigin where inside.from_mta is true, else it owns what is configured for it only.`),
	key("recipient_delimiter", text("up to 8 punctuation characters, or empty", `punctuation such as "+", or nothing`, delimiterFault), func(c *Config) *string { return &c.Address.RecipientDelimiter },
		`The characters that begin a tag: the owner of taro@example.jp owns taro+news@example.jp too. Empty: there are no tags.`),
	key("envelope", choice(policy.Tell, policy.Hold, policy.Reject), func(c *Config) *policy.Verdict { return &c.Address.Envelope },
		`What becomes of a message whose envelope sender the login does not own.`),
	key("header_from", choice(policy.Tell, policy.Hold, policy.Reject), func(c *Config) *policy.Verdict { return &c.Address.HeaderFrom },
		`What becomes of a message whose From the login does not own.`),
	key("files", list(absolutePath("a file"), true), func(c *Config) *[]string { return &c.Address.Files },
		`Files that say which addresses a login may use beside its own: lines of LOGIN ADDRESS[, ADDRESS...], an address being user@domain, @domain or *; # begins a comment. Read again by SIGHUP.`),
	key("postfix_maps", list(postfixMap(), true), func(c *Config) *[]string { return &c.Address.PostfixMaps },
		`Postfix tables that say which logins own an address, as smtpd_sender_login_maps does.`),
	key("map_timeout", duration(time.Millisecond, 10*time.Second), func(c *Config) *time.Duration { return &c.Address.MapTimeout },
		`How long one lookup in postfix_maps may take. Less than milter.decision_timeout.`),
	key("map_slow", choice(policy.Tell, policy.Hold, policy.Defer), func(c *Config) *policy.Verdict { return &c.Address.MapSlow },
		`What becomes of a message whose owner a table did not name in time.`),
	free(key("logins", logins(), func(c *Config) *map[string][]string { return &c.Address.Logins },
		`Addresses of single logins: one address, all of a domain ("@example.org"), or every address ("*"). Put the login into quotes; its case does not matter.`)),
}

// Bounds of what may be kept, in octets.
const (
	leastOctets int64 = 1_000_000
	mostOctets  int64 = 1_000_000_000_000
)

var holdFields = []field[Config]{
	key("origin_messages", integer(1, 1_000_000), func(c *Config) *int { return &c.Hold.OriginMessages },
		`Held messages of one origin: a login, a Unix account, a trusted network. Of accounts that local.shared_users names, of web nodes and of nobody's mail: of one site, or where that is not known of one text; all texts together have half of server_messages. At most server_messages.`),
	key("origin_bytes", integer(leastOctets, mostOctets), func(c *Config) *int64 { return &c.Hold.OriginBytes },
		`Octets of the held messages of one origin.`),
	key("server_messages", integer(1, 10_000_000), func(c *Config) *int { return &c.Hold.ServerMessages },
		`Held messages of all origins together.`),
	key("min_free", integer(leastOctets, mostOctets), func(c *Config) *int64 { return &c.Hold.MinFree },
		`Octets that must stay free on the queue's file system; with less nothing more is held.`),
	key("min_free_inodes", integer[int64](100, 1_000_000_000), func(c *Config) *int64 { return &c.Hold.MinFreeInodes },
		`Inodes that must stay free on it; with less nothing more is held. Not asked where the file system does not count them.`),
	key("reconcile_every", duration(time.Minute, time.Hour), func(c *Config) *time.Duration { return &c.Hold.ReconcileEvery },
		`How often the journal is compared with the queue, which others may have changed.`),
	key("grace", duration(time.Hour, 30*day), func(c *Config) *time.Duration { return &c.Hold.Grace },
		`How long "relayguard held delete" and "queue delete" keep what they deleted, for root alone to bring back. Nothing younger is thrown away to make room.`),
	key("grace_bytes", integer(leastOctets, mostOctets), func(c *Config) *int64 { return &c.Hold.GraceBytes },
		`Octets of deleted mail that are kept so, of ten times server_messages messages at most; beyond, nothing is deleted but with --no-copy.`),
	key("release", boolean(), func(c *Config) *bool { return &c.Hold.Release },
		`Release mail that only "volume" limits hold by itself, the oldest first, as there is room again under them. With false it waits for an admin, as all other held mail does. "relayguard held pace" shows the lines.`),
	key("max_age", duration(10*time.Minute, 7*day), func(c *Config) *time.Duration { return &c.Hold.MaxAge },
		`Mail that was held for longer is not released by itself any more: it may be stale. It waits for an admin and keeps nothing back.`),
	key("bounce_percent", integer(1, 100), func(c *Config) *int { return &c.Hold.BouncePercent },
		`If more than so many per cent of what was released of an account came back, the rest waits for an admin. With mta.log = "none" no bounce is seen.`),
	key("remind_after", duration(time.Hour, 30*day), func(c *Config) *time.Duration { return &c.Hold.RemindAfter },
		`Mail that was held for so long is told of once a day, until somebody releases or deletes it.`),
	key("delete_after", optional(duration(day, 365*day)), func(c *Config) *time.Duration { return &c.Hold.DeleteAfter },
		`Mail that was held for so long is deleted as by "relayguard held delete", so that root can have it back for hold.grace. More than max_age and remind_after. Empty: nothing is deleted by itself.`),
}

var journalFields = []field[Config]{
	key("directory", absolutePath("a directory"), func(c *Config) *string { return &c.Journal.Directory },
		`Where it is: the daemon's own directory, on a local disk. Moving it needs a restart.`),
	key("keep_addresses", duration(day, 3650*day), func(c *Config) *time.Duration { return &c.Journal.KeepAddresses },
		`How long it knows senders' addresses, client addresses and Message-IDs. Then only totals are left, by account and day.`),
	key("keep_totals", duration(day, 3650*day), func(c *Config) *time.Duration { return &c.Journal.KeepTotals },
		`How long it knows who sent how much. At least keep_addresses.`),
	key("keep_admin", duration(day, 3650*day), func(c *Config) *time.Duration { return &c.Journal.KeepAdmin },
		`How long it knows what admins did: releases, deletions, suspensions, views of content.`),
	key("accepted_per_second", integer(1, 100_000), func(c *Config) *int { return &c.Journal.AcceptedPerSecond },
		`Rows about accepted mail that are written in a second; those beyond are counted, not kept. Holds, refusals and admins' actions are always written.`),
	key("max_log", integer[int64](16<<20, 64<<30), func(c *Config) *int64 { return &c.Journal.MaxLog },
		`Octets of its log that may wait for the database, should that fail. Beyond, rows about accepted mail are counted, not kept.`),
}

var controlFields = []field[Config]{
	key("socket", socketPath(), func(c *Config) *string { return &c.Control.Socket },
		`Where it listens. Commands look there, too.`),
	key("admin_group", optional(account("group")), func(c *Config) *string { return &c.Control.AdminGroup },
		`Its members may read and act: release, delete, suspend, stop. Empty: nobody else may.`),
	key("read_group", optional(account("group")), func(c *Config) *string { return &c.Control.ReadGroup },
		`Its members may read: status, decisions, the list of held mail. Empty: nobody else may.`),
	key("inspect_group", optional(account("group")), func(c *Config) *string { return &c.Control.InspectGroup },
		`Its members may see headers and content of held mail, if they give a reason, which the journal keeps. Empty: root only. This gives no other right, and neither other group gives this one.`),
}

var alertFields = []field[Config]{
	key("syslog", boolean(), func(c *Config) *bool { return &c.Alert.Syslog },
		`Write alerts to syslog, facility mail.`),
	key("command", optional(absolutePath("a program")), func(c *Config) *string { return &c.Alert.Command },
		`A program that is run for each alert, as the daemon's account and without a shell. Its arguments are the event, and the incident's id, origin and cause; the alert as JSON is on its standard input. Empty: none.`),
	key("command_timeout", duration(time.Second, 5*time.Minute), func(c *Config) *time.Duration { return &c.Alert.CommandTimeout },
		`How long it may run before it is killed.`),
	key("quiet", duration(time.Minute, 7*day), func(c *Config) *time.Duration { return &c.Alert.Quiet },
		`An incident that stopped no message for so long is closed.`),
	key("update_every", duration(time.Minute, 7*day), func(c *Config) *time.Duration { return &c.Alert.UpdateEvery },
		`How often an open incident is told of again, if it went on.`),
	key("per_hour", integer(1, 1000), func(c *Config) *int { return &c.Alert.PerHour },
		`Alerts in an hour, of all incidents together. Those beyond are put together into one.`),
	key("webhook", optional(webhook()), func(c *Config) *string { return &c.Alert.Webhook },
		`Where alerts are posted as JSON: a chat, a pager, a machine that this one cannot change. Who owns the mail server may own its mail, so mail is no way to tell of it. Empty: nowhere.`),
	key("webhook_token_file", optional(absolutePath("a file")), func(c *Config) *string { return &c.Alert.WebhookTokenFile },
		`A file with a secret on its first line, which is sent as "Authorization: Bearer".`),
	key("syslog_server", optional(syslogServer()), func(c *Config) *string { return &c.Alert.SyslogServer },
		`A log host that gets alerts, too, beside this machine's own syslog (RFC 5424; RFC 5425 with tls). Empty: none.`),
}

var listeners = section[Listener]{"listener", `A socket that the MTA connects to; one section for each. Without any, there are four: "submission", "local", "relay" and "inbound", on Unix sockets inside Postfix's chroot. With one, there are only those that are named.`, newListener, defaultListeners, []field[Listener]{
	required(key("name", label("listener"), func(l *Listener) *string { return &l.Name },
		`Names it in logs and metrics.`)),
	required(key("role", choice(policy.Submission, policy.Local, policy.Relay, policy.Inbound, policy.Egress), func(l *Listener) *policy.Role { return &l.Role },
		`Whom it serves: "submission" people and devices (AUTH always), "local" sendmail(1), "relay" trusted machines (AUTH or a trusted network), "inbound" strangers (the guard only tells), "egress" mail on its way out (only forwarding is judged).`)),
	required(key("address", endpoint(), func(l *Listener) *Endpoint { return &l.Endpoint },
		`Where it listens. Beyond loopback TCP needs an allow list.`)),
	key("mode", socketMode(), func(l *Listener) *fs.FileMode { return &l.Mode },
		`File mode of a Unix socket.`),
	key("group", account("group"), func(l *Listener) *string { return &l.Group },
		`Group of a Unix socket: that of the MTA's processes.`),
	key("peers", list(account("account"), false), func(l *Listener) *[]string { return &l.Peers },
		`Unix accounts of this machine whose processes may connect.`),
	key("allow", list(prefix(), true), func(l *Listener) *[]netip.Prefix { return &l.Allow },
		`Other machines that may connect, for a TCP address beyond loopback. Connections from this machine are judged by peers.`),
}}

var networks = section[origin.Network]{"network", `Machines whose mail is taken without AUTH on listeners with the role "relay"; one section for each that somebody answers for. The narrowest network that holds an address is the one that counts.`, zero[origin.Network], sampleNetworks, []field[origin.Network]{
	required(key("name", label("network"), func(n *origin.Network) *string { return &n.Name },
		`The account that this mail is charged to.`)),
	required(key("cidr", list(prefix(), false), func(n *origin.Network) *[]netip.Prefix { return &n.Prefixes },
		`Its addresses. Loopback is no network: local mail is known by its Unix account.`)),
	required(key("reason", sentence("why it is trusted"), func(n *origin.Network) *string { return &n.Reason },
		`Why it is trusted.`)),
	required(key("owner", sentence("whom to call"), func(n *origin.Network) *string { return &n.Owner },
		`Whom to call about it.`)),
}}

var certificates = section[origin.Certificate]{"certificate", `A client certificate that stands for a login, if the MTA verified it; one section for each.`, zero[origin.Certificate], sampleCertificates, []field[origin.Certificate]{
	required(key("subject", sentence("the subject as the MTA reports it"), func(c *origin.Certificate) *string { return &c.Subject },
		`Its subject as the MTA reports it in {cert_subject}: with Postfix the common name.`)),
	key("issuer", optional(sentence("the issuer as the MTA reports it")), func(c *origin.Certificate) *string { return &c.Issuer },
		`Its issuer, as in {cert_issuer}. Empty: any that the MTA trusts.`),
	required(key("login", login(), func(c *origin.Certificate) *string { return &c.Login },
		`The login that it stands for.`)),
}}

func zero[S any]() *S { return new(S) }

func newListener() *Listener { l := defaultListener(); return &l }

func defaultListeners() []Listener { return Default().Listeners }

// mtaLog is a log file or one of two words.
func mtaLog() kind[string] {
	path := absolutePath("a file")
	return text(`absolute path of a file, "journal" or "none"`, `the absolute path of a file, "journal" or "none"`, func(s string) string {
		switch _, faults := path.read(&value{kind: aString, text: s}); {
		case s == LogJournal || s == LogNone:
			return fine
		case s == "":
			return `write "none" if it is not to be read`
		case len(faults) > 0 && nearest(s, []string{LogJournal, LogNone}) != "":
			return fmt.Sprintf("did you mean %q?", nearest(s, []string{LogJournal, LogNone}))
		case len(faults) > 0:
			return faults[0].remedy
		}
		return fine
	})
}

func daemonNameFault(s string) string {
	if s == "" || len(s) > 64 || unprintable(s) || strings.ContainsAny(s, " \t{}") {
		return "take that of -o milter_macro_daemon_name in master.cf"
	}
	return fine
}

func delimiterFault(s string) string {
	if len(s) > 8 {
		return "take that of recipient_delimiter in main.cf"
	}
	for _, c := range s {
		if !strings.ContainsAny("!#$%&'*+-/=?^_`{|}~.", string(c)) { // RFC 5322 §3.2.3: what a local part may hold
			return "take that of recipient_delimiter in main.cf"
		}
	}
	return fine
}
