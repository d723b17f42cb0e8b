package sendmail

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"

	"relayguard/mta"
	"relayguard/mta/probe"
)

// feature is one of m4's that lets more clients relay.
type feature struct {
	name     string
	id       string
	severity mta.Severity
	why      string
}

var relayFeatures = []feature{
	{"promiscuous_relay", "open-relay", mta.Critical, "everybody sends through this server, and the guard refuses it only where it is attached as submission or relay"},
	{"relay_local_from", "relay-by-sender", mta.Critical, "whoever writes an inside address as sender relays, and anybody can write one"},
	{"relay_mail_from", "relay-by-sender", mta.Critical, "whoever writes an address as sender that the access table has for it relays, and anybody can write one"},
	{"relay_based_on_MX", "relay-by-mx", mta.Warning, "whoever lets the MX of a domain point here may send to it through this server"},
	{"relay_entire_domain", "relay-wide", mta.Warning, "all machines whose names end in this server's domain relay, by a name that their own DNS tells"},
	{"loose_relay_check", "relay-loose", mta.Warning, "recipients like user%outside@inside reach the outside"},
}

var versionID = regexp.MustCompile(`(?m)^#+\s+\$Id: (\w+)\.m4,v `)

// features are those of sendmail.cf that let more clients relay: m4 leaves a
// comment for each that was used.
func (r *report) features() []feature {
	text, err := readFile(r.Instance.Config, maxConfig)
	if err != nil {
		return nil // it was read a moment ago
	}
	var found []feature
	for _, m := range versionID.FindAllSubmatch(text, -1) {
		for _, f := range relayFeatures {
			if f.name == string(m[1]) {
				found = append(found, f)
			}
		}
	}
	return found
}

// relaying tells of what lets others relay than it should.
func (r *report) relaying() {
	for _, f := range r.features() {
		r.add(mta.Finding{ID: f.id, Severity: f.severity, Where: "sendmail.cf", What: "FEATURE(`" + f.name + "') is used",
			Why: f.why, Remedy: "take it out of sendmail.mc; people use AUTH, machines stand in relay-domains or the access table"})
	}
}

// auth looks for passwords in the clear.
func (r *report) auth() {
	plain := slices.ContainsFunc(strings.Fields(strings.ToUpper(r.s.Option("AuthMechanisms"))), func(m string) bool { return m == "PLAIN" || m == "LOGIN" })
	for _, d := range r.s.Daemons() {
		if !plain || onLoopback(d) || strings.ContainsAny(d.Modifiers, "As") || strings.Contains(r.s.Option("AuthOptions"), "p") {
			continue
		}
		r.add(mta.Finding{ID: "auth-without-tls", Severity: mta.Critical, Where: d.Name, What: "AUTH is offered without TLS (confAUTH_OPTIONS has no p)",
			Why: "passwords cross the network readable, and a stolen one sends in its owner's name", Remedy: "define(`confAUTH_OPTIONS', `A p')"})
	}
}

func (r *report) offersAuth(d Daemon) bool {
	return r.s.Option("AuthMechanisms") != "" && len(r.s.Class("TrustAuthMech")) > 0 && !strings.Contains(d.Modifiers, "A")
}

// accessFile is the text of which the access table was made; "" without one.
func (r *report) accessFile() string {
	for _, m := range r.s.Maps() {
		if m.Name != "access" {
			continue
		}
		fields := strings.Fields(m.Args)
		if len(fields) > 0 && strings.HasPrefix(fields[len(fields)-1], "/") {
			return strings.TrimSuffix(fields[len(fields)-1], ".db")
		}
	}
	return ""
}

// accessRelay lists the clients that the access table lets relay.
func (r *report) accessRelay() []string {
	path := r.accessFile()
	if path == "" {
		return nil
	}
	text, err := readFile(path, maxClassFile)
	if err != nil {
		return nil // see wide
	}
	var clients []string
	for line := range strings.Lines(string(text)) {
		key, does, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if strings.HasPrefix(line, "#") {
			continue
		}
		if does == "" {
			key, does, _ = strings.Cut(key, " ")
		}
		tag, client, tagged := strings.Cut(key, ":")
		if !tagged || strings.EqualFold(tag, "IPv6") {
			client = key
		} else if !strings.EqualFold(tag, "Connect") {
			continue
		}
		if strings.EqualFold(strings.TrimSpace(does), "RELAY") {
			clients = append(clients, client)
		}
	}
	return clients
}

// wide looks for clients that may relay and are so many that they are the world.
func (r *report) wide() {
	check := func(where string, items []string) {
		for _, item := range items {
			severity, what := width(item)
			if severity == 0 {
				continue
			}
			r.add(mta.Finding{ID: "relay-wide", Severity: severity, Where: where, What: fmt.Sprintf("%q may relay: %s", item, what),
				Why: "that many machines are more than anybody answers for", Remedy: "list the machines that may relay, or none: people use AUTH"})
		}
	}
	check("relay-domains", r.s.Class("R"))
	path := r.accessFile()
	if path == "" {
		return
	}
	check(path, r.accessRelay())
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(path + ".db"); err != nil {
			return // no table at all
		}
		r.add(mta.Finding{ID: "relay-unread", Severity: mta.Warning, Where: path + ".db", What: "the access table is there without the text of which it was made",
			Why: "who may relay cannot be told", Remedy: "look at it by hand: makemap -u hash " + path})
	}
}

