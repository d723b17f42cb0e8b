package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"relayguard/mta/smtptest"
	"relayguard/systemtest/relay"
)

// The thief has Taro's password. Taro has written to 3 recipients by then, and
// the shipped burst limit is 150 in ten minutes: three of the thief's messages
// fill it to the last recipient.
const (
	thief     = "203.0.113.66"
	spams     = 8
	perSpam   = 49
	spamsPass = 3
)

// tarosNumber is the number of Taro's message, the thief's come behind it.
const tarosNumber = 100

// theft is what the admin finds.
type theft struct {
	last  relay.Line // the last verdict that stopped the thief
	taros relay.Line // the verdict on Taro's own message in between
}

// steal plays the burst of a stolen login, and the mail that its owner writes
// meanwhile.
func steal(ctx context.Context, r *relay.Relay, out *screen) (found theft, met bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	out.title("Somebody has Taro's password")
	mark := r.Mark()
	if err := burst(ctx, r, 1, spams-1); err != nil {
		return found, false, err
	}
	taros := act{service: relay.Submission, login: taro, from: taro, to: []string{customer}, header: "From: Taro <taro@example.jp>\n"}
	if _, err := taros.send(ctx, r, tarosNumber); err != nil {
		return found, false, fmt.Errorf("Taro's own message: %w", err)
	}
	if err := burst(ctx, r, spams, spams); err != nil {
		return found, false, err
	}
	if found.last, err = verdictOn(ctx, r, mark, tarosNumber+spams); err != nil {
		return found, false, err
	}
	if found.taros, err = verdictOn(ctx, r, mark, tarosNumber); err != nil {
		return found, false, err
	}
	count := map[string]int{}
	for _, v := range r.Verdicts(mark) {
		count[v.Verdict]++
	}
	out.entry("accept", fmt.Sprintf("%d messages with %d recipients each, sent from %s", count["accept"], perSpam, thief))
	out.entry("hold", fmt.Sprintf("%d more; the thief is told 250 all the same", count["hold"]-1))
	out.detail("%s: %s", found.last.Rule, found.last.Reason)
	out.entry(found.taros.Verdict, "1 of Taro's own in between: it is his login that is over its limit")
	met = count["accept"] == spamsPass && count["hold"] == spams-spamsPass+1 && found.taros.Verdict == "hold"
	if !met {
		out.wrong("EXPECTED %d accepted and %d held", spamsPass, spams-spamsPass+1)
	}
	return found, met, nil
}

func verdictOn(ctx context.Context, r *relay.Relay, mark, number int) (relay.Line, error) {
	return r.WaitVerdict(ctx, mark, func(l relay.Line) bool { return l.MessageID == messageID(number) })
}

// burst sends the thief's messages from the first to the last.
func burst(ctx context.Context, r *relay.Relay, first, last int) error {
	client, err := theftSession(ctx, r)
	if err != nil {
		return err
	}
	defer client.Close()
	for n := first; n <= last; n++ {
		to := make([]string, perSpam)
		for i := range to {
			to[i] = fmt.Sprintf("victim%d@example.net", n*perSpam+i)
		}
		sent, err := client.Send(taro, to, message("From: Taro <taro@example.jp>\n", tarosNumber+n))
		if err != nil {
			return fmt.Errorf("the thief's message %d: %w", n, err)
		}
		if !sent.Accepted() {
			return fmt.Errorf("the thief's message %d: the server said %v", n, sent.Refusal())
		}
	}
	_, err = client.Quit()
	return err
}

func theftSession(ctx context.Context, r *relay.Relay) (*smtptest.Client, error) {
	client, err := r.Dial(ctx, relay.Submission)
	if err != nil {
		return nil, err
	}
	if err := (act{client: thief, login: taro}).introduce(client); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return client, nil
}

// tryAgain is the thief after the suspension: what the server says.
func tryAgain(ctx context.Context, r *relay.Relay, out *screen) (bool, error) {
	client, err := theftSession(ctx, r)
	if err != nil {
		return false, err
	}
	defer client.Close()
	sent, err := client.Send(taro, []string{"victim1@example.net"}, message("", 200))
	if err != nil {
		return false, err
	}
	out.say("")
	out.say("the thief, who still has the password, is told at RCPT:")
	out.detail("%v", sent.Refusal())
	met := sent.Refusal().Code == 550
	if !met {
		out.wrong("EXPECTED 550")
	}
	return met, nil
}
