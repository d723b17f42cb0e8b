package forward_test

import (
	"strings"
	"testing"

	"relayguard/mta/postfix/postfixtest"
)

const egress = "egress"

// startStopping is a world whose outgoing mail passes a second smtpd, where what is
// forwarded is held.
func startStopping(t *testing.T, files map[string]string) *world {
	w := startWorld(t, worldOptions{
		accounts: 1, files: files, forward: "stop = \"hold\"\nstop_except = [\"free@vbox.test\"]",
		config: "[[listener]]\nname = \"egress\"\nrole = \"egress\"\naddress = \"unix:%d/queue/relayguard/egress.sock\"\n",
		services: []postfixtest.Service{{Name: egress, Milters: []string{postfixtest.MilterName("egress.sock")}, Options: map[string]string{
			"receive_override_options": "no_address_mappings", "smtpd_recipient_restrictions": "permit_mynetworks, reject",
			"smtpd_data_restrictions": "check_client_access static:{FILTER smtp:[127.0.0.1]:$sink_port}", // else it would come back here
		}}},
		main: map[string]string{"sink_port": "0"},
	})
	addr := w.Addr(egress)
	w.must(w.SetMain(t.Context(), map[string]string{"sink_port": w.sinkPort(), "default_transport": "smtp:[127.0.0.1]" + addr[strings.LastIndexByte(addr, ':'):]}))
	return w
}

// heldMail is what held list tells of a message.
type heldMail struct {
	ID      string `json:"id"`
	QueueID string `json:"queue_id"`
	Rule    string `json:"rule"`
	Reason  string `json:"reason"`
}

func (w *world) held() []heldMail {
	w.t.Helper()
	return ask[struct{ Held []heldMail }](w, some, "held", "list").Held
}

// isHeld waits until the one message that is held is to that address.
func (w *world) isHeld(target string) heldMail {
	w.t.Helper()
	q, err := w.WaitHeld(soon(w.t), target)
	w.must(err)
	var one heldMail
	until(w.t, "held list knows "+q.QueueID, func() bool {
		for _, h := range w.held() {
			if h.QueueID == q.QueueID {
				one = h
			}
		}
		return one.QueueID != ""
	})
	if one.Rule != "forward-outside" {
		w.t.Errorf("held: %+v, want it held by forward-outside", one)
	}
	return one
}

func TestStop(t *testing.T) {
	t.Parallel()
	w := startStopping(t, map[string]string{
		"virtual": "v1@vbox.test v1out@evil.test\nfree@vbox.test freeout@evil.test\nok@vbox.test okout@evil.test\n",
		"rbcc":    "b1@vbox.test b1out@evil.test\n",
	})
	ordinary := w.send("friend@partner.test", "boss@corp.test", "x")
	w.arrives(ordinary, "friend@partner.test")
	w.arrives(w.send("free@vbox.test", "", "x"), "freeout@evil.test")
	w.order("forwards", "approve", only(t, w.known(), "okout@evil.test").ID, "--reason", "as agreed")
	w.arrives(w.send("ok@vbox.test", "", "x"), "okout@evil.test")

	id := only(t, w.known(), "v1out@evil.test").ID
	mail := w.send("v1@vbox.test", "", "x")
	h := w.isHeld("v1out@evil.test")
	if n := w.arrived(mail, "v1out@evil.test"); n != 0 {
		t.Errorf("it arrived %d times all the same", n)
	}
	result, err := w.Relayguard(t.Context(), "held", "show", h.QueueID)
	if err != nil || !strings.Contains(result.Stdout, id) || !strings.Contains(result.Stdout, "v1@vbox.test") {
		t.Errorf("held show: %v\n%s%s\nwant the rule %s and whose mail it is", err, result.Stdout, result.Stderr, id)
	}
	w.order("held", "release", h.QueueID, "--reason", "it may go")
	w.arrives(mail, "v1out@evil.test")

	copied := w.send("b1@vbox.test", "", "x") // the owner gets it, the copy is held
	w.arrives(copied, "b1@vbox.test")
	h = w.isHeld("b1out@evil.test")
	w.order("held", "release", h.QueueID, "--reason", "it may go")
	w.arrives(copied, "b1out@evil.test")

	w.must(w.WaitEmpty(soon(t)))
	if left := w.held(); len(left) != 0 {
		t.Errorf("still held: %+v", left)
	}
	for _, m := range w.Sink.All() {
		if m.MailFrom == "" {
			t.Errorf("a bounce: %v\n%s", m.RcptTo, m.Data)
		}
	}
}

// What comes back from procmail is held where it comes in, and once it is released
// the way out lets it pass.
func TestReleasedIsNotHeldTwice(t *testing.T) {
	t.Parallel()
	need(t, "/usr/bin/procmail")
	w := startStopping(t, nil)
	mark := w.hook.mark()
	w.plantHome(0, ".procmailrc", "MAIL_CONFIG="+w.ConfigDir+"\nDEFAULT="+w.home(0, "mbox")+"\n:0 c\n! procout@evil.test\n")
	w.set("mailbox_command", "/usr/bin/procmail -a \"$EXTENSION\"")
	w.hook.waitRule(t, mark, "appeared", "procout@evil.test")
	mail := w.send(w.names[0]+"@corp.test", "", "x")
	h := w.isHeld("procout@evil.test")
	w.order("held", "release", h.QueueID, "--reason", "it may go")
	w.arrives(mail, "procout@evil.test")
	w.must(w.WaitEmpty(soon(t)))
	if left := w.held(); len(left) != 0 || w.arrived(mail, "procout@evil.test") != 1 {
		t.Errorf("held: %+v, arrived %d times", left, w.arrived(mail, "procout@evil.test"))
	}
}
