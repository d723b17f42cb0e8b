package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"relayguard/mta/smtptest"
	"relayguard/systemtest/relay"
)

const (
	password = "secret"
	taro     = "taro@example.jp"
	customer = "customer@example.net"
)

// config goes behind what the relay needs anyway. The phase is enforce.
var config = fmt.Sprintf(`
[[override]]
limit = "login-volume"
for = "login:%s"
windows = ["%d/%s"]
reason = "so short that the demo need not wait for an hour"

[[network]]
name = "web-nodes"
cidr = ["198.51.100.0/24"]
reason = "the hosting platform's web servers"
owner = "ops@example.jp"

[address.logins]
"taro@example.jp" = ["sales@example.jp"]
`, billing, billsLimit, billsWindow)

// act is one message of the scenario and what must become of it.
type act struct {
	who, does string
	service   string   // "" = sendmail(1)
	login     string   // "" = no AUTH
	client    string   // "" = this machine, else by XCLIENT
	from      string   // envelope
	to        []string // each recipient
	header    string
	verdict   string // expected
	refused   int    // of the recipients
}

var acts = []act{
	{who: "Taro, logged in,", does: "writes to a customer", service: relay.Submission, login: "taro@example.jp",
		from: "taro@example.jp", to: []string{"customer@example.net"}, header: "From: Taro <taro@example.jp>\n", verdict: "accept"},
	{who: "Taro", does: "answers from the shared sales mailbox, with a tag", service: relay.Submission, login: "taro@example.jp",
		from: "sales+offer7@example.jp", to: []string{"customer@example.net"}, header: "From: Sales <sales@example.jp>\n", verdict: "accept"},
	{who: "A stranger, 203.0.113.20,", does: "submits without logging in", service: relay.Submission, client: "203.0.113.20",
		from: "taro@example.jp", to: []string{"customer@example.net"}, header: "From: Taro <taro@example.jp>\n", verdict: "reject", refused: 1},
	{who: "A stranger, 203.0.113.7,", does: "relays; postmaster may be written to", service: relay.Relaying, client: "203.0.113.7",
		from: "x@example.org", to: []string{"postmaster@example.jp", "victim@example.net"}, header: "From: x@example.org\n", verdict: "accept", refused: 1},
	{who: "A web node, 198.51.100.9,", does: "sends an order confirmation", service: relay.Relaying, client: "198.51.100.9",
		from: "shop@example.jp", to: []string{"customer@example.net"}, header: "From: Shop <shop@example.jp>\n", verdict: "accept"},
	{who: "Taro's stolen login", does: "sends with Hanako's envelope address", service: relay.Submission, login: "taro@example.jp",
		from: "hanako@example.jp", to: []string{"victim@example.net"}, header: "From: Hanako <hanako@example.jp>\n", verdict: "hold"},
	{who: "Taro's stolen login", does: "writes in the president's name", service: relay.Submission, login: "taro@example.jp",
		from: "taro@example.jp", to: []string{"hanako@example.jp"}, header: "From: President <president@example.jp>\n", verdict: "tell"},
	{who: "A script of uid 33", does: "runs sendmail(1) and claims to be root",
		from: "www-data@example.jp", to: []string{"customer@example.net"}, header: "From: www-data@example.jp\nX-Relayguard-Uid: 0\n", verdict: "accept"},
}

// play sends every message, and reports whether each met what it should.
func play(ctx context.Context, r *relay.Relay, out *screen) (bool, error) {
	out.title("What came, and what became of it")
	met := true
	for i, a := range acts {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		mark := r.Mark()
		refused, err := a.send(ctx, r, i+1)
		if err != nil {
			cancel()
			return false, fmt.Errorf("%s %s: %w", a.who, a.does, err)
		}
		stage := "message"
		if refused == len(a.to) {
			stage = "rcpt"
		}
		v, err := r.WaitVerdict(ctx, mark, func(l relay.Line) bool { return l.Stage == stage })
		cancel()
		if err != nil {
			return false, fmt.Errorf("%s %s: %w", a.who, a.does, err)
		}
		ok := v.Verdict == a.verdict && refused == a.refused
		met = met && ok
		out.act(i+1, a, v, refused, ok)
	}
	return met, nil
}

