package wordpress_test

import (
	"bytes"
	"maps"
	"net"
	"strconv"
	"testing"
	"time"

	"relayguard/systemtest/relay"
)

// startRelay starts a Postfix with the guard, whose limits are those that are
// shipped. Postfix itself takes no header off: what does not leave, the guard
// took off.
func startRelay(t *testing.T, o relay.Options) *relay.Relay {
	t.Helper()
	need(t)
	o.Binary, o.ShippedLimits = shared.guard, true
	main := map[string]string{"smtp_header_checks": ""}
	maps.Copy(main, o.Postfix.Main)
	o.Postfix.Main = main
	r := relay.StartTest(t, o)
	t.Cleanup(func() {
		for _, mail := range r.Sink.All() {
			header, _, _ := bytes.Cut(mail.Data, []byte("\r\n\r\n"))
			if bytes.Contains(bytes.ToLower(header), []byte("x-relayguard")) {
				t.Errorf("left the house with a header of ours:\n%s", header)
				return
			}
		}
	})
	return r
}

// smtpPort is the port that takes this host's mail.
func smtpPort(t *testing.T, r *relay.Relay) int {
	t.Helper()
	_, port, err := net.SplitHostPort(r.Addr(relay.Relaying))
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return number
}

// fate is what became of mails to some recipients.
type fate struct {
	left int // the house
	held int
}

// patience is how long nothing may change before a wait is given up.
const patience = time.Minute

// settle waits until mail to that many of the recipients has left or is held,
// and says which.
func settle(t *testing.T, r *relay.Relay, to []string, want int) fate {
	t.Helper()
	wanted := make(map[string]bool)
	for _, address := range to {
		wanted[address] = true
	}
	last, since := fate{}, time.Now()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		f, moving := fateOf(t, r, wanted)
		if f.left+f.held >= want && moving == 0 {
			return f
		}
		if f != last {
			last, since = f, time.Now()
		}
		if time.Since(since) > patience {
			t.Errorf("of %d mails %d left, %d are held, and %d in the queue do not move", want, f.left, f.held, moving)
			return f
		}
		<-tick.C
	}
}

// fateOf counts the recipients whose mail has left and those whose mail is held,
// and all messages that do not wait in the hold queue.
func fateOf(t *testing.T, r *relay.Relay, wanted map[string]bool) (f fate, moving int) {
	t.Helper()
	left, held := make(map[string]bool), make(map[string]bool)
	for _, mail := range r.Sink.All() {
		for _, to := range mail.RcptTo {
			left[to] = wanted[to]
		}
	}
	queue, err := r.QueueList(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range queue {
		if q.QueueName != "hold" {
			moving++
			continue
		}
		for _, to := range q.Recipients {
			held[to.Address] = wanted[to.Address]
		}
	}
	return fate{count(left), count(held)}, moving
}

func count(of map[string]bool) (n int) {
	for _, is := range of {
		if is {
			n++
		}
	}
	return n
}

// verdicts waits until the guard's log has that many verdicts since the mark:
// they are written a little after the mail has gone.
func verdicts(t *testing.T, r *relay.Relay, mark, want int) []relay.Line {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ctx := soon(t); ; <-tick.C {
		all := r.Verdicts(mark)
		if len(all) >= want || ctx.Err() != nil {
			if len(all) != want {
				t.Errorf("%d verdicts, want %d", len(all), want)
			}
			return all
		}
	}
}
