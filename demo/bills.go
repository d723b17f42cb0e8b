package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"relayguard/systemtest/relay"
)

// The month's bills: so many messages, of which billsPass fit into the limit that
// config gives their sender.
const (
	billing     = "billing@example.jp"
	billNumber  = 300 // of the first, the others come behind it
	bills       = 4
	perBill     = 10
	billsPass   = 2
	billsLimit  = bills * perBill / 2 // in billsWindow
	billsWindow = 6 * time.Second     // an hour would be usual, and a long demo
)

// heal plays an honest sender who goes over its limit: what was held goes out by
// itself, and next time the admin knows before.
func heal(ctx context.Context, a *admin) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	a.out.title("An honest sender goes over its limit: nobody has to do anything")
	began := time.Now()
	if err := sendBills(ctx, a, billNumber, billsPass); err != nil {
		return err
	}
	waiting := fmt.Sprintf("%d messages held until there is room", bills-billsPass)
	for _, o := range []order{
		{why: "how does billing stand?", args: []string{"limits", "show", billing}, says: []string{fmt.Sprint(billsLimit), "file", waiting, "a message to 10 recipients: hold"}},
		{why: "what goes out by itself, and when?", args: []string{"held", "pace", "list"}, says: []string{billing, "login-volume"}},
	} {
		if err := a.command(ctx, o); err != nil {
			return err
		}
	}
	for n := billNumber + billsPass; n < billNumber+bills; n++ {
		if _, err := arrived(ctx, a.relay, billTo(n, 0), messageID(n)); err != nil {
			return err
		}
	}
	a.out.say("")
	a.out.say("after %.0f s all bills have reached the customers; nobody has typed anything", time.Since(began).Seconds())
	if err := a.command(ctx, order{why: "next month billing says so before", args: []string{"allow", "bulk", billing, "--count", "100", "--for", "1h", "--reason", "bills"}, says: []string{billing, "100"}}); err != nil {
		return err
	}
	a.out.say("")
	if err := sendBills(ctx, a, billNumber+bills, bills); err != nil {
		return err
	}
	return a.command(ctx, order{why: "does anything wait?", args: []string{"held", "pace", "list"}, says: []string{"nothing waits"}})
}

// sendBills sends the bills from the first on, of which so many are to pass, and
// shows what became of them.
func sendBills(ctx context.Context, a *admin, first, pass int) error {
	mark := a.relay.Mark()
	client, err := a.relay.Dial(ctx, relay.Submission)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := (act{login: billing}).introduce(client); err != nil {
		return err
	}
	count, held := map[string]int{}, relay.Line{}
	for n := first; n < first+bills; n++ {
		to := make([]string, perBill)
		for i := range to {
			to[i] = billTo(n, i)
		}
		if sent, err := client.Send(billing, to, message("From: Billing <billing@example.jp>\n", n)); err != nil || !sent.Accepted() {
			return errors.Join(fmt.Errorf("bill %d: the server said %v", n, sent.Refusal()), err)
		}
		v, err := verdictOn(ctx, a.relay, mark, n)
		if err != nil {
			return err
		}
		if count[v.Verdict]++; v.Verdict == "hold" && held.ID == "" {
			held = v
		}
	}
	a.out.entry("accept", fmt.Sprintf("%d messages with %d recipients each, from %s", count["accept"], perBill, billing))
	if held.ID != "" {
		a.out.entry("hold", fmt.Sprintf("%d more", count["hold"]))
		a.out.detail("%s: %s", held.Rule, held.Reason)
	}
	if count["accept"] != pass || count["hold"] != bills-pass {
		a.wrong("EXPECTED %d accepted and %d held", pass, bills-pass)
	}
	_, err = client.Quit()
	return err
}

// billTo is the i-th recipient of a message.
func billTo(message, i int) string { return fmt.Sprintf("customer%d-%d@example.net", message, i) }