// width tells what a client of relay-domains or the access table stands for, if
// that is too much.
func width(item string) (mta.Severity, string) {
	item = strings.TrimSuffix(strings.ToLower(item), ".")
	if rest, v6 := strings.CutPrefix(item, "ipv6:"); v6 {
		if groups := strings.Split(strings.TrimSuffix(rest, ":"), ":"); len(groups) == 1 && !strings.HasPrefix(rest, "f") && !strings.HasPrefix(rest, ":") {
			return mta.Warning, "a /16 of IPv6"
		}
		return 0, ""
	}
	if prefix, err := netip.ParseAddr(item + ".0.0.0"); err == nil {
		if prefix.IsPrivate() || prefix.IsLoopback() {
			return 0, ""
		}
		if item == "0" {
			return mta.Critical, "everybody"
		}
		return mta.Warning, "a /8 of IPv4"
	}
	if item != "" && !strings.Contains(item, ".") && item != "localhost" {
		return mta.Critical, "all names that end in it"
	}
	return 0, ""
}

// RelayProbe asks whether a stranger's mail to the outside would be taken.
type RelayProbe interface {
	// Relays asks for the null name's client 192.0.2.1 with an envelope sender.
	Relays(ctx context.Context, i *Instance, from string) (relays bool, said string, err error)
}

// RulesProbe asks Sendmail's own rules, in address test mode: Sendmail takes any
// client on loopback for trusted, so that nothing could be learnt by connecting
// from here. It connects to nobody.
type RulesProbe struct{ Tools Tools }

// Relays implements RelayProbe.
func (p RulesProbe) Relays(ctx context.Context, i *Instance, from string) (bool, string, error) {
	lines := []string{".D{client_addr}" + probe.Stranger, ".D{client_name}[" + probe.Stranger + "]", ".D{client_ptr}[" + probe.Stranger + "]", ".D{client_resolve}FAIL",
		".D{mail_mailer}esmtp", ".D{mail_addr}" + from, ".D{mail_from}" + from, ".Df" + from, ".D{verify}NONE", "check_rcpt <" + probe.To + ">"}
	if strings.ContainsAny(from, "\r\n") {
		return false, "", fmt.Errorf("sender %q has a line end", from)
	}
	said, err := p.Tools.askRules(ctx, i.Config, strings.Join(lines, "\n")+"\n")
	var last string
	for line := range strings.Lines(said) {
		if name, result, found := strings.Cut(strings.TrimLeft(line, "> "), "returns:"); found && strings.TrimSpace(name) == "check_rcpt" {
			last = strings.TrimSpace(result)
		}
	}
	switch {
	case last == "" && err != nil:
		return false, "", err
	case last == "":
		return false, "", errors.New("Sendmail did not say what check_rcpt returns")
	case strings.Contains(last, `$: "4`):
		return false, last, fmt.Errorf("Sendmail cannot tell now: %.120s", last)
	}
	return !strings.HasPrefix(last, "$# error") && !strings.HasPrefix(last, "$# discard"), last, nil
}

// relays asks for a stranger, then for one who writes an inside address.
func (r *report) relays(ctx context.Context) {
	if r.Probe == nil {
		return
	}
	ask := func(id, from, what, why string) {
		relays, said, err := r.Probe.Relays(ctx, r.Instance, from)
		found := slices.ContainsFunc(r.findings, func(f mta.Finding) bool { return f.ID == "open-relay" || f.ID == id })
		switch {
		case found:
		case err != nil:
			r.add(mta.Finding{ID: "open-relay-unknown", Severity: mta.Info, Where: "sendmail.cf", What: err.Error(), Why: "whether strangers may relay here cannot be told from this machine",
				Remedy: "ask from a foreign address: swaks --server THIS --from a@example.com --to b@example.net --quit-after RCPT"})
		case relays:
			r.add(mta.Finding{ID: id, Severity: mta.Critical, Where: "sendmail.cf", What: fmt.Sprintf("%s: its rules answer %.120s", what, said), Why: why,
				Remedy: "take what permits it out of relay-domains, the access table or sendmail.mc"})
		}
	}
	ask("open-relay", probe.From, "a stranger without AUTH may send to the outside", relayFeatures[0].why)
	if inside := r.insideSender(); inside != "" {
		ask("relay-by-sender", inside, "a stranger who writes an inside address as sender may send to the outside", relayFeatures[1].why)
	}
}

// insideSender is an address of a domain of this server; "" if none is known.
func (r *report) insideSender() string {
	for _, domain := range r.s.Class("w") {
		if strings.Contains(domain, ".") && !strings.ContainsAny(domain, "[]$") {
			return "postmaster@" + domain
		}
	}
	return ""
}
