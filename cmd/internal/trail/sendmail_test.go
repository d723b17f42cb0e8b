package trail_test

import (
	"testing"

	"relayguard/mta/maillog"
)

// ofSendmail is an event as Sendmail's log tells it.
func ofSendmail(e maillog.Event) maillog.Event {
	e.Service = maillog.ServiceSendmail
	return e
}

func cloned(s int, id, copied string) maillog.Event {
	e := at(s, maillog.Cloned, id)
	e.NewID = copied
	return e
}

// Sendmail does not say how many recipients an alias stands for: those that are
// delivered or returned count.
func TestWhatAliasesOfSendmailAddIsCharged(t *testing.T) {
	several := func(id, status string, n int) (all []maillog.Event) {
		for range n {
			all = append(all, delivery(id, status))
		}
		return all
	}
	for _, c := range []struct {
		name   string
		events [][]maillog.Event
		want   int64 // beyond the 2 of the message "A"
	}{
		{"as many as were charged", [][]maillog.Event{several("A", maillog.Sent, 2)}, 0},
		{"what its first line says", [][]maillog.Event{{queued(0, "A", 50)}}, 0},
		{"an alias of 50", [][]maillog.Event{several("A", maillog.Sent, 40), several("A", maillog.Bounced, 11)}, 49},
		{"deferred for days", [][]maillog.Event{several("A", maillog.Deferred, 100), several("A", maillog.Sent, 2)}, 0},
		{"of another message", [][]maillog.Event{several("B", maillog.Sent, 100)}, 0},
		{"a list with an owner", [][]maillog.Event{{cloned(1, "A", "C")}, several("A", maillog.Sent, 1), several("C", maillog.Sent, 10)}, 9},
	} {
		p, who := newPost(nil), "login:taro@example.jp"
		p.Accepted("A", passed(2, charge(who, 2)))
		for _, events := range c.events {
			for _, e := range events {
				p.Event(t.Context(), now, ofSendmail(e))
			}
		}
		if got := p.used(t, who); max(got, 0) != c.want {
			t.Errorf("%s: %d more are charged, want %d", c.name, got, c.want)
		}
	}
}
