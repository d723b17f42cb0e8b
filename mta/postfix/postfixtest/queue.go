package postfixtest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"relayguard/mta"
)

// Queued is one message in the queue, as "postqueue -j" tells it.
type Queued struct {
	QueueName  string `json:"queue_name"` // active, deferred, hold, incoming, maildrop
	QueueID    string `json:"queue_id"`
	Arrival    int64  `json:"arrival_time"` // Unix seconds
	Size       int    `json:"message_size"`
	Sender     string `json:"sender"`
	Recipients []struct {
		Address     string `json:"address"`
		DelayReason string `json:"delay_reason"`
	} `json:"recipients"`
}

// To tells whether an address is among the recipients.
func (q Queued) To(address string) bool {
	for _, recipient := range q.Recipients {
		if strings.EqualFold(recipient.Address, address) {
			return true
		}
	}
	return false
}

// QueueList lists the queue.
func (p *Postfix) QueueList(ctx context.Context) ([]Queued, error) {
	out, err := p.Command(ctx, "postqueue", "-j")
	if err != nil {
		return nil, err
	}
	var queue []Queued
	decoder := json.NewDecoder(strings.NewReader(out))
	for decoder.More() {
		var q Queued
		if err := decoder.Decode(&q); err != nil {
			return nil, fmt.Errorf("read the output of postqueue -j: %w", err)
		}
		queue = append(queue, q)
	}
	return queue, nil
}

// WaitQueue waits until an entry of the queue matches.
func (p *Postfix) WaitQueue(ctx context.Context, match func(Queued) bool) (Queued, error) {
	for {
		queue, err := p.QueueList(ctx)
		if err != nil {
			return Queued{}, err
		}
		if i := slices.IndexFunc(queue, match); i >= 0 {
			return queue[i], nil
		}
		if !mta.Sleep(ctx, 20*time.Millisecond) {
			return Queued{}, fmt.Errorf("wait for a queue entry, %d others are there: %w", len(queue), ctx.Err())
		}
	}
}

// WaitHeld waits until a message to that address is in the hold queue.
func (p *Postfix) WaitHeld(ctx context.Context, address string) (Queued, error) {
	held, err := p.WaitQueue(ctx, func(q Queued) bool { return q.QueueName == "hold" && q.To(address) })
	if err != nil {
		return held, fmt.Errorf("held mail to %s: %w", address, err)
	}
	return held, nil
}

// WaitEmpty waits until the queue is empty, held mail aside.
func (p *Postfix) WaitEmpty(ctx context.Context) error {
	for {
		queue, err := p.QueueList(ctx)
		if err != nil {
			return err
		}
		queue = slices.DeleteFunc(queue, func(q Queued) bool { return q.QueueName == "hold" })
		if len(queue) == 0 {
			return nil
		}
		if !mta.Sleep(ctx, 20*time.Millisecond) {
			return fmt.Errorf("wait for an empty queue, %d messages left: %w", len(queue), ctx.Err())
		}
	}
}