// send plays the act as the message with the number n, and returns how many recipients were refused.
func (a act) send(ctx context.Context, r *relay.Relay, n int) (refused int, err error) {
	message := message(a.header, n)
	if a.service == "" {
		const wwwData = 33
		sent, err := r.Sendmail(ctx, wwwData, append([]string{"-f", a.from}, a.to...), strings.NewReader(message))
		if err == nil && sent.ExitCode != 0 {
			err = fmt.Errorf("sendmail(1) exits %d: %s", sent.ExitCode, sent.Stderr)
		}
		return 0, err
	}
	client, err := r.Dial(ctx, a.service)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	if err := a.introduce(client); err != nil {
		return 0, err
	}
	sent, err := client.Send(a.from, a.to, message)
	if err != nil {
		return 0, err
	}
	for _, reply := range sent.Rcpts {
		if reply.Code >= 400 {
			refused++
		}
	}
	_, err = client.Quit()
	return refused, err
}

// message is what the n-th message says.
func message(header string, n int) string {
	return fmt.Sprintf("%sMessage-ID: %s\nSubject: message %d\n\nHello.\n", header, messageID(n), n)
}

func messageID(n int) string { return fmt.Sprintf("<%d@example.jp>", n) }

// introduce says who the client is.
func (a act) introduce(client *smtptest.Client) error {
	steps := []func() (smtptest.Reply, error){func() (smtptest.Reply, error) { return client.Ehlo("client.example.org") }}
	if a.client != "" {
		steps = append(steps,
			func() (smtptest.Reply, error) {
				return client.XClient("ADDR="+a.client, "PORT=40000", "NAME=[UNAVAILABLE]")
			},
			steps[0])
	}
	if a.login != "" {
		steps = append(steps, func() (smtptest.Reply, error) { return client.Auth(a.login, password) })
	}
	for _, step := range steps {
		reply, err := step()
		if err != nil {
			return err
		}
		if !reply.Positive() {
			return fmt.Errorf("the server said %v", reply)
		}
	}
	return nil
}

// delivered waits for what passed, and looks whether the uid header was taken
// off on the way out.
func delivered(ctx context.Context, r *relay.Relay, out *screen) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	n := 0
	for i, a := range acts {
		if a.verdict == "hold" {
			continue
		}
		for _, to := range a.to[:len(a.to)-a.refused] {
			text, err := arrived(ctx, r, to, messageID(i+1))
			if err != nil {
				return err
			}
			if strings.Contains(text, "X-Relayguard-Uid") {
				return fmt.Errorf("message %d to %s left with the header X-Relayguard-Uid", i+1, to)
			}
			n++
		}
	}
	out.say("")
	out.say("%d are delivered, 1 waits in Postfix's hold queue, the rest never got in", n)
	return nil
}

// arrived waits for a message at its destination: a mailbox here or the sink
// that plays the rest of the world.
func arrived(ctx context.Context, r *relay.Relay, to, messageID string) (string, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var texts []string
		for _, m := range r.Sink.To(to) {
			texts = append(texts, string(m.Data))
		}
		if strings.HasSuffix(to, "@example.jp") {
			if texts2, err := r.Maildir(to); err == nil {
				texts = append(texts, texts2...)
			}
		}
		for _, text := range texts {
			if strings.Contains(text, messageID) {
				return text, nil
			}
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("message %s did not reach %s: %w", messageID, to, ctx.Err())
		case <-tick.C:
		}
	}
}

// invite says what to type next.
func invite(r *relay.Relay, out *screen, binary string) {
	if path, err := filepath.Abs(binary); err == nil {
		binary = path
	}
	out.title("It stays up. What you can type in another terminal")
	out.command("a short name, first", fmt.Sprintf("alias guard='%s -c %s'", binary, r.ConfigPath))
	out.command("what is happening", "guard status")
	out.command("what was decided, the newest first", "guard decisions --limit 20")
	out.command("what is held; show, release and delete ID go the same way", "guard held list")
	out.command("how a sender stands under its limits", "guard limits show "+billing)
	out.command("what each web site and plugin sends", "guard origins list --by plugin")
	out.command("the letter to a site's owner", "guard notice "+shopName)
	out.command("which forwarding rules lead outside", "guard forwards list")
	out.command("plant one and see it told", "guard forwards watch & sleep 1; postconf -c "+r.ConfigDir+" -e always_bcc=spy@example.org")
	out.command("Taro has a new password", "guard resume login:"+taro+" --cause 'new password'")
	out.command("the red switch, and back: guard start", "guard stop --reason drill")
	out.command("ways round the guard", "guard check")
	out.command("every verdict, as it comes", "tail -f "+r.GuardLog())
	out.command("a change of the configuration, taken at once", "$EDITOR "+r.ConfigPath+fmt.Sprintf(" && kill -HUP %d", r.GuardPID()))
	out.say("\nA mail program: server 127.0.0.1, port %s, login hanako@example.jp,\npassword %s", port(r.Addr(relay.Submission)), password)
	out.say("\nCtrl-C ends it and takes everything away.")
}

func port(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }
